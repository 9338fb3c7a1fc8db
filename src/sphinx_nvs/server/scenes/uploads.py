"""Scenes on their way in: a form with photos and cameras, or an archive, to a folder of files with safe names."""

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

from sphinx_nvs.errors import InputError, OutputError
from sphinx_nvs.media import IMAGE_SUFFIXES
from sphinx_nvs.scene.photos import plain_name
from sphinx_nvs.server.api.problems import ProblemError
from sphinx_nvs.server.config import UploadLimits
from sphinx_nvs.server.scenes.archives import CAMERA_SUFFIXES, FULL, KEPT_SUFFIXES, check_bytes, safe_name, unpack
from sphinx_nvs.server.scenes.ingest import SceneWish

ZIP_TYPES = ("application/zip", "application/x-zip-compressed", "application/x-zip")
"""Media types of a request that is an archive."""

FIELDS = ("images", "cameras", "archive", "contexts", "split")
"""Of the form."""

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
                            "description": "A transforms.json; without any `file_path`, in the photos' order.",
                        },
                        "archive": {
                            "type": "string",
                            "format": "binary",
                            "description": "In place of both: a zip with transforms.json or a COLMAP model.",
                        },
                        "contexts": {
                            "type": "string",
                            "description": "Photos to keep: their numbers, as 0,4,7, or how many.",
                            "examples": ["2"],
                        },
                        "split": {
                            "type": "string",
                            "description": "N: keep the train views of train_test_split_N.json.",
                        },
                    },
                }
            },
            "application/zip": {"schema": {"type": "string", "format": "binary"}},
        },
    }
}
"""The body, as the OpenAPI document tells it; it is read by `receive`, which FastAPI knows nothing of."""


async def receive(request: Request, folder: Path, limits: UploadLimits) -> SceneWish:
    """Reads a request's body to a folder.

    Args:
        request: a form or an archive.
        folder: empty.
        limits: see `UploadLimits`.

    Raises:
        InputError: what was sent cannot be used.
        OutputError: the disk is full.
        ProblemError: 400 no form can be read from it; 408 it took too long; 415 it is something else.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    try:
        async with asyncio.timeout(limits.seconds):
            with _full_disk_told():
                if kind == "multipart/form-data":
                    return await _receive_form(request, folder, limits)
                if kind in ZIP_TYPES:
                    return await _receive_archive(request, folder, limits)
    except TimeoutError as error:
        raise ProblemError(408, f"The scene was not there within {limits.seconds:g} s; send less at a time.") from error
    raise ProblemError(415, "Send photos and cameras as multipart/form-data, or an archive as application/zip.")


async def _receive_archive(request: Request, folder: Path, limits: UploadLimits) -> SceneWish:
    """A body that is an archive."""
    with tempfile.TemporaryFile() as file:
        async for chunk in request.stream():
            file.write(chunk)
        return SceneWish(notes=_left_out(await run_in_threadpool(unpack, file, folder, limits)))


async def _receive_form(request: Request, folder: Path, limits: UploadLimits) -> SceneWish:
    """A body that is a form."""
    with _readable_form():
        form = await request.form(max_files=limits.files, max_fields=16, max_part_size=4 << 20)
    try:
        return await run_in_threadpool(_take, form, folder, limits)
    finally:
        await form.close()


@contextmanager
def _full_disk_told() -> Iterator[None]:
    """A disk that is full is the server's trouble, and passes."""
    try:
        yield
    except OSError as error:
        if error.errno in FULL:
            raise OutputError("scene", "the server's disk is full", "ask again later") from error
        raise


@contextmanager
def _readable_form() -> Iterator[None]:
    """What the form's reader did not foresee (character sets of its parts, say) is the client's doing."""
    try:
        yield
    except (ValueError, LookupError, TypeError) as error:
        raise ProblemError(400, "The form cannot be read; send multipart/form-data with a boundary.") from error


