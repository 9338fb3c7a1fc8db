"""Multi-view consistency: each frame is warped into its neighbour by depth, and colours are compared.

A pixel x of frame i with depth z is the point X = c2w_i (z K_i^-1 x); in frame j it projects to x' = K_j w2c_j X. If x'
is inside frame j and the depth there is that of X (within `SAME_DEPTH`, relative: nothing occludes it), the error is
the absolute difference of colours, mean over channels.

A real camera's frames agree only up to highlights and sampling, so the held-out photos' own error, by the same depth,
is the reference: a method's excess over it counts.

Shapes: V views in path order, H W pixels, P = V - 1 pairs of neighbours.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from sphinx_nvs.geometry.cameras import Cameras
from sphinx_nvs.geometry.projection import project, unproject

SAME_DEPTH = 0.05
"""Relative depth difference below which two depths belong to the same surface."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Warp:
    """Positions of frames' pixels in other frames.

    Args:
        grid: positions in the other frame, in [-1, 1] as `grid_sample` takes them.
        visible: pixels whose point is visible in the other frame.
    """

    grid: Float[Tensor, "P H W 2"]
    visible: Bool[Tensor, "P H W"]


def warp_between(
    depth: Float[Tensor, "P H W"], cameras: Cameras, other_depth: Float[Tensor, "P H W"], other_cameras: Cameras
) -> Warp:
    """Projects the pixels of each frame into the corresponding frame of `other_cameras`; depths in world units."""
    points = unproject(cameras, depth.to(cameras.c2w)).flatten(1, 2)
    pixels, z = project(other_cameras, points)
    height, width = depth.shape[1:]
    grid = 2 * pixels / pixels.new_tensor([width, height]) - 1
    # Points in the other camera's plane project to infinity: outside, like everything above 1.
    grid = grid.view(-1, height, width, 2).nan_to_num(2, 2, 2)
    expected = z.view(-1, height, width)
    # Nearest, not bilinear: between two surfaces a mean depth belongs to neither.
    found = _sample(other_depth[:, None].to(grid), grid, "nearest")[:, 0]
    inside = (grid.abs() < 1).all(-1) & (expected > 0)
    return Warp(grid=grid, visible=inside & ((found - expected).abs() < SAME_DEPTH * expected))


def neighbour_warp(depth: Float[Tensor, "V H W"], cameras: Cameras, known: Bool[Tensor, "V H W"] | None = None) -> Warp:
    """The warp of each frame but the last into its successor along a path.

    Args:
        depth: z-depth in world units.
        cameras: one per depth map, at its size.
        known: pixels with reliable depth; None means all.
    """
    warp = warp_between(depth[:-1], cameras[:-1], depth[1:], cameras[1:])
    if known is None:
        return warp
    trusted = known[:-1] & (_sample(known[1:, None].to(warp.grid), warp.grid, "nearest")[:, 0] > 0.5)
    return replace(warp, visible=warp.visible & trusted)


def seen_through(images: Float[Tensor, "P C H W"], warp: Warp) -> Float[Tensor, "P C H W"]:
    """Samples the other frames at the frames' own pixels; edge colours extend outside."""
    return _sample(images.to(warp.grid), warp.grid, "bilinear")


def _sample(images: Float[Tensor, "P C H W"], grid: Float[Tensor, "P H W 2"], mode: str) -> Float[Tensor, "P C H W"]:
    return F.grid_sample(images, grid, mode=mode, padding_mode="border", align_corners=False)


def warp_error(frames: Float[Tensor, "V 3 H W"], warp: Warp) -> float | None:
    """Mean absolute colour difference between each frame and its warped successor; None if no pixel is shared."""
    if not bool(warp.visible.any()):
        return None
    seen = seen_through(frames[1:], warp)
    error = (seen - frames[:-1].to(seen)).abs().mean(1)
    return float(error[warp.visible].mean())


@torch.inference_mode()
def reprojection_error(
    frames: Float[Tensor, "V 3 H W"],
    depth: Float[Tensor, "V H W"],
    cameras: Cameras,
    known: Bool[Tensor, "V H W"] | None = None,
) -> float | None:
    """Disagreement of a path's frames with their neighbours, in [0, 1]; None if no pixel is shared.

    Args:
        frames: sRGB in [0, 1], in path order.
        depth: z-depth of the same views in world units: ground truth if known, else the render's.
        cameras: one per frame.
        known: pixels with reliable depth; None means all.
    """
    if len(frames) < 2:
        return None
    return warp_error(frames, neighbour_warp(depth, cameras, known))
