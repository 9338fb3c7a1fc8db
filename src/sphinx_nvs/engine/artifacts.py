"""Files by the hash of their content: a stored file stays, whole, under one name.

    name of a file = sha256 of its bytes, in hexadecimal        place = first two digits / next two / digest[suffix]

Writing is atomic (to a temporary file, flushed to the disk, renamed) and idempotent: the same bytes are stored once,
however often they are put. A sweep removes files without a row, but never before they are `grace_s`
old, since a file is written before its row; putting bytes that are stored already renews their file's date.
"""

from __future__ import annotations

import contextlib
import hashlib
import math
import os
import re
import uuid
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Protocol, runtime_checkable

from sphinx_nvs.errors import InputError, OutputError, SphinxError
from sphinx_nvs.json_types import JSONObject
from sphinx_nvs.media import written_beside

_DIGEST = re.compile(r"[0-9a-f]{64}")
_SUFFIX = re.compile(r"(\.[a-z0-9]{1,12})?")
_CHUNK = 1 << 20


class DamagedError(SphinxError):
    """A stored file is not what was stored: its bytes have another hash."""

    http_status = 404


class DamagedStoreError(DamagedError):
    """The database's file is damaged."""

    http_status = 503


@runtime_checkable
class Files(Protocol):
    """The place of the files: names with `/` in, bytes out. A folder, or any file system that fsspec reaches."""

    def find(self, prefix: str) -> list[str]:
        """Names that start with a prefix, within its folder."""

    def read(self, name: str) -> bytes:
        """The bytes of a file; FileNotFoundError if there is none."""

    def write(self, name: str, data: bytes) -> None:
        """Writes a file whole or not at all."""

    def touch(self, name: str, data: bytes) -> None:
        """Renews the date of the file that should have these bytes, and the bytes if it has others."""

    def delete(self, name: str) -> None:
        """Removes a file; nothing happens if there is none."""

    def delete_old(self, name: str, before_s: float | int) -> bool:
        """Removes a file unless it is newer than `before_s`, epoch seconds; returns whether it did."""

    def size(self, name: str) -> int:
        """Bytes of a file."""

    def walk(self) -> Iterator[tuple[str, float]]:
        """All files, and when each was written, epoch seconds."""


