"""The load that serving is measured under: kinds of requests, and named patterns of arrival. Values only.

Rates are in multiples of capacity, the requests per second that full diffusion could serve without a pause:

    capacity = devices / (seconds of a view at full quality, regression included * mean views of a request)

Requests are a mix of four kinds of users; deadlines are in multiples of what full quality takes alone:

    glance    4/11   a frame while flying a camera:     0.6 x,  whatever quality fits,  floor 0.80
    share     4/11   a clip to send:                    1.5 x,  0.98 requested,         floor 0.90
    film      2/11   a shot that is cut into a film:    6 x,    full quality requested, floor 0.97
    archive   1/11   stored permanently:                20 x,   full quality requested, floor 0.99
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from sphinx_nvs.errors import InputError
from sphinx_nvs.load_testing.simulation.arrivals import (
    Arrival,
    Mix,
    Phase,
    RequestKind,
    bursts,
    diurnal,
    draw,
    steady,
    times,
)

REQUEST_KINDS = {
    "glance": RequestKind(weight=4, tightness=0.6, quality=None, min_quality=0.8),
    "share": RequestKind(weight=4, tightness=1.5, quality=0.98, min_quality=0.9),
    "film": RequestKind(weight=2, tightness=6, quality=1.0, min_quality=0.97),
    "archive": RequestKind(weight=1, tightness=20, quality=1.0, min_quality=0.99),
}
"""Kinds of users."""

VIEWS = ((4, 3), (8, 4), (16, 2), (32, 1))
"""Numbers of target views with their weights."""

BURST = 8.0
"""Height of bursts over capacity."""

CALM = 0.3
"""Load between bursts, over capacity."""

BURST_SHARE = 0.3
"""Part of the time that is burst."""

PATTERNS: dict[str, Callable[[float, float, float], list[Phase]]] = {
    "burst": lambda capacity, seconds, period: burst_of(BURST, capacity, seconds, period),
    "poisson": lambda capacity, seconds, period: steady(1.5 * capacity, seconds),
    "gamma": lambda capacity, seconds, period: steady(1.5 * capacity, seconds),
    "step": lambda capacity, seconds, period: [
        Phase(seconds=seconds / 3, rate=rate * capacity) for rate in (0.5, 4.0, 0.5)
    ],
    "diurnal": lambda capacity, seconds, period: diurnal(2 * capacity, 0.9, seconds / 2, seconds),
}
"""Rates over time, given capacity, seconds in all, and the seconds from one burst to the next."""

GAMMA_CV = 3.0
"""Coefficient of variation of pattern `gamma`; the others are Poisson at their rate."""


def burst_of(
    height: float | int, capacity: float | int, seconds: float | int, period_s: float | int = 120.0
) -> list[Phase]:
    """Bursts of this height over capacity, with calm between them."""
    return bursts(CALM * capacity, height * capacity, period_s, BURST_SHARE, seconds)


def standard_mix(view_s: float | int, *, size: tuple[int, int] = (128, 128)) -> Mix:
    """The mix of users.

    Args:
        view_s: seconds of full quality per view, regression included.
        size: height and width of frames, pixels.
    """
    return Mix(kinds=tuple(REQUEST_KINDS.values()), views=VIEWS, view_s=view_s, size=size)


def capacity_of(mix: Mix, devices: int) -> float:
    """Requests per second that full quality can serve."""
    return devices / (mix.view_s * mix.mean_views)


def load(
    pattern: str, mix: Mix, *, devices: int, seconds: float | int, seed: int, period_s: float | int = 120.0
) -> list[Arrival]:
    """Requests of a named pattern, in order of time.

    Args:
        pattern: a key of `PATTERNS`.
        mix: kinds of users.
        devices: number of serving devices; rates grow with it.
        seconds: duration.
        seed: seed of everything random.
        period_s: from one burst to the next.

    Raises:
        InputError: there is no such pattern.
    """
    if pattern not in PATTERNS:
        raise InputError("pattern", f"there is no {pattern!r}", f"choose one of: {', '.join(PATTERNS)}")
    phases = PATTERNS[pattern](capacity_of(mix, devices), float(seconds), float(period_s))
    return sent(phases, mix, seed=seed, cv=GAMMA_CV if pattern == "gamma" else 1.0)


def sent(phases: list[Phase], mix: Mix, *, seed: int, cv: float = 1.0) -> list[Arrival]:
    """Requests at these rates, see `times`."""
    rng = np.random.default_rng(seed)
    return draw(times(phases, rng, cv=cv), mix, rng)
