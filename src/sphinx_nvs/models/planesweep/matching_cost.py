"""Plane-sweep matching cost of one view against others.

For inverse depth w a reference pixel q lands in a source view at A q + w b (see `splatting.homography`). The
cost of a plane mixes the truncated absolute colour difference and the zero-mean normalised
cross-correlation of (2r+1)^2 patches of grey values,

    c = mix min(|I - J| / trunc, 1) + (1 - mix) 0.8 (1 - zncc),     clamped to [0, 1],

and a plane that projects outside the source view costs 0.45: neither a match nor a mismatch. Over several
sources only the better half counts, because an occluded source mismatches at the right depth.

Shapes: D planes, S sources, H W pixels.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from sphinx_nvs.geometry.cameras import Cameras
from sphinx_nvs.models.planesweep.splatting import homography, pixel_grid

OUT_OF_VIEW = 0.45
FLAT = 2e-4  # variance below which a patch counts as flat and its correlation is damped
PLANES_AT_ONCE = 16  # bounds the memory of warped images
LUMA = (0.299, 0.587, 0.114)


@dataclass(frozen=True)
class Patches:
    """Statistics of a reference view's patches, which are shared by all planes."""

    image: Float[Tensor, "3 H W"]
    grey: Float[Tensor, "H W"]
    mean: Float[Tensor, "H W"]
    variance: Float[Tensor, "H W"]
    count: Float[Tensor, "H W"]


def grey_from_rgb(image: Float[Tensor, "*B 3 H W"]) -> Float[Tensor, "*B H W"]:
    """Luma of Rec. 601."""
    return (image * image.new_tensor(LUMA).view(3, 1, 1)).sum(-3)


def box_sum(image: Float[Tensor, "*B H W"], radius: int) -> Float[Tensor, "*B H W"]:
    """Sums over (2 radius + 1)^2 windows, zero outside the image."""
    # Separable: two passes of 2r + 1 additions instead of one of (2r + 1)^2.
    for axis in (-1, -2):
        image = _sliding_sum(image, radius, axis)
    return image


def _sliding_sum(image: Tensor, radius: int, axis: int) -> Tensor:
    """Sums of 2 radius + 1 neighbours along one axis.

    Shifted additions keep float32 accurate, where differences of a cumulative sum would cancel.
    """
    length = image.shape[axis]
    total = image.clone()
    for shift in range(1, min(radius, length - 1) + 1):
        body = length - shift
        total.narrow(axis, 0, body).add_(image.narrow(axis, shift, body))
        total.narrow(axis, shift, body).add_(image.narrow(axis, 0, body))
    return total


def reference_patches(image: Float[Tensor, "3 H W"], radius: int) -> Patches:
    """Means and variances of all patches of a view."""
    grey = grey_from_rgb(image)
    # Windows are cut off at the border: means there are over fewer pixels.
    count = box_sum(torch.ones_like(grey), radius)
    mean = box_sum(grey, radius) / count
    # Rounding can make it negative on flat patches.
    variance = (box_sum(grey * grey, radius) / count - mean * mean).clamp_min(0)
    return Patches(image, grey, mean, variance, count)


def cost_volume(
    patches: Patches,
    reference: Cameras,
    images: Float[Tensor, "S 3 H W"],
    sources: Cameras,
    planes: Float[Tensor, " D"],
    radius: int,
    trunc: float,
    mix: float,
) -> Float[Tensor, "D H W"]:
    """Cost of every plane at every pixel, over the better half of the sources.

    Args:
        patches: statistics of the reference view.
        reference: its camera.
        images: source views.
        sources: their cameras.
        planes: inverse depths.
        radius: radius of the correlation patches, pixels.
        trunc: colour difference at which a mismatch is complete.
        mix: share of the colour difference in the cost, [0, 1].
    """
    moves = [homography(reference.K[0], reference.c2w[0], sources.K[s], sources.c2w[s]) for s in range(len(images))]
    parts = []
    for chunk in planes.split(PLANES_AT_ONCE):
        costs = [
            _cost(patches, image, move, chunk, radius, trunc, mix) for image, move in zip(images, moves, strict=True)
        ]
        parts.append(_mean_of_best_half(torch.stack(costs)))
    return torch.cat(parts)


def _mean_of_best_half(costs: Float[Tensor, "S D H W"]) -> Float[Tensor, "D H W"]:
    """Mean of the lower half of the sources' costs; the sort is skipped where only one is kept."""
    keep = (len(costs) + 1) // 2
    return costs.amin(0) if keep == 1 else costs.sort(0).values[:keep].mean(0)


def _cost(
    patches: Patches,
    image: Float[Tensor, "3 H W"],
    move: tuple[Float[Tensor, "3 3"], Float[Tensor, "3"]],
    planes: Float[Tensor, " D"],
    radius: int,
    trunc: float,
    mix: float,
) -> Float[Tensor, "D H W"]:
    """Cost of a few planes against one source."""
    warped, in_view = _warp_planes(image, move, planes, patches.grey.shape)
    colour = ((warped - patches.image[:, None]).abs().mean(0) / trunc).clamp_max(1)
    correlation = _zncc(patches, grey_from_rgb(warped.transpose(0, 1)), radius)
    cost = mix * colour + (1 - mix) * 0.8 * (1 - correlation)
    return torch.where(in_view, cost.clamp(0, 1), OUT_OF_VIEW)


def _warp_planes(
    image: Float[Tensor, "3 H W"],
    move: tuple[Float[Tensor, "3 3"], Float[Tensor, "3"]],
    planes: Float[Tensor, " D"],
    size: torch.Size,
) -> tuple[Float[Tensor, "3 D H W"], Tensor]:
    """The source warped to the reference for each plane, and where the samples lie inside the source."""
    A, b = (part.to(image) for part in move)
    height, width = image.shape[-2:]
    p = (A @ pixel_grid(image, *size))[:, None] + planes.view(1, -1, 1) * b.view(3, 1, 1)
    z = p[2].clamp_min(1e-6)
    u, v = p[0] / z, p[1] / z
    # Half a pixel inside the border: beyond the outermost pixel centres bilinear samples would repeat the edge.
    in_view = (p[2] > 1e-4) & (u > 0.5) & (u < width - 0.5) & (v > 0.5) & (v < height - 0.5)
    grid = torch.stack([u * (2 / width) - 1, v * (2 / height) - 1], -1).clamp(-3, 3)
    # One tall image: all planes are sampled in one call.
    grid = grid.view(1, len(planes) * size[0], size[1], 2)
    warped = F.grid_sample(image[None], grid, padding_mode="border", align_corners=False)
    shape = (len(planes), *size)
    return warped.view(3, *shape), in_view.view(shape)


def _zncc(patches: Patches, grey: Float[Tensor, "D H W"], radius: int) -> Float[Tensor, "D H W"]:
    """Correlation of reference and warped patches; pulled towards 0.5 / 1 where either is flat."""
    mean = box_sum(grey, radius) / patches.count
    variance = (box_sum(grey * grey, radius) / patches.count - mean * mean).clamp_min(0)
    covariance = box_sum(grey * patches.grey, radius) / patches.count - mean * patches.mean
    return (covariance + 0.5 * FLAT) / ((patches.variance + FLAT) * (variance + FLAT)).sqrt()
