"""Removes paths of this machine from sentences for clients: of an absolute path, the last part is left."""

from __future__ import annotations

import re
from pathlib import Path

# An absolute path of two or more parts, but not a path of this API or a part of a URL.
_ABSOLUTE = re.compile(r"""(?<![\w:/.\]}])(?!/v1\b)(?:/[^\s/:;,'"()<>]+)+/([^\s/:;,'"()<>]+)""")

_WINDOWS = re.compile(r"""\b[A-Za-z]:\\(?:[^\\\s:;,'"]+\\)*([^\\\s:;,'"]+)""")


def scrub(sentence: str, *folders: Path) -> str:
    """Removes paths of this machine from a sentence.

    Args:
        sentence: a sentence for a client.
        folders: files in these are named relative to them.
    """
    for folder in folders:
        for place in {str(folder.resolve()), str(folder)} - {".", "/"}:
            sentence = sentence.replace(f"{place}/", "").replace(place, folder.name)
    return _WINDOWS.sub(r"\1", _ABSOLUTE.sub(r"\1", sentence))
