r"""What would become of a request if it were admitted now: its quality, its wait, its latency.

The outlook is made with the request in it; everything that comes before it is handed to whichever device is free
first, and then the request itself:

    latency = wait + preview + refinement at its level

Corrected, as prices are, by what measured latencies of finished jobs were over their predictions, apart for tight and
loose deadlines: that carries what no queue tells, namely who comes later and goes first. The 95th percentile is that of
the same ratios while there are enough of them, and the table's own before.
"""

from __future__ import annotations

from dataclasses import dataclass

from sphinx_nvs.engine.jobs import Quote
from sphinx_nvs.engine.pricing import Rung
from sphinx_nvs.engine.scheduling.book import Book
from sphinx_nvs.engine.scheduling.entries import Job
from sphinx_nvs.engine.scheduling.granting import forces_of, granted
from sphinx_nvs.engine.scheduling.outlook import Prospect, look_ahead, own_span, start_times
from sphinx_nvs.engine.scheduling.prices import TOP
from sphinx_nvs.engine.scheduling.values import DeviceView, Snapshot


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


def forecast(book: Book, job: Job, now: float) -> Forecast:
    """What becomes of a job that is not in the book."""
    forces = forces_of(book, now)
    jobs = [*book.jobs.values(), job]
    prospects = look_ahead(jobs, forces, book.config)
    own = prospects[-1]
    job.level, job.is_late = own.level, own.is_late
    given = granted(job, forces, book, ahead=1)
    wait = _wait(book, jobs, prospects)
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
    return Forecast(quote=quote, latency_s=raw, is_late=own.is_late and not job.is_soft)


def _wait(book: Book, jobs: list[Job], prospects: list[Prospect]) -> float:
    """Seconds until the last job has its turn, everything before it done."""
    last = len(jobs) - 1
    order = sorted(range(len(jobs)), key=lambda i: _order(jobs[i], prospects[i]))
    before = order[: order.index(last)]
    later_previews = sum(jobs[i].figures.preview_s for i in order[len(before) + 1 :])
    starts = start_times([prospects[i].seconds for i in (*before, last)], book.num_ready)
    # Previews of those behind it take at most their share of the time until it is done.
    share = book.config.preview_share / (1 - book.config.preview_share)
    beside = share * (starts[-1] + prospects[last].seconds)
    return starts[-1] + min(beside, book.preview_price.factor * later_previews / book.num_ready)


def _order(job: Job, prospect: Prospect) -> tuple[float, ...]:
    """Late jobs behind all others, oldest first; the others by deadline."""
    return (1, job.order, 0) if prospect.is_late else (0, job.due, job.order)


def _reason(rung: Rung, why: str, wait: float) -> str:
    """The quote as a sentence."""
    told = f"quality {rung.quality:.3g} after a wait of about {wait:.1f} s"
    return f"{told}; lowered, since {why}" if why else told


def snapshot(book: Book, now: float) -> Snapshot:
    """The scheduler as it is now."""
    forces = forces_of(book, now)
    jobs = list(book.jobs.values())
    prospects = look_ahead(jobs, forces, book.config)
    lowest = min((prospect.level for prospect in prospects), default=TOP)
    backlog = sum(prospect.seconds for prospect in prospects)
    return Snapshot(
        jobs=len(jobs),
        waiting_previews=len(book.waiting_previews),
        late=sum(prospect.is_late and not job.is_soft for job, prospect in zip(jobs, prospects, strict=True)),
        backlog_s=backlog,
        wait_s=start_times([*(p.seconds for p in prospects), 0.0], forces.devices)[-1],
        pressure=1 - lowest / TOP,
        correction=forces.refinement,
        devices=tuple(_view(book, number) for number in range(len(book.devices))),
    )


def _view(book: Book, number: int) -> DeviceView:
    """A device as it is now."""
    device = book.devices[number]
    return DeviceView(
        device=number,
        is_ready=device.is_ready,
        is_busy=device.running is not None,
        held=tuple(device.held),
        work_s=book.plan_price.factor * sum(unit.left_s for _, unit in book.held(device)),
    )
