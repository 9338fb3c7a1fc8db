r"""Feasibility: which jobs can be on time, to which level quality has to fall for that, and which jobs cannot wait.

For jobs in order of deadline d_1 <= d_2 <= ..., with work w_j(l) in device seconds at quality level l, D devices can
make all of them if every prefix fits (exactly so for one device that may be pre-empted; for more as a fluid):

    sum_{k <= j} w_k(l) <= C_j,   C_j = D (1 - reserve) (d_j - now) - min(B_j, D share (d_j - now))

w includes the job's own preview; B_j are the seconds of all other previews, which have a share of the devices beside
urgent work.

1. Late: at the floor (l = 0), wherever a prefix does not fit, the job with most work is taken out of it until it does
   (Moore, 1968: the fewest jobs are late). Weights by priority; a soft deadline weighs half.
2. Levels: the largest l at which every prefix fits is the level of all jobs up to the last prefix that does not fit at
   l + 1; the jobs after that are treated again by themselves. Levels never descend along the deadlines, and a tight
   deadline at the head does not lower what comes long after it. A job's own deadline bounds its rung, too, by the 95th
   percentile, as it cannot use more devices than it has units.
3. Urgent: all jobs up to the last prefix that could waste less than `urgent_s` on all devices, and before them any
   job that could not wait that long if it had a device for itself.

The outcome depends on what is queued now and not on earlier decisions, so quality cannot stay low without load: with
nothing queued, every level is the top.

Reference: J. M. Moore, "An n Job, One Machine Sequencing Algorithm for Minimizing the Number of Late Jobs", 1968; the
passes of 2 are the critical intervals of Yao, Demers, Shenker, "A Scheduling Model for Reduced CPU Energy", 1995.

Shapes: J jobs, K of them not late, L levels.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64, Int64

from sphinx_nvs.engine.scheduler.demand import Demands, DeviceCapacity, Seconds
from sphinx_nvs.engine.scheduler.job_entries import Job, Urgency
from sphinx_nvs.engine.scheduler.price_correction import TOP
from sphinx_nvs.engine.scheduler.types import SchedulerConfig


@dataclass(frozen=True, kw_only=True)
class Analysis:
    """The outcome of the analysis, in the given order of jobs.

    Args:
        level: level of quality, 0..TOP.
        is_late: whether the deadline is lost.
        urgency: how long it can wait, see `Urgency`.
        seconds: device seconds left at that level, the preview included.
    """

    level: Int64[np.ndarray, " J"]
    is_late: Bool[np.ndarray, " J"]
    urgency: Int64[np.ndarray, " J"]
    seconds: Seconds

    def assign(self, jobs: Sequence[Job]) -> None:
        """Notes it on the jobs."""
        urgencies = tuple(Urgency)
        rows = zip(jobs, self.level.tolist(), self.is_late.tolist(), self.urgency.tolist(), strict=True)
        for job, level, is_late, urgency in rows:
            job.level, job.is_late, job.urgency = level, is_late, urgencies[urgency]


def analyse(jobs: Sequence[Job], capacity: DeviceCapacity, config: SchedulerConfig) -> Analysis:
    """Analyses jobs.

    Args:
        jobs: unfinished ones, in order of admission.
        capacity: see there.
        config: see there.
    """
    needs = Demands.of(jobs, capacity, config)
    kept = _on_time(needs, capacity, config)
    # Previews of everything that comes later, late jobs included: they have their share whatever the deadlines say.
    behind = needs.preview.sum() - np.cumsum(needs.preview[kept])
    room = capacity.room(needs.due[kept], behind, config)
    levels = _levels(needs.work[kept], room)

    # A late job with a soft deadline gains nothing from the floor beyond what all jobs gain.
    level = np.where(needs.is_soft, min(levels.tolist(), default=TOP), 0)
    level[kept] = levels
    is_late = np.ones(len(jobs), dtype=bool)
    is_late[kept] = False
    seconds = np.take_along_axis(needs.work, level[:, None], axis=1)[:, 0]
    urgency = np.full(len(jobs), int(Urgency.NONE))
    urgency[kept] = _urgency(needs, kept, seconds, room, capacity, config)

    # The analysis is in order of deadlines; callers have jobs in order of admission.
    back = np.argsort(needs.index)
    return Analysis(level=level[back], is_late=is_late[back], urgency=urgency[back], seconds=seconds[back])


def start_times(seconds: Sequence[float], devices: int) -> list[float]:
    """When jobs start if they are given, in this order, to whichever of the devices is free first."""
    free = [0.0] * devices
    starts = []
    # A heap of the times at which devices are free: the earliest is always first.
    for work in seconds:
        starts.append(free[0])
        heapq.heapreplace(free, free[0] + work)
    return starts


def _on_time(needs: Demands, capacity: DeviceCapacity, config: SchedulerConfig) -> Int64[np.ndarray, " K"]:
    """Places of the jobs that can meet their deadlines together at their floors."""
    places = np.flatnonzero(needs.can_meet)
    previews, floor = needs.preview, needs.work[:, 0]
    time = capacity.devices * (needs.due - capacity.now)
    # What previews could take at most until each deadline; what they do take is the smaller of this and what is left of
    # them.
    share = capacity.beside(needs.due, np.full(len(time), np.inf), config)
    total, behind = 0.0, float(previews.sum())
    dropped = set()
    heap: list[tuple[float, int, float, float]] = []
    columns = (places, floor[places], previews[places], (floor / needs.weight)[places], time[places], share[places])
    for i, work, preview, heaviness, until, most in zip(*(column.tolist() for column in columns), strict=True):
        total, behind = total + work, behind - preview
        # Heaviest first out: dropping the job with most work per weight leaves the fewest late (Moore's rule). Its
        # preview is still to be made, so it moves to the previews beside.
        heapq.heappush(heap, (-heaviness, i, work, preview))
        while heap and total > until - min(behind, most):
            _, worst, its_work, its_preview = heapq.heappop(heap)
            dropped.add(worst)
            total, behind = total - its_work, behind + its_preview
    return np.array([i for i in places.tolist() if i not in dropped], dtype=np.int64)


def _levels(work: Float64[np.ndarray, "K L"], room: Float64[np.ndarray, " K"]) -> Int64[np.ndarray, " K"]:
    """The level of each kept job, by deadline, ascending."""
    levels: list[int] = []
    # Each round settles the jobs up to the tightest deadline; what they take is gone for the others.
    while len(work):
        level, count = _critical(work, room)
        levels += [level] * count
        room = room[count:] - work[:count, level].sum()
        work = work[count:]
    return np.array(levels, dtype=np.int64)


def _critical(work: Float64[np.ndarray, "K L"], room: Float64[np.ndarray, " K"]) -> tuple[int, int]:
    """The largest level at which every prefix fits, and how many jobs the last prefix has that forbids the next."""
    misfits: Int64[np.ndarray, " n"] = np.zeros(0, dtype=np.int64)
    # Nine levels are tried from the top: with no load the first fits, and that is the common case.
    for level in range(TOP, -1, -1):
        found = np.flatnonzero(np.cumsum(work[:, level]) > room)
        if len(found) == 0:
            return level, int(misfits[-1]) + 1 if len(misfits) else len(work)
        misfits = found
    # Not even the floor fits. `_on_time` counts without the reserve for arrivals, so this can happen for jobs that it
    # kept: they get their floor.
    return 0, int(misfits[-1]) + 1


def _urgency(
    needs: Demands,
    kept: Int64[np.ndarray, " K"],
    seconds: Seconds,
    room: Float64[np.ndarray, " K"],
    capacity: DeviceCapacity,
    config: SchedulerConfig,
) -> Int64[np.ndarray, " K"]:
    """The jobs on time that cannot wait: up to the last prefix without slack, and those that need a whole device."""
    tight = np.flatnonzero(room - np.cumsum(seconds[kept]) < capacity.devices * config.urgent_s)
    count = int(tight[-1]) + 1 if len(tight) else 0
    urgency = np.where(np.arange(len(kept)) < count, int(Urgency.SHARED), int(Urgency.NONE))
    # With one device a job has "a device for itself" exactly when it is first, which the prefix rule covers.
    if capacity.devices > 1:
        alone = needs.due[kept] - capacity.now - seconds[kept]
        urgency[~needs.is_soft[kept] & (alone < config.urgent_s)] = int(Urgency.OWN)
    return urgency
