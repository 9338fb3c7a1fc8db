"""Do frames agree with one another? Each frame is warped into its neighbour by depth, and colours are compared.

A pixel x of frame i with depth z is the point X = c2w_i (z K_i^-1 x); in frame j it is seen at x' = K_j w2c_j X. Where
x' lies inside frame j and the depth there is that of X (within `SAME_DEPTH`, relatively: nothing hides it), the error
is the absolute difference of colours, mean over channels.

What a moving camera really sees agrees only up to highlights and sampling, so the truth's own error, by the same depth,
is the yardstick: a method's excess over it is what counts.

Shapes: V views in the order of the path, H W pixels, P = V - 1 pairs of neighbours.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from sphinx_nvs.geometry.cameras import Cameras
from sphinx_nvs.geometry.projection import project, unproject

SAME_DEPTH = 0.05
"""Two depths are of the same surface if they differ by less than this part."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Warp:
    """Where each frame but the last is seen in its successor.

    Args:
        grid: places in the successor, in [-1, 1] as `grid_sample` wants them.
        visible: pixels whose point the successor sees.
    """

    grid: Float[Tensor, "P H W 2"]
    visible: Bool[Tensor, "P H W"]


def neighbour_warp(depth: Float[Tensor, "V H W"], cameras: Cameras, known: Bool[Tensor, "V H W"] | None = None) -> Warp:
    """The warp between neighbours along a path.

    Args:
        depth: z-depth in world units.
        cameras: one per depth map, at its size.
        known: pixels whose depth can be trusted; None is all.
    """
    here, there = cameras[:-1], cameras[1:]
    points = unproject(here, depth[:-1].to(here.c2w)).flatten(1, 2)
    pixels, z = project(there, points)
    height, width = depth.shape[1:]
    grid = 2 * pixels / pixels.new_tensor([width, height]) - 1
    grid = grid.view(-1, height, width, 2).nan_to_num(2, 2, 2)
    expected = z.view(-1, height, width)
    found = _sample(depth[1:, None].to(grid), grid, "nearest")[:, 0]
    inside = (grid.abs() < 1).all(-1) & (expected > 0)
    visible = inside & ((found - expected).abs() < SAME_DEPTH * expected)
    if known is not None:
        visible &= known[:-1] & (_sample(known[1:, None].to(grid), grid, "nearest")[:, 0] > 0.5)
    return Warp(grid=grid, visible=visible)


def _sample(images: Float[Tensor, "P C H W"], grid: Float[Tensor, "P H W 2"], mode: str) -> Float[Tensor, "P C H W"]:
    return F.grid_sample(images, grid, mode=mode, padding_mode="border", align_corners=False)


def warp_error(frames: Float[Tensor, "V 3 H W"], warp: Warp) -> float | None:
    """Mean absolute colour difference between each frame and its successor seen from it; None if nothing is shared."""
    if not bool(warp.visible.any()):
        return None
    seen = _sample(frames[1:].to(warp.grid), warp.grid, "bilinear")
    error = (seen - frames[:-1].to(seen)).abs().mean(1)
    return float(error[warp.visible].mean())


@torch.inference_mode()
def reprojection_error(
    frames: Float[Tensor, "V 3 H W"],
    depth: Float[Tensor, "V H W"],
    cameras: Cameras,
    known: Bool[Tensor, "V H W"] | None = None,
) -> float | None:
    """How much frames of a path disagree with their neighbours, in [0, 1]; None if no pixel is shared.

    Args:
        frames: sRGB in [0, 1], in the order of the path.
        depth: z-depth in world units of the same views: the truth's where it is known, else the render's.
        cameras: one per frame.
        known: pixels whose depth can be trusted; None is all.
    """
    if len(frames) < 2:
        return None
    return warp_error(frames, neighbour_warp(depth, cameras, known))
