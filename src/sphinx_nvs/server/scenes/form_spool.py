"""Forms whose files go to one file on disk while they arrive: no memory, and one descriptor however many photos."""

from __future__ import annotations

import io
from collections.abc import AsyncGenerator
from typing import IO

from starlette.datastructures import FormData, Headers
from starlette.formparsers import MultiPartException, MultiPartParser

FIELD_BYTES = 4 << 20
"""Largest field that is not a file: a transforms.json that is sent as text."""

MOST_FIELDS = 16
"""Most fields that are not files."""


class SpoolingParser(MultiPartParser):
    """Parses a form.

    Args:
        headers: the request's headers.
        stream: the request's body.
        spool: an empty file; stays open as long as the form's files are read.
        max_files: largest number of files.
    """

    def __init__(self, headers: Headers, stream: AsyncGenerator[bytes, None], spool: IO[bytes], max_files: int) -> None:
        super().__init__(headers, stream, max_files=max_files, max_fields=MOST_FIELDS, max_part_size=FIELD_BYTES)
        self._spool, self._has_ended = spool, False

    def on_end(self) -> None:
        """Notes the boundary that ends the form."""
        self._has_ended = True

    async def parse(self) -> FormData:
        """Returns the form.

        Raises:
            MultiPartException: it is malformed, or ends before its last part does: that part would be missing.
        """
        form = await super().parse()
        if not self._has_ended:
            raise MultiPartException("It ends without its last boundary")
        return form

    def on_headers_finished(self) -> None:
        """Has the part that begins written to the spool, if it is a file."""
        super().on_headers_finished()
        file = self._current_part.file
        if file is not None:
            file.file.close()
            # Parts arrive one after the other: each is one piece of the spool.
            file.file = Piece(self._spool)  # type: ignore[assignment]


class Piece(io.RawIOBase):
    """A piece at the end of a file that grows until the next piece begins. Reading starts over at `seek(0)`.

    Args:
        spool: the file.
    """

    # What `typing.IO` has beyond `io.RawIOBase`.
    name, mode = "", "w+b"

    def __init__(self, spool: IO[bytes]) -> None:
        super().__init__()
        self._spool = spool
        self._start: int | None = None
        self._length = self._at = 0

    def writable(self) -> bool:
        """True."""
        return True

    def readable(self) -> bool:
        """True."""
        return True

    def seekable(self) -> bool:
        """True."""
        return True

    def write(self, data: bytes | bytearray | memoryview) -> int:  # type: ignore[override]
        """Appends bytes."""
        if self._start is None:
            self._start = self._spool.seek(0, io.SEEK_END)
        self._spool.seek(self._start + self._length)
        self._spool.write(data)
        self._length += len(data)
        return len(data)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Sets where reading goes on."""
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._length}[whence]
        self._at = max(0, base + offset)
        return self._at

    def tell(self) -> int:
        """Where reading goes on."""
        return self._at

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        """Reads from the piece alone."""
        count = max(0, min(len(buffer), self._length - self._at))
        self._spool.seek((self._start or 0) + self._at)
        data = self._spool.read(count)
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)
