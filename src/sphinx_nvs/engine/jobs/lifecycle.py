"""What happens to jobs: rows first, then memory, and every step as an event of the job's stream.

    Regressed -> preview_frame..., queued becomes previewed; the path is split into units, all in one transaction
    Begun     -> plan, previewed becomes refining
    Stepped   -> progress
    Finished  -> frame_refined...
    given up  -> the unit is tried again, or is poison

A unit is finished if the store says so: it takes a running unit's result, once.

Events and their data, in the order of a job's stream (the store writes `queued` with the row):

    queued           position, quote: {latency_s, latency_p95_s, wait_s, quality, active_share, reason}
    preview_frame    index, frame (digest)
    degraded         from, to, why
    plan             unit, targets, quality, predicted_s, active_share, compute_share, steps, reason
    progress         unit, done, total, eta_s                                          (at most about four a second)
    frame_refined    index, unit, frame (digest)
    completed        level, quality, latency_s, reason
    failed           reason
    cancelled        (nothing)
    expired          (nothing)
"""

from __future__ import annotations

import asyncio
import functools
import logging
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

from sphinx_nvs.engine.jobs.active_job import ActiveJob, Work, plan_summary, refinement_result, regression_result
from sphinx_nvs.engine.jobs.splitting import REGRESSION, Split, rows_of, split_path
from sphinx_nvs.engine.metrics import Metrics
from sphinx_nvs.engine.scheduler.types import Degraded
from sphinx_nvs.engine.store import JobStore
from sphinx_nvs.engine.types.job_validation import Limits
from sphinx_nvs.engine.types.jobs import EventKind, JobRow, JobState, UnitState
from sphinx_nvs.engine.types.messages import Begun, Finished, Regressed, Stepped, UnitKey
from sphinx_nvs.engine.types.transitions import JobEvent, JobTransition, finished, next_job
from sphinx_nvs.errors import SphinxError
from sphinx_nvs.json_types import JSONObject

PROGRESS_S = 0.25
"""Least time between two `progress` events of a job."""

Events = list[tuple[EventKind, JSONObject]]

UNSPLIT = "the path could not be split: the server has the reason in its log"
"""Reason of a job whose path could not be split after its preview."""

_PLAN_EVENT_FIELDS = ("unit", "targets", "quality", "predicted_s", "active_share", "compute_share", "steps", "reason")
_log = logging.getLogger(__name__)
_P = ParamSpec("_P")
_T = TypeVar("_T")


async def in_thread(call: Callable[_P, _T], /, *args: _P.args, **kwargs: _P.kwargs) -> _T:
    """Calls something that blocks in a thread."""
    return await asyncio.get_running_loop().run_in_executor(None, functools.partial(call, *args, **kwargs))


class SplitError(SphinxError):
    """A path could not be split for an unknown reason: another attempt may succeed."""


