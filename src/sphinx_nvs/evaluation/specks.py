"""Specks and torn edges: contrast in a frame where the truth has none nearby.

    excess(x) = max(0, |grad frame|(x) - max over the truth within `REACH` pixels of |grad truth|)

|grad| is the larger of the absolute differences to the next pixel across and down, mean over channels. A frame that
is blurred, or whose edges lie a pixel or two beside the truth's, has no excess; single wrong pixels and edges that the
truth does not have do.

Shapes: V views, H W pixels.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

REACH = 2
SPECK = 0.1
"""Excess from which a pixel counts as a speck; pictures are in [0, 1]."""


def excess_contrast(frames: Float[Tensor, "V 3 H W"], truth: Float[Tensor, "V 3 H W"]) -> Float[Tensor, "V H-1 W-1"]:
    """The module's equation."""
    allowed = F.max_pool2d(_contrast(truth)[:, None], 2 * REACH + 1, 1, REACH)[:, 0]
    return (_contrast(frames) - allowed).clamp_min(0)


def speck_rate(frames: Float[Tensor, "V 3 H W"], truth: Float[Tensor, "V 3 H W"]) -> Float[Tensor, "V"]:
    """Share of each frame's pixels whose excess is above `SPECK`."""
    return (excess_contrast(frames, truth) > SPECK).float().mean((1, 2))


def _contrast(images: Float[Tensor, "V 3 H W"]) -> Float[Tensor, "V H-1 W-1"]:
    across = images.diff(dim=-1).abs().mean(1)[:, :-1]
    down = images.diff(dim=-2).abs().mean(1)[:, :, :-1]
    return torch.maximum(across, down)
