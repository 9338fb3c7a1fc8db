"""The Pareto front of speed-up against loss, and its summary numbers.

A point is a method's speed-up over full diffusion and its loss D: the largest mean relative loss over all metrics that
count (see docs/reference/metrics.md).

    S@x = largest speed-up of a point with D <= x; full diffusion itself, (1, 0), is always a point
    HV  = 1 / (0.1 log2 S_ref) . integral over D in [0, 0.1] of log2 min(S@D, S_ref),      S_ref = 16

There is no interpolation: no measured plan lies between two methods.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

REFERENCE_SPEEDUP = 16.0
WORST_LOSS = 0.10


@dataclass(frozen=True)
class Point:
    """A method's speed-up and loss.

    Args:
        name: name of the method.
        speedup: factor over full diffusion.
        loss: D, relative; 0.02 is 2 %.
    """

    name: str
    speedup: float
    loss: float


def best_within(points: Sequence[Point], loss: float) -> Point:
    """The fastest point with a loss of at most `loss`; full diffusion if there is none."""
    affordable = [point for point in points if point.loss <= loss]
    return max(affordable, key=lambda point: point.speedup, default=Point("full-50", 1.0, 0.0))


def pareto(points: Sequence[Point]) -> list[Point]:
    """Points that no other point beats in both, by increasing loss."""
    front: list[Point] = []
    # Among equal losses the fastest comes first, and the others never exceed it.
    for point in sorted(points, key=lambda p: (p.loss, -p.speedup)):
        if not front or point.speedup > front[-1].speedup:
            front.append(point)
    return front


def hypervolume(points: Sequence[Point]) -> float:
    """HV, 0..1; see the module docstring."""
    area, reached = 0.0, 0.0
    for point in pareto(points):
        if point.loss > WORST_LOSS or point.speedup <= 1:
            continue
        # Logarithmic: from 1x to 2x saves as much as from 2x to 4x multiplies; capped, so that one extreme method
        # cannot dominate.
        height = math.log2(min(point.speedup, REFERENCE_SPEEDUP))
        # Each point adds the strip between its height and the last one, from its own loss to the worst.
        area += max(0.0, height - reached) * (WORST_LOSS - max(0.0, point.loss))
        reached = max(reached, height)
    return area / (WORST_LOSS * math.log2(REFERENCE_SPEEDUP))
