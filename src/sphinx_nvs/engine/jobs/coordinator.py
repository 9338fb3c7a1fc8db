"""Joins store, scheduler and devices: decisions become commands, reports become rows and new decisions.

    schedule -> [start] -> command -> device -> report -> [row, events] -> update -> schedule -> ...

Everything here runs in the engine's turns, so nothing changes between two lines of it but rows and files.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection
from dataclasses import dataclass, field

from sphinx_nvs.engine.jobs.active_job import ActiveJob
from sphinx_nvs.engine.jobs.lifecycle import Lifecycle, SplitError
from sphinx_nvs.engine.jobs.splitting import REGRESSION
from sphinx_nvs.engine.metrics import Metrics
from sphinx_nvs.engine.protocols import Devices
from sphinx_nvs.engine.scheduler.scheduler import Scheduler
from sphinx_nvs.engine.scheduler.types import Decision, Phase, Request
from sphinx_nvs.engine.types.jobs import UnitState
from sphinx_nvs.engine.types.messages import (
    Begin,
    Begun,
    Command,
    DeviceLost,
    DeviceReady,
    Drop,
    Dropped,
    Finish,
    Finished,
    Refused,
    Regress,
    Regressed,
    Report,
    Step,
    Stepped,
)
from sphinx_nvs.engine.types.transitions import JobEvent

LOST = "the device stopped while it worked on this"
"""Error of a unit whose device died."""

BROKEN = "the server could not store the result of this"
"""Error of a unit whose rows could not be written."""

UNSENT = "the command for this could not be sent to the device"
"""Error of a unit whose command could not be sent."""

FREE_FAILURES, LONGEST_REST_S = 2, 30.0
"""Consecutive failures to write rows that cause no pause; after these, devices pause, each time twice as long."""

_log = logging.getLogger(__name__)


@dataclass(kw_only=True)
class DeviceRoster:
    """The devices that have reported.

    Args:
        names: names by device number, for people.
        ready: numbers of the devices whose models are loaded.
    """

    names: dict[int, str] = field(default_factory=dict)
    ready: set[int] = field(default_factory=set)


class Coordinator:
    """Has devices carry out the scheduler's decisions, and passes their reports to the life cycle.

    Args:
        life: unfinished jobs.
        scheduler: decides.
        executor: the devices.
        conclude: called with a job that ends with all its frames refined or with its preview, and the reason.
        metrics: counters.
        clock: epoch seconds.
        roster: kept up to date with the devices' reports.
    """

    def __init__(
        self,
        life: Lifecycle,
        scheduler: Scheduler,
        executor: Devices,
        conclude: Callable[[ActiveJob, str], None],
        metrics: Metrics,
        clock: Callable[[], float],
        roster: DeviceRoster,
    ) -> None:
        self._life, self._scheduler, self._executor = life, scheduler, executor
        self._conclude, self._metrics, self._clock = conclude, metrics, clock
        self._running: dict[int, Decision] = {}
        self._roster = roster
        self._unwritten, self._rests_until = 0, 0.0

    @property
    def working(self) -> Collection[int]:
        """Devices that carry out a command."""
        return self._running.keys()

    async def resume(self, job: ActiveJob) -> None:
        """Resumes a job from its rows."""
        self._life.jobs[job.id] = job
        # Units are not stored with their frames and photos, only by index: the path is split again, which gives the
        # same units.
        if job.is_previewed and not await self._split(job):
            return
        if not await self._settled(job):
            request = Request.of(job.row, job.prices, list(job.rows.values()))
            self._scheduler.restore(self._clock(), request, job.done_units)

    async def dispatch(self) -> None:
        """Sends idle devices their next commands, except during a pause.

        Raises:
            Exception: the first failure; other devices get their commands all the same.
        """
        if self._clock() < self._rests_until:
            return
        failures: list[Exception] = []
        for decision in self._scheduler.schedule(self._clock()):
            # The scheduler counts each of them as running until it is answered: one that is dropped would run for ever.
            try:
                await self._carry_out(decision)
            except Exception as error:
                failures.append(error)
        if failures:
            raise failures[0]

    async def cancel(self, job: ActiveJob, event: JobEvent = JobEvent.CANCELLED) -> None:
        """Ends a job before its time; devices forget its units at their next command."""
        # Rows first: if they cannot be written, the job goes on as if it had not been cancelled.
        await self._life.end(job, event)
        self._scheduler.cancel(self._clock(), job.id)
        await self.dispatch()

    async def take(self, device: int, report: Report) -> None:
        """Works through a device's report, and sends what comes next.

        Raises:
            Exception: rows could not be written; the units of the report wait again.
        """
        self._note(device, report)
        if not isinstance(report, DeviceLost | DeviceReady):
            # The device has answered: if it dies now, this is not what it was working on.
            self._running.pop(device, None)
        try:
            await self._react(device, report)
        except Exception:
            # Rows and memory may differ now; `start_unit` in the store decides whether the unit may run once more.
            self._retry_in_memory(device, report)
            self._rest()
            raise
        if isinstance(report, Regressed | Finished):
            self._unwritten = 0
        await self.dispatch()

    def _rest(self) -> None:
        """Pauses dispatching: while frames cannot be stored (a full disk), devices would repeat the same work."""
        self._unwritten += 1
        if self._unwritten > FREE_FAILURES:
            rest_s = min(2.0 ** (self._unwritten - FREE_FAILURES - 1), LONGEST_REST_S)
            self._rests_until = self._clock() + rest_s

    async def _react(self, device: int, report: Report) -> None:
        """Reacts to a report by its kind."""
        match report:
            case Stepped():
                # The device has its next command before anything is written: it does not wait for rows.
                self._scheduler.update(self._clock(), report, device)
                await self.dispatch()
                await self._life.stepped(device, report)
            case Begun():
                self._scheduler.update(self._clock(), report, device)
                await self.dispatch()
                await self._life.begun(device, report)
            case DeviceLost() | DeviceReady():
                await self._device_restarted(device, report)
            case Refused():
                await self._refused(device, report)
            case Regressed() | Finished():
                await self._progressed(device, report)
            case _:
                self._scheduler.update(self._clock(), report, device)

    def _retry_in_memory(self, device: int, report: Report) -> None:
        """Has the units of a report start again, in memory alone."""
        if isinstance(report, DeviceLost | DeviceReady):
            return
        units = report.units if isinstance(report, Stepped | Dropped | Refused) else (report.unit,)
        for unit in units:
            if job := self._life.holder(unit, device):
                del job.work[unit[1]]
        self._scheduler.update(self._clock(), Refused(units=units, sentence=BROKEN, is_users_fault=False), device)

    def _note(self, device: int, report: Report) -> None:
        """Updates counters and the roster."""
        if isinstance(report, DeviceReady):
            self._roster.ready.add(device)
            self._roster.names[device] = report.name
            _log.info("device ready", extra={"device": device, "device_name": report.name})
        elif isinstance(report, DeviceLost):
            self._roster.ready.discard(device)
            self._metrics.crashes.labels(device=str(device)).inc()
            _log.warning("device lost", extra={"device": device})
        self._metrics.busy.labels(device=str(device)).inc(getattr(report, "seconds", 0.0))
        self._metrics.devices_ready.set(len(self._roster.ready))

    async def _progressed(self, device: int, report: Regressed | Finished) -> None:
        """A unit is finished."""
        job = self._life.holder(report.unit, device)
        # The job was cancelled, or the unit given up, while the device worked: the scheduler must still know that it is
        # idle.
        if job is None:
            self._scheduler.update(self._clock(), report, device)
            return
        reason = ""
        if isinstance(report, Finished):
            await self._life.finished(job, report)
        else:
            try:
                reason = await self._life.regressed(job, report)
            except SplitError as error:
                refused = Refused(units=(report.unit,), sentence=str(error), is_users_fault=False)
                await self._refused(device, refused)
                return
        self._scheduler.update(self._clock(), report, device)
        if reason:
            self._end_unrefined(job, reason)
        else:
            await self._advance(job, report.unit[1])

    async def _advance(self, job: ActiveJob, index: int) -> None:
        """Goes to the next step after a unit that was reported as finished."""
        if job.rows[index].state is not UnitState.DONE:
            await self._start_over(job)
        # Only now are the units of the path known to the scheduler: they were stored with the preview.
        elif index == REGRESSION:
            self._scheduler.extend(self._clock(), job.id, list(job.rows.values()))
        elif job.is_refined:
            self._conclude(job, "")

    async def _start_over(self, job: ActiveJob) -> None:
        """Brings scheduler and rows together again after they turned out to differ."""
        _log.warning("rows were not as expected", extra={"job_id": job.id})
        # Rows first: a job that was removed from the scheduler and not restored would wait for ever.
        is_there = await self._life.reread(job)
        for index in list(job.work) if is_there else ():
            await self._life.give_up(job, index, LOST, is_blamed=False)
        self._scheduler.cancel(self._clock(), job.id)
        if is_there:
            await self.resume(job)

    async def _refused(self, device: int, report: Refused) -> None:
        """Units could not be carried out."""
        # Before anything is changed: giving up a unit ends its being held, and several units may be of one job.
        held = [(job, unit[1]) for unit in report.units if (job := self._life.holder(unit, device))]
        for job, index in held:
            await self._life.give_up(job, index, report.sentence, is_hopeless=report.is_users_fault)
        self._scheduler.update(self._clock(), report, device)
        for job, _ in held:
            await self._settled(job)

    async def _device_restarted(self, device: int, report: DeviceLost | DeviceReady) -> None:
        """A device holds nothing: it died or has just started. Its units start again, on any device."""
        # Only what the device was working on may have killed it. Units that it merely held in memory are begun again
        # without blame, or two crashes of others would poison them.
        guilty = self._running.pop(device).units if device in self._running else ()
        # Before any row: even if rows cannot be written, the scheduler must know that the device holds nothing.
        self._scheduler.update(self._clock(), report)
        held = [(job, i) for job in self._life.jobs.values() for i, work in job.work.items() if work.device == device]
        for job, index in held:
            await self._life.give_up(job, index, LOST, is_blamed=(job.id, index) in guilty)
        for job, _ in held:
            await self._settled(job)

    async def _settled(self, job: ActiveJob) -> bool:
        """Ends a job that cannot continue or whose frames are all refined; returns whether it was either."""
        poison = job.poison
        if poison is not None and job.id in self._life.jobs:
            self._end_unrefined(job, poison.error or "a unit failed too often")
        elif job.is_refined and not job.is_ending:
            self._conclude(job, "")
        return poison is not None or job.is_refined

    def _end_unrefined(self, job: ActiveJob, reason: str) -> None:
        """Ends a job that will not be refined: what it has is delivered, if it has anything."""
        self._scheduler.cancel(self._clock(), job.id)
        job.work.clear()
        self._conclude(job, reason)

    async def _split(self, job: ActiveJob) -> bool:
        """Splits the path of a resumed job; False if that ended it."""
        try:
            reason = await self._life.split_again(job)
        except SplitError as error:
            # The preview is stored, and a new one would fail the same way.
            reason = str(error)
        if reason:
            self._conclude(job, reason)
        return not reason

    async def _carry_out(self, decision: Decision) -> None:
        """Sends a command, once the row of its unit is running."""
        job = self._life.jobs.get(decision.unit[0])
        try:
            # Steps and finishes need no row: the unit is marked as running since its begin. A job that is gone has only
            # drops left.
            is_ours = (
                job is None or decision.phase not in (Phase.REGRESS, Phase.BEGIN) or await self._started(job, decision)
            )
        except Exception:
            self._not_done(decision)
            raise
        if is_ours:
            self._running[decision.device] = decision
            await self._send(decision, job)

    async def _send(self, decision: Decision, job: ActiveJob | None) -> None:
        """Sends a command; a failure to send counts as a refusal by the device."""
        try:
            self._executor.submit(decision.device, _command_of(decision, job))
        except Exception:
            _log.exception("command could not be sent", extra={"device": decision.device, "phase": decision.phase})
            refused = Refused(units=decision.units, sentence=UNSENT, is_users_fault=False)
            await self.take(decision.device, refused)

    async def _started(self, job: ActiveJob, decision: Decision) -> bool:
        """Marks the unit of a decision as running, and reports a reduced quality; False if it cannot be started."""
        if not await self._life.start(job, decision.unit[1], decision.device):
            self._not_done(decision)
            await self._start_over(job)
            return False
        if decision.degraded is not None:
            await self._life.degraded(job, decision.degraded)
        return True

    def _not_done(self, decision: Decision) -> None:
        """Reports to the scheduler that a command was never sent."""
        refused = Refused(units=decision.units, sentence=BROKEN, is_users_fault=False)
        self._scheduler.update(self._clock(), refused, decision.device)


def _command_of(decision: Decision, job: ActiveJob | None) -> Command:
    """The command that a decision is.

    Args:
        decision: a decision of the scheduler.
        job: the job of the unit; its path is split and the frames that the unit depends on are finished. Steps,
            finishing and dropping do not need it.
    """
    if decision.phase is Phase.STEP:
        return Step(units=decision.units)
    if decision.phase is Phase.DROP:
        return Drop(units=decision.units)
    if decision.phase is Phase.FINISH:
        return Finish(unit=decision.unit)
    assert job is not None
    if decision.phase is Phase.REGRESS:
        return Regress(unit=decision.unit, spec=job.row.spec, scene_path=job.scene_path)
    return _begin(decision, job)


def _begin(decision: Decision, job: ActiveJob) -> Begin:
    """Begins a unit of refinement; the job's first unit is the regression."""
    unit, lossless = job.units[decision.unit[1] - 1], job.lossless
    return Begin(
        unit=decision.unit,
        spec=job.row.spec,
        scene_path=job.scene_path,
        targets=unit.targets,
        photos=unit.photos,
        finished={frame: lossless[frame] for frame in unit.frames},
        quality=decision.quality,
        within_s=decision.within_s,
        min_quality=decision.min_quality,
        alone=len(job.units) == 1,
        again=job.again.get(decision.unit[1]),
    )