def _take(form: FormData, folder: Path, limits: UploadLimits) -> SceneWish:
    """The parts of a form to files."""
    for name in form:
        if name not in FIELDS:
            raise InputError("form", f"there is no field {name[:60]!a}", f"send some of: {', '.join(FIELDS)}")
    notes: tuple[str, ...] = ()
    photos: tuple[str, ...] | None = None
    archives = [part for part in form.getlist("archive") if isinstance(part, UploadFile)]
    if archives:
        if len(archives) > 1 or form.getlist("images") or form.getlist("cameras"):
            raise InputError("archive", "there is something beside it", "send one archive, or images and cameras")
        notes = _left_out(unpack(archives[0].file, folder, limits))
    elif _is_folder(form):
        notes = _left_out([name for part in form.getlist("images") if (name := _take_file(part, folder, limits))])
    else:
        photos = tuple(_take_photo(part, folder) for part in form.getlist("images"))
        for part in form.getlist("cameras"):
            _take_cameras(part, folder, limits)
    return SceneWish(contexts=_text(form, "contexts"), split=_whole(form, "split"), notes=notes, photos=photos)


def _is_folder(form: FormData) -> bool:
    """Whether the photos are a whole folder, as browsers send one: names with folders, files of cameras among them."""
    if form.getlist("cameras"):
        return False
    files = [part.filename or "" for part in form.getlist("images") if isinstance(part, UploadFile)]
    return any(name.lower().endswith(CAMERA_SUFFIXES) for name in files)


def _take_file(part: UploadFile | str, folder: Path, limits: UploadLimits) -> str | None:
    """A file of a folder to its place there; its name if it is left out, for no scene consists of such."""
    if not isinstance(part, UploadFile) or not part.filename:
        raise InputError("images", "one of them is no file", "send photos as files, e.g. curl -F images=@0.png")
    name = safe_name(plain_name(part.filename).lstrip("/"), "images")
    if any(each.startswith(".") for each in name.parts) or name.suffix.lower() not in KEPT_SUFFIXES:
        return str(name)
    check_bytes(name, part.size or 0, "images", limits)
    _write(part.file, folder / name, "images")
    return None


def _take_photo(part: UploadFile | str, folder: Path) -> str:
    """A photo to `images/`; its name there."""
    if not isinstance(part, UploadFile) or not part.filename:
        raise InputError("images", "one of them is no file", "send photos as files, e.g. curl -F images=@0.png")
    name = safe_name(plain_name(part.filename), "images")
    if name.suffix.lower() not in IMAGE_SUFFIXES:
        raise InputError("images", f"one is called {name.name!a}", f"let it end in one of {', '.join(IMAGE_SUFFIXES)}")
    _write(part.file, folder / "images" / name, "images")
    return str(name)


def _take_cameras(part: UploadFile | str, folder: Path, limits: UploadLimits) -> None:
    """Cameras as JSON, in a file or as text; or one of the files of a COLMAP model. None of it is read yet."""
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
        # A field is never longer than `_receive_form` permits.
        path.write_bytes(part.encode("utf-8", errors="replace"))


def _write(file: IO[bytes], path: Path, where: str) -> None:
    """A part to a file."""
    if path.exists():
        raise InputError(where, f"two files are called {path.name!a}", "rename one of them")
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("xb") as out:
        shutil.copyfileobj(file, out)


def _text(form: FormData, name: str) -> str | None:
    """A field of the form that is text; empty is as good as none."""
    value = form.get(name)
    if value is not None and not isinstance(value, str):
        raise InputError(name, "it is a file", "send it as text")
    return value or None


def _whole(form: FormData, name: str) -> int | None:
    """A field of the form that is a whole number."""
    text = _text(form, name)
    if text is None:
        return None
    if not (text.isascii() and text.isdecimal() and len(text) < 7):
        raise InputError(name, f"it is {text[:60]!a}", "give a whole number")
    return int(text)


def _left_out(names: list[str]) -> tuple[str, ...]:
    """What to tell about files of an archive that were not looked at."""
    if not names:
        return ()
    some = ", ".join(ascii(name[:60]) for name in names[:3])
    count = "1 file was" if len(names) == 1 else f"{len(names)} files were"
    return (f"{count} left out, for no scene consists of such: {some}",)
