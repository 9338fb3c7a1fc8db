"""The quality and the seconds that a unit of refinement is given when it begins, and why it is less than requested.

`quality` is the most that the unit may be planned for: the requested one, lowered to the level that load allows.
`within_s` is the time that it may take: the device assesses the real render, which the price table cannot know, and
plans the best quality up to `quality` within that time. A scene that is easier than the table predicts costs less than
granted; a harder one is lowered, never below the floor, and does not take the time of others. A job whose deadline is
lost gets its floor and no limit.
"""

from __future__ import annotations

from dataclasses import dataclass

from sphinx_nvs.engine.scheduler.demand import DeviceCapacity, own_place, own_span, time_left
from sphinx_nvs.engine.scheduler.job_entries import Job, UnitEntry
from sphinx_nvs.engine.scheduler.price_correction import TOP
from sphinx_nvs.engine.scheduler.scheduler_state import Device, SchedulerState
from sphinx_nvs.engine.scheduler.types import Decision, Degraded, Phase
from sphinx_nvs.engine.types.prices import Rung

_TOLERANCE = 1e-9


@dataclass(frozen=True, kw_only=True)
class Granted:
    """A rung, and why it is not the top of the ladder.

    Args:
        rung: to plan for.
        fair: quality without load and lost deadlines: the requested one, or what the deadline alone allows.
        why: one sentence; "" if nothing was lowered.
    """

    rung: Rung
    fair: float
    why: str


def capacity_now(state: SchedulerState, now: float) -> DeviceCapacity:
    """The capacity of the devices now."""
    return DeviceCapacity(
        now=now,
        devices=state.num_ready,
        refinement=state.refinement_price.factor,
        plan=state.plan_price.factor,
        preview=state.preview_price.factor,
        waits_late=bool(state.late),
        arriving=state.arriving,
    )


def granted(job: Job, capacity: DeviceCapacity, state: SchedulerState, *, ahead: int = 0) -> Granted:
    """The rung that a job gets now.

    Args:
        job: the job, with its level in the last analysis.
        capacity: capacity now.
        state: state of the scheduler.
        ahead: jobs that are not in the state yet.
    """
    rungs = job.ladder.rungs
    top = len(rungs) - 1
    count = len(state.jobs) + ahead
    own = top if job.is_soft else own_place(job, capacity, count, state.config)
    # A lost deadline is no reason to hurry: quality cannot win it back, and the floor is what was promised.
    if own is None or (job.is_late and not job.is_soft):
        return Granted(rung=rungs[0], fair=job.asked or rungs[0].quality, why="the deadline cannot be met any more")
    fair = job.asked if job.asked is not None else rungs[own].quality
    # The lower of what the job's own deadline allows and what all jobs share under load.
    place = min(own, job.ladder.place(job.level))
    if rungs[place].quality >= fair - _TOLERANCE:
        return Granted(rung=rungs[place], fair=fair, why="")
    if place < own or own == top:
        return Granted(rung=rungs[place], fair=fair, why=f"load: {count} jobs share {capacity.devices} device(s)")
    left = max(0.0, job.due - capacity.now)
    return Granted(rung=rungs[place], fair=fair, why=f"its deadline leaves {left:.1f} s")


def grant(state: SchedulerState, device: Device, job: Job, unit: UnitEntry, now: float, why: str) -> Decision:
    """The command that begins a unit; notes the promised seconds in the unit's entry."""
    capacity = capacity_now(state, now)
    given = granted(job, capacity, state)
    weight = job.weight(unit)
    # Noted before any correction: `_learn` compares it with what the unit takes, and a corrected promise would make the
    # correction learn from itself.
    unit.promised_s = given.rung.seconds * weight
    lowered = given.rung.quality < given.fair - _TOLERANCE
    return Decision(
        device=device.number,
        phase=Phase.BEGIN,
        units=((job.id, unit.row.index),),
        quality=given.rung.quality,
        within_s=_within(state, job, given.rung, weight, capacity),
        min_quality=float(job.request.min_quality),
        degraded=Degraded(start=given.fair, to=given.rung.quality, why=given.why) if lowered else None,
        why=why,
    )


def _within(state: SchedulerState, job: Job, rung: Rung, weight: float, capacity: DeviceCapacity) -> float | None:
    """Seconds, as the device predicts them, that a unit of this weight may take; None is no limit."""
    # At the floor a limit could only push the plan below it, which the device would ignore.
    if job.is_late or rung.quality <= job.ladder.floor.quality:
        return None
    limits = []
    if not job.is_soft:
        left = time_left(job, capacity, state.config)
        # Divided by the correction: the device compares the limit with its own, uncorrected prediction.
        limits.append(left * weight / own_span(job, capacity, len(state.jobs)) / capacity.plan)
    # Under load a unit may not take much more than its price: what a harder scene would take is other jobs' time.
    if job.level < TOP:
        limits.append(rung.seconds_p95 * weight * state.config.load_stretch)
    return min(limits, default=None)
