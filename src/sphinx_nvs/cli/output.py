"""Atomic output: results are written to a temporary name, then renamed, so that they exist whole or not at all."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from sphinx_nvs import media
from sphinx_nvs.errors import OutputError
from sphinx_nvs.scene.capture import Capture

SUMS = "SHA256SUMS"
"""Lists a result's files, as `sha256sum` does: only folders whose files are all in it, unchanged, are replaced.

Its first line, a comment to `sha256sum -c`, names the command that wrote it and has the checksum of the other lines: a
list that another program wrote, or that was changed, allows nothing.
"""

RENDER, SCENE, POSED = "sphinx-nvs render", "sphinx-nvs scene make", "sphinx-nvs poses"
"""Commands whose results are folders."""

_OF_SYSTEMS = (".DS_Store", "Thumbs.db", "desktop.ini")
"""Files that file managers add."""

_VIDEO = ".mp4"
_FILE_ENDINGS = frozenset(
    (
        *(*media.IMAGE_SUFFIXES, ".gif", ".apng", ".avif", ".jxl", ".exr", ".hdr", ".svg", ".pdf"),
        *(*media.VIDEO_SUFFIXES, ".wmv", ".flv", ".mpg", ".mpeg", ".ogv", ".3gp", ".mts"),
        *(".json", ".csv", ".txt", ".md", ".html", ".xml", ".yaml", ".yml", ".log"),
        *(".ply", ".splat", ".obj", ".glb", ".npy", ".npz", ".safetensors", ".ckpt", ".pt", ".pth", ".torch"),
        *(".zip", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".7z", ".rar", ".zst"),
    )
)
"""A folder with such a name is meant as a file."""


def check_output(
    out: Path,
    overwrite: bool,
    source: Path | None = None,
    *,
    command: str = RENDER,
    ending: str | None = None,
    or_video: bool = False,
) -> None:
    """Checks before minutes of work that the result can be written.

    Args:
        out: the result's place.
        overwrite: whether an earlier result may be replaced.
        source: what the result is made of: neither it nor a file in it is ever replaced.
        command: whose earlier result a folder may replace.
        ending: the ending that the result's file must have, e.g. `".png"`; None for a folder.
        or_video: whether `out` may also be an mp4.

    Raises:
        OutputError: `out` has the wrong ending, or exists and may not be replaced, or its folder is not writable.
    """
    if out.name in ("", ".."):
        raise OutputError(f"output {str(out)!r}", "it names no file or folder to write", "give a name")
    ending = _VIDEO if or_video and out.suffix.lower() == _VIDEO else ending
    if ending is None:
        check_folder_name(out, or_video=or_video)
    elif out.suffix.lower() != ending:
        found = f"its ending is {out.suffix}" if out.suffix else "it has no ending"
        raise OutputError(f"output {out}", f"{found}, and the result is a {ending} file", f"call it {_as(out, ending)}")
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
    if ending is None and out.is_symlink():
        raise OutputError(f"output {out}", f"it is a link to {place}", "name the place itself, or choose another one")
    if overwrite and source is not None and source.is_file() and source.resolve() == place:
        raise OutputError(f"output {out}", "the result is made of it", "choose another name")
    if overwrite and source is not None and source.exists() and source.resolve().is_relative_to(place):
        raise OutputError(f"output {out}", f"{source} is in it and would be lost", "choose another name")
    if out.exists() and not overwrite:
        raise OutputError(f"output {out}", "it exists", "choose another name or add --overwrite")
    if out.is_file() and source is not None and source.is_dir() and place.is_relative_to(source.resolve()):
        found = f"it is a file in {source}, which the result is made of"
        raise OutputError(f"output {out}", found, "choose a name that is not taken there")
    _check_replaced(out, command if ending is None else None)
    parent = next(folder for folder in out.absolute().parents if folder.exists())
    if not parent.is_dir():
        raise OutputError(f"output {out}", f"{parent} is not a folder", "choose another place")
    if not os.access(parent, os.W_OK):
        raise OutputError(f"output {out}", f"{parent} is not writable", "choose a folder that you may write to")


def check_folder_name(out: Path, *, or_video: bool = False) -> None:
    """Raises OutputError for a result folder that has the ending of a file.

    Args:
        out: the folder's place.
        or_video: whether the result may also be an mp4.
    """
    if out.suffix.lower() not in _FILE_ENDINGS:
        return
    hint = f"give {_as(out, '')} for a folder" + (f", or {_as(out, _VIDEO)} for the video alone" if or_video else "")
    raise OutputError(f"output {out}", f"its ending {out.suffix} is a file's, and the result is a folder", hint)


def _as(out: Path, ending: str) -> str:
    """The name with another ending."""
    return out.with_suffix(ending).name


def check_photos_kept(out: Path, capture: Capture) -> None:
    """Raises OutputError for a result that would replace a photo of the scene that it is made of, wherever that lies.

    Args:
        out: the result's file.
        capture: the scene.
    """
    for view in capture.views:
        if isinstance(view.image, Path) and out.exists() and out.samefile(view.image):
            raise OutputError(f"output {out}", f"it is the photo {view.name} of the scene", "choose another name")


def _check_replaced(out: Path, command: str | None) -> None:
    """Raises OutputError if something of the user's would be lost.

    Args:
        out: what is to be replaced, if it is there.
        command: that makes the result if it is a folder, None for a file.
    """
    is_folder = command is not None
    if out.is_dir() and not is_folder:
        raise OutputError(f"output {out}", "it is a folder, and the result is a file", "choose another name")
    if is_folder and out.exists() and not out.is_dir():
        raise OutputError(f"output {out}", "it is a file, and the result is a folder", "choose another name")
    if not out.is_dir() or not any(out.iterdir()):
        return
    writer = _writer(out)
    if writer is None:
        raise OutputError(f"output {out}", "it is a folder that holds no earlier result", "choose another name")
    if writer != command:
        found = f"it is a result of {writer}, and this would be one of {command}"
        raise OutputError(f"output {out}", found, "choose another name")
    stray = _stray(out)
    if stray is not None:
        found = f"{stray} in it is not of the earlier result, or was changed, and would be lost"
        raise OutputError(f"output {out}", found, "move it away, or choose another name")


def _writer(folder: Path) -> str | None:
    """The command that wrote a folder's `SUMS`; None if another program wrote or changed it, or there is none."""
    try:
        head, _, body = (folder / SUMS).read_bytes().partition(b"\n")
    except OSError:
        return None
    return next((each for each in (RENDER, SCENE, POSED) if head == _head(each, body)), None)


