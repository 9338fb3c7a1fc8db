"""Folders of sockets in the system's folder for temporary files: private, and none stays behind.

A pool that is killed cannot remove its folder. Its workers do, when they notice that it has ended; if they were killed
with it, the next pool of the same user does.

    name = sphinx-PID-RANDOM      PID: the pool's process
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import tempfile
from pathlib import Path

_NAME = re.compile(r"sphinx-(\d+)-\w+")


def new_socket_folder() -> Path:
    """Returns a new folder that only this user may enter, and removes those of pools that have ended."""
    remove_abandoned(Path(tempfile.gettempdir()))
    return Path(tempfile.mkdtemp(prefix=f"sphinx-{os.getpid()}-"))


def remove_abandoned(folder: Path) -> None:
    """Removes this user's socket folders whose pool has ended; what cannot be removed stays."""
    for entry in folder.glob("sphinx-*"):
        found = _NAME.fullmatch(entry.name)
        with contextlib.suppress(OSError):
            if found and _is_own(entry) and not _is_alive(int(found[1])):
                shutil.rmtree(entry, ignore_errors=True)


def _is_own(entry: Path) -> bool:
    """Whether an entry is this user's folder, not a link to one."""
    return not entry.is_symlink() and entry.is_dir() and (os.name == "nt" or entry.stat().st_uid == os.getuid())


def _is_alive(pid: int) -> bool:
    """Whether there is a process with this id."""
    if os.name == "nt":  # Signal 0 would end it there; such folders stay until the pool closes.
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True
