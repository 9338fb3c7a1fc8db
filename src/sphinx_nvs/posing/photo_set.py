"""The photos as they are worked on: upright, at most `LONG_SIDE` pixels, and each with the camera that took it.

Photos of one size and one EXIF model share a camera.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from sphinx_nvs import media
from sphinx_nvs.errors import InputError
from sphinx_nvs.posing.focal_prior import CameraPrior, camera_prior

LONG_SIDE = 1600
"""Photos are scaled down to this many pixels: beyond it features cost time and hardly help."""

_QUALITY = 95


@dataclass(frozen=True, kw_only=True)
class Photo:
    """A photo of the set.

    Args:
        name: the user's, for sentences.
        file: the working copy's name.
        width: of the working copy in pixels.
        height: of the working copy in pixels.
        prior: its camera by EXIF.
        camera: number of the camera that it shares, from 1.
    """

    name: str
    file: str
    width: int
    height: int
    prior: CameraPrior
    camera: int

    @property
    def focal(self) -> float:
        """The focal length to begin with, in pixels of the working copy."""
        return self.prior.pixels(self.width, self.height)


def prepare_photos(
    paths: Sequence[Path], folder: Path, focal_mm: float | None, step: Callable[[int, int], None]
) -> list[Photo]:
    """Writes working copies that are not there yet.

    Args:
        paths: the photos, in order.
        folder: for the copies.
        focal_mm: see `camera_prior`.
        step: receives photos done and to do.

    Raises:
        InputError: a photo cannot be read.
    """
    folder.mkdir(parents=True, exist_ok=True)
    cameras: dict[tuple[int, int, CameraPrior], int] = {}
    photos = []
    for index, path in enumerate(paths):
        copy = folder / f"{index:04d}.jpg"
        if not copy.is_file():
            _write_copy(path, copy)
        height, width = media.image_size(copy)
        prior = camera_prior(path, focal_mm)
        camera = cameras.setdefault((width, height, prior), len(cameras) + 1)
        photos.append(Photo(name=path.name, file=copy.name, width=width, height=height, prior=prior, camera=camera))
        step(index + 1, len(paths))
    _check_size(photos)
    return photos


def _write_copy(path: Path, copy: Path) -> None:
    """The photo as a viewer shows it, scaled down if it is large."""
    height, width = media.image_size(path)
    scale = min(1.0, LONG_SIDE / max(height, width))
    size = max(1, round(height * scale)), max(1, round(width * scale))
    image = media.resize(media.read_image(path, at_least=(2 * size[0], 2 * size[1]))[None], *size)[0]
    levels = media.uint8_from_float(image).permute(1, 2, 0).numpy()
    with media.written_beside(copy) as part:
        Image.fromarray(np.ascontiguousarray(levels)).save(part, format="JPEG", quality=_QUALITY, subsampling=0)


def _check_size(photos: Sequence[Photo]) -> None:
    small = next((photo for photo in photos if min(photo.width, photo.height) < 64), None)
    if small is not None:
        found = f"it is only {small.width}x{small.height} pixels"
        raise InputError(f"photo {small.name}", found, "give photos of at least 64 pixels, better above 500")
