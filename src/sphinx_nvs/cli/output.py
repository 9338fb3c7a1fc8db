"""Atomic output: results are written to a temporary name, then renamed, so that they exist whole or not at all."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sphinx_nvs.errors import OutputError
from sphinx_nvs.media import written_beside

MARKS = ("report.json", "poses.json", "depth/000.npy")
"""A folder that contains one of these is a result of `render`, `poses` or `scene make`; nothing else is ever replaced.

A transforms.json is no such mark: folders of a user's own photos have one.
"""


def check_output(out: Path, overwrite: bool, source: Path | None = None) -> None:
    """Checks before minutes of work that the result can be written.

    Args:
        out: the result's place.
        overwrite: whether an earlier result may be replaced.
        source: what the result is made of, which is never replaced.

    Raises:
        OutputError: `out` exists and may not be replaced, or its folder is not writable.
    """
    if out.parts[:1] == ("~",):
        raise OutputError(f"output {out}", "its ~ is no folder here: the shell left it as it is", "write the path out")
    try:
        out.lstat()
    except (FileNotFoundError, NotADirectoryError):
        pass
    except OSError as error:
        raise OutputError(f"output {str(out)[:80]}", f"{error.strerror}", "choose another name") from error
    try:
        place = out.resolve()
    except RuntimeError as error:  # Python before 3.13 says so of links in a circle.
        raise OutputError(f"output {out}", "its links lead in a circle", "choose another name") from error
    if overwrite and source is not None and source.exists() and source.resolve().is_relative_to(place):
        raise OutputError(f"output {out}", f"{source} is in it and would be lost", "choose another name")
    if out.exists() and not overwrite:
        raise OutputError(f"output {out}", "it exists", "choose another name or add --overwrite")
    if out.is_dir() and any(out.iterdir()) and not any((out / mark).is_file() for mark in MARKS):
        raise OutputError(f"output {out}", "it is a folder that holds no earlier result", "choose another name")
    parent = next(folder for folder in out.absolute().parents if folder.exists())
    if not parent.is_dir():
        raise OutputError(f"output {out}", f"{parent} is not a folder", "choose another place")
    if not os.access(parent, os.W_OK):
        raise OutputError(f"output {out}", f"{parent} is not writable", "choose a folder that you may write to")


@contextmanager
def claimed(out: Path) -> Iterator[None]:
    """Keeps a result's place for this process until the block ends, however it ends.

    Raises:
        OutputError: another process of this machine is making a result there.
    """
    try:
        import fcntl
    except ImportError:  # Windows has no such locks.
        yield
        return
    # A hash, because paths may be longer than file names; beside the temporary files, because `out` may have no folder
    # yet.
    name = hashlib.sha256(str(out.resolve()).encode(errors="surrogateescape")).hexdigest()[:32]
    path = Path(tempfile.gettempdir()) / f"sphinx-nvs-{os.getuid()}-{name}.lock"
    with path.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            hint = "wait for it, or choose another name"
            raise OutputError(f"output {out}", "another render is writing there", hint) from error
        try:
            yield
        finally:
            path.unlink(missing_ok=True)


@contextmanager
def folder_beside(out: Path) -> Iterator[Path]:
    """Yields an empty folder that replaces `out` once the block succeeds.

    Raises:
        OutputError: the operating system refuses, e.g. because the disk is full.
    """
    retired = out.with_name(f".{out.name}.{uuid.uuid4().hex[:8]}.old")
    try:
        with written_beside(out) as part:
            part.mkdir()
            yield part
            if out.is_dir():
                # No rename replaces a folder that has files, so the old one steps aside, and returns below if the new
                # one fails.
                out.rename(retired)
    finally:
        if out.exists():
            shutil.rmtree(retired, ignore_errors=True)
        elif retired.exists():
            retired.rename(out)
