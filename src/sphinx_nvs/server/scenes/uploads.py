"""Receives uploads: writes the files of a form or an archive to a folder under safe names."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from fastapi import Request
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import FormData, UploadFile
from starlette.formparsers import MultiPartException

from sphinx_nvs.errors import InputError, OutputError
from sphinx_nvs.media import IMAGE_SUFFIXES, VIDEO_SUFFIXES
from sphinx_nvs.posing.focal_prior import check_focal
from sphinx_nvs.scene.photos import plain_name
from sphinx_nvs.server.api.problems import ProblemError
from sphinx_nvs.server.limits import UploadBudget
from sphinx_nvs.server.scenes.archives import CAMERA_SUFFIXES, FULL, KEPT_SUFFIXES, check_bytes, safe_name, unpack
from sphinx_nvs.server.scenes.form_spool import SpoolingParser
from sphinx_nvs.server.scenes.ingest import SceneRequest
from sphinx_nvs.server.server_config import UploadLimits

ZIP_TYPES = ("application/zip", "application/x-zip-compressed", "application/x-zip")
"""Media types of archives."""

FIELDS = ("images", "cameras", "video", "archive", "contexts", "split", "focal_mm")
"""Fields of the form."""

FORM: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "additionalProperties": False,
                    "properties": {
                        "images": {
                            "type": "array",
                            "items": {"type": "string", "format": "binary"},
                            "description": "Photos: PNG, JPEG, WebP, TIFF or BMP.",
                        },
                        "cameras": {
                            "type": "string",
                            "description": "A transforms.json; frames without `file_path` go with the photos in order. "
                            "Without cameras, those of the photos are found.",
                        },
                        "video": {
                            "type": "string",
                            "format": "binary",
                            "description": "In place of photos: a video whose camera moves.",
                        },
                        "archive": {
                            "type": "string",
                            "format": "binary",
                            "description": "In place of all: a zip with photos and a transforms.json or a COLMAP "
                            "model, with photos alone, or with a video.",
                        },
                        "contexts": {
                            "type": "string",
                            "description": "Photos to keep: their numbers, such as 0,4,7, or how many.",
                            "examples": ["2"],
                        },
                        "split": {
                            "type": "string",
                            "description": "N: keep the train views of train_test_split_N.json.",
                        },
                        "focal_mm": {
                            "type": "string",
                            "description": "Focal length of the camera as that of 35 mm film, for photos without "
                            "cameras that lost their EXIF.",
                            "examples": ["26"],
                        },
                    },
                }
            },
            "application/zip": {"schema": {"type": "string", "format": "binary"}},
        },
    }
}
"""The request body in the OpenAPI document; `receive` reads it, not FastAPI."""


async def receive(request: Request, folder: Path, limits: UploadLimits, budget: UploadBudget) -> SceneRequest:
    """Writes the files of a request's body to a folder.

    Args:
        request: a request with a form or an archive.
        folder: an empty folder.
        limits: see `UploadLimits`.
        budget: what the upload holds.

    Returns:
        The options of the upload.

    Raises:
        InputError: the upload cannot be used.
        OutputError: the disk is full.
        ProblemError: 400 for an unreadable form, 408 after the time limit, 415 for another media type.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    try:
        async with asyncio.timeout(limits.seconds):
            with _full_disk_errors():
                if kind == "multipart/form-data":
                    return await _receive_form(request, folder, limits, budget)
                if kind in ZIP_TYPES:
                    return await _receive_archive(request, folder, limits, budget)
    except TimeoutError as error:
        raise ProblemError(408, f"The upload did not arrive within {limits.seconds:g} s; send fewer photos.") from error
    raise ProblemError(415, "Send photos and cameras as multipart/form-data, or an archive as application/zip.")


async def _receive_archive(request: Request, folder: Path, limits: UploadLimits, budget: UploadBudget) -> SceneRequest:
    """Receives an archive."""
    with tempfile.TemporaryFile(dir=folder) as file:
        async for chunk in request.stream():
            # The disk may be slow; the loop serves others meanwhile.
            await run_in_threadpool(file.write, chunk)
        return SceneRequest(notes=_skipped(await run_in_threadpool(unpack, file, folder, limits, budget.add)))


