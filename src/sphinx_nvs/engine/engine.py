"""The engine: accepts jobs, has devices carry them out, publishes events. Read docs/explanation/durability.md first.

One asyncio loop. Everything that changes a job happens in turns, one by one: a request, a cancellation, a batch of
reports. What blocks (rows, files, video) happens in threads. No HTTP here.

    requests (accept, cancel, ...) ─┐
    devices' reports ───────────────┼─► one turn at a time ─► `Coordinator` ─► rows, events, commands
    heartbeat, sweep, tick ─────────┘
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import time
from collections.abc import Callable, Coroutine, Iterator, Sequence
from dataclasses import replace
from typing import TypeVar

from sphinx_nvs.engine.artifacts import DamagedError
from sphinx_nvs.engine.assembly import open_parts
from sphinx_nvs.engine.catalog import Library
from sphinx_nvs.engine.config import EngineConfig
from sphinx_nvs.engine.executor.pool import PoolExecutor
from sphinx_nvs.engine.jobs.active_job import ActiveJob, files_of, frames_of, new_frames, plans_of
from sphinx_nvs.engine.jobs.coordinator import Coordinator
from sphinx_nvs.engine.jobs.lifecycle import in_thread
from sphinx_nvs.engine.jobs.splitting import regression_row
from sphinx_nvs.engine.live_desk import LiveDesk
from sphinx_nvs.engine.malloc_trim import trim_malloc
from sphinx_nvs.engine.protocols import Parts
from sphinx_nvs.engine.queries import EngineQueries
from sphinx_nvs.engine.scheduler.live_turns import LiveTurns
from sphinx_nvs.engine.scheduler.types import Request
from sphinx_nvs.engine.steady_clock import lag_of, steady_clock
from sphinx_nvs.engine.store.row_types import SceneRow, Usage
from sphinx_nvs.engine.types.engine_errors import MissingError, RefusedError, no_scene
from sphinx_nvs.engine.types.job_validation import check_memory, check_spec
from sphinx_nvs.engine.types.jobs import JobRow, JobSpec, JobState, Quote, UnitRow
from sphinx_nvs.engine.types.live import Drawn, LiveReport, NotDrawn
from sphinx_nvs.engine.types.messages import DeviceLost, DeviceReady, Report
from sphinx_nvs.engine.types.prices import PriceTable
from sphinx_nvs.engine.types.transitions import JobEvent
from sphinx_nvs.engine.video_maker import VideoMaker
from sphinx_nvs.errors import InputError
from sphinx_nvs.geometry.padding import padded_size

SCENE_GONE = "its scene was deleted before it was finished"
"""Reason of a job that cannot be resumed."""

REPAIRS = "repairs"
"""Owner of jobs that make files of other jobs again; their idempotency key is the other job's id."""

_log = logging.getLogger(__name__)
_T = TypeVar("_T")


