"""MVSNet's cameras: `cams/00000000_cam.txt` with photos of the same number.

A file holds the word `extrinsic` and four rows of world-to-camera (OpenCV axes), the word `intrinsic` and three rows of
K in pixels, and depths. K may be for a quarter or half of the photo's size, as in the DTU training set: its principal
point tells. Reference: Yao et al., "MVSNet", 2018.
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
from sphinx_nvs.scene.capture import Capture
from sphinx_nvs.scene.jsonfile import check_last_row
from sphinx_nvs.scene.photos import find_photo
from sphinx_nvs.scene.readers.entries import Entry, by_name, capture_of, photo_or_refusal
from sphinx_nvs.scene.textfile import read_text

_CAMS = ("cams", "cams_1", "cameras")
_IMAGES = ("images", "blended_images", "images_1", "images_post", "rgb")
_SUFFIX = "_cam.txt"
_SCALES = (1, 2, 4, 8)


def cams_folder(folder: Path) -> Path | None:
    """The folder of such files, None if there is none."""
    return next((folder / name for name in _CAMS if _files(folder / name)), None)


def _files(cams: Path) -> list[Path]:
    """The files of cameras, without those that macOS adds to archives (`._00000000_cam.txt`)."""
    return sorted(path for path in cams.glob(f"*{_SUFFIX}") if not path.name.startswith("."))


def read_mvsnet(cams: Path) -> Capture:
    """Reads the cameras of a folder and the photos beside it.

    Raises:
        InputError: a file cannot be understood, or a photo is missing.
    """
    folders = [cams.parent / name for name in _IMAGES if (cams.parent / name).is_dir()]
    entries = []
    for path in _files(cams):
        name, where = path.name.removesuffix(_SUFFIX), f"file {path}"
        found = next((photo for folder in folders if (photo := find_photo(folder, name)) is not None), None)
        image = photo_or_refusal(found, where, f"{name}.jpg")
        w2c, K = _matrices(path)
        check_pose(w2c, where)
        size = media.image_size(image, oriented=False)
        entries.append(
            Entry(name=image.name, c2w=torch.linalg.inv(w2c), K=_scaled(K, size, where), size=size, image=image)
        )
    return capture_of(by_name(entries), path=cams.parent, name=cams.parent.resolve().name, layout="MVSNet cameras")


def _matrices(path: Path) -> tuple[Float[Tensor, "4 4"], Float[Tensor, "3 3"]]:
    words = read_text(path).split()
    hint = "it must read: extrinsic, 4 rows of 4 numbers, intrinsic, 3 rows of 3 numbers"
    try:
        e, i = words.index("extrinsic"), words.index("intrinsic")
        extrinsic = torch.tensor([float(w) for w in words[e + 1 : e + 17]], dtype=torch.float64).view(4, 4)
        K = torch.tensor([float(w) for w in words[i + 1 : i + 10]], dtype=torch.float64).view(3, 3)
    except (ValueError, RuntimeError) as error:
        raise InputError(f"file {path}", "it cannot be understood", hint) from error
    check_last_row(extrinsic, f"file {path}", "extrinsic")
    return extrinsic, K


def _scaled(K: Float[Tensor, "3 3"], size: tuple[int, int], where: str) -> Float[Tensor, "3 3"]:
    """K at the photo's size, by the scale that brings its principal point to the middle."""
    cx, cy = float(K[0, 2]), float(K[1, 2])
    height, width = size
    if not (cx > 0 and cy > 0 and math.isfinite(cx + cy)):
        raise InputError(where, f"its principal point is ({cx:g}, {cy:g})", "give it in pixels")
    scale = min(
        _SCALES, key=lambda scale: abs(math.log(scale * 2 * cx / width)) + abs(math.log(scale * 2 * cy / height))
    )
    if max(abs(scale * 2 * cx / width - 1), abs(scale * 2 * cy / height - 1)) > 0.3:
        found = f"its principal point ({cx:g}, {cy:g}) is not in the middle of a photo of {width}x{height}"
        raise InputError(where, found, "give the photos that the cameras were made for")
    return K * K.new_tensor([[scale], [scale], [1]])
