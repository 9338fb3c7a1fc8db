"""Policies: the scheduler itself, and those it is compared with. All have the same interface.

    adaptive        the scheduler
    edf             the scheduler without quality control: every floor is the requested quality
    fixed q, fifo   every request at quality q in order of arrival, a device stays with a job to its end
    fixed q, edf    the same, earliest deadline first
    floor, edf      every request at its own floor, earliest deadline first
    reject          the requested quality, in order of arrival; a request that is predicted to be late is rejected

Every policy makes previews: they are part of the service.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, Protocol, runtime_checkable

from sphinx_nvs.engine.scheduler.feasibility import start_times
from sphinx_nvs.engine.scheduler.scheduler import Scheduler
from sphinx_nvs.engine.scheduler.types import Admission, Decision, Phase, Request, SchedulerConfig
from sphinx_nvs.engine.types.jobs import Quote, UnitRow
from sphinx_nvs.engine.types.messages import Begun, DeviceLost, DeviceReady, Finished, Report, Stepped, UnitKey
from sphinx_nvs.engine.types.prices import Rung


@runtime_checkable
class Policy(Protocol):
    """What a simulation drives; see `Scheduler` for the meaning of each call."""

    def admit(self, now: float | int, request: Request) -> Admission:
        """Takes a request on, or not."""
        ...

    def extend(self, now: float | int, job_id: str, units: Sequence[UnitRow]) -> None:
        """Adds a job's units of refinement."""
        ...

    def schedule(self, now: float | int) -> list[Decision]:
        """The next commands of idle devices."""
        ...

    def update(self, now: float | int, report: Report, device: int | None = None) -> None:
        """Processes a report."""
        ...


def adaptive(devices: int, config: SchedulerConfig | None = None) -> Policy:
    """The scheduler."""
    return Scheduler(config or SchedulerConfig(), devices)


class WithoutQualityControl:
    """The scheduler with every floor at the requested quality: deadlines, shares and pre-emption alone."""

    def __init__(self, devices: int, config: SchedulerConfig | None = None) -> None:
        self._scheduler = Scheduler(config or SchedulerConfig(), devices)
        self.extend, self.schedule, self.update = (
            self._scheduler.extend,
            self._scheduler.schedule,
            self._scheduler.update,
        )

    def admit(self, now: float | int, request: Request) -> Admission:
        """Takes a request on with its floor raised."""
        asked = _asked(request)
        return self._scheduler.admit(now, replace(request, quality=asked, min_quality=asked))


@dataclass
class _Served:
    """A job of `Fixed`."""

    request: Request
    rung: Rung
    left: list[int]
    phase: Phase | None = None
    steps: int = 0


