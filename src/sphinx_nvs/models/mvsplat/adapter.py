"""Conversion of the network's raw numbers per pixel into Gaussians in world coordinates.

With o, s, q the raw pixel offset, scales and quaternion (x, y, z, w) of a pixel (i, j), d its depth, E = [R t; 0 1] the
camera-to-world pose and sigma the logistic function,

    x = ((i, j) + 1/2 + sigma(o) - 1/2) / (W, H),    mean = t + d R u / |u|,   u = K^-1 (x, 1)
    scale = (0.5 + 14.5 sigma(s)) d m,   m = 0.1 sum(K_2x2^-1 (1/W, 1/H)),      covariance = R Q S S Q^T R^T

The depth is applied along the unit ray, although the cost volume treats it as z-depth: the released weights were
trained so. Colour coefficients of degree l >= 1 are multiplied by 0.1 / 4^l and rotated into world axes (`sh_axes`).
Reference: MVSplat (Chen et al., 2024), section 3.3; pixelSplat (Charatan et al., 2024), section 4.2.

Shapes: V views, H W pixels, P raw parameters, S colour coefficients, G = V H W Gaussians: view by view, row by row.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from sphinx_nvs.geometry.rays import pixel_centres
from sphinx_nvs.geometry.se3 import rotation_from_quaternion
from sphinx_nvs.models.gaussians import Gaussians
from sphinx_nvs.models.mvsplat.sh_axes import rendered_from_mvsplat, rotations_of_harmonics

LEAST_SCALE, MOST_SCALE = 0.5, 15.0  # standard deviations, in units of d m
PIXEL_SHARE = 0.1


@dataclass(frozen=True)
class RawGaussians:
    """Gaussians as the original passes them to its rasteriser.

    Args:
        means: world units.
        covariances: world units squared.
        harmonics: colour coefficients in the original's axes; see `sh_axes`.
        opacities: [0, 1].
    """

    means: Float[Tensor, "G 3"]
    covariances: Float[Tensor, "G 3 3"]
    harmonics: Float[Tensor, "G 3 S"]
    opacities: Float[Tensor, " G"]

    def cloud(self, features: Float[Tensor, "G F"] | None = None) -> Gaussians:
        """The same Gaussians with colours in the axes of 3D Gaussian splatting renderers, degree 3 at most."""
        degree = round(self.harmonics.shape[-1] ** 0.5) - 1
        sh = self.harmonics @ rendered_from_mvsplat(degree).to(self.harmonics).T
        return Gaussians(
            means=self.means, covariances=self.covariances, opacities=self.opacities, sh=sh, features=features
        )


def gaussians_from_pixels(
    raw: Float[Tensor, "V P H W"],
    depth: Float[Tensor, "V H W"],
    density: Float[Tensor, "V H W"],
    c2w: Float[Tensor, "V 4 4"],
    K_norm: Float[Tensor, "V 3 3"],
) -> RawGaussians:
    """One Gaussian per pixel of every view.

    Args:
        raw: offset 2, scale 3, quaternion 4, then colour.
        depth: distance along the ray, world units.
        density: the opacity, [0, 1].
        c2w: camera-to-world poses.
        K_norm: intrinsics divided by width and height.
    """
    offset, scale, quaternion, colour = raw.movedim(1, -1).split([2, 3, 4, raw.shape[1] - 9], -1)
    return RawGaussians(
        means=_means(offset, depth, c2w, K_norm).flatten(0, 2),
        covariances=_covariances(scale, quaternion, depth, c2w, K_norm).flatten(0, 2),
        harmonics=_harmonics(colour, c2w).flatten(0, 2),
        opacities=density.flatten(),
    )


def _means(
    offset: Float[Tensor, "V H W 2"],
    depth: Float[Tensor, "V H W"],
    c2w: Float[Tensor, "V 4 4"],
    K_norm: Float[Tensor, "V 3 3"],
) -> Float[Tensor, "V H W 3"]:
    H, W = depth.shape[-2:]
    centres = pixel_centres(H, W).to(offset)
    size = offset.new_tensor([W, H])
    xy = (centres[..., :2] + offset.sigmoid() - 0.5) / size
    u = torch.cat([xy, torch.ones_like(xy[..., :1])], -1)
    rays = torch.einsum("vij,vhwj->vhwi", torch.linalg.inv(K_norm), u)
    rays = rays / rays.norm(dim=-1, keepdim=True)
    turned = torch.einsum("vij,vhwj->vhwi", c2w[:, :3, :3], rays)
    return c2w[:, None, None, :3, 3] + depth[..., None] * turned


def _covariances(
    scale: Float[Tensor, "V H W 3"],
    quaternion: Float[Tensor, "V H W 4"],
    depth: Float[Tensor, "V H W"],
    c2w: Float[Tensor, "V 4 4"],
    K_norm: Float[Tensor, "V 3 3"],
) -> Float[Tensor, "V H W 3 3"]:
    H, W = depth.shape[-2:]
    pixel = K_norm.new_tensor([1 / W, 1 / H])
    m = PIXEL_SHARE * (torch.linalg.inv(K_norm[:, :2, :2]) @ pixel).sum(-1)
    S = (LEAST_SCALE + (MOST_SCALE - LEAST_SCALE) * scale.sigmoid()) * (depth * m[:, None, None])[..., None]
    unit = quaternion / (quaternion.norm(dim=-1, keepdim=True) + 1e-8)
    Q = rotation_from_quaternion(unit.roll(1, -1))  # (x, y, z, w) to (w, x, y, z)
    L = c2w[:, None, None, :3, :3] @ (Q * S[..., None, :])
    return L @ L.transpose(-1, -2)


def _harmonics(colour: Float[Tensor, "V H W K"], c2w: Float[Tensor, "V 4 4"]) -> Float[Tensor, "V H W 3 S"]:
    """Coefficients damped by degree and rotated into world axes."""
    coefficients = colour.unflatten(-1, (3, -1))
    degree = round(coefficients.shape[-1] ** 0.5) - 1
    # As in training: view-dependent colour starts almost switched off, more so the higher its degree.
    damping = [1.0] + [0.1 * 0.25**k for k in range(1, degree + 1) for _ in range(2 * k + 1)]
    D = rotations_of_harmonics(c2w[:, :3, :3], degree) * torch.tensor(damping, dtype=torch.float64)
    return torch.einsum("vij,vhwcj->vhwci", D.to(coefficients), coefficients)
