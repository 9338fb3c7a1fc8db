"""Unpacking of untrusted zip archives, within the sizes that they declare and the limits.

threat                                    defence
a directory of millions of entries        its size is checked before it is read (`_directory_bytes`)
names outside the folder, links           refused before anything is written (`safe_name`)
zip bombs                                 refused by the declared sizes, and again by the bytes that come out
files of cameras that fill the memory     refused by their size before they are read (`check_bytes`)
encryption, unusual compression           refused
"""

from __future__ import annotations

import errno
import stat
import struct
import unicodedata
import zipfile
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path, PurePosixPath
from typing import IO

from sphinx_nvs.errors import InputError
from sphinx_nvs.media import IMAGE_SUFFIXES, VIDEO_SUFFIXES
from sphinx_nvs.server.server_config import UploadLimits

CAMERA_SUFFIXES = (".json", ".txt", ".bin", ".npy", ".xml", ".csv", ".out")
"""Endings of files of cameras."""

KEPT_SUFFIXES = (*IMAGE_SUFFIXES, *VIDEO_SUFFIXES, *CAMERA_SUFFIXES)
"""Endings of files that a scene can consist of; others are left out."""

_WITH_POINTS = ("images.bin", "images.txt", "points3d.txt")
"""Files of a COLMAP model whose size grows with its points."""

_UNREAD = "points3d.bin"

FULL = (errno.ENOSPC, errno.EDQUOT)
"""Error numbers of a full disk."""

_CHUNK = 1 << 18
_ENTRY_BYTES = 46
_END = b"PK\x05\x06"
_END_BYTES = 22
_LOCATOR = b"PK\x06\x07"
_LOCATOR_BYTES = 20
_LARGE_END = b"PK\x06\x06"
_LARGE_END_BYTES = 56
_SEE_LARGE = 0xFFFFFFFF
_SMALL = 1 << 20
"""Archives that unpack to fewer bytes than this may have any ratio."""

_DAMAGED = (zipfile.BadZipFile, zlib.error, struct.error, EOFError, OSError, RuntimeError, ValueError, LookupError)
"""Exceptions of the library for damaged archives; NotImplementedError is a RuntimeError."""


def safe_name(name: str, where: str) -> PurePosixPath:
    """Returns a relative name that stays inside its folder on every operating system.

    Raises:
        InputError: the name leads out of the folder, or no file system can store it.
    """
    path = PurePosixPath(name)
    parts = [part for part in path.parts if part != "."]
    is_odd = any(unicodedata.category(letter) in ("Cc", "Cs", "Cn", "Co") for letter in name)
    shown = ascii(name if len(name) <= 80 else f"{name[:80]}…")
    if not parts or is_odd or "\\" in name or ":" in name:
        raise InputError(where, f"a file is called {shown}", "give it a plain relative name")
    if path.is_absolute() or ".." in parts:
        raise InputError(where, f"{shown} leads out of the scene", "name files relative to the scene, without ..")
    if len(parts) > 16 or any(len(part.encode()) > 200 for part in parts):
        raise InputError(where, f"the name {shown} is too long", "shorten it")
    return PurePosixPath(*parts)


def check_bytes(name: str | PurePosixPath, size: int, where: str, limits: UploadLimits) -> None:
    """Raises InputError if a file of cameras is above the limit; photos and videos are checked where they are read."""
    path = PurePosixPath(str(name).lower())
    if path.suffix in (*IMAGE_SUFFIXES, *VIDEO_SUFFIXES) or path.name == _UNREAD:
        return
    most = limits.model_bytes if path.name in _WITH_POINTS else limits.text_bytes
    if size > most:
        raise InputError(where, f"{str(name)[:80]!a} has {size} bytes", f"send cameras of at most {most} bytes")


def unpack(
    file: IO[bytes], folder: Path, limits: UploadLimits, claim: Callable[[int], None] = lambda size: None
) -> list[str]:
    """Unpacks the files of a zip archive that a scene can consist of.

    Args:
        file: the archive, seekable.
        folder: an empty folder to unpack to.
        limits: see `UploadLimits`.
        claim: called with the size of all unpacked files before the first is written; raises if there is no room.

    Returns:
        Names of the files that were skipped.

    Raises:
        InputError: the file is not an archive, is damaged, leads out of the folder, or is above a limit.
        OSError: the disk is full.
    """
    try:
        size = file.seek(0, 2)
        _check_directory(file, size, limits)
        with zipfile.ZipFile(file) as archive:
            entries = [entry for entry in archive.infolist() if not entry.filename.endswith("/")]
            _check_entries(entries, size, limits)
            claim(sum(entry.file_size for entry in entries))
            return _extract(archive, entries, folder, limits)
    except _DAMAGED as error:
        if isinstance(error, OSError) and error.errno in FULL:
            raise
        raise InputError(
            "archive", "it is damaged, or not a zip archive", "make a new one: zip -r scene.zip ."
        ) from error


