"""Text files from users: the one decoder of every layout that is text.

Editors and exports save UTF-8 with or without a byte order mark, UTF-16 ("Unicode text" of Windows, redirections of
PowerShell), or the code page of western Windows. Numbers are the same in all of them; in a code page that is none of
these, names are wrong, and their photos are not found.
"""

from __future__ import annotations

import codecs
from pathlib import Path

from sphinx_nvs.errors import InputError

_HEAD_BYTES = 16384
_WESTERN = "cp1252"
_MARKS = (
    # UTF-32's begins with UTF-16's.
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
    (codecs.BOM_UTF8, "utf-8-sig"),
)
_MOST_ZEROS = 0.05


def read_text(path: Path) -> str:
    """The text in a file.

    Raises:
        InputError: it cannot be read, or is no text.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"file {path}", f"it cannot be read ({error.strerror})", "check its permissions") from error
    text = text_in(data)
    if text is None:
        raise InputError(f"file {path}", "it is neither UTF-8 nor UTF-16 text", "save it as UTF-8")
    return text


def head_of(path: Path) -> str:
    """The first lines of a file, empty where it cannot be read; what is no text is left out."""
    try:
        with path.open("rb") as file:
            data = file.read(_HEAD_BYTES)
    except OSError:
        return ""
    return data.decode(_encoding_of(data), errors="ignore")


def files_ending(folder: Path, ending: str) -> list[Path]:
    """The files of a folder with an ending in any case, sorted, without hidden ones."""
    found = (path for path in folder.iterdir() if path.suffix.lower() == ending and not path.name.startswith("."))
    return sorted(path for path in found if path.is_file())


def text_in(data: bytes) -> str | None:
    """Bytes as text, None if they are none."""
    encoding = _encoding_of(data)
    try:
        return data.decode(encoding)
    except UnicodeDecodeError:
        # What only looks like UTF-16 is no text; a byte that is no UTF-8 is a letter of a code page.
        return data.decode(_WESTERN, errors="replace") if encoding.startswith("utf-8") and 0 not in data else None


def _encoding_of(data: bytes) -> str:
    """By the byte order mark, or by where zeros are: every other byte of numbers in UTF-16 is one."""
    for mark, encoding in _MARKS:
        if data.startswith(mark):
            return encoding
    head = data[:_HEAD_BYTES]
    even, odd = head[::2].count(0), head[1::2].count(0)
    half = max(1, len(head) // 2)
    if odd > half / 2 and even < _MOST_ZEROS * half:
        return "utf-16-le"
    return "utf-16-be" if even > half / 2 and odd < _MOST_ZEROS * half else "utf-8"
