"""Confidence of a depth map: agreement with the views it was matched against, and with its neighbours.

A pixel of inverse depth w lands in a source view with inverse depth w' (see `splatting`). If the source's own
map says w_s there, their difference in plane spacings, brought back to the reference, is

    e = |w_s - w'| / step,   consistency = max over sources of exp(-(e / 1.5)^2).

Repeated texture gives matches that both views agree on and that are wrong together; they come in small
patches. So a pixel q also needs confident neighbours p at a similar depth:

    support(q) = min(1, 2 mean_p c_p exp(-((w_p - w_q) / (0.05 median w))^2)).

Shapes: V views, H W pixels.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from sphinx_nvs.geometry.cameras import Cameras
from sphinx_nvs.models.planesweep import support_kernels
from sphinx_nvs.models.planesweep.splatting import homography, pixel_grid
from sphinx_nvs.nn.row_bands import in_bands

TOLERANCE = 1.5  # in plane spacings
SUPPORT_RADIUS, SUPPORT_STRIDE = 6, 2  # the neighbours of a pixel, in pixels
SUPPORT_TOLERANCE = 0.05  # of the median inverse depth
SUPPORT_NEEDED = 0.5  # mean support that counts as full


def consistency(
    inverse_depth: Float[Tensor, "V H W"], cameras: Cameras, sources: Sequence[Sequence[int]], step: float
) -> Float[Tensor, "V H W"]:
    """How well the best source of each view agrees with each of its pixels, [0, 1].

    Args:
        inverse_depth: maps of all views.
        cameras: cameras of all views.
        sources: per view, the views it was matched against.
        step: spacing of the planes in inverse depth.
    """
    return torch.stack(
        [
            torch.stack([_agreement(inverse_depth, cameras, view, other, step) for other in others]).amax(0)
            for view, others in enumerate(sources)
        ]
    )


def _agreement(
    inverse_depth: Float[Tensor, "V H W"], cameras: Cameras, view: int, other: int, step: float
) -> Float[Tensor, "H W"]:
    """Agreement of one view with one source; 0 where pixels project outside the source."""
    height, width = inverse_depth.shape[1:]
    own = inverse_depth[view]
    A, b = homography(cameras.K[view], cameras.c2w[view], cameras.K[other], cameras.c2w[other])
    p = A.to(own) @ pixel_grid(own, height, width) + b.to(own)[:, None] * own.reshape(-1)
    scale = p[2].clamp_min(1e-6)
    size = own.new_tensor([width, height])
    # The clamp bounds coordinates that grid_sample would overflow on; they stay outside [-1, 1] and read zeros.
    grid = (p[:2] / scale).T / size * 2 - 1
    theirs = F.grid_sample(
        inverse_depth[other][None, None], grid.clamp(-3, 3)[None, None], mode="nearest", align_corners=False
    ).view(-1)
    error = (theirs - own.reshape(-1) / scale).abs() / step
    agrees = torch.exp(-((error / TOLERANCE) ** 2))
    return torch.where((theirs > 0) & (p[2] > 0), agrees, 0).view(height, width)


def support(
    inverse_depth: Float[Tensor, "V H W"], confidence: Float[Tensor, "V H W"], *, compiled: bool = False
) -> Float[Tensor, "V H W"]:
    """How far a pixel's neighbours confirm it, [0, 1]; pixels beyond the border count as unconfident.

    Args:
        inverse_depth: maps of all views, > 0.
        confidence: each pixel's own confidence, [0, 1].
        compiled: compute by compiled kernels, on the CPU.
    """
    height, width = inverse_depth.shape[1:]
    # In units of the view's median, so that one tolerance serves scenes of any scale.
    relative = inverse_depth / inverse_depth.flatten(1).median(1).values.view(-1, 1, 1)
    trust, depth = (F.pad(part, (SUPPORT_RADIUS,) * 4) for part in (confidence, relative))
    offsets = range(0, 2 * SUPPORT_RADIUS + 1, SUPPORT_STRIDE)
    total = torch.zeros(confidence.shape, dtype=confidence.dtype, device=confidence.device)
    if compiled:
        limits = SUPPORT_RADIUS, SUPPORT_STRIDE, SUPPORT_TOLERANCE
        in_bands(support_kernels.neighbours_support, len(total), trust, depth, *limits, total, fewest=1)
        return (total / (len(offsets) ** 2 * SUPPORT_NEEDED)).clamp_max(1)
    for top in offsets:
        for left in offsets:
            window = (..., slice(top, top + height), slice(left, left + width))
            total += trust[window] * torch.exp(-(((depth[window] - relative) / SUPPORT_TOLERANCE) ** 2))
    return (total / (len(offsets) ** 2 * SUPPORT_NEEDED)).clamp_max(1)
