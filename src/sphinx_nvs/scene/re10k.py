"""RealEstate10K and ACID camera files with a folder of frames.

A text file holds a URL and then one line a frame,

    timestamp fx fy cx cy 0 0 r11 r12 r13 t1 r21 ... t3

with intrinsics divided by the image's width and height and the world-to-camera matrix [R t] by rows (OpenCV
axes). Frames are named by their timestamp. Reference: Zhou et al., "Stereo Magnification", 2018, data page.

Shapes: one frame at a time.
"""

from __future__ import annotations

import math
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from sphinx_nvs import media
from sphinx_nvs.errors import InputError
from sphinx_nvs.geometry.cameras import check_pose
from sphinx_nvs.scene.capture import Capture, PosedView
from sphinx_nvs.scene.intrinsics import intrinsics_matrix
from sphinx_nvs.scene.photos import find_photo
from sphinx_nvs.scene.textfile import files_ending, head_of, read_text

_COLUMNS = 19


def is_re10k(path: Path) -> bool:
    """Whether a text file looks like a RealEstate10K camera file."""
    first, second = [*head_of(path).splitlines()[:2], "", ""][:2]
    return first.lstrip().startswith("http") or len(second.split()) == _COLUMNS


def camera_file(folder: Path) -> Path | None:
    """The one RealEstate10K camera file of a folder, None if there is none.

    Raises:
        InputError: there are several.
    """
    found = [path for path in files_ending(folder, ".txt") if is_re10k(path)]
    if len(found) > 1:
        raise InputError(
            f"folder {folder}", f"it holds {len(found)} camera files ({found[0].name}, ...)", "name one of the files"
        )
    return found[0] if found else None


def read_re10k(path: Path) -> Capture:
    """Reads a camera file and its frames; frames that were not downloaded become cameras without photo.

    Args:
        path: the text file. Frames `<timestamp>.<ending>` lie beside it, in a folder of the same name, or in
            `images` or `frames` beside it.

    Raises:
        InputError: a line cannot be understood, there are no lines, or no frame is found at all.
    """
    text = read_text(path)
    lines = [(n, line) for n, line in enumerate(text.splitlines(), 1) if line.strip()]
    rows = [_row(line, f"{path}, line {n}") for n, line in lines if not line.lstrip().startswith("http")]
    if not rows:
        raise InputError(f"file {path}", "it has 0 frames", "give at least one line of cameras")
    images = [_frame(path, name) for name, _ in rows]
    shown = next((image for image in images if image is not None), None)
    if shown is None:
        raise InputError(
            f"file {path}", f"no frame such as {rows[0][0]}.jpg is found", f"put them in {path.with_suffix('')}"
        )
    usual = media.image_size(shown)
    views = [_view(*row, image, usual, path) for row, image in zip(rows, images, strict=True)]
    return Capture(name=path.stem, views=tuple(views), path=path, layout="RealEstate10K camera file").centred()


def _row(line: str, where: str) -> tuple[str, tuple[float, ...]]:
    """Timestamp and 18 numbers."""
    fields = line.split()
    try:
        numbers = tuple(float(field) for field in fields[1:])
    except ValueError as error:
        raise InputError(where, f"cannot be understood ({line[:40]!r})", "it must hold numbers") from error
    if len(fields) != _COLUMNS:
        raise InputError(where, f"it has {len(fields)} columns", f"it must have {_COLUMNS}: timestamp and 18 numbers")
    if not min(numbers[0], numbers[1]) > 0 or not all(math.isfinite(number) for number in numbers[:4]):
        found = f"focal lengths are {numbers[0]:g} and {numbers[1]:g}"
        raise InputError(where, found, "give them above 0, divided by width and height")
    return fields[0], numbers


def _frame(path: Path, timestamp: str) -> Path | None:
    """The frame's file, None if it is not there."""
    folders = (path.with_suffix(""), path.parent, path.parent / "images", path.parent / "frames")
    found = (find_photo(folder, timestamp) for folder in folders if folder.is_dir())
    return next((photo for photo in found if photo is not None), None)


def _view(
    timestamp: str, numbers: tuple[float, ...], image: Path | None, usual: tuple[int, int], path: Path
) -> PosedView:
    """A frame with its camera, K in pixels of the frame (of the usual size where there is none)."""
    height, width = usual if image is None else media.image_size(image)
    fx, fy, cx, cy = numbers[:4]
    c2w = _pose(numbers[6:], f"frame {timestamp} of {path}")
    K = intrinsics_matrix(fx * width, fy * height, cx * width, cy * height)
    return PosedView(name=timestamp, c2w=c2w, K=K, height=height, width=width, image=image)


def _pose(numbers: tuple[float, ...], where: str) -> Float[Tensor, "4 4"]:
    """Camera-to-world from the rows of [R t]."""
    w2c = torch.eye(4, dtype=torch.float64)
    w2c[:3] = torch.tensor(numbers, dtype=torch.float64).view(3, 4)
    check_pose(w2c, where)
    return torch.linalg.inv(w2c)