def _check_directory(file: IO[bytes], size: int, limits: UploadLimits) -> None:
    """Checks the number of files before the library reads the directory entry by entry."""
    if _directory_bytes(file, size) > limits.files * (_ENTRY_BYTES + 1024):
        raise InputError("archive", f"it lists more than {limits.files} files", "leave some out")


def _directory_bytes(file: IO[bytes], size: int) -> int:
    """Returns the size of the central directory as declared in the end record.

    Readers look for that record at the very end of the file first, then for its last occurrence; both are checked.
    """
    file.seek(max(0, size - _END_BYTES - (1 << 16) - _LOCATOR_BYTES))
    tail = file.read()
    ends = [at for at in (len(tail) - _END_BYTES, tail.rfind(_END)) if at >= 0 and tail[at : at + 4] == _END]
    sizes = [struct.unpack_from("<I", tail, at + 12)[0] for at in ends if at + _END_BYTES <= len(tail)]
    if not sizes:
        raise zipfile.BadZipFile("no end of archive")
    begin = size - len(tail)
    large = [found for at in ends for found in _large_sizes(file, tail, at, begin)]
    # In an archive of the zip64 kind the small field says only that it is one.
    return int(max([*large, *(each for each in sizes if not large or each != _SEE_LARGE)]))


def _large_sizes(file: IO[bytes], tail: bytes, at: int, begin: int) -> list[int]:
    """Sizes of the list of files in the records of zip64 that belong to an archive's end, wherever readers look.

    Args:
        file: the archive.
        tail: its last bytes.
        at: where in these the end begins.
        begin: where in the archive the tail begins.
    """
    locator = at - _LOCATOR_BYTES
    if locator < 0 or not tail.startswith(_LOCATOR, locator):
        return []
    named = struct.unpack_from("<Q", tail, locator + 8)[0]
    sizes = []
    for place in {named, begin + locator - _LARGE_END_BYTES}:
        if not 0 <= place <= begin + locator:
            continue
        file.seek(place)
        record = file.read(_LARGE_END_BYTES)
        if len(record) == _LARGE_END_BYTES and record.startswith(_LARGE_END):
            sizes.append(struct.unpack_from("<Q", record, 40)[0])
    if not sizes:
        raise zipfile.BadZipFile("no end of a zip64 archive")
    return sizes


def _check_entries(entries: Sequence[zipfile.ZipInfo], size: int, limits: UploadLimits) -> None:
    """Checks the declared sizes, names and types."""
    if len(entries) > limits.files:
        raise InputError("archive", f"it holds {len(entries)} files", f"pack at most {limits.files}")
    total = sum(entry.file_size for entry in entries)
    if total > limits.unpacked_bytes:
        raise InputError("archive", f"it unpacks to {total} bytes", f"pack at most {limits.unpacked_bytes}")
    if total > max(_SMALL, limits.ratio * size):
        raise InputError("archive", f"{size} bytes unpack to {total}", "pack photos as they are")
    names = [str(_name_of(entry)).casefold() for entry in entries]
    if len(set(names)) < len(names):
        raise InputError("archive", "two files have the same name", "rename one of them")
    for entry in entries:
        _check_entry(entry)


def _name_of(entry: zipfile.ZipInfo) -> PurePosixPath:
    """A file's name; some programs of Windows write it with backslashes."""
    return safe_name(entry.filename.replace("\\", "/"), "archive")


def _check_entry(entry: zipfile.ZipInfo) -> None:
    """Checks one file's type."""
    shown = ascii(entry.filename[:80])
    mode = entry.external_attr >> 16
    if stat.S_IFMT(mode) not in (0, stat.S_IFREG):
        raise InputError("archive", f"{shown} is a link or a device", "pack the files themselves")
    if entry.flag_bits & 1:
        raise InputError("archive", f"{shown} is encrypted", "pack without a password")
    if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise InputError("archive", f"{shown} has an unsupported compression", "use zip's default compression")


def _extract(
    archive: zipfile.ZipFile, entries: Sequence[zipfile.ZipInfo], folder: Path, limits: UploadLimits
) -> list[str]:
    """Writes files that a scene can consist of; returns the names of the others."""
    skipped, room = [], limits.unpacked_bytes
    for entry in entries:
        name = _name_of(entry)
        is_hidden = any(part.startswith((".", "__MACOSX")) for part in name.parts)
        if is_hidden or name.suffix.lower() not in KEPT_SUFFIXES:
            skipped.append(str(name))
            continue
        check_bytes(name, entry.file_size, "archive", limits)
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with archive.open(entry) as packed:
            room -= _copied(packed, path, min(room, entry.file_size))
    return skipped


def _copied(packed: object, path: Path, most: int) -> int:
    """Writes a file of at most `most` bytes; returns their number."""
    count = 0
    with path.open("xb") as out:
        while chunk := packed.read(_CHUNK):  # type: ignore[attr-defined]
            count += len(chunk)
            if count > most:
                raise InputError("archive", "it unpacks to more than it declares", "make a new one")
            out.write(chunk)
    return count
