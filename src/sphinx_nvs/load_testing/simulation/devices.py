r"""Devices that only take time: what a command lasts, from the price table, with chance.

A unit of weight v (its part of the job's views) at a rung of s seconds takes

    T = min(s * h, s_full) * v * speed,    h ~ LogNormal of mean 1: how hard the scene is, one draw a job

(no plan takes longer than full diffusion, which takes the same for every scene)

of which beginning takes `BEGIN` and finishing `FINISH`, the steps share the rest, and every command is off by a factor
of its own. What the table says is T without h; what the device plans when it begins is T but for `plan_error`, so that
it can deliver `within_s` as the real one does: by the best rung up to the granted quality that fits, none below the
floor.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np

from sphinx_nvs.engine.scheduler.types import Decision, Phase, Request
from sphinx_nvs.engine.types.messages import Begun, Dropped, Finished, Regressed, Report, Stepped, UnitKey
from sphinx_nvs.engine.types.prices import PriceTable, Rung

BEGIN = 0.1
"""Share of a unit's seconds before its first step."""

FINISH = 0.1
"""Share of a unit's seconds after its last step."""

COMMAND_S = 0.005
"""Seconds that every command takes at least."""


@dataclass(frozen=True, kw_only=True)
class Chance:
    """How far devices deviate from their predictions.

    Args:
        hardness: standard deviation of log h over jobs: unknown to any table before the render. 0.3 makes the 95th
            percentile 1.57 times the mean, as the embedded pair's profile has it over scenes.
        noise: standard deviation of the log of each command's factor.
        plan_error: standard deviation of the log of planned over median seconds.
        speed: seconds over those of the table, on every device.
        crashes_per_hour: rate of random crashes of each device.
        restart_s: until a device that crashed is ready again.
    """

    hardness: float = 0.3
    noise: float = 0.05
    plan_error: float = 0.05
    speed: float = 1.0
    crashes_per_hour: float = 0.0
    restart_s: float = 5.0


@dataclass
class _Begun:
    """A unit on its device."""

    seconds: float
    quality: float
    steps: int
    done: int = 0


@dataclass
class Model:
    """Durations and reports of commands.

    Args:
        chance: see there.
        rng: generator of everything random.
        steps: solver steps of a unit that computes anything.
    """

    chance: Chance
    rng: np.random.Generator
    steps: int = 8
    _hardness: dict[str, float] = field(default_factory=dict)
    _begun: dict[UnitKey, _Begun] = field(default_factory=dict)

    def carry_out(self, decision: Decision, requests: dict[str, Request]) -> tuple[float, Report]:
        """Seconds that a command takes, and what the device then reports."""
        if decision.phase is Phase.DROP:
            return COMMAND_S, Dropped(units=decision.units)
        if decision.phase is Phase.REGRESS:
            return self._regress(decision.unit, requests[decision.unit[0]])
        if decision.phase is Phase.BEGIN:
            return self._begin(decision, requests[decision.unit[0]])
        if decision.phase is Phase.STEP:
            return self._step(decision.units)
        return self._finish(decision.unit)

    def _off(self, sigma: float) -> float:
        """A factor of median 1."""
        return float(np.exp(sigma * self.rng.standard_normal()))

    def _lasts(self, seconds: float) -> float:
        return COMMAND_S + seconds * self.chance.speed * self._off(self.chance.noise)

    def _regress(self, unit: UnitKey, request: Request) -> tuple[float, Report]:
        seconds = self._lasts(request.prices.regression_s)
        return seconds, Regressed(unit=unit, frames={}, num_contexts=2, seconds=seconds)

    def _begin(self, decision: Decision, request: Request) -> tuple[float, Report]:
        """Plans, as the real device does, from what it sees."""
        unit, targets = decision.unit, _targets(request, decision.unit[1])
        if unit[0] not in self._hardness:
            sigma = self.chance.hardness
            # A lognormal of mean 1: prices are means over scenes.
            self._hardness[unit[0]] = self._off(sigma) * float(np.exp(-(sigma**2) / 2))
        prices = _seen(request.prices, self._hardness[unit[0]], targets / request.num_views)
        rung = _chosen(decision, prices)
        steps = self.steps if rung.seconds > 0 else 0
        self._begun[unit] = _Begun(rung.seconds, rung.quality, steps)
        seconds = self._lasts(rung.seconds * BEGIN)
        planned = rung.seconds * (1 - BEGIN) * self._off(self.chance.plan_error) + COMMAND_S * (steps + 1)
        report = Begun(
            unit=unit,
            steps=steps,
            predicted_s=planned,
            predicted_quality=rung.quality,
            plan={"active_share": rung.active_share},
            plan_file="",
            seconds=seconds,
        )
        return seconds, report

    def _step(self, units: tuple[UnitKey, ...]) -> tuple[float, Report]:
        held = [self._begun[unit] for unit in units]
        share = 1 - BEGIN - FINISH
        seconds = self._lasts(sum(unit.seconds * share / unit.steps for unit in held))
        for unit in held:
            unit.done += 1
        report = Stepped(units=units, done=tuple(u.done for u in held), computed_cells=0, seconds=seconds)
        return seconds, report

    def _finish(self, unit: UnitKey) -> tuple[float, Report]:
        held = self._begun[unit]
        seconds = self._lasts(held.seconds * FINISH)
        report = Finished(unit=unit, frames={}, lossless={}, figures={"quality": held.quality}, seconds=seconds)
        return seconds, report


def _seen(prices: PriceTable, hardness: float, weight: float) -> PriceTable:
    """Prices of a unit once its scene has been seen."""
    full = prices.rungs[-1].seconds
    # No scene costs more than full diffusion.
    rungs = (replace(rung, seconds=min(rung.seconds * hardness, full) * weight) for rung in prices.rungs)
    return replace(prices, rungs=tuple(rungs))


def _chosen(decision: Decision, prices: PriceTable) -> Rung:
    """The best rung up to the granted quality that takes no longer than granted, none below the floor."""
    granted = prices.at_least(1.0 if decision.quality is None else decision.quality)
    within = float("inf") if decision.within_s is None else decision.within_s
    floor = prices.at_least(decision.min_quality)
    lower = [rung for rung in prices.rungs if floor.quality <= rung.quality <= granted.quality]
    fitting = [rung for rung in lower if rung.seconds * (1 - BEGIN) <= within]
    return fitting[-1] if fitting else floor


def _targets(request: Request, index: int) -> int:
    """Number of views that a unit makes; the request knows all of its units."""
    return next(len(unit.targets) for unit in request.units if unit.index == index)