async def _receive_form(request: Request, folder: Path, limits: UploadLimits, budget: UploadBudget) -> SceneRequest:
    """Receives a form."""
    with tempfile.TemporaryFile(dir=folder) as spool:
        parser = SpoolingParser(request.headers, request.stream(), spool, max_files=limits.files)
        with _readable_form():
            form = await parser.parse()
        return await run_in_threadpool(_write_form, form, folder, limits, budget)


@contextmanager
def _full_disk_errors() -> Iterator[None]:
    """Reports a full disk as an error of the server."""
    try:
        yield
    except OSError as error:
        if error.errno in FULL:
            raise OutputError("scene", "the server's disk is full", "retry later") from error
        raise


@contextmanager
def _readable_form() -> Iterator[None]:
    """Reports exceptions of the form's parser, such as unknown character sets, as an unreadable form."""
    try:
        yield
    except MultiPartException as error:
        found = error.message.rstrip(".")
        detail = f"The form cannot be read ({found}); send multipart/form-data with a boundary."
        raise ProblemError(400, detail) from error
    except (ValueError, LookupError, TypeError) as error:
        raise ProblemError(400, "The form cannot be read; send multipart/form-data with a boundary.") from error


def _write_form(form: FormData, folder: Path, limits: UploadLimits, budget: UploadBudget) -> SceneRequest:
    """Writes the parts of a form to files."""
    for name in form:
        if name not in FIELDS:
            raise InputError("form", f"there is no field {name[:60]!a}", f"use only: {', '.join(FIELDS)}")
    notes: tuple[str, ...] = ()
    photos: tuple[str, ...] | None = None
    archives = [part for part in form.getlist("archive") if isinstance(part, UploadFile)]
    if archives:
        if len(archives) > 1 or any(form.getlist(name) for name in ("images", "cameras", "video")):
            raise InputError("archive", "other files are sent with it", "send one archive, or images and cameras")
        notes = _skipped(unpack(archives[0].file, folder, limits, budget.add))
    elif form.getlist("video"):
        _write_video(form, folder)
    elif _is_folder(form):
        notes = _skipped([written for part in form.getlist("images") if (written := _write_file(part, folder, limits))])
    else:
        photos = tuple(_write_photo(part, folder) for part in form.getlist("images"))
        for part in form.getlist("cameras"):
            _write_cameras(part, folder, limits)
    return SceneRequest(
        contexts=_text(form, "contexts"),
        split=_whole(form, "split"),
        notes=notes,
        photos=photos,
        focal_mm=_millimetres(form),
    )


def _is_folder(form: FormData) -> bool:
    """Whether the photos are a whole folder, as browsers send one: names with folders, files of cameras among them."""
    if form.getlist("cameras"):
        return False
    files = [part.filename or "" for part in form.getlist("images") if isinstance(part, UploadFile)]
    return any(name.lower().endswith(CAMERA_SUFFIXES) for name in files)


def _write_file(part: UploadFile | str, folder: Path, limits: UploadLimits) -> str | None:
    """A file of a folder to its place there; its name if it is left out, for no scene consists of such."""
    if not isinstance(part, UploadFile) or not part.filename:
        raise InputError("images", "one of them is no file", "send photos as files, e.g. curl -F images=@0.png")
    name = safe_name(plain_name(part.filename).lstrip("/"), "images")
    if any(each.startswith(".") for each in name.parts) or name.suffix.lower() not in KEPT_SUFFIXES:
        return str(name)
    check_bytes(name, part.size or 0, "images", limits)
    _write(part.file, folder / name, "images")
    return None


