r"""The demand of each job by itself: device seconds at every level of quality, and the levels its own deadline allows.

    w(l) = preview + plan * (begun) + refinement * waiting * min(s(l), s(own)),     own = max{l : t95(l) <= time left}

s(l) are a ladder's seconds at level l, t95(l) what the part that cannot be done in parallel takes in 19 of 20 cases:
a job cannot use more devices than it has units. The factors are the corrections of `price_correction`.

Shapes: J jobs, L levels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64, Int64

from sphinx_nvs.engine.scheduler.fairness import ArrivalRate
from sphinx_nvs.engine.scheduler.job_entries import Job
from sphinx_nvs.engine.scheduler.price_correction import LEVELS, TOP
from sphinx_nvs.engine.scheduler.types import SchedulerConfig

Seconds = Float64[np.ndarray, " J"]


@dataclass(frozen=True, kw_only=True)
class DeviceCapacity:
    """The capacity of the devices.

    Args:
        now: on the caller's clock.
        devices: number of ready devices, at least 1.
        refinement: correction of refinement's prices.
        plan: correction of what devices predict of units that they have planned.
        preview: correction of previews' prices.
        waits_late: whether late jobs take their share of the devices.
        arriving: work at the floor that arrives.
    """

    now: float
    devices: int
    refinement: float
    plan: float
    preview: float
    waits_late: bool
    arriving: ArrivalRate

    def room(self, due: Seconds, others: Seconds, config: SchedulerConfig) -> Seconds:
        """Device seconds until then that are left when quality is chosen: some are for what arrives later."""
        reserve = config.headroom + (config.late_share if self.waits_late else 0.0)
        time = self.devices * (1 - reserve) * (due - self.now)
        return time - self.expected(due, config) - self.beside(due, others, config)

    def beside(self, due: Seconds, previews: Seconds, config: SchedulerConfig) -> Seconds:
        """Device seconds that other jobs' previews take until then, beside urgent work."""
        # Clamped at zero: a deadline in the past leaves no time to share, and must not give time back.
        return np.minimum(previews, self.devices * config.preview_share * np.maximum(due - self.now, 0.0))

    def expected(self, due: Seconds, config: SchedulerConfig) -> Seconds:
        """Device seconds of work that arrives until then."""
        return config.anticipation * self.refinement * self.arriving.expected(self.now, due - self.now)


@dataclass(frozen=True, kw_only=True)
class Demands:
    """Demands of jobs, in order of their deadlines; seconds are corrected.

    Args:
        index: position of each job in the given order.
        due: deadlines.
        work: device seconds at each level, previews included.
        preview: device seconds of the preview, part of the work.
        weight: weight of a job when not all can be on time.
        is_soft: whether the deadline is the scheduler's own.
        can_meet: whether it could meet it alone.
    """

    index: Int64[np.ndarray, " J"]
    due: Seconds
    work: Float64[np.ndarray, "J L"]
    preview: Seconds
    weight: Seconds
    is_soft: Bool[np.ndarray, " J"]
    can_meet: Bool[np.ndarray, " J"]

    @staticmethod
    def of(jobs: Sequence[Job], capacity: DeviceCapacity, config: SchedulerConfig) -> Demands:
        """Demands of all jobs; no level above what a job's own deadline allows; a soft deadline allows all."""
        # Python's sort is stable, and the jobs come in order of admission: equal deadlines stay in that order.
        index = sorted(range(len(jobs)), key=lambda i: jobs[i].due)
        ordered = [jobs[i] for i in index]
        due = np.array([job.due for job in ordered], dtype=float)
        soft = np.array([job.is_soft for job in ordered], dtype=bool)
        seconds = np.array([job.ladder.seconds_by_level for job in ordered]).reshape(-1, LEVELS)
        slow = np.array([job.ladder.seconds_p95_by_level for job in ordered]).reshape(-1, LEVELS)
        figures = np.array([job.figures.row for job in ordered], dtype=float).reshape(-1, 4)
        preview, begun = capacity.preview * figures[:, 0], capacity.plan * figures[:, 1]
        waiting, chain = figures[:, 2], figures[:, 3]

        # Amdahl's law: the chain of dependent units runs on one device, the rest on as many as the job can expect.
        span = capacity.refinement * (chain + (waiting - chain) / _side_by_side(capacity, len(jobs)))
        left = (due - capacity.now) * (1 - config.margin) - begun - preview
        expected = capacity.expected(due, config) / capacity.devices
        # Seconds ascend with the level, so the number of levels that fit, less one, is the best one; -1 if none does.
        own = np.sum(slow * span[:, None] <= (left - expected)[:, None], axis=1) - 1
        # A job that can still be on time at its floor in the optimistic case is not given up.
        can_meet = soft | (own >= 0) | (seconds[:, 0] * span <= left)
        own = np.where(soft, TOP, np.maximum(own, 0))
        most = np.take_along_axis(seconds, own[:, None], axis=1)
        # Work above the job's own best level is never done, so it must not count against the others' levels.
        refinement = capacity.refinement * waiting[:, None] * np.minimum(seconds, most)
        return Demands(
            index=np.array(index, dtype=np.int64),
            due=due,
            work=(preview + begun)[:, None] + refinement,
            preview=preview,
            weight=np.array([_weight(job) for job in ordered], dtype=float),
            is_soft=soft,
            can_meet=can_meet,
        )


def own_place(job: Job, capacity: DeviceCapacity, jobs: int, config: SchedulerConfig) -> int | None:
    """Index of the best rung with which a job alone meets its deadline; None if there is none, not even in luck."""
    span, left = own_span(job, capacity, jobs), time_left(job, capacity, config)
    scale = capacity.refinement * span
    if span <= 0:
        return len(job.ladder.rungs) - 1 if left >= 0 else None
    expected = float(capacity.expected(np.array([job.due]), config)[0]) / capacity.devices
    place = job.ladder.within((left - expected) / scale)
    # As in `Demands.of`: median seconds, and nothing that arrives, are the optimistic case.
    return 0 if place is None and job.ladder.floor.seconds * scale <= left else place


def own_span(job: Job, capacity: DeviceCapacity, jobs: int) -> float:
    """Part of a job's refinement that is in the way of its end: what is not done side by side, 0..1."""
    figures = job.figures
    return figures.chain + (figures.waiting - figures.chain) / _side_by_side(capacity, jobs)


def time_left(job: Job, capacity: DeviceCapacity, config: SchedulerConfig) -> float:
    """Seconds left for the refinement of a job that has not begun."""
    fixed = capacity.plan * job.figures.begun_s + capacity.preview * job.figures.preview_s
    return (job.due - capacity.now) * (1 - config.margin) - fixed


def _side_by_side(capacity: DeviceCapacity, jobs: int) -> float:
    """Devices that a job has, if all jobs have as many."""
    return max(1.0, capacity.devices / max(1, jobs))


def _weight(job: Job) -> float:
    """Weight of a job when not all can be on time."""
    # Priorities of -10..10 become factors of 1/4 to 4; exponential, so that equal differences weigh alike everywhere.
    return 2.0 ** (job.request.priority / 5) * (0.5 if job.is_soft else 1.0)
