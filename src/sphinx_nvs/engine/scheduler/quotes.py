r"""What would become of a request if it were admitted now: its quality, its wait, its latency.

The outlook is made with the request in it; everything that comes before it is handed to whichever device is free
first, and then the request itself:

    latency = wait + preview + refinement at its level

Corrected, as prices are, by what measured latencies of finished jobs were over their predictions, apart for tight and
loose deadlines: that carries what no queue tells, namely who comes later and goes first. The 95th percentile is that of
the same ratios while there are enough of them, and the table's own before.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sphinx_nvs.engine.scheduler.demand import own_span
from sphinx_nvs.engine.scheduler.feasibility import Outlook, predict_schedule, start_times
from sphinx_nvs.engine.scheduler.job_entries import Job
from sphinx_nvs.engine.scheduler.price_correction import TOP
from sphinx_nvs.engine.scheduler.quality_grants import forces_of, granted
from sphinx_nvs.engine.scheduler.scheduler_state import SchedulerState
from sphinx_nvs.engine.scheduler.types import DeviceView, Snapshot
from sphinx_nvs.engine.types.jobs import Quote
from sphinx_nvs.engine.types.prices import Rung


@dataclass(frozen=True, kw_only=True)
class Forecast:
    """A quote, and what it was made from.

    Args:
        quote: for the user.
        latency_s: predicted, before it was corrected by what latencies were.
        is_late: whether the deadline cannot be met.
    """

    quote: Quote
    latency_s: float
    is_late: bool


def forecast(book: SchedulerState, job: Job, now: float) -> Forecast:
    """What becomes of a job that is not in the book."""
    forces = forces_of(book, now)
    jobs = [*book.jobs.values(), job]
    outlook = predict_schedule(jobs, forces, book.config)
    job.level, job.is_late = int(outlook.level[-1]), bool(outlook.is_late[-1])
    given = granted(job, forces, book, ahead=1)
    wait = _wait(book, jobs, outlook)
    span = own_span(job, forces, len(jobs))
    begun = now - job.request.accepted_at
    previewed = forces.preview * job.request.prices.regression_s
    raw = begun + wait + previewed + forces.refinement * span * given.rung.seconds
    slowest = begun + wait + forces.preview * job.request.prices.regression_p95_s
    slowest += forces.refinement * span * given.rung.seconds_p95
    correction = book.latency[job.looseness]
    latency = raw * correction.factor
    quote = Quote(
        latency_s=latency,
        latency_p95_s=latency * correction.spread(0.95, max(1.0, slowest / max(raw, 1e-9))),
        wait_s=wait,
        quality=given.rung.quality,
        active_share=given.rung.active_share,
        reason=_reason(given.rung, given.why, wait),
    )
    return Forecast(quote=quote, latency_s=raw, is_late=job.is_late and not job.is_soft)


def _wait(book: SchedulerState, jobs: Sequence[Job], outlook: Outlook) -> float:
    """Seconds until the last job has its turn, everything before it done."""
    late, due = outlook.is_late, np.array([job.due for job in jobs])
    # Late jobs behind all others, oldest first; the others by deadline.
    order = np.lexsort((np.where(late, 0.0, due), late))
    turn = int(np.flatnonzero(order == len(jobs) - 1)[0])
    start = start_times(outlook.seconds[order[: turn + 1]].tolist(), book.num_ready)[-1]
    # Previews of those behind it take at most their share of the time until it is done.
    later = book.preview_price.factor * sum(jobs[i].figures.preview_s for i in order[turn + 1 :].tolist())
    share = book.config.preview_share / (1 - book.config.preview_share)
    return start + min(share * (start + float(outlook.seconds[-1])), later / book.num_ready)


def _reason(rung: Rung, why: str, wait: float) -> str:
    """The quote as a sentence."""
    told = f"quality {rung.quality:.3g} after a wait of about {wait:.1f} s"
    return f"{told}; lowered, since {why}" if why else told


def snapshot(book: SchedulerState, now: float) -> Snapshot:
    """The scheduler as it is now."""
    forces = forces_of(book, now)
    jobs = list(book.jobs.values())
    outlook = predict_schedule(jobs, forces, book.config)
    lowest = min(outlook.level.tolist(), default=TOP)
    return Snapshot(
        jobs=len(jobs),
        waiting_previews=len(book.waiting_previews),
        late=sum(is_late and not job.is_soft for job, is_late in zip(jobs, outlook.is_late.tolist(), strict=True)),
        backlog_s=float(outlook.seconds.sum()),
        wait_s=start_times([*outlook.seconds.tolist(), 0.0], forces.devices)[-1],
        pressure=1 - lowest / TOP,
        correction=forces.refinement,
        devices=tuple(_view(book, number) for number in range(len(book.devices))),
    )


def _view(book: SchedulerState, number: int) -> DeviceView:
    """A device as it is now."""
    device = book.devices[number]
    return DeviceView(
        device=number,
        is_ready=device.is_ready,
        is_busy=device.running is not None,
        held=tuple(device.held),
        work_s=book.plan_price.factor * sum(unit.left_s for _, unit in book.held(device)),
    )