class Lifecycle:
    """Jobs that are not finished, and what happens to them."""

    def __init__(
        self,
        store: JobStore,
        *,
        window: int,
        limits: Limits,
        metrics: Metrics,
        clock: Callable[[], float],
    ) -> None:
        self.jobs: dict[str, ActiveJob] = {}
        self._store, self._window = store, window
        self._limits, self._metrics, self._clock = limits, metrics, clock

    @property
    def plan_files(self) -> frozenset[str]:
        """Artifacts of plans of unfinished jobs: no row refers to a unit's before it is finished."""
        return frozenset(plan["file"] for job in self.jobs.values() for plan in job.plans.values())

    def holder(self, unit: UnitKey, device: int) -> ActiveJob | None:
        """The unfinished job whose unit runs on this device; None if the report is out of date."""
        job = self.jobs.get(unit[0])
        work = job.work.get(unit[1]) if job else None
        return job if work and work.device == device else None

    async def start(self, job: ActiveJob, index: int, device: int) -> bool:
        """Marks a unit as running on a device; False if it is done or poison in the store, or the job has ended."""
        # The attempt is counted in the store before the command is sent: a unit that kills the whole server counts as
        # well, and is poison after as many restarts.
        row = await in_thread(self._store.start_unit, job.id, index)
        if row is None:
            return False
        job.rows[index] = row
        job.work[index] = Work(device=device)
        self._metrics.attempts.labels(kind=row.kind.value).inc()
        return True

    def start_splitting(self, job: ActiveJob) -> None:
        """Splits the path of a new job while its preview is made."""
        # In parallel to the device: reading a scene's cameras takes tens of milliseconds, which the first refinement
        # need not wait for.
        job.splitting = self._splitting(job)

    async def regressed(self, job: ActiveJob, report: Regressed) -> str:
        """Stores the preview together with the path's units; returns why the path cannot be split, or "".

        Raises:
            SplitError: cutting failed otherwise; nothing was stored.
        """
        reason = await self._split(job)
        await self._store_preview(job, regression_result(report))
        return reason

    async def _store_preview(self, job: ActiveJob, result: JSONObject) -> None:
        """One transaction; the rows are read again if the unit was not running in the store."""
        frames = [(int(index), frame) for index, frame in result["frames"].items()]
        events: Events = [(EventKind.PREVIEW_FRAME, {"index": i, "frame": digest}) for i, digest in frames]
        rows, now = rows_of(job.id, job.units), self._clock()
        stored = await in_thread(
            self._store.finish_preview,
            job.id,
            REGRESSION,
            result=result,
            units=rows,
            events=events,
            now=now,
        )
        del job.work[REGRESSION]
        if stored is None:
            await self.reread(job)
            return
        job.row = stored
        job.rows[REGRESSION] = finished(job.rows[REGRESSION], result)
        job.rows |= {row.index: row for row in rows}
        self._metrics.preview_s.observe(now - job.row.created_s)

    async def split_again(self, job: ActiveJob) -> str:
        """Splits the path of a job that has its preview, and writes missing units; see `regressed`."""
        reason = await self._split(job)
        rows = [row for row in rows_of(job.id, job.units) if row.index not in job.rows]
        if rows:
            await in_thread(self._store.add_units, job.id, rows)
            job.rows |= {row.index: row for row in rows}
        return reason

    async def _split(self, job: ActiveJob) -> str:
        """Splits the path; returns why it cannot be split, or "". Raises SplitError if that failed otherwise."""
        # Taken from the job at once: a task that failed must not be awaited again at the next attempt.
        splitting, job.splitting = job.splitting or self._splitting(job), None
        try:
            job.units, reason = await splitting
        except Exception as error:
            _log.exception("path could not be split", extra={"job_id": job.id})
            raise SplitError(UNSPLIT) from error
        return reason

    def _splitting(self, job: ActiveJob) -> asyncio.Task[Split]:
        return asyncio.create_task(in_thread(split_path, job.row.spec, job.scene_path, self._window))

    async def reread(self, job: ActiveJob) -> bool:
        """Reads a job's rows again; False if it has ended, and is forgotten here."""
        row = await in_thread(self._store.job, job.id)
        if row is None or row.state.is_final:
            self.jobs.pop(job.id, None)
            return False
        job.row = row
        job.rows = {unit.index: unit for unit in await in_thread(self._store.units, job.id)}
        return True

    async def degraded(self, job: ActiveJob, degraded: Degraded) -> None:
        """Publishes that a unit is planned for less than the requested quality, once for each quality."""
        if job.reported_quality == degraded.to:
            return
        job.reported_quality = degraded.to
        self._metrics.degraded.inc()
        await self._publish(job, EventKind.DEGRADED, {"from": degraded.start, "to": degraded.to, "why": degraded.why})

    async def begun(self, device: int, report: Begun) -> None:
        """Publishes the plan."""
        job, index = self.holder(report.unit, device), report.unit[1]
        if job is None:
            return
        job.work[index].begun = report
        plan = job.plans[index] = plan_summary(report, job.rows[index])
        self._metrics.active_share.observe(plan["active_share"])
        events: Events = [(EventKind.PLAN, {key: plan[key] for key in _PLAN_EVENT_FIELDS})]
        await self._record(job, JobEvent.PLANNED, quality=job.quality, events=events)

    async def stepped(self, device: int, report: Stepped) -> None:
        """Counts a step, and publishes progress unless it was published just now."""
        self._metrics.steps.inc()
        for unit, done in zip(report.units, report.done, strict=True):
            job = self.holder(unit, device)
            if job is not None:
                work = job.work[unit[1]]
                work.done = done
                work.busy_s += report.seconds / len(report.units)
                await self._send_progress(job, unit[1])

    async def finished(self, job: ActiveJob, report: Finished) -> None:
        """Stores refined frames."""
        index = report.unit[1]
        plan, busy_s = job.plans[index], job.work[index].busy_s + report.seconds
        frames = sorted(report.frames.items())
        events: Events = [(EventKind.FRAME_REFINED, {"index": i, "unit": index, "frame": f}) for i, f in frames]
        if await self._finish(job, index, refinement_result(report, plan, busy_s), events) and plan["predicted_s"] > 0:
            self._metrics.predictor.observe(busy_s / plan["predicted_s"])

    async def give_up(
        self, job: ActiveJob, index: int, error: str, *, is_hopeless: bool = False, is_blamed: bool = True
    ) -> None:
        """Ends an attempt at a running unit: the unit waits again, or is poison.

        Args:
            job: the unit's job.
            index: the unit's index.
            error: for the user.
            is_hopeless: whether trying again is pointless.
            is_blamed: whether the attempt counts against the unit, in this life of the server and the next ones.
        """
        attempts = (1 if is_hopeless else self._limits.max_attempts) if is_blamed else None
        row = await in_thread(self._store.give_up_unit, job.id, index, error=error, most_attempts=attempts)
        del job.work[index]
        job.plans.pop(index, None)
        job.rows[index] = row
        self._metrics.failures.labels(kind=row.kind.value).inc()
        if row.state is UnitState.POISON:
            self._metrics.poison.labels(kind=row.kind.value).inc()
        extra = {"job_id": job.id, "unit": index, "attempt": row.attempt, "state": row.state.value, "error": error}
        _log.warning("unit given up", extra=extra)

    async def _record(self, job: ActiveJob, event: JobEvent, *, events: Events, **fields: Any) -> bool:
        """Has an event happen to a job, with the stream's events, and keeps the row; False if the job had ended."""
        row = await in_thread(self._store.record, job.id, event, now=self._clock(), events=events, **fields)
        job.row = row or job.row
        return row is not None

    async def end(self, job: ActiveJob, event: JobEvent, reason: str = "") -> None:
        """Brings a job to a final state and forgets it here, unless its row cannot be written.

        Args:
            job: an unfinished job.
            event: one that leads to a final state.
            reason: why the job ends; "" if every frame is refined, or on the user's request.
        """
        if event is JobEvent.GIVEN_UP:
            # Its answer depends on the state, which a write whose answer was lost may have advanced in the store.
            stored = await in_thread(self._store.job, job.id)
            job.row = stored or job.row
        answer = next_job(job.row.state, event)
        quality = job.quality_at(answer.level) if answer.state is JobState.COMPLETED else None
        events: Events = [(EventKind(answer.state.value), self._final_data(job, answer, quality, reason))]
        # Forgotten first: a client that reads the final event sees an engine that is done with the job.
        self.jobs.pop(job.id, None)
        try:
            has_ended = await self._record(job, event, reason=reason, quality=quality, events=events)
        except Exception:
            self.jobs[job.id] = job
            raise
        if has_ended:
            self._ended(job)

    def _ended(self, job: ActiveJob) -> None:
        """Counts and logs the end of a job, by its row."""
        self._metrics.job_ended(job.row)
        row = job.row
        extra = {"job_id": job.id, "state": row.state.value, "frames": row.level, "reason": row.reason}
        _log.info("job ended", extra=extra)

    def _final_data(self, job: ActiveJob, answer: JobTransition, quality: float | None, reason: str) -> JSONObject:
        """Data of a final event."""
        if answer.state is JobState.FAILED:
            return {"reason": reason}
        if answer.state is not JobState.COMPLETED:
            return {}
        latency_s = self._clock() - job.row.created_s
        return {"level": answer.level, "quality": quality, "latency_s": latency_s, "reason": reason}

    async def _finish(self, job: ActiveJob, index: int, result: JSONObject, events: Events) -> bool:
        """Stores a unit's result, and the end of the job with the last unit; False if the unit was not running."""
        stored = await self._stored(job, index, result, events)
        del job.work[index]
        if stored is None:
            self.jobs[job.id] = job
            await self.reread(job)
            return False
        job.row = stored
        job.rows[index] = finished(job.rows[index], result)
        if stored.state.is_final:
            self._ended(job)
        return True

    async def _stored(self, job: ActiveJob, index: int, result: JSONObject, events: Events) -> JobRow | None:
        """One transaction; see `_finish`."""
        quality = job.quality if job.is_last(index) else None
        if quality is not None:
            answer = next_job(job.row.state, JobEvent.REFINED)
            events = [*events, (EventKind(answer.state.value), self._final_data(job, answer, quality, ""))]
            # As in `end`.
            self.jobs.pop(job.id, None)
        finish = functools.partial(self._store.finish_unit, job.id, index, result=result)
        try:
            return await in_thread(finish, events=events, quality=quality, now=self._clock())
        except Exception:
            self.jobs[job.id] = job
            raise

    async def _publish(self, job: ActiveJob, kind: EventKind, data: JSONObject) -> None:
        """Adds an event."""
        await in_thread(self._store.add_events, job.id, [(kind, data)], now=self._clock())

    async def _send_progress(self, job: ActiveJob, index: int) -> None:
        """At most one event of progress in `PROGRESS_S`, but always the last step of a unit."""
        work, now = job.work[index], self._clock()
        total = work.begun.steps if work.begun else 0
        # Every event is a row: a step of a few milliseconds would otherwise write hundreds of rows a second.
        if now - job.progress_sent_s < PROGRESS_S and work.done < total:
            return
        job.progress_sent_s = now
        data = {"unit": index, "done": work.done, "total": total, "eta_s": job.eta_s()}
        await self._publish(job, EventKind.PROGRESS, data)
