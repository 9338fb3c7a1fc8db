"""The scheduler: which device does what next, and at which quality. It decides and nothing else.

    admit / restore -> schedule -> [a device works] -> update -> schedule -> ... -> the job is done, and removed

Pure: no clock, no threads, no chance, no files; every call is given `now`, and the same calls lead to the same
decisions. Its parts: `demand` computes what jobs need, `feasibility` which of them can be in time at which quality,
`dispatch` what an idle device does next, `quality_grants` what a unit gets, `quotes` what a new request can expect,
`price_correction` how predictions learn, `fairness` which class or key is due device time; `scheduler_state` stores it.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from sphinx_nvs.engine.scheduler.dispatch import choose, rank
from sphinx_nvs.engine.scheduler.feasibility import analyse
from sphinx_nvs.engine.scheduler.invariants import check
from sphinx_nvs.engine.scheduler.job_entries import Job, Standing, UnitEntry, Urgency
from sphinx_nvs.engine.scheduler.price_correction import Ladder
from sphinx_nvs.engine.scheduler.quality_grants import capacity_now
from sphinx_nvs.engine.scheduler.quotes import Forecast, forecast, snapshot
from sphinx_nvs.engine.scheduler.scheduler_state import Device, SchedulerState
from sphinx_nvs.engine.scheduler.types import (
    Admission,
    Decision,
    Phase,
    Request,
    SchedulerConfig,
    Snapshot,
)
from sphinx_nvs.engine.types.jobs import Quote, UnitRow
from sphinx_nvs.engine.types.messages import (
    Begun,
    DeviceLost,
    DeviceReady,
    Dropped,
    Finished,
    Refused,
    Regressed,
    Report,
    Stepped,
    UnitKey,
)

PATIENCE = 32
"""The analysis is repeated when one job in this many has been added, ended or finished a unit since."""


class Scheduler:
    """Decides for `devices` devices, none of which is ready before `DeviceReady`.

    Args:
        config: weights and bounds.
        devices: number of devices; numbered from 0.
    """

    def __init__(self, config: SchedulerConfig, devices: int) -> None:
        self._state = SchedulerState(config, devices)
        self._orders = 0
        self._changes = 0
        self._planned_at: float | None = None

    # Admission

    def quote(self, now: float | int, request: Request) -> Quote:
        """The quote of a request that is admitted now; changes nothing."""
        return forecast(self._state, self._job(request), float(now)).quote

    def admit(self, now: float | int, request: Request) -> Admission:
        """Admits a request, or says why not and when to try again.

        A deadline that cannot be met even at the floor is quoted as it is, and only rejected if the configuration
        requires it.

        Raises:
            ValueError: the job was added already.
        """
        job, foreseen, admission = self._evaluate(float(now), request)
        if admission.accepted:
            job.promised_s = foreseen.latency_s
            job.arrived = (float(now), request.prices.regression_s + job.ladder.floor.seconds)
            # Counted at the floor: what is certain to be needed, whatever quality the load will leave. Requests that
            # are refused are not counted, since their work never comes.
            self._state.arriving.add(*job.arrived)
            self._take(job)
        return admission

    def would_admit(self, now: float | int, request: Request) -> Admission:
        """What `admit` would answer; changes nothing.

        Raises:
            ValueError: the job was added already.
        """
        return self._evaluate(float(now), request)[2]

    def restore(self, now: float | int, request: Request, done_units: Collection[int] = ()) -> None:
        """Adds a job that was accepted before a restart, without checking bounds; finished units stay finished.

        Raises:
            ValueError: the job was added already.
        """
        self._refuse_twice(request)
        job = self._job(request)
        # Straight into the units, and not by reports: prices must not learn from work of an earlier process.
        for index in done_units:
            job.units[index].standing = Standing.DONE
        job.changed()
        if not job.is_done:
            self._take(job)

    def extend(self, now: float | int, job_id: str, units: Sequence[UnitRow]) -> None:
        """Adds a job's units of refinement once its path is split; units that it has already stay as they are."""
        job = self._state.jobs.get(job_id)
        if job:
            job.add(tuple(units))
            self._touch(job)
            self._forget_done(float(now), job)

    def cancel(self, now: float | int, job_id: str) -> None:
        """Removes a job; devices drop its units before anything else."""
        job = self._state.jobs.get(job_id)
        if job:
            if job.arrived:
                # A burst of requests that are cancelled at once must not make the scheduler reserve time for more of
                # them.
                self._state.arriving.withdraw(*job.arrived)
            self._state.remove(job)
            # Its seconds are free now. This counts as much as PATIENCE small changes, so the next `schedule` analyses
            # again unless more than PATIENCE squared jobs are queued.
            self._changes += PATIENCE

    # Decisions

    def schedule(self, now: float | int) -> list[Decision]:
        """The next command of every idle device that has something to do."""
        idle = [device for device in self._state.devices if device.is_idle]
        if not idle:
            return []
        # Once for all idle devices: what one device takes changes the queue too little to lower another's choice.
        self._replan(float(now))
        decisions = []
        for device in idle:
            decision = choose(self._state, device, float(now))
            if decision:
                self._start(device, decision)
                decisions.append(decision)
        return decisions

    def update(self, now: float | int, report: Report, device: int | None = None) -> None:
        """Processes a device's report; a report that answers no running command changes nothing.

        Args:
            now: on the caller's clock.
            report: from a device.
            device: the device's number; without it, the device whose command the report answers is searched.
        """
        if isinstance(report, DeviceReady):
            self._ready(report.device)
        elif isinstance(report, DeviceLost):
            self._lost(report.device)
        else:
            answering = self._answering(report, device)
            if answering:
                self._answered(float(now), answering, report)

    def snapshot(self, now: float | int) -> Snapshot:
        """The scheduler as it is now."""
        return snapshot(self._state, float(now))

    def check(self) -> None:
        """Raises RuntimeError if the scheduler contradicts itself."""
        check(self._state)

    # Admission, in parts

    def _job(self, request: Request) -> Job:
        """A job from a request."""
        config, prices = self._state.config, request.prices
        is_soft = request.deadline_s is None
        asked = request.quality if request.quality is not None or not is_soft else config.default_quality
        # No quality beside a deadline means "as good as the deadline allows": the ladder then reaches to the table's
        # last rung.
        ladder = Ladder.of(prices, request.min_quality, prices.rungs[-1].quality if asked is None else asked)
        # In proportion to the job's own length, so that a long job without a deadline is not pushed behind short ones
        # for ever, and does not become urgent the moment it is added.
        soft = config.soft_deadline_s + config.soft_stretch * (prices.regression_s + ladder.top.seconds)
        job = Job(
            request=request,
            order=self._orders,
            ladder=ladder,
            asked=None if asked is None else float(max(asked, request.min_quality)),
            due=float(request.accepted_at + (soft if request.deadline_s is None else request.deadline_s)),
            is_soft=is_soft,
        )
        job.add(request.units)
        return job

    def _evaluate(self, now: float, request: Request) -> tuple[Job, Forecast, Admission]:
        """A job that is not in the scheduler yet, its forecast, and whether it may be added."""
        self._refuse_twice(request)
        job = self._job(request)
        foreseen = forecast(self._state, job, now)
        refusal = self._refusal(request, foreseen.is_late)
        again = self._retry_after(now, foreseen.quote, request) if refusal else None
        admission = Admission(accepted=not refusal, quote=foreseen.quote, retry_after_s=again, sentence=refusal)
        return job, foreseen, admission

    def _refuse_twice(self, request: Request) -> None:
        if request.job_id in self._state.jobs:
            raise ValueError(f"job {request.job_id} was added already")
        if not any(unit.index == 0 for unit in request.units):
            raise ValueError(f"job {request.job_id} has no regression unit")

    def _refusal(self, request: Request, is_late: bool) -> str:
        """Why a request is not accepted; "" if it is."""
        config, state = self._state.config, self._state
        if len(state.jobs) >= config.max_queue:
            return f"the queue is full: {len(state.jobs)} jobs are not finished; try again later"
        if state.jobs_of(request.key_id) >= config.max_queue_per_key:
            return f"this key has {state.jobs_of(request.key_id)} unfinished jobs; wait for one of them to end"
        if is_late and config.reject_late:
            return f"deadline_s: {request.deadline_s:g} s cannot be met even at min_quality; allow more time"
        return ""

    def _retry_after(self, now: float, quote: Quote, request: Request) -> float:
        """Seconds after which a place in the queue, or enough time, may be free; at least 1."""
        seen = self.snapshot(now)
        # A place in a full queue is free once any one job has ended: on average after one job's part of the backlog.
        per_job = seen.backlog_s / max(1, seen.jobs) / self._state.num_ready
        missing = quote.latency_s - (request.deadline_s or quote.latency_s)
        return max(1.0, per_job, missing)

    def _take(self, job: Job) -> None:
        """Puts a job into the state."""
        self._orders += 1
        self._state.add(job)
        self._changes += 1

    # Decisions, in parts

    def _replan(self, now: float) -> None:
        """Repeats the analysis when enough has changed, or the last one is too old."""
        state = self._state
        is_old = self._planned_at is None or abs(now - self._planned_at) >= state.config.replan_s
        # An analysis costs time in proportion to the queue. Repeated per share of the queue that has changed, it costs
        # each change about the same, however long the queue is.
        if not is_old and self._changes * PATIENCE <= len(state.jobs):
            return
        self._planned_at, self._changes = now, 0
        jobs = list(state.jobs.values())
        analyse(jobs, capacity_now(state, now), state.config).assign(jobs)
        # Sorted here, where all jobs are visited anyway: `choose` then finds the most urgent one that it may begin by
        # walking from the front.
        urgent = [job for job in jobs if job.urgency is not Urgency.NONE]
        state.urgent = sorted(urgent, key=lambda job: rank(state, job))
        state.late = [job for job in jobs if job.is_late]

    def _start(self, device: Device, decision: Decision) -> None:
        """Notes a command."""
        device.running = decision
        if decision.phase is Phase.DROP:
            return
        for key in decision.units:
            job, unit = self._state.jobs[key[0]], self._state.jobs[key[0]].units[key[1]]
            unit.standing, unit.device = Standing.RUNNING, device.number
            # From its beginning, and not from the report: room for units is counted while the command is on its way.
            if decision.phase is Phase.BEGIN:
                device.held[key] = None
            self._state.touch(job)

    # Reports, in parts

    def _ready(self, number: int) -> None:
        """A device takes commands; what it held before is lost."""
        self._lost(number)
        self._state.devices[number].is_ready = True

    def _lost(self, number: int) -> None:
        """A device holds nothing any more, and its units wait again."""
        device = self._state.devices[number]
        # A preview that is being made is not among the held units: no memory is kept for it between commands.
        keys = [*device.held, *(device.running.units if device.running else ())]
        for found in map(self._state.unit, keys):
            # A command may still name a unit that was taken back and has begun on another device since.
            if found and found[1].device == number and found[1].standing is not Standing.DONE:
                found[1].take_back()
                self._touch(found[0])
        device.held.clear()
        device.stale.clear()
        device.running, device.is_ready = None, False

    def _answering(self, report: Report, number: int | None) -> Device | None:
        """The device whose command a report answers."""
        units = _units_of(report)
        devices = self._state.devices if number is None else self._state.devices[number : number + 1]
        phase = _PHASES.get(type(report))
        # A report may be late: the unit was cancelled and begun again elsewhere. It must not end another command.
        running = [(d, d.running) for d in devices if d.running and d.running.units == units]
        return next((d for d, command in running if _answers(phase, command.phase)), None)

    def _answered(self, now: float, device: Device, report: Report) -> None:
        """A command is done."""
        # Before `running` is cleared: whose share the seconds count against depends on the command.
        device.spend(float(getattr(report, "seconds", 0.0)))
        device.running = None
        if isinstance(report, Dropped):
            for key in report.units:
                device.stale.pop(key, None)
        elif isinstance(report, Refused):
            self._refused(device, report.units)
        elif isinstance(report, Stepped):
            # A packed step is one call: each of its units is charged an equal part of the seconds.
            for key, done in zip(report.units, report.done, strict=True):
                self._stepped(device, key, done, report.seconds / len(report.units))
        elif isinstance(report, Begun):
            self._begun(device, report)
        elif isinstance(report, Regressed | Finished):
            self._made(now, device, report)

    def _refused(self, device: Device, units: Sequence[UnitKey]) -> None:
        """Units wait again; what the device may still hold of them will be dropped."""
        for key in units:
            found = self._found(device, key)
            if found:
                self._state.take_back(*found)
                self._touch(found[0])

    def _begun(self, device: Device, report: Begun) -> None:
        """A unit has a plan."""
        found = self._found(device, report.unit)
        if found:
            job, unit = found
            unit.standing, unit.steps, unit.planned_s = Standing.HELD, report.steps, report.predicted_s
            unit.share = float(report.plan.get("active_share", 1.0))
            unit.spent_s = report.seconds
            self._state.refinements.add(job.request.key_id, report.seconds)
            self._state.touch(job)

    def _stepped(self, device: Device, key: UnitKey, done: int, seconds: float) -> None:
        """A unit got on by a step."""
        found = self._found(device, key)
        if found:
            job, unit = found
            unit.standing, unit.done = Standing.HELD, done
            unit.spent_s += seconds
            unit.stepped_s += seconds
            self._state.refinements.add(job.request.key_id, seconds)
            self._state.touch(job)

    def _made(self, now: float, device: Device, report: Regressed | Finished) -> None:
        """A unit is done; prices learn from it."""
        # The device has freed a unit of a job that was cancelled in the meantime, too.
        device.stale.pop(report.unit, None)
        found = self._found(device, report.unit)
        if not found:
            return
        job, unit = found
        device.held.pop(report.unit, None)
        self._learn(job, unit, report.seconds)
        unit.standing, unit.device = Standing.DONE, None
        self._touch(job)
        self._forget_done(now, job)

    def _learn(self, job: Job, unit: UnitEntry, seconds: float) -> None:
        """Compares what a unit took with what it was predicted to take."""
        state, key = self._state, job.request.key_id
        if unit.is_preview:
            state.previews.add(key, seconds)
            state.preview_price.learn(job.request.prices.regression_s, seconds)
            return
        state.refinements.add(key, seconds)
        # Two predictions are corrected apart: the price table's, made before the render was seen, with the begin in it,
        # and the device's own for the plan that it made, without.
        state.refinement_price.learn(unit.promised_s, unit.spent_s + seconds)
        state.plan_price.learn(unit.planned_s, unit.stepped_s + seconds)

    def _forget_done(self, now: float, job: Job) -> None:
        """Removes a job whose units are all done; quotes learn from it."""
        if job.is_done:
            if job.promised_s is not None:
                # Cancelled jobs are no evidence about latency, and jobs restored after a restart have waited for the
                # restart, too: neither comes here with a promise.
                self._state.latency[job.looseness].learn(job.promised_s, now - job.request.accepted_at)
            self._state.remove(job)

    def _found(self, device: Device, key: UnitKey) -> tuple[Job, UnitEntry] | None:
        """A unit that this device has."""
        found = self._state.unit(key)
        return found if found and found[1].device == device.number else None

    def _touch(self, job: Job) -> None:
        """A job has changed enough for a new analysis."""
        self._state.touch(job)
        self._changes += 1


_PHASES: dict[type, Phase] = {
    Regressed: Phase.REGRESS,
    Begun: Phase.BEGIN,
    Stepped: Phase.STEP,
    Finished: Phase.FINISH,
    Dropped: Phase.DROP,
}


def _answers(reported: Phase | None, commanded: Phase) -> bool:
    """Whether a report of a phase answers a command; a refusal, which names none, answers anything but a drop."""
    return commanded is not Phase.DROP if reported is None else reported is commanded


def _units_of(report: Report) -> tuple[UnitKey, ...]:
    """The units that a report is about."""
    if isinstance(report, Regressed | Begun | Finished):
        return (report.unit,)
    return tuple(report.units) if isinstance(report, Stepped | Dropped | Refused) else ()
