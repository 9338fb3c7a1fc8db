"""The two conventions for MVSplat's colour coefficients: rotation and evaluation.

**Rotation.** The head predicts spherical harmonics in the camera's frame; the original rotates them into world axes
with e3nn's Wigner matrices. e3nn's basis e is ours (`gaussians.harmonics`, b) with the axes permuted and some signs
flipped,

    e_k(x, y, z) = (-1)^k b_k(z, x, y),      e(R v) = D(R) e(v)  for all v,      c_world = D c_camera

so D follows from e at enough directions by least squares, degree by degree.

**Evaluation.** The original's rasteriser evaluates c_world with b at (z, x, y), *without* the signs, up to degree 3.
(So rotation and evaluation are not quite consistent; the weights were trained with that.) With
b(z, x, y) = M b(x, y, z),

    sum_k b_k(z, x, y) c_k = sum_k b_k(x, y, z) (M^T c)_k,

so M^T c are coefficients for any renderer of 3D Gaussian splatting.

Shapes: V views, S = (degree + 1)^2 coefficients.
"""

from __future__ import annotations

from functools import lru_cache

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from sphinx_nvs.models.gaussians.harmonics import basis

RENDERED_DEGREE = 3
NUM_DIRECTIONS = 120
AXES = (2, 0, 1)


def rotations_of_harmonics(R: Float[Tensor, "V 3 3"], degree: int) -> Float64[Tensor, "V S S"]:
    """D(R) of every rotation, block diagonal."""
    v = _directions()
    size = (degree + 1) ** 2
    D = torch.zeros(len(R), size, size, dtype=torch.float64)
    turned = torch.einsum("vij,nj->vni", R.double().cpu(), v)
    before, after = _basis_e3nn(v, degree), _basis_e3nn(turned, degree)
    for block in _blocks(degree):
        D[:, block, block] = (torch.linalg.pinv(before[:, block]) @ after[..., block]).transpose(1, 2)
    return D


@lru_cache
def rendered_from_mvsplat(degree: int) -> Float64[Tensor, "S3 S"]:
    """M^T without the degrees that the original does not render: rendered x stored coefficients."""
    v = _directions()
    rendered = min(degree, RENDERED_DEGREE)
    size = (rendered + 1) ** 2
    M_T = torch.zeros(size, (degree + 1) ** 2, dtype=torch.float64)
    ours, theirs = basis(v, rendered), basis(v[:, list(AXES)], rendered)
    for block in _blocks(rendered):
        M_T[block, block] = torch.linalg.pinv(ours[:, block]) @ theirs[:, block]
    return M_T


def _basis_e3nn(v: Float64[Tensor, "*N 3"], degree: int) -> Float64[Tensor, "*N S"]:
    """e(v)."""
    values = basis(v[..., list(AXES)], degree)
    signs = 1.0 - 2.0 * (torch.arange(values.shape[-1]) % 2)
    return values * signs


def _blocks(degree: int) -> list[slice]:
    """Index range of each degree's coefficients."""
    return [slice(k * k, (k + 1) ** 2) for k in range(degree + 1)]


@lru_cache
def _directions() -> Float64[Tensor, "n 3"]:
    """Unit vectors spread over the sphere, on a spiral."""
    k = torch.arange(NUM_DIRECTIONS, dtype=torch.float64) + 0.5
    z = 1 - 2 * k / NUM_DIRECTIONS
    angle = torch.pi * (3 - 5**0.5) * k
    radius = (1 - z * z).sqrt()
    return torch.stack([radius * angle.cos(), radius * angle.sin(), z], -1)
