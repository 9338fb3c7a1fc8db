"""Real spherical harmonics as 3D Gaussian splatting stores view-dependent colour.

    colour(v) = max(0, sum_k b_k(v) c_k + 1/2),   v = (mean - camera centre) / |mean - camera centre|,

with the basis, order and signs of Kerbl et al. 2023, "3D Gaussian splatting for real-time radiance field
rendering" (and of gsplat), degrees 0 to 4.

Shapes: N Gaussians, S = (degree + 1)^2 coefficients.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

MAX_DEGREE = 4
C0 = 0.5 / math.sqrt(math.pi)


def _root(a: int, b: int) -> float:
    """sqrt(a / (b pi))."""
    return math.sqrt(a / (b * math.pi))


def basis(v: Float[Tensor, "*N 3"], degree: int) -> Float[Tensor, "*N S"]:
    """The (degree + 1)^2 basis functions at unit vectors `v`."""
    x, y, z = v.unbind(-1)
    xx, yy, zz = x * x, y * y, z * z
    by_degree = [
        lambda: [torch.full_like(x, C0)],
        lambda: [-_root(3, 4) * y, _root(3, 4) * z, -_root(3, 4) * x],
        lambda: [
            _root(15, 4) * x * y,
            -_root(15, 4) * y * z,
            _root(5, 16) * (2 * zz - xx - yy),
            -_root(15, 4) * x * z,
            _root(15, 16) * (xx - yy),
        ],
        lambda: [
            -_root(35, 32) * y * (3 * xx - yy),
            _root(105, 4) * x * y * z,
            -_root(21, 32) * y * (4 * zz - xx - yy),
            _root(7, 16) * z * (2 * zz - 3 * xx - 3 * yy),
            -_root(21, 32) * x * (4 * zz - xx - yy),
            _root(105, 16) * z * (xx - yy),
            -_root(35, 32) * x * (xx - 3 * yy),
        ],
        lambda: [
            _root(315, 16) * x * y * (xx - yy),
            -_root(315, 32) * y * z * (3 * xx - yy),
            _root(45, 16) * x * y * (7 * zz - 1),
            -_root(45, 32) * y * z * (7 * zz - 3),
            _root(9, 256) * (35 * zz * zz - 30 * zz + 3),
            -_root(45, 32) * x * z * (7 * zz - 3),
            _root(45, 64) * (xx - yy) * (7 * zz - 1),
            -_root(315, 32) * x * z * (xx - 3 * yy),
            _root(315, 256) * (xx * (xx - 3 * yy) - yy * (3 * xx - yy)),
        ],
    ]
    return torch.stack([b for functions in by_degree[: degree + 1] for b in functions()], -1)


def degree_of(sh: Float[Tensor, "N 3 S"]) -> int:
    """The highest degree for which coefficients are stored."""
    return math.isqrt(sh.shape[-1]) - 1


def colours(
    means: Float[Tensor, "N 3"],
    sh: Float[Tensor, "N 3 S"],
    centre: Float[Tensor, "3"],
    degree: int,
    axes: tuple[int, int, int] = (0, 1, 2),
) -> Float[Tensor, "N 3"]:
    """Colour of every Gaussian seen from an optical centre, >= 0, not clamped above.

    Args:
        means: positions in world units.
        sh: coefficients; those above `degree` are ignored.
        centre: optical centre in world units.
        degree: highest degree to evaluate; at most the stored one is used.
        axes: which components of the direction serve as x, y, z; (2, 0, 1) for MVSplat.
    """
    degree = min(degree, degree_of(sh))
    v = torch.nn.functional.normalize(means - centre, dim=-1)[:, list(axes)]
    weights = basis(v, degree)
    return (sh[..., : weights.shape[-1]] @ weights[..., None])[..., 0].add(0.5).clamp_min(0)


def sh_from_rgb(rgb: Float[Tensor, "N 3"]) -> Float[Tensor, "N 3 1"]:
    """Degree-0 coefficients of a colour that is the same from every direction."""
    return ((rgb - 0.5) / C0)[..., None]
