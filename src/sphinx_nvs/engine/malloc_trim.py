"""Memory that was freed goes back to the system.

The C library keeps freed memory for later, an arena per thread. Frames and uploads are megabytes, and come to
whichever thread is idle, so that a server's arenas grow for hours although what is in use does not.
"""

from __future__ import annotations

import ctypes


def trim_malloc() -> bool:
    """Returns freed memory to the system, in some milliseconds.

    Returns:
        Whether the C library can (glibc does, others need not).
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is None:
        return False
    trim(0)
    return True
