"""Uploads: a folder, an archive, a video, or photos with cameras or without, as the form that the server reads.

A folder is sent as an archive of the photos that its transforms.json names, or of every file that scenes consist of.
"""

from __future__ import annotations

import json
import tempfile
import zipfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from sphinx_nvs.errors import InputError
from sphinx_nvs.json_types import JSONMapping, JSONObject

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp", ".heic", ".heif")
"""Suffixes of photos."""

OTHER_SUFFIXES = (".json", ".txt", ".bin", ".npy", ".xml", ".csv", ".out")
"""Suffixes of cameras, in any layout that the server reads."""

VIDEO_SUFFIXES = (".mp4", ".mov", ".m4v", ".avi", ".mkv", ".webm")
"""Suffixes of videos."""

TRANSFORMS = "transforms.json"

JPEG = b"\xff\xd8"
"""First bytes of a JPEG file."""

Photo = str | Path | bytes
Cameras = str | Path | JSONMapping | Sequence[object]
Part = tuple[str, tuple[str, IO[bytes] | bytes, str]]


@dataclass(frozen=True, kw_only=True)
class Upload:
    """Content of an upload; files are opened for every attempt.

    Args:
        archive: a zip file.
        files: files to pack, by name in the archive.
        video: a video.
        photos: names and files, or bytes.
        cameras: the text of a transforms.json.
        fields: text fields of the form.
    """

    archive: Path | None = None
    files: Mapping[str, Path] | None = None
    video: Path | None = None
    photos: tuple[tuple[str, Path | bytes], ...] = ()
    cameras: bytes | None = None
    fields: Mapping[str, str]

    def parts(self, stack: ExitStack) -> list[Part]:
        """Returns the form's files, which the stack closes.

        Raises:
            InputError: a file cannot be read.
        """
        if self.files is not None:
            packed = stack.enter_context(tempfile.TemporaryFile())  # noqa: SIM115  # the stack closes it
            pack(self.files, packed)
            return [("archive", ("scene.zip", packed, "application/zip"))]
        if self.archive is not None:
            return [("archive", (self.archive.name, _opened(self.archive, stack), "application/zip"))]
        if self.video is not None:
            return [("video", (self.video.name, _opened(self.video, stack), "application/octet-stream"))]
        parts: list[Part] = []
        for name, photo in self.photos:
            content = photo if isinstance(photo, bytes) else _opened(photo, stack)
            parts.append(("images", (name, content, "application/octet-stream")))
        if self.cameras is not None:
            parts.append(("cameras", (TRANSFORMS, self.cameras, "application/json")))
        return parts


def upload_of(
    source: str | Path | None,
    images: Sequence[Photo] | None,
    cameras: Cameras | None,
    contexts: int | Sequence[int] | None,
    split: int | None,
    focal_mm: float | int | None = None,
) -> Upload:
    """Returns the upload for the arguments of `upload_scene`.

    Raises:
        InputError: arguments are missing, contradict each other, or name unreadable files.
    """
    fields = _fields(contexts, split) | ({} if focal_mm is None else {"focal_mm": str(focal_mm)})
    if (source is None) == (images is None):
        raise InputError("upload_scene", "it takes a source, or images", "give one of both")
    if source is not None:
        if cameras is not None:
            raise InputError("cameras", "the source has cameras of its own", "omit them, or give images with them")
        return _from_source(Path(source).expanduser(), fields)
    assert images is not None
    photos = tuple(_named(photo, index) for index, photo in enumerate(images))
    return Upload(photos=photos, cameras=None if cameras is None else _text_of(cameras), fields=fields)


def pack(files: Mapping[str, Path], out: IO[bytes]) -> None:
    """Writes an archive and rewinds it; photos, which are compressed already, are stored uncompressed.

    Raises:
        InputError: a file cannot be read.
    """
    with zipfile.ZipFile(out, "w") as archive:
        for name, path in files.items():
            kind = zipfile.ZIP_STORED if path.suffix.lower() in IMAGE_SUFFIXES else zipfile.ZIP_DEFLATED
            try:
                archive.write(path, name, kind)
            except OSError as error:
                raise _unreadable(path, error) from error
    out.seek(0)


def files_of(folder: Path) -> dict[str, Path]:
    """Returns the files of a scene's folder by relative name.

    Raises:
        InputError: there is no photo in it, or its cameras cannot be read.
    """
    transforms = folder / TRANSFORMS
    found = _named_by(transforms) if transforms.is_file() else _everything(folder)
    if found is None:
        found = _everything(folder)
    if not any(path.suffix.lower() in IMAGE_SUFFIXES for path in found):
        raise InputError(f"folder {folder}", "there are no photos of a scene in it", "give a scene's folder")
    return _below(folder, found)


