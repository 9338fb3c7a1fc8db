"""Input of the method: posed photos as context, and sometimes ground truth to measure against."""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from sphinx_nvs.errors import InputError
from sphinx_nvs.geometry.cameras import Cameras


@dataclass(frozen=True, kw_only=True)
class Scene:
    """Context views in memory, all of one size.

    Args:
        name: for reports and file names.
        images: sRGB in [0, 1], float32.
        cameras: one per image, of the same height and width.
    """

    name: str
    images: Float[Tensor, "V 3 H W"]
    cameras: Cameras

    def __post_init__(self) -> None:
        shape = (len(self.images), *self.images.shape[-2:])
        wanted = (len(self.cameras), self.cameras.height, self.cameras.width)
        if shape != wanted:
            raise InputError(
                f"scene {self.name}",
                f"images are {shape} (views, height, width) but cameras say {wanted}",
                "give one camera per image, at its size",
            )
