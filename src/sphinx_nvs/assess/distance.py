"""How far the target camera is from the nearest photo of each pixel's point.

A point at z-depth z of a target camera at o, seen by context cameras at o_c, is judged by the shortest baseline among
those whose picture it falls into, in units of its depth:

    distance = min over c that see it of |o - o_c| / z,     at most 1; 1 if none sees it

A small distance means that a photo showed the point from nearly the same side at nearly the same scale. Whether a point
is hidden in a context view is not tested: with a depth buffer made of the render itself the signal predicted neither
true errors nor what diffusion changes any better (docs/reports/assessment.md).

Shapes: V target views, C context views, H W pixels.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from sphinx_nvs.geometry.cameras import Cameras
from sphinx_nvs.geometry.rays import pixel_centres

FARTHEST = 1.0
"""Distance of a point that no context view sees; a baseline as long as the depth is no better."""


def context_distance(context: Cameras, targets: Cameras, depth: Float[Tensor, "V H W"]) -> Float[Tensor, "V H W"]:
    """Baseline over depth to the nearest context camera that sees each pixel's point, [0, 1].

    Args:
        context: the posed photos.
        targets: one camera per depth map, of its size.
        depth: z-depth in world units, positive and finite.
    """
    return torch.stack([_of_view(context, targets[view], depth[view]) for view in range(len(depth))])


def _of_view(context: Cameras, target: Cameras, depth: Float[Tensor, "H W"]) -> Float[Tensor, "H W"]:
    """One target's map; the matrices are made in double precision, the pixels follow in the depth's own."""
    pixels = pixel_centres(*depth.shape).reshape(-1, 3).T.to(depth)
    A, b = _pixels_from_pixels(context, target)
    p = A.to(depth) @ pixels * depth.reshape(-1) + b.to(depth)
    u, v, z = p[:, 0], p[:, 1], p[:, 2]
    # Compared before the division by z: no infinities, and points behind the camera fail the first test.
    seen = (z > 0) & (u >= 0) & (u < context.width * z) & (v >= 0) & (v < context.height * z)
    baseline = (context.centres - target.centres).norm(dim=1, keepdim=True).to(depth)
    return torch.where(seen, baseline / depth.reshape(-1), FARTHEST).amin(0).clamp_max(FARTHEST).view(depth.shape)


def _pixels_from_pixels(context: Cameras, target: Cameras) -> tuple[Float[Tensor, "C 3 3"], Float[Tensor, "C 3 1"]]:
    """A and b with z_c (u_c, v_c, 1) = A (u, v, 1) z + b from the target's pixels to each context view's."""
    turn = context.K @ context.c2w[:, :3, :3].transpose(1, 2)
    A = turn @ target.c2w[:, :3, :3] @ torch.linalg.inv(target.K)
    return A, turn @ (target.centres - context.centres)[..., None]
