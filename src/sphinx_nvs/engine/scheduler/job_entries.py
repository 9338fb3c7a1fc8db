"""Jobs and units in the scheduler: what is left of each, and where it is. They record, and decide nothing.

    waiting -> running (regress) -> done
    waiting -> running (begin) -> held -> running (step) -> held ... -> running (finish) -> done

A unit is held by the device that began it; a unit that is taken back (cancelled, refused, lost) is waiting again, and
what is left of it on a device is stale until it was dropped there.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass, field
from enum import IntEnum, StrEnum

from sphinx_nvs.engine.scheduler.price_correction import TOP, Ladder
from sphinx_nvs.engine.scheduler.types import Request
from sphinx_nvs.engine.types.jobs import UnitKind, UnitRow, UnitState

LOOSE = (1.0, 3.0, 10.0)
"""Bounds of classes of deadlines: which jobs overtake a job depends on its class, and so the errors of its quotes."""


class Standing(StrEnum):
    """Where a unit is."""

    WAITING = "waiting"
    RUNNING = "running"
    HELD = "held"
    DONE = "done"


class Urgency(IntEnum):
    """How long a job can wait, the most urgent first."""

    OWN = 0
    SHARED = 1
    NONE = 2


@dataclass(kw_only=True)
class UnitEntry:
    """A unit of a job.

    Args:
        row: the unit.
        standing: where it is.
        device: device that works on it or holds it; None for neither.
        steps: number of steps of its plan; None before there is one.
        done: steps taken.
        planned_s: device seconds of steps and finish, as planned on the device.
        promised_s: device seconds, begin included, from the price table at its begin.
        spent_s: device seconds since its begin.
        stepped_s: device seconds since its begin, without the begin itself.
        share: active cells of its plan, 0..1.
    """

    row: UnitRow
    standing: Standing = Standing.WAITING
    device: int | None = None
    steps: int | None = None
    done: int = 0
    planned_s: float = 0.0
    promised_s: float = 0.0
    spent_s: float = 0.0
    stepped_s: float = 0.0
    share: float = 1.0

    @property
    def is_preview(self) -> bool:
        """Whether it is the regression."""
        return self.row.kind is UnitKind.REGRESSION

    @property
    def left_s(self) -> float:
        """Seconds left of a unit that has begun, uncorrected."""
        if self.steps is None:
            return self.promised_s
        # One more than its steps: decoding and writing the frames, which no step report covers, is taken to cost as
        # much as a step.
        return self.planned_s * (1 - self.done / (self.steps + 1))

    def take_back(self) -> None:
        """The unit waits again, and its work is lost."""
        self.standing, self.device, self.steps = Standing.WAITING, None, None
        self.done, self.planned_s, self.promised_s, self.share = 0, 0.0, 0.0, 1.0
        self.spent_s = self.stepped_s = 0.0


@dataclass(kw_only=True)
class Job:
    """An unfinished job.

    Args:
        request: the request.
        order: order of admission.
        ladder: qualities that it may be given.
        asked: requested quality; None if the request leaves it to the deadline.
        due: deadline on the caller's clock; soft for jobs that have none.
        is_soft: whether `due` is the scheduler's own.
        units: by index; the regression is 0.
        is_split: whether all units are known.
        level: level of quality in the last analysis, 0..TOP.
        is_late: whether its deadline is lost in the last analysis.
        urgency: urgency in the last analysis.
        promised_s: raw prediction of its latency at admission; None for restored jobs.
        arrived: when it was admitted, and the device seconds that were counted then; None for restored jobs.
    """

    request: Request
    order: int
    ladder: Ladder
    asked: float | None
    due: float
    is_soft: bool
    units: dict[int, UnitEntry] = field(default_factory=dict)
    is_split: bool = False
    level: int = TOP
    is_late: bool = False
    urgency: Urgency = Urgency.NONE
    promised_s: float | None = None
    arrived: tuple[float, float] | None = None
    _figures: Figures | None = None

    @property
    def id(self) -> str:
        """The job's id."""
        return self.request.job_id

    @property
    def looseness(self) -> int:
        """Class of deadline, over the seconds of the job alone at its best: an index of `LOOSE`, or its length."""
        alone = self.request.prices.regression_s + self.ladder.top.seconds
        return bisect_right(LOOSE, (self.due - self.request.accepted_at) / max(alone, 1e-9))

    @property
    def preview(self) -> UnitEntry:
        """The regression."""
        return self.units[0]

    @property
    def is_done(self) -> bool:
        """Whether all units are known and done."""
        return self.is_split and all(unit.standing is Standing.DONE for unit in self.units.values())

    @property
    def is_previewed(self) -> bool:
        """Whether the preview is done."""
        return self.preview.standing is Standing.DONE

    @property
    def figures(self) -> Figures:
        """What is left of it, cached until `changed`."""
        if self._figures is None:
            self._figures = _figures(self)
        return self._figures

    def changed(self) -> None:
        """Something of its units is not as it was."""
        self._figures = None

    def add(self, rows: tuple[UnitRow, ...]) -> None:
        """Adds units that it does not have yet."""
        for row in rows:
            standing = Standing.DONE if row.state is UnitState.DONE else Standing.WAITING
            self.units.setdefault(row.index, UnitEntry(row=row, standing=standing))
        self.is_split = len(self.units) > 1
        self.changed()

    def weight(self, unit: UnitEntry) -> float:
        """A unit's part of the job's refinement, by target views."""
        total = sum(len(u.row.targets) for u in self.units.values() if not u.is_preview)
        return len(unit.row.targets) / max(1, total)


