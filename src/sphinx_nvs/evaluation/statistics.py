"""Means with confidence intervals when images of one scene are not independent: the bootstrap resamples whole scenes.

A scene's seeds and views stay together (cluster bootstrap, Davison & Hinkley, 1997, section 3.8): every replicate draws
as many scenes as there are, with replacement, and takes the mean over scenes of each scene's mean. Percentiles of the
replicates bound the interval. For the mean of n scenes the replicates' standard deviation tends to the closed form
sqrt((n - 1) / n) s / sqrt(n), where s is the sample's standard deviation.

Shapes: N scenes, R replicates.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int

REPLICATES = 2000
LEVEL = 0.95
FEWEST = 3
"""With fewer scenes there is no interval: its ends would be the extremes."""


def resamples(num_scenes: int, *, replicates: int = REPLICATES, seed: int = 0) -> Int[np.ndarray, "R N"]:
    """The scenes drawn by each replicate; equal for equal arguments, so that different figures are paired."""
    return np.random.default_rng(seed).integers(0, num_scenes, (replicates, num_scenes))


def bootstrap_means(values: Float[np.ndarray, "N"], *, seed: int = 0) -> Float[np.ndarray, "R"]:
    """The mean over scenes in each replicate.

    Args:
        values: one per scene; NaN where a scene has none, which then is left out of the mean.
        seed: seed of the draws.
    """
    drawn = values[resamples(len(values), seed=seed)]
    # A replicate may draw only scenes without a value: 0 / 0 is NaN, which `interval` ignores.
    with np.errstate(invalid="ignore"):
        return np.nansum(drawn, 1) / np.isfinite(drawn).sum(1)


def interval(replicates: Float[np.ndarray, "R"]) -> tuple[float, float]:
    """The central interval that contains `LEVEL` of the replicates; NaN ones are left out."""
    # Half of the excluded share on either side, in percent.
    tail = 50 * (1 - LEVEL)
    low, high = np.nanpercentile(replicates, [tail, 100 - tail])
    return float(low), float(high)


def mean_with_interval(values: Sequence[float], *, seed: int = 0) -> dict[str, float | int | None]:
    """Mean over scenes with its confidence interval.

    Args:
        values: one per scene; NaN where a scene has none.
        seed: seed of the draws.

    Returns:
        `mean`, `low`, `high` (None with fewer than `FEWEST` scenes) and `scenes`.
    """
    finite = np.array([value for value in values if np.isfinite(value)], np.float64)
    if not len(finite):
        return {"mean": None, "low": None, "high": None, "scenes": 0}
    if len(finite) < FEWEST:
        return {"mean": float(finite.mean()), "low": None, "high": None, "scenes": len(finite)}
    low, high = interval(bootstrap_means(finite, seed=seed))
    return {"mean": float(finite.mean()), "low": low, "high": high, "scenes": len(finite)}
