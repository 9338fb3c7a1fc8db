"""A scene as a cloud of anisotropic Gaussians.

Shapes: N Gaussians, S = (degree + 1)^2 spherical-harmonic coefficients, F features.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from sphinx_nvs.errors import InputError
from sphinx_nvs.models.gaussians.harmonics import MAX_DEGREE


@dataclass(frozen=True, kw_only=True)
class Gaussians:
    """N Gaussians in world coordinates.

    Args:
        means: centres, world units.
        covariances: symmetric, positive semi-definite, world units squared.
        opacities: [0, 1].
        sh: colour as spherical harmonics (see `harmonics`), degree 0 to 4.
        features: further channels that are composited like colour, or None.

    Raises:
        InputError: counts differ, a value is not finite, an opacity is outside [0, 1], or the number of coefficients
            matches no degree.
    """

    means: Float[Tensor, "N 3"]
    covariances: Float[Tensor, "N 3 3"]
    opacities: Float[Tensor, " N"]
    sh: Float[Tensor, "N 3 S"]
    features: Float[Tensor, "N F"] | None = None

    def __post_init__(self) -> None:
        for name in ("means", "covariances", "opacities", "sh", "features"):
            value = getattr(self, name)
            if value is None:
                continue
            if len(value) != len(self.means):
                found = f"{len(value)} of them for {len(self.means)} means"
                raise InputError(f"Gaussians.{name}", found, "give one per Gaussian")
            if not torch.isfinite(value).all():
                raise InputError(f"Gaussians.{name}", "a value is NaN or infinite", "give finite values")
        if len(self.opacities) and (self.opacities.min() < 0 or self.opacities.max() > 1):
            raise InputError("Gaussians.opacities", "a value is outside [0, 1]", "give probabilities")
        count = self.sh.shape[-1]
        if math.isqrt(count) ** 2 != count or not 1 <= count <= (MAX_DEGREE + 1) ** 2:
            found = f"{count} coefficients per channel"
            raise InputError("Gaussians.sh", found, f"give (degree + 1)^2 for a degree of 0 to {MAX_DEGREE}")

    def __len__(self) -> int:
        return len(self.means)


def covariances_from_scales(scales: Float[Tensor, "N 3"], rotations: Float[Tensor, "N 3 3"]) -> Float[Tensor, "N 3 3"]:
    """Covariances R diag(s)^2 R^T.

    Args:
        scales: standard deviations along the principal axes, world units.
        rotations: matrices whose columns are the principal axes.
    """
    L = rotations * scales[:, None]
    return L @ L.transpose(1, 2)
