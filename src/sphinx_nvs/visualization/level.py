"""A quality that can be requested, with what it takes: a point of a plan's sheet."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Level:
    """Predicted quality and time of a plan.

    Args:
        name: display name.
        asked: requested quality, 0..1; None for the render and for full diffusion.
        quality: predicted quality, at most 1; None if unknown.
        seconds: median time.
        seconds_p95: 95th percentile.
    """

    name: str
    asked: float | None
    quality: float | None
    seconds: float
    seconds_p95: float
