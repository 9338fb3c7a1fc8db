r"""The outlook: who can still make it, how far everybody's quality has to come down for that, and who cannot wait.

For jobs in order of deadline d_1 <= d_2 <= ..., with work w_j(l) in device seconds at quality level l, D devices can
make all of them if every prefix fits (exactly so for one device that may be pre-empted; for more as a fluid):

    sum_{k <= j} w_k(l) <= C_j,   C_j = D (1 - reserve) (d_j - now) - min(B_j, D share (d_j - now))

w includes the job's own preview; B_j are the seconds of everybody else's, which have a share of the devices beside
urgent work.

1. Late: at the floor (l = 0), wherever a prefix does not fit, the job with most work is taken out of it until it does
   (Moore, 1968: the fewest jobs are late). Weights by priority; a soft deadline weighs half.
2. Levels: the largest l at which every prefix fits is everybody's level up to the last prefix that does not fit at
   l + 1; what comes behind that is looked at again by itself. Levels never descend along the deadlines, and a tight
   deadline at the head does not lower what comes long after it. A job's own deadline bounds its rung, too, by the 95th
   percentile, as it cannot use more devices than it has units.
3. Urgent: everybody up to the last prefix that could waste less than `urgent_s` on all devices, and before them any
   job that could not wait that long if it had a device for itself.

The outlook depends on what is queued now and on nothing that was decided before. So nothing can lock it at the bottom:
with nothing queued, every level is the top.

Reference: J. M. Moore, "An n Job, One Machine Sequencing Algorithm for Minimizing the Number of Late Jobs", 1968; the
passes of 2 are the critical intervals of Yao, Demers, Shenker, "A Scheduling Model for Reduced CPU Energy", 1995.

Shapes: J jobs that are not late, L levels.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Int64

from sphinx_nvs.engine.scheduling.entries import Job, Urgency
from sphinx_nvs.engine.scheduling.prices import LEVELS, TOP
from sphinx_nvs.engine.scheduling.shares import Arriving
from sphinx_nvs.engine.scheduling.values import SchedulerConfig


@dataclass(frozen=True, kw_only=True)
class Forces:
    """What there is to work with.

    Args:
        now: on the caller's clock.
        devices: that are ready, at least 1.
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
    arriving: Arriving

    def room(self, due: float, config: SchedulerConfig) -> float:
        """Device seconds until then that are left when quality is chosen: some are for what arrives later."""
        reserve = config.headroom + (config.late_share if self.waits_late else 0.0)
        return self.devices * (1 - reserve) * (due - self.now) - self.expected(due, config)

    def side_by_side(self, due: float, previews: float, config: SchedulerConfig) -> float:
        """Device seconds that previews of others take until then, beside urgent work."""
        return min(previews, self.devices * config.preview_share * max(0.0, due - self.now))

    def expected(self, due: float, config: SchedulerConfig) -> float:
        """Device seconds of work that arrives until then."""
        return config.anticipation * self.refinement * self.arriving.expected(self.now, due - self.now)


@dataclass(frozen=True, kw_only=True)
class Prospect:
    """What the outlook says about one job.

    Args:
        level: of quality, 0..TOP.
        is_late: whether its deadline is lost.
        urgency: how far it can wait.
        seconds: device seconds left of it at that level, its preview included.
    """

    level: int
    is_late: bool
    urgency: Urgency
    seconds: float


@dataclass(frozen=True, kw_only=True)
class _Need:
    """A job's work in corrected device seconds: what is fixed, and the rest at each level."""

    fixed: float
    levels: tuple[float, ...]
    preview: float
    can_meet: bool

    @property
    def floor(self) -> float:
        """All of it at the floor."""
        return self.at(0)

    def at(self, level: int) -> float:
        """All of it at a level."""
        return self.preview + self.fixed + self.levels[level]


def look_ahead(jobs: Sequence[Job], forces: Forces, config: SchedulerConfig) -> list[Prospect]:
    """What becomes of each job, in the order of `jobs`.

    Args:
        jobs: unfinished ones.
        forces: see there.
        config: see there.
    """
    needs = [_need(job, forces, len(jobs), config) for job in jobs]
    order = sorted(range(len(jobs)), key=lambda i: (jobs[i].due, jobs[i].order))
    previews = sum(need.preview for need in needs)
    kept = _on_time(jobs, needs, order, forces, config)
    behind = previews - np.cumsum([needs[i].preview for i in kept])
    room = {
        i: forces.room(jobs[i].due, config) - forces.side_by_side(jobs[i].due, float(others), config)
        for i, others in zip(kept, behind, strict=True)
    }
    levels = _levels(needs, kept, room)
    urgent = _urgent(needs, kept, levels, room, forces.devices * config.urgent_s)
    # A late job with a soft deadline gains nothing from the floor but what everybody gains.
    common = min(levels, default=TOP)
    prospects = [_late(job, need, common) for job, need in zip(jobs, needs, strict=True)]
    for place, (i, level) in enumerate(zip(kept, levels, strict=True)):
        seconds = needs[i].at(level)
        is_critical = not jobs[i].is_soft and jobs[i].due - forces.now - seconds < config.urgent_s
        shared = Urgency.SHARED if place < urgent else Urgency.NONE
        urgency = Urgency.OWN if is_critical and forces.devices > 1 else shared
        prospects[i] = Prospect(level=level, is_late=False, urgency=urgency, seconds=seconds)
    return prospects