def _from_source(source: Path, fields: Mapping[str, str]) -> Upload:
    """Returns the upload for a folder, a transforms.json, an archive, or a video."""
    if source.is_dir():
        return Upload(files=files_of(source), fields=fields)
    if not source.is_file():
        raise InputError(f"scene {source}", "there is no such file or folder", "correct the path")
    if source.suffix.lower() == ".json":
        named = _everything(source.parent) if (found := _named_by(source)) is None else found
        photos = [path for path in named if path.name != TRANSFORMS and path != source]
        return Upload(files={TRANSFORMS: source, **_below(source.parent, photos)}, fields=fields)
    if source.suffix.lower() in VIDEO_SUFFIXES:
        return Upload(video=source, fields=fields)
    if not zipfile.is_zipfile(source):
        raise InputError(f"scene {source}", "it is not a folder, transforms.json, zip or video", "give one of these")
    return Upload(archive=source, fields=fields)


def _below(folder: Path, paths: Sequence[Path]) -> dict[str, Path]:
    """Returns files by name relative to a folder."""
    return {path.relative_to(folder).as_posix(): path for path in paths}


def _named_by(transforms: Path) -> list[Path] | None:
    """A transforms.json, the splits beside it, and the photos that it names, with or without their endings.

    None if a photo is not found by its name: the server knows more spellings.
    """
    folder = transforms.parent
    try:
        # From bytes: editors on Windows save UTF-16, or put a byte order mark first.
        data = json.loads(transforms.read_bytes())
        frames = data if isinstance(data, list) else data["frames"]
        names = [frame.get("file_path") for frame in frames]
    except OSError as error:
        raise _unreadable(transforms, error) from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"cameras {transforms}", "they are not a transforms.json", "give one with frames") from error
    named = [_photo(folder, name) for name in names if isinstance(name, str) and name]
    photos = [photo for photo in named if photo is not None]
    if len(photos) < len(named):
        return None
    return [transforms, *sorted(folder.glob("train_test_split_*.json")), *dict.fromkeys(photos)]


def _photo(folder: Path, name: str) -> Path | None:
    """Returns the photo that a camera names; None if it is not below the folder, or could be one of several.

    The server then reports which.
    """
    found = []
    for suffix in ("", *IMAGE_SUFFIXES):
        path = folder / f"{name}{suffix}"
        if path.is_file() and path.resolve().is_relative_to(folder.resolve()) and ".." not in Path(name).parts:
            found.append(folder / Path(f"{name}{suffix}"))
    is_whole = bool(found) and found[0] == folder / Path(name)
    return found[0] if is_whole or len(found) == 1 else None


def _everything(folder: Path) -> list[Path]:
    """Returns photos and cameras at any depth, without hidden ones."""
    return [
        path
        for path in sorted(folder.rglob("*"))
        if path.suffix.lower() in (*IMAGE_SUFFIXES, *OTHER_SUFFIXES)
        and path.is_file()
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    ]


def _fields(contexts: int | Sequence[int] | None, split: int | None) -> dict[str, str]:
    """Returns the form's fields; a trailing comma distinguishes a photo's number from a count."""
    fields = {} if split is None else {"split": str(split)}
    if isinstance(contexts, int):
        fields["contexts"] = str(contexts)
    elif contexts is not None:
        fields["contexts"] = "".join(f"{index}," for index in contexts)
    return fields


def _named(photo: Photo, index: int) -> tuple[str, Path | bytes]:
    """Returns a photo with a name whose suffix fits."""
    if isinstance(photo, bytes):
        return f"{index}.{'jpg' if photo.startswith(JPEG) else 'png'}", photo
    path = Path(photo).expanduser()
    if not path.is_file():
        raise InputError(f"photo {path}", "there is no such file", "correct the path")
    return path.name, path


def _text_of(cameras: Cameras) -> bytes:
    """Returns cameras as the text of a transforms.json."""
    if isinstance(cameras, str | Path):
        try:
            return Path(cameras).expanduser().read_bytes()
        except OSError as error:
            raise _unreadable(Path(cameras), error) from error
    return json.dumps(plain_cameras(cameras)).encode()


def plain_cameras(cameras: JSONMapping | Sequence[object]) -> JSONObject:
    """Converts cameras to JSON: a list becomes `frames`, a bare matrix a frame's `c2w` (OpenCV axes)."""
    if isinstance(cameras, Mapping):
        return {key: _plain(value) for key, value in cameras.items()}
    return {"frames": [_plain(each) if isinstance(each, Mapping) else {"c2w": _plain(each)} for each in cameras]}


def _plain(value: object) -> object:
    """Converts arrays to lists, at any depth."""
    if isinstance(value, Mapping):
        return {str(key): _plain(each) for key, each in value.items()}
    if hasattr(value, "tolist"):
        return value.tolist()
    return [_plain(each) for each in value] if isinstance(value, list | tuple) else value


def _opened(path: Path, stack: ExitStack) -> IO[bytes]:
    try:
        return stack.enter_context(path.open("rb"))
    except OSError as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: OSError) -> InputError:
    return InputError(f"file {path}", f"it cannot be read ({error.strerror or error})", "correct the path")