def _head(command: str, body: bytes) -> bytes:
    """The first line of `SUMS`, without its end."""
    return f"# {command} wrote these files, and this list: {hashlib.sha256(body).hexdigest()}".encode()


def _stray(folder: Path) -> Path | None:
    """A file in a result's folder that its `SUMS` does not list, or that was changed; None if there is none."""
    lines = (folder / SUMS).read_text(encoding="utf-8", errors="replace").splitlines()
    written = {name: digest for digest, _, name in (line.partition("  ") for line in lines)}
    for path in _files(folder):
        name = path.relative_to(folder)
        if name.name in _OF_SYSTEMS or name == Path(SUMS):
            continue
        if path.is_symlink() or written.get(name.as_posix()) != _digest(path):
            return name
    return None


def _files(folder: Path) -> list[Path]:
    """All files below a folder, and links, which are not followed."""
    return sorted(path for path in folder.rglob("*") if path.is_symlink() or not path.is_dir())


def _digest(path: Path) -> str:
    if not path.is_file():
        return "no file"
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_sums(folder: Path, command: str) -> None:
    """Lists the files of a whole result, so that a later one of the same command may replace it.

    Args:
        folder: the result's.
        command: that wrote it, one of those above.

    Raises:
        OutputError: see `media.write_bytes`.
    """
    lines = [f"{_digest(path)}  {path.relative_to(folder).as_posix()}\n" for path in _files(folder)]
    body = "".join(lines).encode()
    media.write_bytes(folder / SUMS, _head(command, body) + b"\n" + body)


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
def folder_beside(out: Path, command: str) -> Iterator[Path]:
    """Yields an empty folder that replaces `out` once the block succeeds.

    Args:
        out: the result's place.
        command: that makes it.

    Raises:
        OutputError: the operating system refuses, e.g. because the disk is full; or the earlier result holds other
            files.
    """
    with _aside(out, command) as move_aside, media.written_beside(out) as part:
        part.mkdir()
        yield part
        write_sums(part, command)
        move_aside()


def replace_folder(out: Path, by: Path, command: str) -> None:
    """Puts a whole result in the place of an earlier one, which is kept until the new one is there.

    Args:
        out: the result's place.
        by: the new result, beside it.
        command: that made both.

    Raises:
        OutputError: the earlier result holds other files.
    """
    with _aside(out, command) as move_aside:
        move_aside()
        by.rename(out)


@contextmanager
def _aside(out: Path, command: str) -> Iterator[Callable[[], None]]:
    """Yields what moves an earlier result aside; it returns at the end of the block unless a new one is there."""
    # No rename replaces a folder that has files.
    retired = out.with_name(f".{out.name}.{uuid.uuid4().hex[:8]}.old")

    def move() -> None:
        if out.is_dir():
            # Again, because files may have been put into it in the meantime.
            _check_replaced(out, command)
            out.rename(retired)

    try:
        yield move
    finally:
        if not out.exists() and retired.exists():
            retired.rename(out)
        elif retired.is_symlink():
            retired.unlink()
        else:
            shutil.rmtree(retired, ignore_errors=True)
