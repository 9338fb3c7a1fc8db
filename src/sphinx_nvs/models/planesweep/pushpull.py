"""Smooth filling of holes by a push-pull pyramid.

Pull: weighted means over 2x2 blocks, level by level, down to one pixel. Push: from coarse to fine,
a pixel keeps k = min(weight, 1) of its own value and takes 1 - k from the upsampled coarser level
(Gortler et al. 1996, "The lumigraph", section 3.4.2).

Shapes: B images, C channels, H W pixels.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor


def push_pull(
    values: Float[Tensor, "B C H W"], weights: Float[Tensor, "B 1 H W"], fallback: Float[Tensor, " C"]
) -> Float[Tensor, "B C H W"]:
    """Fills holes: `values` where weights are 1, blended into their smooth continuation where weights fall to 0.

    Args:
        values: any finite values.
        weights: trust in each value, [0, 1].
        fallback: the fill value for an image whose weights are all 0.
    """
    levels = [(values * weights, weights)]
    while max(levels[-1][0].shape[-2:]) > 1:
        levels.append((_halved(levels[-1][0]), _halved(levels[-1][1])))
    filled = fallback.to(values).view(1, -1, 1, 1).expand(len(values), -1, 1, 1)
    for weighted, weight in reversed(levels):
        coarse = F.interpolate(filled, size=weighted.shape[-2:], mode="bilinear", align_corners=False)
        own = weighted / weight.clamp_min(1e-8)
        # Means over blocks dilute a lone sample's weight; a sample that is present fully determines its block.
        trust = weight if weighted is levels[0][0] else (4 * weight).clamp(0, 1)
        filled = torch.lerp(coarse, own, torch.where(weight > 1e-6, trust, 0))
    return filled


def _halved(image: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C h w"]:
    """Means over 2x2 blocks; a block cut by the border averages the pixels it has."""
    return F.avg_pool2d(image, 2, ceil_mode=True, count_include_pad=False)