class Engine(EngineQueries):
    """Jobs from acceptance to their last frame; created by `open`."""

    def __init__(self, config: EngineConfig, parts: Parts, clock: Callable[[], float] | None = None) -> None:
        clock = clock or steady_clock()
        super().__init__(config, parts, clock)
        self.library = Library(parts.store, parts.artifacts, config.folder, clock)
        self._turn, self._filming, self._videos = asyncio.Lock(), asyncio.Lock(), VideoMaker(parts.artifacts)
        self._tasks: set[asyncio.Task[object]] = set()
        self._coordinator = Coordinator(
            self._life, parts.scheduler, parts.executor, self._conclude, self.metrics, clock, self._roster
        )
        turns = LiveTurns(config.scheduler.live_share, config.scheduler.live_rest_s)
        self.live = LiveDesk(
            turns, parts.executor.draw, lambda: self._coordinator.working, self.metrics, time.monotonic
        )

    # Life -----------------------------------------------------------------------------------------------------------

    @classmethod
    async def open(cls, config: EngineConfig, executor: PoolExecutor | None = None) -> Engine:
        """An engine that resumes the unfinished jobs of its folder.

        Args:
            config: the engine's configuration.
            executor: devices whose start has begun already, owned by the engine from now on; None creates them.

        Raises:
            InputError: another engine uses the folder, or it cannot be used.
        """
        engine = cls(config, await in_thread(open_parts, config, executor))
        await engine.start()
        return engine

    async def start(self) -> None:
        """Resumes unfinished jobs and starts the background tasks."""
        loop = asyncio.get_running_loop()
        # The store publishes from whichever thread wrote the event; listeners live on the loop.
        self._store.subscribe(lambda event: loop.call_soon_threadsafe(self._streams.wake, event.job_id))
        await self._parts.executor.start()
        async with self._turn:
            await self._resume()
        self._spawn(self._listen_to_devices())
        for work, seconds in (
            (self._tick, self.config.tick_s),
            (self._sweep, self.config.sweep_s),
        ):
            self._spawn(self._every(seconds, work))

    async def close(self, drain_s: float | int = 0.0) -> None:
        """Accepts nothing more, waits for jobs to end, and releases all resources.

        Jobs that are unfinished by then are resumed when the folder is opened again.

        Args:
            drain_s: seconds to wait for unfinished jobs.
        """
        self._is_closing = True
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._idle(), drain_s)
        await self._halt()
        await in_thread(self._store.release_units)
        await in_thread(self._parts.close)

    async def _halt(self) -> None:
        """Stops working, as if the process had been killed: rows of running units stay as they are."""
        self._is_closing = True
        self._streams.close()
        self.live.close()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._parts.executor.close()
        await in_thread(self._videos.close)

    async def _idle(self) -> None:
        """Returns once every job is finished."""
        while self._life.jobs:
            await asyncio.sleep(0.02)

    async def _resume(self) -> None:
        """Resumes every unfinished job of the store."""
        await in_thread(self._store.release_units)
        for row in await in_thread(self._store.unfinished_jobs):
            await self._resume_job(row)
        await self._coordinator.dispatch()

    async def _resume_job(self, row: JobRow) -> None:
        """Resumes a stored job, or ends it with the frames it has, so that one job does not keep the others waiting."""
        rows = await in_thread(self._store.units, row.id)
        try:
            scene = await self._scene(row.spec)
        except MissingError:
            # Nothing will be computed any more: the number of photos does not matter.
            job = self._life.jobs[row.id] = ActiveJob.of(row, "", self._prices(row.spec, 1), rows)
            self._conclude(job, SCENE_GONE)
            return
        await self._coordinator.resume(await self._active(row, scene, self._prices(row.spec, scene.num_views), rows))
        _log.info("job resumed", extra={"job_id": row.id, "state": row.state.value})

    # Requests -------------------------------------------------------------------------------------------------------

    async def quote(self, spec: JobSpec) -> Quote:
        """The predicted latency and quality of a job if it were accepted now.

        Raises:
            InputError: see `accept`.
        """
        _, prices = await self._checked(spec)
        row = JobRow(id="", key_id="", spec=spec, created_s=self._clock())
        request = Request.of(row, prices, [regression_row(spec)])
        return self._parts.scheduler.quote(self._clock(), request)

    async def accept(
        self,
        spec: JobSpec,
        *,
        key_id: str,
        idempotency_key: str | None = None,
        allow: Callable[[Usage], None] = lambda usage: None,
    ) -> tuple[JobRow, bool]:
        """Accepts a job: its row is written before any work on it.

        Args:
            spec: the request.
            key_id: the API key that makes the request, or "anonymous".
            idempotency_key: idempotency key of the request; the same one of the same API key returns the same job.
            allow: called with the API key's usage before a new job is accepted; raises if the key may not have one. No
                other job is accepted in between.

        Returns:
            The job, and whether it is new.

        Raises:
            Exception: what `allow` raises.
            InputError: a request that cannot be met, a missing scene, or an idempotency key of another request.
            RefusedError: the queue is full, or the engine is closing.
        """
        return await self._shielded(self._accept(spec, key_id, idempotency_key, allow))

    async def cancel(self, job_id: str) -> JobRow | None:
        """Ends a job; its device is free within one step. A finished job stays as it is; None if there is none."""
        return await self._shielded(self._cancel(job_id))

    async def delete(self, job_id: str) -> JobRow | None:
        """Removes a finished job, rows and files; as it was, or None if it is unfinished or there is none."""
        now, lag_s = self._clock(), lag_of(self._clock)
        return await in_thread(self._store.delete_job, job_id, now=now, file_lag_s=lag_s)

    async def _accept(
        self, spec: JobSpec, key_id: str, idempotency_key: str | None, allow: Callable[[Usage], None]
    ) -> tuple[JobRow, bool]:
        """One turn: a new request gets a quote, a row, and only then a place in the queue."""
        async with self._turn:
            if idempotency_key is not None:
                same = await in_thread(self._store.same_request, spec, key_id=key_id, idempotency_key=idempotency_key)
                if same is not None:
                    return same, False
            # Inside the turn: two requests at once would otherwise both see the usage before the other.
            allow(await self.library.usage(key_id))
            scene, prices = await self._checked(spec)
            now = self._clock()
            # Quoted before the row exists, because the row stores the quote; admitted after it, because only then has
            # the job an id.
            quote = self._admitted(JobRow(id="", key_id=key_id, spec=spec, created_s=now), prices)
            row, is_new = await in_thread(
                self._store.create_job,
                spec,
                key_id=key_id,
                units=[regression_row(spec)],
                quote=quote,
                idempotency_key=idempotency_key,
                expires_s=now + self.config.limits.ttl_s,
                now=now,
                # The scene may have been deleted since it was read: the transaction checks once more, and locks it.
                needs_scene=True,
            )
            if is_new:
                await self._queue_job(row, scene, prices)
            return row, is_new

    def _admitted(self, row: JobRow, prices: PriceTable) -> Quote:
        """The quote of a job that has no id yet; within a turn the scheduler answers the same once the job has one.

        Raises:
            RefusedError: the job is not accepted now.
        """
        if self._is_closing:
            raise self._refused("closing", "the server is closing", 5.0, 503)
        request = Request.of(row, prices, [regression_row(row.spec)])
        admission = self._parts.scheduler.would_admit(row.created_s, request)
        if not admission.accepted:
            raise self._refused("queue", admission.sentence, admission.retry_after_s or 1.0, 429)
        return admission.quote

    async def _queue_job(self, row: JobRow, scene: SceneRow, prices: PriceTable) -> None:
        """Queues a job that has its row; the job is accepted even if dispatching fails."""
        job = await self._active(row, scene, prices, [replace(regression_row(row.spec), job_id=row.id)])
        self._life.jobs[job.id] = job
        self._parts.scheduler.admit(row.created_s, Request.of(row, prices, list(job.rows.values())))
        self.metrics.accepted.inc()
        extra = {"job_id": job.id, "key_id": row.key_id, "views": row.spec.num_views}
        _log.info("job accepted", extra=extra)
        with self._guarded("tick"):
            await self._coordinator.dispatch()
        self._life.start_splitting(job)

    async def _active(self, row: JobRow, scene: SceneRow, prices: PriceTable, rows: Sequence[UnitRow]) -> ActiveJob:
        """A job in memory."""
        job = ActiveJob.of(row, scene.path, prices, rows)
        if row.key_id == REPAIRS:
            job.again = plans_of(await self.units(str(row.idempotency_key)))
        return job

    async def _cancel(self, job_id: str) -> JobRow | None:
        """One turn."""
        async with self._turn:
            job = self._life.jobs.get(job_id)
            if job is not None:
                await self._coordinator.cancel(job)
        return await self.job(job_id)

    def _refused(self, why: str, sentence: str, retry_after_s: float, http_status: int) -> RefusedError:
        """Counts a refusal."""
        self.metrics.rejected.labels(why=why).inc()
        return RefusedError(sentence, retry_after_s=retry_after_s, http_status=http_status)

    async def _checked(self, spec: JobSpec) -> tuple[SceneRow, PriceTable]:
        """Scene and prices of a job that can be carried out; see `accept` for what it raises."""
        check_spec(spec, self.config.limits, self.config.size_multiple)
        scene = await self._scene(spec)
        prices = self._prices(spec, scene.num_views)
        check_memory(spec, prices)
        return scene, prices

    async def _scene(self, spec: JobSpec) -> SceneRow:
        """The stored scene of a job."""
        scene = await in_thread(self._store.scene, spec.scene)
        if scene is None:
            raise no_scene(spec.scene)
        return scene

    def _prices(self, spec: JobSpec, contexts: int) -> PriceTable:
        """The job's cost at each quality."""
        height, width = padded_size(spec.height, spec.width, self.config.size_multiple)
        return self._parts.pricing.table(contexts=contexts, views=spec.num_views, height=height, width=width)

    # Work -----------------------------------------------------------------------------------------------------------

    async def _listen_to_devices(self) -> None:
        """Reports become turns, as long as there are any."""
        while True:
            reports = self._live_first(await self._parts.executor.next_reports())
            await self._measure([digest for _, report in reports for digest in new_frames(report)])
            async with self._turn:
                for device, report in reports:
                    with self._guarded("report"):
                        await self._coordinator.take(device, report)
                self._count_jobs()

    def _live_first(self, reports: Sequence[tuple[int, Report | LiveReport]]) -> list[tuple[int, Report]]:
        """Passes on what concerns live sessions, which wait for no turn; returns the reports about jobs."""
        others: list[tuple[int, Report]] = []
        for device, report in reports:
            if isinstance(report, Drawn | NotDrawn):
                self.live.take(device, report)
                continue
            if isinstance(report, DeviceReady):
                self.live.device_ready(device)
            elif isinstance(report, DeviceLost):
                self.live.device_lost(device)
            others.append((device, report))
        return others

    async def _measure(self, frames: Sequence[str]) -> None:
        """Measures files outside of a turn: that takes long in an object store, and rows need the sizes."""
        if frames:
            with self._guarded("measuring"):
                await in_thread(self._store.measure, [*frames, *self._life.plan_files])

    async def _every(self, seconds: float, work: Callable[[], Coroutine[object, object, None]]) -> None:
        """Calls something periodically, even if it fails."""
        while True:
            await asyncio.sleep(seconds)
            with self._guarded(work.__name__.strip("_")):
                await work()

    async def _tick(self) -> None:
        """Schedules again, since time has passed."""
        async with self._turn:
            await self._coordinator.dispatch()

    async def _sweep(self) -> None:
        """Ends jobs whose time is over; rows and files of the expired go together, freed memory back to the system.

        Files are swept outside of the turn, which may take minutes: a writer renews the date of its file meanwhile.
        """
        async with self._turn:
            now = self._clock()
            for job in [job for job in self._life.jobs.values() if (job.row.expires_s or math.inf) <= now]:
                await self._coordinator.cancel(job, JobEvent.EXPIRED)
            plans = self._life.plan_files
        await in_thread(self._store.sweep, now, plans, file_lag_s=lag_of(self._clock))
        # glibc keeps what was freed in between; a server that runs for weeks gives it back here.
        await in_thread(trim_malloc)

    def _conclude(self, job: ActiveJob, reason: str) -> None:
        """Ends a job with the frames that it has; without any it has failed."""
        if not job.is_ending:
            job.is_ending = True
            self._spawn(self._completed(job, reason))

    async def _completed(self, job: ActiveJob, reason: str) -> None:
        """Ends a job in its row; its video is made after that, so that no client waits for it."""
        event = JobEvent.GIVEN_UP if reason else JobEvent.REFINED
        # Tried until it is written: a full disk ends at some time, and a job without a final row would be resumed for
        # ever.
        while job.id in self._life.jobs:
            async with self._turn:
                with self._guarded("ending"):
                    await self._life.end(job, event, reason)
            # Reached with a job only if its row could not be written.
            await asyncio.sleep(self.config.tick_s if job.id in self._life.jobs else 0)
        if job.row.key_id == REPAIRS:
            await self._repaired(job)
            return
        with contextlib.suppress(DamagedError):
            await self.video(job.id)

    # Repairs --------------------------------------------------------------------------------------------------------

    async def repair(self, job_id: str) -> bool:
        """Has missing and damaged files of a completed job made again, by a job that carries out the same plans.

        The new files have the digests of the old ones, or the repair has failed: rows are not changed.

        Returns:
            Whether all files are there, or are being made; False if they cannot be, e.g. because the scene is gone.

        Raises:
            RefusedError: the queue is full, or the engine is closing.
        """
        return await self._shielded(self._repair(job_id))

    async def _repair(self, job_id: str) -> bool:
        if any(_is_repair(job.row, job_id) for job in self._life.jobs.values()):
            return True
        row, units = await self.job(job_id), await self.units(job_id)
        if row is None or row.state is not JobState.COMPLETED:
            return False
        lost = await in_thread(self._parts.artifacts.lost, files_of(units))
        if not lost:
            return True
        _log.warning("files of a job were damaged", extra={"job_id": job_id, "files": len(lost)})
        # A deadline would only lower what is planned, and plans are those of the job.
        spec = replace(row.spec, deadline_s=None)
        try:
            again, is_new = await self._accept(spec, REPAIRS, job_id, lambda usage: None)
            if again.state.is_final and lost <= files_of(await self.units(again.id)):
                # An earlier repair made these very files, and they were damaged once more.
                await self.delete(again.id)
                again, is_new = await self._accept(spec, REPAIRS, job_id, lambda usage: None)
        except InputError:
            return False
        return is_new or not again.state.is_final

    async def _repaired(self, job: ActiveJob) -> None:
        """Removes a job that has made all files again; one that has not stays, so that it is not tried for ever."""
        files = files_of(await self.units(str(job.row.idempotency_key)))
        missing = [digest for digest in files if not await in_thread(self._parts.artifacts.has, digest)]
        extra = {"job_id": job.row.idempotency_key, "missing": len(missing)}
        if missing:
            _log.error("files of a job could not be made again", extra=extra)
            return
        _log.info("files of a job were made again", extra=extra)
        await self.delete(job.id)

    # Videos ---------------------------------------------------------------------------------------------------------

    async def video(self, job_id: str) -> str | None:
        """Digest of the mp4 of the best frames that all views of a job have; None if there is none, or can be none.

        It is made at the first request; the engine makes that itself once a job is completed. A client that disconnects
        before the video is finished finds it later. A video whose file was damaged is made again.

        Raises:
            DamagedError: one of the frames is missing or damaged; see `repair`.
        """
        row = await self.job(job_id)
        if row is None or row.level == "none":
            return None if row is None else row.video
        if row.video is not None and await self._is_intact(row.video):
            return row.video
        return await self._shielded(self._filmed_in_turn(job_id))

    async def _is_intact(self, digest: str) -> bool:
        """Whether a video's file is what was stored; a damaged one is removed."""
        try:
            await self.library.file(digest)
        except (InputError, DamagedError):
            return False
        return True

    async def _filmed_in_turn(self, job_id: str) -> str | None:
        """One video after another."""
        async with self._filming:
            return await self._filmed(job_id)

    async def _filmed(self, job_id: str) -> str | None:
        """Makes a job's video, unless it was made while this call waited; None if there can be none."""
        row = await self.job(job_id)
        if row is None or (row.video is not None and await self._is_intact(row.video)):
            return None if row is None else row.video
        frames = frames_of(await self.units(job_id), row.level)
        if not frames:
            # Deleted since its row was read.
            return None
        damage: DamagedError | None = None
        with self._guarded("video"):
            try:
                video = await self._videos.film(frames, fps=row.spec.fps)
            except DamagedError as error:
                damage = error  # No trouble of the engine's: it repairs the frames.
            else:
                # What was read before the job's end may be of its preview.
                if row.state.is_final:
                    await in_thread(self._store.set_video, job_id, video)
                return video
        # A job that was deleted meanwhile has no frames any more, and no video.
        if damage is not None and await self.job(job_id) is not None:
            raise damage
        return None

    @contextlib.contextmanager
    def _guarded(self, what: str) -> Iterator[None]:
        """Keeps the engine running: an exception inside is logged, and reported by `health` until the next success."""
        try:
            yield
        except Exception as error:
            self._failures[what] = f"{what} failed: {type(error).__name__}"
            _log.exception("engine trouble", extra={"what": what})
        else:
            self._failures.pop(what, None)

    def _spawn(self, work: Coroutine[object, object, _T]) -> asyncio.Task[_T]:
        """Starts a task that ends with the engine at the latest."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        # The set is what keeps the task alive: the loop itself holds tasks weakly.
        task.add_done_callback(self._tasks.discard)
        return task

    async def _shielded(self, work: Coroutine[object, object, _T]) -> _T:
        """Finishes something even if the caller is cancelled."""
        # A client that disconnects cancels the coroutine of its request. What has begun to change rows is finished all
        # the same, or rows and scheduler would differ.
        return await asyncio.shield(self._spawn(work))


def _is_repair(row: JobRow, job_id: str) -> bool:
    """Whether a job makes files of another one again."""
    return row.key_id == REPAIRS and row.idempotency_key == job_id
