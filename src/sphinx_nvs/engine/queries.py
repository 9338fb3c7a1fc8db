"""Queries about an engine and its jobs; nothing here changes anything."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence

from sphinx_nvs.engine.config import EngineConfig
from sphinx_nvs.engine.event_streams import EventStreams
from sphinx_nvs.engine.jobs.active_job import frames_of, plans_of
from sphinx_nvs.engine.jobs.coordinator import DeviceRoster
from sphinx_nvs.engine.jobs.lifecycle import Lifecycle, in_thread
from sphinx_nvs.engine.metrics import Metrics
from sphinx_nvs.engine.protocols import Parts
from sphinx_nvs.engine.types.jobs import Event, JobRow, JobState, UnitRow
from sphinx_nvs.engine.types.status import Capacity, DeviceStatus, Model
from sphinx_nvs.json_types import JSONObject
from sphinx_nvs.presets import preset_cards


class EngineQueries:
    """Queries about an engine and its jobs. It holds the state that `Engine`, which derives from it, changes.

    Args:
        config: the engine's configuration.
        parts: store, scheduler, devices and prices.
        clock: epoch seconds.
    """

    def __init__(self, config: EngineConfig, parts: Parts, clock: Callable[[], float]) -> None:
        self.config, self.metrics = config, Metrics()
        self._parts, self._store, self._clock = parts, parts.store, clock
        self._streams = EventStreams(self._read_events, self._is_over)
        self._life = Lifecycle(
            parts.store, window=config.resolved_window, limits=config.limits, metrics=self.metrics, clock=clock
        )
        self._roster = DeviceRoster()
        self._failures: dict[str, str] = {}
        self._is_closing = False

    async def job(self, job_id: str) -> JobRow | None:
        """A job; None if there is none, or none any more."""
        return await in_thread(self._store.job, job_id)

    async def jobs(self, *, key_id: str | None = None, after: str | None = None, limit: int = 100) -> list[JobRow]:
        """Jobs, the newest first.

        Args:
            key_id: the API key whose jobs are listed; None for those of all keys.
            after: id of the last job of the page before.
            limit: most jobs of a page.
        """
        return await in_thread(self._store.list_jobs, key_id=key_id, before=after, limit=limit)

    async def units(self, job_id: str) -> Sequence[UnitRow]:
        """A job's units, in order; none if there is no such job."""
        return await in_thread(self._store.units, job_id)

    def events(self, job_id: str, after: int = 0) -> AsyncIterator[Event]:
        """A job's events after number `after`: the stored ones, then new ones as they happen, until the final one.

        The kinds and their data are listed in `engine.jobs.lifecycle`.
        """
        return self._streams.listen(job_id, after)

    async def plan(self, job_id: str) -> list[JSONObject]:
        """The plans of the units that have one, by unit; `file` is the digest of the plan as safetensors."""
        plans = plans_of(await self.units(job_id))
        if job_id in self._life.jobs:
            plans = plans | self._life.jobs[job_id].plans
        return [plans[index] for index in sorted(plans)]

    async def frame(self, job_id: str, index: int, level: str = "final") -> str | None:
        """Digest of a frame's PNG at `preview` or `final`; None while there is none."""
        return frames_of(await self.units(job_id), level).get(index)

    @property
    def ready(self) -> bool:
        """Whether a device has its models loaded and the engine accepts requests."""
        return bool(self._roster.ready) and not self._is_closing

    @property
    def health(self) -> str:
        """Failures that are not resolved yet, as one sentence; "" if there are none."""
        return "; ".join(self._failures.values())

    def models(self) -> tuple[Model, ...]:
        """The models behind this engine's frames, and their licences."""
        cards = preset_cards(self.config.preset, self.config.options.get("weights"))
        return tuple(
            Model(name=card.name, about=card.about, part=card.part, licence=card.licence.name, url=card.licence.url)
            for card in cards
        )

    def capacity(self) -> Capacity:
        """How busy the engine is."""
        ready, names = self._roster.ready, self._roster.names
        snapshot = self._parts.scheduler.snapshot(self._clock())
        devices = tuple(
            DeviceStatus(
                index=view.device,
                name=names.get(view.device, ""),
                is_ready=view.device in ready,
                is_busy=view.is_busy,
                held=len(view.held),
                work_s=view.work_s,
            )
            for view in snapshot.devices
        )
        queued, running = self._count_jobs()
        return Capacity(
            devices=devices,
            queued=queued,
            running=running,
            max_queue=self.config.scheduler.max_queue,
            wait_s=snapshot.wait_s,
            backlog_s=snapshot.backlog_s,
            pressure=snapshot.pressure,
            slo_attainment=self.metrics.slo_attainment,
        )

    def _count_jobs(self) -> tuple[int, int]:
        """Sets the gauges; returns the numbers of queued and of running jobs."""
        queued = sum(job.row.state is JobState.QUEUED for job in self._life.jobs.values())
        running = len(self._life.jobs) - queued
        self.metrics.queued.set(queued)
        self.metrics.running.set(running)
        self.metrics.listeners.set(self._streams.num_listeners)
        return queued, running

    async def _read_events(self, job_id: str, after: int, limit: int) -> Sequence[Event]:
        return await in_thread(self._store.events, job_id, after=after, limit=limit)

    async def _is_over(self, job_id: str) -> bool:
        row = await self.job(job_id)
        return row is None or row.state.is_final
