"""Discrete events: requests arrive, devices finish commands, crash and come back; a policy decides in between.

Only changes are simulated, so a simulated hour takes seconds, and hundreds of devices fit in one process. Every
request is measured from the moment at which it was to be sent.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

from sphinx_nvs.engine.scheduler.types import Decision, Request
from sphinx_nvs.engine.types.jobs import Quote, UnitKind, UnitRow
from sphinx_nvs.engine.types.messages import (
    Begun,
    DeviceLost,
    DeviceReady,
    Finished,
    Regressed,
    Report,
    Stepped,
    UnitKey,
)
from sphinx_nvs.engine.types.prices import Pricing
from sphinx_nvs.load_testing.simulation.arrivals import Arrival
from sphinx_nvs.load_testing.simulation.devices import Chance, Model
from sphinx_nvs.load_testing.simulation.policies import Policy

ANCHOR_SHARE = 4
"""Of a path that does not fit a window, one view in this many is an anchor."""


@dataclass(kw_only=True)
class Outcome:
    """The outcome of a request; times are seconds after it was to be sent.

    Args:
        arrival: the request.
        quote: its quote.
        accepted: whether it was accepted.
        preview_s: until its first frames.
        done_s: until its last frames; None if they never came.
        qualities: qualities of its units, with their views.
        degraded: why units got less than requested.
    """

    arrival: Arrival
    quote: Quote
    accepted: bool
    preview_s: float | None = None
    done_s: float | None = None
    qualities: list[tuple[float, int]] = field(default_factory=list)
    degraded: list[str] = field(default_factory=list)

    @property
    def quality(self) -> float:
        """Delivered, the mean over its views; 0 before there is any."""
        views = sum(count for _, count in self.qualities)
        return sum(quality * count for quality, count in self.qualities) / views if views else 0.0

    @property
    def lowest(self) -> float:
        """Delivered by its worst unit."""
        return min((quality for quality, _ in self.qualities), default=0.0)

    @property
    def in_time(self) -> bool:
        """Whether its frames came by its deadline; without one, whether they came."""
        limit = self.arrival.deadline_s
        return self.done_s is not None and (limit is None or self.done_s <= limit)

    @property
    def is_good(self) -> bool:
        """Whether it came in time and nowhere below its floor."""
        return self.in_time and self.lowest >= self.arrival.min_quality - 1e-9


@dataclass(kw_only=True)
class Run:
    """A simulation.

    Args:
        outcomes: outcome of every request, in order of arrival.
        devices: number of devices.
        end_s: when the last event was.
        busy_s: seconds that all devices together were busy.
        planned: seconds that units took after their begin, each with those that the device had planned.
        queue: (time, unfinished jobs), a point per arrival and end.
        decisions: number of decisions.
    """

    outcomes: list[Outcome]
    devices: int
    end_s: float = 0.0
    busy_s: float = 0.0
    planned: list[tuple[float, float]] = field(default_factory=list)
    queue: list[tuple[float, int]] = field(default_factory=list)
    decisions: int = 0


def simulate(
    arrivals: Sequence[Arrival],
    policy: Policy,
    pricing: Pricing,
    *,
    devices: int,
    seed: int,
    chance: Chance | None = None,
    window: int = 16,
) -> Run:
    """Serves requests until everything that was accepted is done.

    Args:
        arrivals: in order of time.
        policy: decides; used for this run only.
        pricing: prices for quotes and plans.
        devices: number of devices.
        seed: seed of durations and crashes.
        chance: deviation of devices from predictions.
        window: most views of a unit; longer paths have anchors first.
    """
    world = _World(policy, pricing, devices, chance or Chance(), seed, window)
    return world.serve(arrivals)


def split_units(job_id: str, views: int, window: int) -> tuple[UnitRow, ...]:
    """The units of a path: all in one, or anchors, and chunks between them that depend on those."""
    whole = tuple(range(views))
    rows = [UnitRow(job_id=job_id, index=0, kind=UnitKind.REGRESSION, targets=whole)]
    if views <= window:
        return (*rows, UnitRow(job_id=job_id, index=1, kind=UnitKind.CHUNK, targets=whole, depends_on=(0,)))
    anchors = whole[::ANCHOR_SHARE]
    rest = [view for view in whole if view % ANCHOR_SHARE]
    rows.append(UnitRow(job_id=job_id, index=1, kind=UnitKind.ANCHORS, targets=anchors, depends_on=(0,)))
    chunks = [tuple(rest[first : first + window]) for first in range(0, len(rest), window)]
    rows += [
        UnitRow(job_id=job_id, index=2 + i, kind=UnitKind.CHUNK, targets=chunk, depends_on=(0, 1))
        for i, chunk in enumerate(chunks)
    ]
    return tuple(rows)


class _World:
    """Everything that the policy does not decide."""

    def __init__(self, policy: Policy, pricing: Pricing, devices: int, chance: Chance, seed: int, window: int) -> None:
        self._policy, self._pricing, self._chance, self._window = policy, pricing, chance, window
        self._rng = np.random.default_rng(seed)
        # Two generators: how often devices crash must not shift the durations, or policies could not be compared.
        self._model = Model(chance, np.random.default_rng((seed, 1)))
        self._requests: dict[str, Request] = {}
        self._outcomes: dict[str, Outcome] = {}
        self._left: dict[str, set[int]] = {}
        self._steps: dict[UnitKey, tuple[float, float]] = {}
        self._events: list[tuple[float, int, int | None, int, Report | Arrival | None]] = []
        self._number = 0
        self._lives = [0] * devices
        self._run = Run(outcomes=[], devices=devices)

    def serve(self, arrivals: Sequence[Arrival]) -> Run:
        """Runs until nothing is left."""
        for number in range(self._run.devices):
            self._policy.update(0.0, DeviceReady(device=number, name="simulated"))
            self._expect_crash(0.0, number)
        for arrival in arrivals:
            self._put(arrival.at_s, None, arrival)
        coming = len(arrivals)
        while self._events and (coming or self._left):
            now, _, device, life, event = heapq.heappop(self._events)
            if isinstance(event, Arrival):
                coming -= 1
                self._arrive(now, event)
            # An event of an earlier life is of a command that the crash has ended.
            elif device is not None and life == self._lives[device]:
                self._happen(now, device, event)
            self._carry_out(now, self._policy.schedule(now))
            self._run.end_s = now
        self._run.outcomes = list(self._outcomes.values())
        return self._run

    def _put(self, at: float, device: int | None, event: Report | Arrival | None) -> None:
        """Something that will happen, unless the device crashes before; None is that crash."""
        self._number += 1
        life = self._lives[device] if device is not None else 0
        # The number breaks ties in time in the order of pushing; events themselves have no order.
        heapq.heappush(self._events, (at, self._number, device, life, event))

    def _arrive(self, now: float, arrival: Arrival) -> None:
        """A request is sent."""
        name = f"job-{len(self._outcomes)}"
        prices = self._pricing.table(contexts=2, views=arrival.views, height=arrival.height, width=arrival.width)
        units = split_units(name, arrival.views, self._window)
        request = Request(
            job_id=name,
            key_id=arrival.key,
            accepted_at=now,
            num_views=arrival.views,
            prices=prices,
            quality=arrival.quality,
            deadline_s=arrival.deadline_s,
            min_quality=arrival.min_quality,
            size=(arrival.height, arrival.width),
            units=units[:1],
        )
        admission = self._policy.admit(now, request)
        self._outcomes[name] = Outcome(arrival=arrival, quote=admission.quote, accepted=admission.accepted)
        if admission.accepted:
            self._requests[name] = Request(**{**vars(request), "units": units})
            self._left[name] = {unit.index for unit in units}
            self._count(now)

    def _count(self, now: float) -> None:
        self._run.queue.append((now, len(self._left)))

    def _carry_out(self, now: float, decisions: Iterable[Decision]) -> None:
        """Devices begin the scheduled commands."""
        for decision in decisions:
            seconds, report = self._model.carry_out(decision, self._requests)
            self._run.decisions += 1
            self._run.busy_s += seconds
            self._put(now + seconds, decision.device, report)
            if decision.degraded:
                self._outcomes[decision.unit[0]].degraded.append(decision.degraded.why)

    def _happen(self, now: float, device: int, event: Report | Arrival | None) -> None:
        """A device has done something."""
        if event is None:
            self._crash(now, device)
        elif isinstance(event, DeviceReady):
            self._policy.update(now, event, device)
            self._expect_crash(now, device)
        elif not isinstance(event, Arrival):
            self._policy.update(now, event, device)
            self._note(now, event)

    def _crash(self, now: float, device: int) -> None:
        """A device loses everything, and comes back."""
        self._lives[device] += 1
        self._policy.update(now, DeviceLost(device=device), device)
        self._put(now + self._chance.restart_s, device, DeviceReady(device=device, name="simulated"))

    def _expect_crash(self, now: float, device: int) -> None:
        if self._chance.crashes_per_hour > 0:
            # Exponential gaps: crashes at a constant rate, whatever happened before.
            gap = float(self._rng.exponential(3600 / self._chance.crashes_per_hour))
            self._put(now + gap, device, None)

    def _note(self, now: float, report: Report) -> None:
        """Records the outcomes of requests."""
        if isinstance(report, Begun):
            self._steps[report.unit] = (0.0, report.predicted_s)
        elif isinstance(report, Stepped):
            for unit in report.units:
                spent, planned = self._steps[unit]
                self._steps[unit] = (spent + report.seconds / len(report.units), planned)
        elif isinstance(report, Regressed):
            name = report.unit[0]
            outcome = self._outcomes[name]
            outcome.preview_s = now - outcome.arrival.at_s
            self._left[name].discard(0)
            self._policy.extend(now, name, self._requests[name].units)
        elif isinstance(report, Finished):
            self._finished(now, report)

    def _finished(self, now: float, report: Finished) -> None:
        """A unit's frames are finished."""
        name, index = report.unit
        outcome, left = self._outcomes[name], self._left[name]
        spent, planned = self._steps.pop(report.unit)
        if planned > 0:
            self._run.planned.append((spent + report.seconds, planned))
        views = next(len(unit.targets) for unit in self._requests[name].units if unit.index == index)
        outcome.qualities.append((report.figures["quality"], views))
        left.discard(index)
        if not left:
            del self._left[name]
            outcome.done_s = now - outcome.arrival.at_s
            if outcome.preview_s is None:
                outcome.preview_s = outcome.done_s
            self._count(now)
