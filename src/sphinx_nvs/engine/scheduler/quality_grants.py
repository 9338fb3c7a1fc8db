"""What quality and how many seconds a unit of refinement is given when it begins, and why it is less than was asked.

Both are given. `quality` is the most that the unit may be planned for: what was asked, lowered to the level that load
allows. `within_s` is what it may take: the device assesses the real render, which the price table cannot know, and
plans the best quality up to `quality` that it can deliver within that. A scene that is easier than the table thinks
gets what was granted for less; a harder one is lowered, never below the floor, and does not take the time of others.
A job whose deadline is lost gets its floor and no limit.
"""

from __future__ import annotations

from dataclasses import dataclass

from sphinx_nvs.engine.scheduler.demand import Forces, own_place, own_span, time_left
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
        fair: quality without load and lost deadlines: asked for, or allowed by the deadline alone.
        why: one sentence; "" if nothing was lowered.
    """

    rung: Rung
    fair: float
    why: str


def forces_of(book: SchedulerState, now: float) -> Forces:
    """What there is to work with now."""
    return Forces(
        now=now,
        devices=book.num_ready,
        refinement=book.refinement_price.factor,
        plan=book.plan_price.factor,
        preview=book.preview_price.factor,
        waits_late=bool(book.late),
        arriving=book.arriving,
    )


def granted(job: Job, forces: Forces, book: SchedulerState, *, ahead: int = 0) -> Granted:
    """The rung that a job gets now.

    Args:
        job: with its level in the present outlook.
        forces: of now.
        book: of all jobs.
        ahead: jobs that are not in the book yet.
    """
    rungs = job.ladder.rungs
    top = len(rungs) - 1
    count = len(book.jobs) + ahead
    own = top if job.is_soft else own_place(job, forces, count, book.config)
    if own is None or (job.is_late and not job.is_soft):
        return Granted(rung=rungs[0], fair=job.asked or rungs[0].quality, why="the deadline cannot be met any more")
    fair = job.asked if job.asked is not None else rungs[own].quality
    place = min(own, job.ladder.place(job.level))
    if rungs[place].quality >= fair - _TOLERANCE:
        return Granted(rung=rungs[place], fair=fair, why="")
    if place < own or own == top:
        return Granted(rung=rungs[place], fair=fair, why=f"load: {count} jobs share {forces.devices} device(s)")
    left = max(0.0, job.due - forces.now)
    return Granted(rung=rungs[place], fair=fair, why=f"its deadline leaves {left:.1f} s")


def grant(book: SchedulerState, device: Device, job: Job, unit: UnitEntry, now: float, why: str) -> Decision:
    """The command that begins a unit; notes on the unit what it is promised to take."""
    forces = forces_of(book, now)
    given = granted(job, forces, book)
    weight = job.weight(unit)
    unit.promised_s = given.rung.seconds * weight
    lowered = given.rung.quality < given.fair - _TOLERANCE
    return Decision(
        device=device.number,
        phase=Phase.BEGIN,
        units=((job.id, unit.row.index),),
        quality=given.rung.quality,
        within_s=_within(book, job, given.rung, weight, forces),
        min_quality=float(job.request.min_quality),
        degraded=Degraded(start=given.fair, to=given.rung.quality, why=given.why) if lowered else None,
        why=why,
    )


def _within(book: SchedulerState, job: Job, rung: Rung, weight: float, forces: Forces) -> float | None:
    """Seconds, as the device predicts them, that a unit of this weight may take; None is no limit."""
    if job.is_late or rung.quality <= job.ladder.floor.quality:
        return None
    limits = []
    if not job.is_soft:
        left = time_left(job, forces, book.config)
        limits.append(left * weight / own_span(job, forces, len(book.jobs)) / forces.plan)
    if job.level < TOP:
        limits.append(rung.seconds_p95 * weight * book.config.load_stretch)
    return min(limits, default=None)