@dataclass(frozen=True, kw_only=True)
class Figures:
    """What is left of a job; seconds are uncorrected.

    Args:
        ready: waiting units of refinement whose dependencies are done, in order.
        preview_s: seconds of the preview, if it is not done yet.
        begun_s: seconds of units that have begun.
        waiting: part of the refinement that has not begun, 0..1.
        chain: part of `waiting` that cannot be done in parallel: the longest chain of dependencies, 0..1.
    """

    ready: tuple[UnitEntry, ...]
    preview_s: float
    begun_s: float
    waiting: float
    chain: float

    @property
    def row(self) -> tuple[float, float, float, float]:
        """Everything but `ready`."""
        return self.preview_s, self.begun_s, self.waiting, self.chain


def _figures(job: Job) -> Figures:
    """Counted from the units."""
    refinement = [unit for unit in job.units.values() if not unit.is_preview]
    waiting = [unit for unit in refinement if unit.standing is Standing.WAITING]
    ends: dict[int, float] = {}
    # Dependencies have lower indices, so one pass in ascending order finds the longest chain.
    for index in sorted(job.units):
        unit = job.units[index]
        own = job.weight(unit) if not unit.is_preview and unit.standing is Standing.WAITING else 0.0
        ends[index] = own + max((ends.get(other, 0.0) for other in unit.row.depends_on), default=0.0)
    return Figures(
        ready=tuple(unit for unit in waiting if _may_begin(job, unit)),
        preview_s=0.0 if job.is_previewed else float(job.request.prices.regression_s),
        begun_s=sum((unit.left_s for unit in refinement if unit.standing in _BEGUN), 0.0),
        # Before the path is split its units are unknown: all of it waits, and none of it can be done in parallel, which
        # is the safe assumption for a deadline.
        waiting=sum((job.weight(unit) for unit in waiting), 0.0) if job.is_split else 1.0,
        chain=max(ends.values()) if job.is_split else 1.0,
    )


def _may_begin(job: Job, unit: UnitEntry) -> bool:
    """Whether the preview and the unit's dependencies are done."""
    needed = (job.units.get(index) for index in unit.row.depends_on)
    return job.is_previewed and all(other is not None and other.standing is Standing.DONE for other in needed)


_BEGUN = (Standing.RUNNING, Standing.HELD)