@dataclass
class Fixed:
    """Every job at a fixed quality, one job a device, from beginning to end.

    Args:
        devices: number of devices.
        quality: quality of every job, or `asked` or `floor` for each job's own.
        order: order of waiting jobs: by arrival, or by deadline.
        rejects: whether a job that is predicted to miss its deadline is rejected.
    """

    devices: int
    quality: float | Literal["asked", "floor"] = "asked"
    order: Literal["fifo", "edf"] = "fifo"
    rejects: bool = False
    _waiting: list[_Served] = field(default_factory=list)
    _on: dict[int, _Served] = field(default_factory=dict)
    _idle: set[int] = field(default_factory=set)

    def admit(self, now: float | int, request: Request) -> Admission:
        """Queues a request, or rejects it."""
        rung = request.prices.at_least(self._quality(request))
        job = _Served(request, rung, left=[unit.index for unit in request.units])
        # Whole jobs, even those half done: a first-come-first-served operator knows no better.
        ahead = [_seconds(other) for other in (*self._on.values(), *self._waiting)]
        wait = start_times([*ahead, 0.0], self.devices)[-1]
        quote = Quote(
            latency_s=wait + _seconds(job),
            latency_p95_s=wait + request.prices.regression_p95_s + rung.seconds_p95,
            wait_s=wait,
            quality=rung.quality,
            active_share=rung.active_share,
            reason="",
        )
        if self.rejects and request.deadline_s is not None and quote.latency_p95_s > request.deadline_s:
            return Admission(accepted=False, quote=quote, retry_after_s=1.0, sentence="it would be late")
        self._waiting.append(job)
        return Admission(accepted=True, quote=quote)

    def extend(self, now: float | int, job_id: str, units: Sequence[UnitRow]) -> None:
        """The device that has the job does these, too."""
        job = next(job for job in self._all() if job.request.job_id == job_id)
        known = {unit.index for unit in job.request.units}
        fresh = tuple(unit for unit in units if unit.index not in known)
        job.request = replace(job.request, units=job.request.units + fresh)
        job.left += [unit.index for unit in fresh]

    def schedule(self, now: float | int) -> list[Decision]:
        """The next phase on every idle device."""
        decisions = []
        for device in sorted(self._idle):
            if device not in self._on and self._waiting:
                self._on[device] = self._next()
            if device in self._on and self._on[device].left:
                decisions.append(self._command(device, self._on[device]))
        self._idle -= {decision.device for decision in decisions}
        return decisions

    def update(self, now: float | int, report: Report, device: int | None = None) -> None:
        """A phase is over, or a device came or went."""
        if isinstance(report, DeviceReady):
            self._idle.add(report.device)
            return
        if isinstance(report, DeviceLost):
            self._lost(report.device)
            return
        number = next(n for n, job in self._on.items() if job.request.job_id == _unit_of(report)[0])
        job = self._on[number]
        self._idle.add(number)
        if isinstance(report, Begun):
            job.phase, job.steps = Phase.STEP if report.steps else Phase.FINISH, report.steps
        elif isinstance(report, Stepped):
            job.phase = Phase.FINISH if report.done[0] >= job.steps else Phase.STEP
        else:
            job.phase = None
            job.left.pop(0)
            if not job.left and isinstance(report, Finished):
                del self._on[number]

    def _quality(self, request: Request) -> float:
        """The quality that a request gets."""
        if self.quality == "floor":
            return float(request.min_quality)
        return _asked(request) if self.quality == "asked" else float(self.quality)

    def _all(self) -> list[_Served]:
        return [*self._on.values(), *self._waiting]

    def _next(self) -> _Served:
        """Takes a job from the queue."""
        place = 0
        if self.order == "edf":
            place = min(range(len(self._waiting)), key=lambda i: _due(self._waiting[i].request))
        return self._waiting.pop(place)

    def _command(self, device: int, job: _Served) -> Decision:
        """The next phase of a job."""
        phase = job.phase or (Phase.REGRESS if job.left[0] == 0 else Phase.BEGIN)
        units = ((job.request.job_id, job.left[0]),)
        quality = job.rung.quality if phase is Phase.BEGIN else None
        return Decision(device=device, phase=phase, units=units, quality=quality)

    def _lost(self, device: int) -> None:
        """The unit's job goes to the head of the queue, and the unit begins again."""
        self._idle.discard(device)
        job = self._on.pop(device, None)
        if job:
            job.phase = None
            self._waiting.insert(0, job)


def _asked(request: Request) -> float:
    """The requested quality; the best one if the request leaves it open."""
    return request.prices.rungs[-1].quality if request.quality is None else request.quality


def _seconds(job: _Served) -> float:
    """Seconds of a whole job."""
    return job.request.prices.regression_s + job.rung.seconds


def _due(request: Request) -> float:
    """Deadline; never for those that have none."""
    return float("inf") if request.deadline_s is None else float(request.accepted_at + request.deadline_s)


def _unit_of(report: Report) -> UnitKey:
    """The unit that a report is about."""
    units: tuple[UnitKey, ...] = getattr(report, "units", ())
    return units[0] if units else report.unit  # type: ignore[union-attr]
