"""Sentences that leave the server name no place on its disk: of an absolute path, the last part is left."""

from __future__ import annotations

import re
from pathlib import Path

_ABSOLUTE = re.compile(r"""(?<![\w:/.\]}])(?!/v1\b)(?:/[^\s/:;,'"()<>]+)+/([^\s/:;,'"()<>]+)""")
"""A path of two parts or more that begins at the root; addresses of this API and of other sites are none."""

_WINDOWS = re.compile(r"""\b[A-Za-z]:\\(?:[^\\\s:;,'"]+\\)*([^\\\s:;,'"]+)""")


def scrub(sentence: str, *folders: Path) -> str:
    """A sentence without paths of this machine.

    Args:
        sentence: for a user.
        folders: what lies in these is named from there on.
    """
    for folder in folders:
        for place in {str(folder.resolve()), str(folder)} - {".", "/"}:
            sentence = sentence.replace(f"{place}/", "").replace(place, folder.name)
    return _WINDOWS.sub(r"\1", _ABSOLUTE.sub(r"\1", sentence))
