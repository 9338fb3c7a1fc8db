"""Intrinsics meet the photo they belong to: sizes are compared once, here, for every reader.

Shapes: H W pixels.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from sphinx_nvs import media
from sphinx_nvs.errors import InputError

MOST_PIXELS = 1 << 20
"""Sides beyond this are no image's."""

_ASPECT_TOLERANCE = 0.01
_ROUNDING = 0.2
"""Most of a side that rounding to whole pixels may change."""


@dataclass(frozen=True, kw_only=True)
class Fitted:
    """Intrinsics in pixels of the photo as it will be read; see `media.read_image` for `oriented`."""

    K: Float[Tensor, "3 3"]
    height: int
    width: int
    oriented: bool = True


def intrinsics_matrix(fx: float | int, fy: float | int, cx: float | int, cy: float | int) -> Float[Tensor, "3 3"]:
    """The intrinsic matrix, float64; units as given."""
    return torch.tensor([[fx, 0, cx], [0, fy, cy], [0, 0, 1]], dtype=torch.float64)


def fit_to_image(K: Float[Tensor, "3 3"], size: tuple[int, int], image: Path, where: str) -> tuple[Fitted, ...]:
    """Intrinsics given for an image of `size` (height, width), brought to the photo's real size.

    A photo that is only scaled (same aspect within 1 % or 1 pixel) rescales K.

    Returns:
        The ways to read the photo that its size permits: turned by its EXIF orientation, as viewers do, and as stored.
        A photo without orientation has one; `orientation.settled` chooses where there are two.

    Raises:
        InputError: the photo is missing or unreadable, or has another aspect than the cameras say.
    """
    ways = readings(image)
    fitting = [oriented for oriented in ways if _same_aspect(size, ways[oriented])]
    if fitting:
        return tuple(_rescaled(K, size, ways[oriented], oriented=oriented) for oriented in fitting)
    found = ways[True]
    raise InputError(
        f"image {image}",
        f"it is {found[1]}x{found[0]} pixels but its camera in {where} is for {size[1]}x{size[0]}",
        "give the photos that the cameras were made from, or correct w, h and the intrinsics",
    )


def readings(image: Path) -> dict[bool, tuple[int, int]]:
    """Height and width of a photo by whether its EXIF orientation is applied; one entry where it has none."""
    turned = media.image_size(image)
    if media.orientation(image) == media.UPRIGHT:
        return {True: turned}
    return {True: turned, False: media.image_size(image, oriented=False)}


def _same_aspect(a: tuple[int, int], b: tuple[int, int]) -> bool:
    """Whether one size is the other one scaled, up to rounding to whole pixels."""
    height = b[1] * a[0] / a[1]
    # A photo of a few pixels is no scaled image, whatever its aspect rounds to.
    return abs(height - b[0]) <= max(min(1.0, _ROUNDING * b[0]), _ASPECT_TOLERANCE * b[0])


def _rescaled(K: Float[Tensor, "3 3"], size: tuple[int, int], found: tuple[int, int], *, oriented: bool) -> Fitted:
    scale = K.new_tensor([found[1] / size[1], found[0] / size[0], 1.0]).view(3, 1)
    return Fitted(K=K * scale, height=found[0], width=found[1], oriented=oriented)
