r"""The quote of a request if it were admitted now: its quality, its wait, its latency.

The analysis includes the request; everything that is scheduled before it is given to whichever device is free
first, and then the request itself:

    latency = wait + preview + refinement at its level

Corrected, as prices are, by measured over predicted latencies of finished jobs, separately for tight and loose
deadlines: that includes jobs that arrive later and go first, which no queue shows. The 95th percentile is that of
the same ratios while there are enough of them, and the table's own before.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sphinx_nvs.engine.scheduler.demand import own_span
from sphinx_nvs.engine.scheduler.feasibility import Analysis, analyse, start_times
from sphinx_nvs.engine.scheduler.job_entries import Job
from sphinx_nvs.engine.scheduler.price_correction import TOP
from sphinx_nvs.engine.scheduler.quality_grants import capacity_now, granted
from sphinx_nvs.engine.scheduler.scheduler_state import SchedulerState
from sphinx_nvs.engine.scheduler.types import DeviceView, Snapshot
from sphinx_nvs.engine.types.jobs import Quote
from sphinx_nvs.engine.types.prices import Rung


@dataclass(frozen=True, kw_only=True)
class Forecast:
    """A quote, and the figures behind it.

    Args:
        quote: for the user.
        latency_s: predicted, before it was corrected by what latencies were.
        is_late: whether the deadline cannot be met.
    """

    quote: Quote
    latency_s: float
    is_late: bool


def forecast(state: SchedulerState, job: Job, now: float) -> Forecast:
    """The forecast for a job that is not in the scheduler."""
    capacity = capacity_now(state, now)
    jobs = [*state.jobs.values(), job]
    analysis = analyse(jobs, capacity, state.config)
    # The job is the last of the list, since it would be the newest; it is not in the state yet, so noting this on it
    # changes nothing.
    job.level, job.is_late = int(analysis.level[-1]), bool(analysis.is_late[-1])
    given = granted(job, capacity, state, ahead=1)
    wait = _wait(state, jobs, analysis)
    span = own_span(job, capacity, len(jobs))
    begun = now - job.request.accepted_at
    previewed = capacity.preview * job.request.prices.regression_s
    raw = begun + wait + previewed + capacity.refinement * span * given.rung.seconds
    slowest = begun + wait + capacity.preview * job.request.prices.regression_p95_s
    slowest += capacity.refinement * span * given.rung.seconds_p95
    correction = state.latency[job.looseness]
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


def _wait(state: SchedulerState, jobs: Sequence[Job], analysis: Analysis) -> float:
    """Seconds until the last job has its turn, everything before it done."""
    late, due = analysis.is_late, np.array([job.due for job in jobs])
    # Late jobs after all others, oldest first; the others by deadline.
    order = np.lexsort((np.where(late, 0.0, due), late))
    turn = int(np.flatnonzero(order == len(jobs) - 1)[0])
    start = start_times(analysis.seconds[order[: turn + 1]].tolist(), state.num_ready)[-1]
    # Previews of later jobs take at most their share of the time until it is done.
    later = state.preview_price.factor * sum(jobs[i].figures.preview_s for i in order[turn + 1 :].tolist())
    # Of every second of refinement, previews that come later take this much beside it.
    share = state.config.preview_share / (1 - state.config.preview_share)
    return start + min(share * (start + float(analysis.seconds[-1])), later / state.num_ready)


def _reason(rung: Rung, why: str, wait: float) -> str:
    """The quote as a sentence."""
    sentence = f"quality {rung.quality:.3g} after a wait of about {wait:.1f} s"
    return f"{sentence}; lowered, since {why}" if why else sentence


def snapshot(state: SchedulerState, now: float) -> Snapshot:
    """The scheduler as it is now."""
    capacity = capacity_now(state, now)
    jobs = list(state.jobs.values())
    analysis = analyse(jobs, capacity, state.config)
    # The lowest level of any job: load that lowers one of many is still pressure.
    lowest = min(analysis.level.tolist(), default=TOP)
    return Snapshot(
        jobs=len(jobs),
        waiting_previews=len(state.waiting_previews),
        late=sum(is_late and not job.is_soft for job, is_late in zip(jobs, analysis.is_late.tolist(), strict=True)),
        backlog_s=float(analysis.seconds.sum()),
        wait_s=start_times([*analysis.seconds.tolist(), 0.0], capacity.devices)[-1],
        pressure=1 - lowest / TOP,
        correction=capacity.refinement,
        devices=tuple(_view(state, number) for number in range(len(state.devices))),
    )


def _view(state: SchedulerState, number: int) -> DeviceView:
    """A device as it is now."""
    device = state.devices[number]
    return DeviceView(
        device=number,
        is_ready=device.is_ready,
        is_busy=device.running is not None,
        held=tuple(device.held),
        work_s=state.plan_price.factor * sum(unit.left_s for _, unit in state.held(device)),
    )
