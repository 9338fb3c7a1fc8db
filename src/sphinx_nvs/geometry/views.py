"""How far views are from each other, and where a target lies between its context views.

The distance of two poses is dimensionless: |o_a - o_b| / scale + angle in radians, with `scale` the largest
baseline of the context, so that neither metres nor a scene's arbitrary units matter.

Shapes: V views, T targets, C context views.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from sphinx_nvs.geometry import se3
from sphinx_nvs.geometry.cameras import Cameras

_LEAST_KNOT = 1e-6


def largest_baseline(cameras: Cameras) -> float:
    """Largest distance between two optical centres, world units; 1 if all are in one place."""
    distance = float(torch.cdist(cameras.centres, cameras.centres).max())
    return distance if distance > 1e-9 else 1.0


def pose_distances(targets: Cameras, contexts: Cameras, scale: float | None = None) -> Float[Tensor, "T C"]:
    """Distance from every target to every context view, see the module docstring.

    Args:
        targets: T cameras.
        contexts: C cameras.
        scale: world units in a distance of one; None for the largest baseline of `contexts`.
    """
    scale = largest_baseline(contexts) if scale is None else scale
    angles = se3.rotation_angle(targets.c2w[:, None], contexts.c2w[None])
    return torch.cdist(targets.centres, contexts.centres) / scale + angles


def nearest_contexts(targets: Cameras, contexts: Cameras, count: int) -> Int64[Tensor, "T k"]:
    """Indices of the `count` (at most C) nearest context views of every target, nearest first."""
    distances = pose_distances(targets, contexts)
    return distances.argsort(dim=1, stable=True)[:, :count]


@dataclass(frozen=True, kw_only=True)
class Between:
    """Where targets lie between their two nearest contexts: `before` < `after`, `position` in [0, 1]."""

    before: Int64[Tensor, "T"]
    after: Int64[Tensor, "T"]
    position: Float[Tensor, "T"]


def between_contexts(targets: Cameras, contexts: Cameras) -> Between:
    """The two nearest context views of every target, and its position d_before / (d_before + d_after).

    A target at a context view has position 0 or 1 there. A single context view is both, at position 0.
    """
    if len(contexts) == 1:
        zero = torch.zeros(len(targets), dtype=torch.int64)
        return Between(before=zero, after=zero, position=zero.double())
    pair = nearest_contexts(targets, contexts, 2).sort(dim=1).values
    distances = pose_distances(targets, contexts).gather(1, pair)
    total = distances.sum(dim=1).clamp_min(torch.finfo(torch.float64).tiny)
    return Between(before=pair[:, 0], after=pair[:, 1], position=distances[:, 0] / total)


def path_lengths(cameras: Cameras) -> Float[Tensor, "V"]:
    """Length of the path through the cameras up to each one, strictly increasing, in pose distances."""
    steps = pose_distances(cameras, cameras).diagonal(offset=1).clamp_min(_LEAST_KNOT)
    return torch.cat([steps.new_zeros(1), steps.cumsum(0)])
