"""Backward warping with an occlusion test: what each context view shows at a target's depth.

A target pixel of inverse depth W projects into a context view at p = A (x, y, 1) + W b with z-depth p[2] / W.
The context view's own inverse depth there is w: a positive excess (p[2] / W) w - 1 means that its surface occludes the
point, and visibility falls as exp(-excess / softness).

Shapes: C context views of h x w pixels, H W target pixels.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from sphinx_nvs.models.planesweep.splatting import MAX_EXCESS, pixel_grid


@dataclass(frozen=True)
class Warp:
    """The context views sampled through the target's depth.

    Args:
        rgb: sampled colours, [0, 1].
        in_view: 1 where the point projects into the context image, else 0.
        visible: `in_view` times the soft occlusion test, [0, 1].
    """

    rgb: Float[Tensor, "C 3 H W"]
    in_view: Float[Tensor, "C H W"]
    visible: Float[Tensor, "C H W"]


def warp_to_target(
    images: Float[Tensor, "C 3 h w"],
    inverse_depth: Float[Tensor, "C h w"],
    A: Float[Tensor, "C 3 3"],
    b: Float[Tensor, "C 3"],
    target_inverse_depth: Float[Tensor, "H W"],
    softness: float,
) -> Warp:
    """Samples all context views bicubically at the target's surface.

    Args:
        images: context colours.
        inverse_depth: maps of the context views, > 0.
        A: linear part of each homography from target to context.
        b: translation part of each homography.
        target_inverse_depth: > 0 everywhere.
        softness: relative depth excess at which visibility falls to 1/e.
    """
    height, width = target_inverse_depth.shape
    A, b = A.to(images), b.to(images)
    w = target_inverse_depth.reshape(1, 1, -1)
    p = A @ pixel_grid(images, height, width) + b[..., None] * w
    size = torch.tensor([images.shape[-1], images.shape[-2]], device=images.device, dtype=images.dtype)
    place = p[:, :2] / p[:, 2:].clamp_min(1e-6) * (2 / size).view(1, 2, 1) - 1
    grid = place.transpose(1, 2).reshape(len(images), height, width, 2).clamp(-3, 3)
    rgb = F.grid_sample(images, grid, mode="bicubic", padding_mode="border", align_corners=False).clamp(0, 1)
    # Nearest: at the edge of an object a mean of two depths would occlude neither side.
    own = F.grid_sample(inverse_depth[:, None], grid, mode="nearest", padding_mode="border", align_corners=False)
    depth = (p[:, 2] / w[0]).view(-1, height, width)
    in_view = ((grid.abs() < 1).all(-1) & (depth > 0)).to(images)
    excess = (depth * own[:, 0] - 1).clamp(0, MAX_EXCESS)
    return Warp(rgb, in_view, in_view * torch.exp(-excess / softness))