def own_place(job: Job, forces: Forces, jobs: int, config: SchedulerConfig) -> int | None:
    """Index of the best rung with which a job alone meets its deadline; None if there is none, not even in luck."""
    span, left = own_span(job, forces, jobs), time_left(job, forces, config)
    scale = forces.refinement * span
    if span <= 0:
        return len(job.ladder.rungs) - 1 if left >= 0 else None
    place = job.ladder.within((left - forces.expected(job.due, config) / forces.devices) / scale)
    return 0 if place is None and job.ladder.floor.seconds * scale <= left else place


def own_span(job: Job, forces: Forces, jobs: int) -> float:
    """Part of a job's refinement that is in the way of its end: what is not done side by side, 0..1."""
    figures = job.figures
    side_by_side = max(1.0, forces.devices / max(1, jobs))
    return figures.chain + (figures.waiting - figures.chain) / side_by_side


def time_left(job: Job, forces: Forces, config: SchedulerConfig) -> float:
    """Seconds that a job has for refinement that has not begun."""
    fixed = forces.plan * job.figures.begun_s + forces.preview * job.figures.preview_s
    return (job.due - forces.now) * (1 - config.margin) - fixed


def start_times(seconds: Sequence[float], devices: int) -> list[float]:
    """When jobs start if they are given, in this order, to whichever of the devices is free first."""
    free = [0.0] * devices
    starts = []
    for work in seconds:
        starts.append(free[0])
        heapq.heapreplace(free, free[0] + work)
    return starts


def _need(job: Job, forces: Forces, jobs: int, config: SchedulerConfig) -> _Need:
    """A job's work, no rung above what its own deadline allows; a soft deadline allows everything."""
    figures = job.figures
    place = len(job.ladder.rungs) - 1 if job.is_soft else own_place(job, forces, jobs, config)
    most = job.ladder.rungs[place or 0].seconds
    scale = forces.refinement * figures.waiting
    return _Need(
        fixed=forces.plan * figures.begun_s,
        levels=tuple(scale * min(seconds, most) for seconds in job.ladder.seconds_by_level),
        preview=forces.preview * figures.preview_s,
        can_meet=place is not None,
    )


def _late(job: Job, need: _Need, common: int) -> Prospect:
    """What a job gets that cannot meet its deadline."""
    level = common if job.is_soft else 0
    return Prospect(level=level, is_late=True, urgency=Urgency.NONE, seconds=need.at(level))


def _urgent(
    needs: Sequence[_Need], kept: Sequence[int], levels: Sequence[int], room: dict[int, float], slack: float
) -> int:
    """How many of the kept jobs are in the last prefix that has no more slack than this."""
    total, count = 0.0, 0
    for place, (i, level) in enumerate(zip(kept, levels, strict=True)):
        total += needs[i].at(level)
        if room[i] - total < slack:
            count = place + 1
    return count


def _on_time(
    jobs: Sequence[Job], needs: Sequence[_Need], order: Sequence[int], forces: Forces, config: SchedulerConfig
) -> list[int]:
    """Jobs that can meet their deadlines together at their floors, by deadline."""
    total, behind = 0.0, sum(need.preview for need in needs)
    dropped = set()
    heap: list[tuple[float, int]] = []
    for i in order:
        if not needs[i].can_meet:
            dropped.add(i)
            continue
        total, behind = total + needs[i].floor, behind - needs[i].preview
        weight = 2.0 ** (jobs[i].request.priority / 5) * (0.5 if jobs[i].is_soft else 1.0)
        heapq.heappush(heap, (-needs[i].floor / weight, i))
        time = forces.devices * (jobs[i].due - forces.now)
        while heap and total > time - forces.side_by_side(jobs[i].due, behind, config):
            worst = heapq.heappop(heap)[1]
            dropped.add(worst)
            total, behind = total - needs[worst].floor, behind + needs[worst].preview
    return [i for i in order if i not in dropped]


def _levels(needs: Sequence[_Need], kept: Sequence[int], room: dict[int, float]) -> list[int]:
    """The level of each kept job, by deadline, ascending."""
    work = np.array([[needs[i].at(level) for level in range(LEVELS)] for i in kept]).reshape(-1, LEVELS)
    left = np.array([room[i] for i in kept])
    levels: list[int] = []
    while len(work):
        level, count = _critical(work, left)
        levels += [level] * count
        left = left[count:] - work[:count, level].sum()
        work = work[count:]
    return levels


def _critical(work: Float64[np.ndarray, "J L"], room: Float64[np.ndarray, " J"]) -> tuple[int, int]:
    """The largest level at which every prefix fits, and how many jobs the last prefix has that forbids the next."""
    misfits: Int64[np.ndarray, " n"] = np.zeros(0, dtype=np.int64)
    for level in range(TOP, -1, -1):
        found = np.flatnonzero(np.cumsum(work[:, level]) > room)
        if len(found) == 0:
            return level, int(misfits[-1]) + 1 if len(misfits) else len(work)
        misfits = found
    return 0, int(misfits[-1]) + 1