def _write_photo(part: UploadFile | str, folder: Path) -> str:
    """A photo to `images/`; its name there."""
    if not isinstance(part, UploadFile) or not part.filename:
        raise InputError("images", "one of them is no file", "send photos as files, e.g. curl -F images=@0.png")
    name = safe_name(plain_name(part.filename), "images")
    if name.suffix.lower() not in IMAGE_SUFFIXES:
        raise InputError(
            "images", f"one is called {name.name!a}", f"use one of the suffixes {', '.join(IMAGE_SUFFIXES)}"
        )
    _write(part.file, folder / "images" / name, "images")
    return str(name)


def _write_video(form: FormData, folder: Path) -> None:
    """The only file of a form."""
    parts = form.getlist("video")
    if len(parts) > 1 or form.getlist("images") or form.getlist("cameras"):
        raise InputError("video", "other files are sent with it", "send one video, or photos")
    if not isinstance(parts[0], UploadFile) or not parts[0].filename:
        raise InputError("video", "it is no file", "send it as a file, e.g. curl -F video=@walk.mp4")
    name = safe_name(plain_name(parts[0].filename), "video").name
    if not name.lower().endswith(VIDEO_SUFFIXES):
        raise InputError("video", f"it is called {name!a}", f"use one of the suffixes {', '.join(VIDEO_SUFFIXES)}")
    _write(parts[0].file, folder / name, "video")


def _write_cameras(part: UploadFile | str, folder: Path, limits: UploadLimits) -> None:
    """Writes cameras, unread: JSON in a file or as text, or one of the files of a COLMAP model."""
    name = (part.filename or "") if isinstance(part, UploadFile) else ""
    if isinstance(part, UploadFile) and name.lower().endswith((".txt", ".bin")):
        safe = safe_name(name, "cameras").name
        check_bytes(safe, part.size or 0, "cameras", limits)
        _write(part.file, folder / "sparse" / "0" / safe, "cameras")
        return
    path = folder / "transforms.json"
    if path.exists():
        raise InputError("cameras", "there are several", "send one transforms.json")
    if isinstance(part, UploadFile):
        check_bytes(path.name, part.size or 0, "cameras", limits)
        _write(part.file, path, "cameras")
    else:
        # `_receive_form` limits the length of fields.
        path.write_bytes(part.encode("utf-8", errors="replace"))


def _write(file: IO[bytes], path: Path, where: str) -> None:
    """Writes a part to a file."""
    if path.exists():
        raise InputError(where, f"two files are called {path.name!a}", "rename one of them")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("xb") as out:
            shutil.copyfileobj(file, out)
    except (FileExistsError, NotADirectoryError, IsADirectoryError) as error:
        found = f"{path.name!a} lies in a folder with the name of another file"
        raise InputError(where, found, "rename one of them") from error


def _text(form: FormData, name: str) -> str | None:
    """Returns a text field of the form, None if it is empty."""
    values = form.getlist(name)
    if len(values) > 1:
        raise InputError(name, f"it is sent {len(values)} times", "send it once")
    value = values[0] if values else None
    if value is not None and not isinstance(value, str):
        raise InputError(name, "it is a file", "send it as text")
    return value or None


def _whole(form: FormData, name: str) -> int | None:
    """Returns an integer field of the form."""
    text = _text(form, name)
    if text is None:
        return None
    if not (text.isascii() and text.isdecimal() and len(text) < 7):
        raise InputError(name, f"it is {text[:60]!a}", "give an integer")
    return int(text)


def _millimetres(form: FormData) -> float | None:
    """Returns the focal length."""
    text = _text(form, "focal_mm")
    try:
        focal_mm = None if text is None else float(text)
    except ValueError as error:
        raise InputError("focal_mm", f"it is {text[:60]!a}" if text else "", "give a number, such as 26") from error
    check_focal(focal_mm)
    return focal_mm


def _skipped(names: list[str]) -> tuple[str, ...]:
    """Returns a warning about files of an archive that were skipped."""
    if not names:
        return ()
    some = ", ".join(ascii(name[:60]) for name in names[:3])
    count = "1 file was" if len(names) == 1 else f"{len(names)} files were"
    return (f"{count} skipped, because scenes do not use files of this type: {some}",)
