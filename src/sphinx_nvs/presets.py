"""Presets: a regressor, a denoiser and the rules that join them, by one name.

embedded    plane sweep (no weights) + the nano U-Net whose weights the package ships
"""

from __future__ import annotations

import math
from collections.abc import Callable

from sphinx_nvs.errors import InputError
from sphinx_nvs.models.base import Denoiser, Regressor
from sphinx_nvs.models.embedded import load_nano
from sphinx_nvs.models.planesweep import PlaneSweep
from sphinx_nvs.pipeline import Pipeline
from sphinx_nvs.plan import Levers, PlanConfig
from sphinx_nvs.plan.levers import NO_SAVINGS


def _embedded() -> tuple[Regressor, Denoiser]:
    """The pair that every machine has."""
    return PlaneSweep(), load_nano()


_PRESETS: dict[str, Callable[[], tuple[Regressor, Denoiser]]] = {"embedded": _embedded}

TEMPERATURES = {"embedded": 0.25}
"""Where a denoiser's samples are better drawn nearer its mean: the nano U-Net guesses too boldly what it does not know.
At 0.25 its pictures are nearly as sharp in unseen regions as the truth is after the autoencoder, and closer to it than
the render is; at 1 they are not."""

DETAIL_KEPT = {"embedded"}
"""Presets whose autoencoder is so small that refined pixels get back the render's detail."""

LEVERS = {"embedded": Levers(width_nats=0.8, refresh_nats=1.6)}
"""What plans of a preset save beside their map; see docs/engine.md for what each lever costs."""

PRESETS: tuple[str, ...] = tuple(_PRESETS)
"""The names that `load_preset` knows."""


def load_preset(
    name: str = "embedded", *, num_steps: int = 50, exact: bool = False, cache_gb: float | int = math.inf
) -> Pipeline:
    """A pipeline that is ready to run.

    Args:
        name: one of `PRESETS`.
        num_steps: solver steps of full diffusion, at least 1.
        exact: whether to leave all levers be: plans then save by their map alone, and nothing is approximated.
        cache_gb: memory for features kept between network calls, 10^9 bytes; what does not fit is computed again.

    Raises:
        InputError: an unknown name, no steps, or a negative memory.
        SphinxError: shipped weights are damaged.
    """
    if name not in _PRESETS:
        raise InputError("preset", f"there is no {name!r}", f"choose one of: {', '.join(PRESETS)}")
    if num_steps < 1:
        raise InputError("steps", f"{num_steps} are asked for", "ask for at least 1")
    if not cache_gb >= 0:
        raise InputError("cache_gb", f"it is {cache_gb:g}", "give a number of gigabytes from 0")
    regressor, denoiser = _PRESETS[name]()
    levers = NO_SAVINGS if exact else LEVERS.get(name, NO_SAVINGS)
    return Pipeline(
        regressor=regressor,
        denoiser=denoiser,
        num_steps=num_steps,
        plan_config=PlanConfig(temperature=TEMPERATURES.get(name, 1.0), levers=levers),
        keep_detail=name in DETAIL_KEPT,
        cache_bytes=1e9 * cache_gb,
    )
