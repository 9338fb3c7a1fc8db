"""Regions in which metrics are computed: unseen pixels, cells that the rules refine, the band around them, the rest.

    unseen      alpha times confidence, averaged over 5x5 pixels, below 0.5: pixels that the regressor guesses
    masked      cells that the rules refine at quality 0.95, whichever method is measured
    boundary    within `BAND_PX` pixels of those: where seams could appear
    rest        neither masked nor boundary

The last three partition an image; `unseen` overlaps them, mostly `masked`.

Shapes: V target views, H W pixels, h w latent cells.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from sphinx_nvs.models.base import Render

UNSEEN = 0.5
"""A pixel counts as unseen if the render's alpha times confidence is below this."""

BAND_PX = 16
"""Width of the band around masked regions, in pixels."""

WHOLE = "whole"
REGIONS = ("unseen", "masked", "boundary", "rest")


def unseen_mask(alpha: Float[Tensor, "V H W"], confidence: Float[Tensor, "V H W"]) -> Bool[Tensor, "V H W"]:
    """Pixels that no context view covers reliably: alpha times confidence, averaged over 5x5, below `UNSEEN`."""
    return F.avg_pool2d((alpha * confidence)[:, None], 5, 1, 2, count_include_pad=False)[:, 0] < UNSEEN


def regions_of(render: Render, refined: Bool[Tensor, "V h w"]) -> dict[str, Bool[Tensor, "V H W"]]:
    """Pixel masks by name.

    Args:
        render: the regressor's rendering of the target views.
        refined: cells that are ever active under the rules.
    """
    size = render.rgb.shape[-2:]
    masked = F.interpolate(refined[:, None].float(), size=size) > 0
    grown = F.max_pool2d(masked.float(), 2 * BAND_PX + 1, 1, BAND_PX) > 0
    regions = {
        "unseen": unseen_mask(render.alpha, render.confidence),
        "masked": masked[:, 0],
        "boundary": (grown & ~masked)[:, 0],
        "rest": ~grown[:, 0],
    }
    return {name: region.cpu() for name, region in regions.items()}


def shares(regions: dict[str, Bool[Tensor, "V H W"]]) -> dict[str, float]:
    """Each region's share of all pixels, 0..1."""
    return {name: float(region.to(torch.float64).mean()) for name, region in regions.items()}