class LocalFiles:
    """A folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def find(self, prefix: str) -> list[str]:
        """See `Files`."""
        whole = self.folder / prefix
        if whole.is_file():
            return [prefix]
        return [path.relative_to(self.folder).as_posix() for path in whole.parent.glob(f"{whole.name}*")]

    def read(self, name: str) -> bytes:
        """See `Files`."""
        return (self.folder / name).read_bytes()

    def write(self, name: str, data: bytes) -> None:
        """See `Files`; flushed to the disk, folder included, so that a row may rely on it.

        Raises:
            OutputError: the disk is full, or writing is not permitted.
        """
        path = self.folder / name
        with written_beside(path) as part, part.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        _flush_folder(path.parent)

    def touch(self, name: str, data: bytes) -> None:
        """See `Files`; a file that holds other bytes is damaged, and written again."""
        path = self.folder / name
        try:
            if path.read_bytes() == data:
                os.utime(path)
                return
        except FileNotFoundError:
            pass
        self.write(name, data)

    def delete(self, name: str) -> None:
        """See `Files`."""
        (self.folder / name).unlink(missing_ok=True)

    def delete_old(self, name: str, before_s: float | int) -> bool:
        """See `Files`; renamed first, so that a writer that renews its date at the same time gets it back."""
        path = self.folder / name
        aside = path.with_name(f".{uuid.uuid4().hex}.swept")
        with contextlib.suppress(FileNotFoundError):
            if path.stat().st_mtime >= before_s:
                return False
            # Between the check and a removal a writer may renew the date. After the rename it cannot: it would find no
            # file and write a new one, and a date renewed just before is seen here.
            path.rename(aside)
            if aside.stat().st_mtime < before_s:
                aside.unlink()
                return True
            aside.rename(path)
        return False

    def size(self, name: str) -> int:
        """See `Files`."""
        return (self.folder / name).stat().st_size

    def walk(self) -> Iterator[tuple[str, float]]:
        """See `Files`; includes temporary files that crashed writers left."""
        for path in self.folder.glob("??/??/*"):
            with contextlib.suppress(FileNotFoundError):
                yield path.relative_to(self.folder).as_posix(), path.stat().st_mtime


class RemoteFiles:
    """A folder that fsspec reaches, e.g. `s3://bucket/folder`; an object appears there whole or not at all.

    Raises:
        InputError: the package for such an address is missing, or there is no such kind of address.
    """

    def __init__(self, url: str) -> None:
        try:
            import fsspec

            # Listings that are remembered would hide what other processes wrote.
            self._files, self._root = fsspec.core.url_to_fs(url, use_listings_cache=False)
        except ImportError as error:
            hint = "install it: pip install 'sphinx-nvs[s3]'"
            raise InputError("artifacts", f"a package to reach {url} is missing", hint) from error
        except (ValueError, OSError) as error:
            raise InputError("artifacts", f"{url} cannot be reached", "give a folder or s3://BUCKET/FOLDER") from error

    def find(self, prefix: str) -> list[str]:
        """See `Files`."""
        return [self._name(path) for path in self._files.glob(f"{self._root}/{prefix}*")]

    def read(self, name: str) -> bytes:
        """See `Files`."""
        return bytes(self._files.cat_file(f"{self._root}/{name}"))

    def write(self, name: str, data: bytes) -> None:
        """See `Files`.

        Raises:
            OutputError: the place refuses.
        """
        path = f"{self._root}/{name}"
        try:
            self._files.makedirs(path.rsplit("/", 1)[0], exist_ok=True)
            self._files.pipe_file(path, data)
        except OSError as error:
            found = f"they cannot be written ({error.strerror or type(error).__name__})"
            raise OutputError("artifacts", found, "see to the bucket's permissions and its connection") from error

    def touch(self, name: str, data: bytes) -> None:
        """See `Files`; objects have no date that could be set, so it is written again."""
        self.write(name, data)

    def delete(self, name: str) -> None:
        """See `Files`."""
        with contextlib.suppress(FileNotFoundError):
            self._files.rm_file(f"{self._root}/{name}")

    def delete_old(self, name: str, before_s: float | int) -> bool:
        """See `Files`; the date is read again right before the removal, since object stores have no atomic test."""
        with contextlib.suppress(FileNotFoundError):
            if _written_s(self._files.info(f"{self._root}/{name}")) < before_s:
                self.delete(name)
                return True
        return False

    def size(self, name: str) -> int:
        """See `Files`."""
        return int(self._files.size(f"{self._root}/{name}"))

    def walk(self) -> Iterator[tuple[str, float]]:
        """See `Files`."""
        for path, about in self._files.find(self._root, detail=True).items():
            yield self._name(path), _written_s(about)

    def _name(self, path: str) -> str:
        return str(path).removeprefix(self._root).lstrip("/")


class ArtifactStore:
    """Files by the hash of their content.

    Args:
        place: a folder, created if missing, or an fsspec address (`s3://bucket/folder`).
    """

    def __init__(self, place: Path | str) -> None:
        # Through fsspec a local file would not appear whole or not at all.
        near = place.removeprefix("file://") if isinstance(place, str) else place
        is_remote = isinstance(near, str) and "://" in near
        self._files: Files = RemoteFiles(str(near)) if is_remote else LocalFiles(Path(near))

    def put(self, data: bytes, *, suffix: str = "") -> str:
        """Stores bytes and returns their digest.

        Args:
            data: bytes to store.
            suffix: file name suffix, such as `.png`, for people who open the folder; bytes that are stored already
                keep their suffix.

        Raises:
            InputError: a suffix that is none.
            OutputError: the disk is full, or writing is not permitted.
        """
        if not _SUFFIX.fullmatch(suffix):
            raise InputError("suffix", f"it is {suffix!r}", "give a dot and up to 12 small letters or digits")
        digest = hashlib.sha256(data).hexdigest()
        names = self._files.find(_place(digest))
        if names:
            # The date is what `sweep` goes by: bytes that are put again must not be swept before their new row is
            # written.
            self._files.touch(names[0], data)
        else:
            self._files.write(_place(digest) + suffix, data)
        return digest

    def put_file(self, path: Path, *, suffix: str | None = None) -> str:
        """Stores a copy of a file and returns its digest. See `put`; None takes the file's own suffix.

        Raises:
            InputError: it cannot be read.
        """
        try:
            data = path.read_bytes()
        except OSError as error:
            raise InputError(
                f"file {path.name}", f"it cannot be read ({error.strerror})", "give another file"
            ) from error
        return self.put(data, suffix=path.suffix.lower() if suffix is None else suffix)

    def read(self, digest: str) -> bytes:
        """The bytes, checked.

        Raises:
            InputError: it is no digest, or there is no such artifact.
            DamagedError: the file does not hold the bytes that were stored.
        """
        try:
            data = self._files.read(self._name(digest))
        except FileNotFoundError as error:
            raise _missing(digest) from error
        if hashlib.sha256(data).hexdigest() != digest:
            raise DamagedError(
                f"artifact {digest[:12]}…: its bytes are not what was stored; delete it and make it again"
            )
        return data

    def path(self, digest: str) -> Path:
        """The path of the file, if the artifacts are on this machine; its content is not checked.

        Raises:
            InputError: it is no digest, there is no such artifact, or the artifacts are not on this machine.
        """
        if not isinstance(self._files, LocalFiles):
            raise InputError("artifacts", "they are not on this machine", "read them instead")
        return self._files.folder / self._name(digest)

    def checked_path(self, digest: str) -> Path:
        """The path of the file, its content checked; a damaged file is removed, so that it can be put again.

        Raises:
            InputError: see `path`.
            DamagedError: the file does not hold the bytes that were stored.
        """
        path = self.path(digest)
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        if found != digest:
            self.delete(digest)
            raise DamagedError(f"artifact {digest[:12]}…: its bytes were not what was stored; it was removed")
        return path

    def lost(self, digests: Iterable[str]) -> frozenset[str]:
        """Those that are missing or damaged; damaged ones are removed. Reads every file."""
        return frozenset(digest for digest in set(digests) if not self._is_intact(digest))

    def _is_intact(self, digest: str) -> bool:
        try:
            self.read(digest)
        except InputError:
            return False
        except DamagedError:
            self.delete(digest)
            return False
        return True

    def has(self, digest: str) -> bool:
        """Whether there is such an artifact; raises InputError if `digest` is no digest."""
        return bool(self._files.find(_place(digest)))

    def delete(self, digest: str) -> None:
        """Removes an artifact, if there is one; raises InputError if `digest` is no digest."""
        for name in self._files.find(_place(digest)):
            self._files.delete(name)

    def sizes(self, digests: Iterable[str]) -> dict[str, int]:
        """Bytes of those of these artifacts that there are; raises InputError if one is no digest."""
        found = {}
        for digest in set(digests):
            for name in self._files.find(_place(digest))[:1]:
                with contextlib.suppress(FileNotFoundError):
                    found[digest] = self._files.size(name)
        return found

    def drop(self, before_s: Mapping[str, float]) -> list[str]:
        """Removes artifacts that nothing refers to any more.

        Args:
            before_s: by digest: files that were put at this time or later, epoch seconds, are left to `sweep`.

        Returns:
            Names of the files that went.
        """
        files = [(name, limit_s) for digest, limit_s in before_s.items() for name in self._files.find(_place(digest))]
        return [name.rsplit("/", 1)[-1] for name, limit_s in files if self._files.delete_old(name, limit_s)]

    def sweep(self, keep: set[str], *, now: float | int, grace_s: float | int) -> list[str]:
        """Removes what nothing refers to, and what crashed writers left.

        Args:
            keep: digests that rows refer to, read before this call.
            now: epoch seconds, by the clock that dates files.
            grace_s: files younger than this stay, since their rows may not be written yet.

        Returns:
            Names of the files that went: digest and suffix.
        """
        gone = []
        for name, written_s in self._files.walk():
            last = name.rsplit("/", 1)[-1]
            is_held = last.split(".")[0] in keep
            # The date is checked again at the removal: walking a large store takes minutes.
            if not is_held and written_s < now - grace_s and self._files.delete_old(name, now - grace_s):
                gone.append(last)
        return gone

    def _name(self, digest: str) -> str:
        """The name of an artifact's file."""
        names = self._files.find(_place(digest))
        if not names:
            raise _missing(digest)
        return names[0]


def is_digest(text: str) -> bool:
    """Whether a text could be an artifact's digest."""
    return _DIGEST.fullmatch(text) is not None


def _place(digest: str) -> str:
    """Name of an artifact's file but for its suffix; nothing but hexadecimal digits gets through."""
    if not is_digest(digest):
        shown = digest if len(digest) <= 80 else f"{digest[:80]}…"
        raise InputError("digest", f"it is {shown!r}", "give the 64 hexadecimal digits that the artifact was given")
    return f"{digest[:2]}/{digest[2:4]}/{digest}"


def _missing(digest: str) -> InputError:
    return InputError(f"artifact {digest[:12]}…", "there is none", "request it before its job or scene expires")


def _written_s(about: JSONObject) -> float:
    """When an object was written, by the keys of fsspec's file systems; an object without a date is never old."""
    at = about.get("LastModified", about.get("last_modified", about.get("mtime", about.get("created"))))
    if at is None:
        return math.inf
    return at.timestamp() if isinstance(at, datetime) else float(at)


def _flush_folder(folder: Path) -> None:
    """Makes a rename outlast a loss of power, where the system can flush folders."""
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
