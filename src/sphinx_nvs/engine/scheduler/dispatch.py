"""What an idle device does next.

    1. drop units of cancelled jobs
    2. urgent work, previews of urgent jobs included; other previews only for their guaranteed share
    3. previews, the least served key first, unless refinement is due its share
    4. refinement of jobs that can meet their deadline; late jobs, oldest first, if there are none or they are due
       their share

Among urgent jobs: those that need a device of their own now, then those that cannot wait together, both by deadline
(what `feasibility` calls feasible, earliest deadline first makes feasible); among others, the least served key. A begun
unit continues unless an urgent one comes first: fairness waits for the end of a unit, urgency for the end of a step.
"""

from __future__ import annotations

from sphinx_nvs.engine.scheduler.job_entries import Job, UnitEntry, Urgency
from sphinx_nvs.engine.scheduler.quality_grants import grant
from sphinx_nvs.engine.scheduler.scheduler_state import Device, SchedulerState
from sphinx_nvs.engine.scheduler.types import Decision, Phase
from sphinx_nvs.engine.types.messages import UnitKey

Candidate = tuple[Job, UnitEntry]
Rank = tuple[float | int, ...]


def choose(state: SchedulerState, device: Device, now: float) -> Decision | None:
    """The next command of an idle device; None if there is nothing to do. Notes on the device who had to wait."""
    # Before anything else: the memory of cancelled jobs may be what the next begin needs, and dropping takes no time.
    if device.stale:
        return Decision(device=device.number, phase=Phase.DROP, units=tuple(device.stale), why="their jobs ended")
    # Who waits is noted even if another class is chosen: a claim grows only while its class waits, see `Claim.spend`.
    on_time, late = _on_time(state, device), _late(state, device)
    urgent = on_time if on_time and on_time[0].urgency is not Urgency.NONE else None
    refines = late is not None or (on_time is not None and not on_time[1].is_preview)
    device.refinement_waits, device.previews_wait = refines, bool(state.waiting_previews)
    device.late_waits, device.serves_late = late is not None, False
    # First of all classes, urgent work included: its share is small, and otherwise a full queue of urgent jobs would
    # keep late ones waiting for ever.
    if late and device.late.is_turn:
        return _serve_late(state, device, late, now)
    # Two rules in one. Beside urgent work previews get their share only; without urgent work they come first, and
    # refinement gets its share instead.
    if device.previews_wait and (device.previews.is_turn if urgent else not (refines and device.refinement.is_turn)):
        return _regress(device, _preview(state), "a preview is waiting")
    if on_time:
        return _refine(state, device, on_time, now, _reason(on_time[0]))
    return _serve_late(state, device, late, now) if late else None


def _serve_late(state: SchedulerState, device: Device, candidate: Candidate, now: float) -> Decision:
    """The next phase of a late job, counted as such."""
    device.serves_late = True
    return _refine(state, device, candidate, now, "its deadline is lost, but it is its turn")


def _regress(device: Device, job: Job, why: str) -> Decision:
    """The preview of a job."""
    return Decision(device=device.number, phase=Phase.REGRESS, units=((job.id, 0),), why=why)


def _reason(job: Job) -> str:
    """Why a job on time comes next."""
    reasons = {
        Urgency.OWN: "it cannot wait",
        Urgency.SHARED: "with later jobs, it cannot wait",
        Urgency.NONE: "its key was served least",
    }
    return reasons[job.urgency]


def _preview(state: SchedulerState) -> Job:
    """The next job to be previewed, of those that wait."""
    served = state.previews.of

    def place(job: Job) -> Rank:
        return (served(job.request.key_id), -job.request.priority, job.order)

    return min(state.waiting_previews.values(), key=place)


def _on_time(state: SchedulerState, device: Device) -> Candidate | None:
    """The next unit of a job that can meet its deadline; a preview only if the job is urgent."""
    held = [(job, unit) for job, unit in state.held(device) if not job.is_late]
    mine = min(held, key=lambda candidate: rank(state, candidate[0]), default=None)
    new = _urgent(state, device)
    # A unit that has begun is finished before another begins, since both would hold memory; packing is the exception,
    # because more units then share a step.
    if new is None and (mine is None or state.config.packing) and _has_room(state, device):
        new = min(
            (job for job in state.ready.values() if not job.is_late), key=lambda job: rank(state, job), default=None
        )
    if new is None:
        return mine
    first = (new, new.figures.ready[0] if new.is_previewed else new.preview)
    if mine is None or _packs_with(state, device, new):
        return first
    # Fairness alone never interrupts a unit: it would only swap who waits, and hold more memory meanwhile.
    overtakes = new.urgency is not Urgency.NONE and rank(state, new) < rank(state, mine[0])
    return first if overtakes else mine


def _urgent(state: SchedulerState, device: Device) -> Job | None:
    """The most urgent job on time with a waiting unit that this device may begin."""
    ready = state.ready if _has_room(state, device) else {}
    # Compared by identity: `state.urgent` is as old as the last analysis, and a job that has ended may have been
    # followed by another with its id.
    return next((j for j in state.urgent if state.waiting_previews.get(j.id) is j or ready.get(j.id) is j), None)


def rank(state: SchedulerState, job: Job) -> Rank:
    """Order among jobs on time; of two deadlines within `urgent_s`, the larger priority comes first."""
    request = job.request
    if job.urgency is Urgency.NONE:
        return (job.urgency, state.refinements.of(request.key_id), -request.priority, job.due, job.order)
    # Deadlines in bins of `urgent_s`: priority decides only between deadlines that are practically the same, so it
    # cannot break the order by deadline that makes feasible sets feasible.
    return (job.urgency, job.due // max(state.config.urgent_s, 1e-9), -request.priority, job.due, job.order)


def _late(state: SchedulerState, device: Device) -> Candidate | None:
    """The next unit of a late job: one that the device holds, else the oldest."""
    held = [(job, unit) for job, unit in state.held(device) if job.is_late]
    if held:
        return min(held, key=lambda candidate: candidate[0].order)
    if not _has_room(state, device):
        return None
    oldest = next((job for job in state.late if state.ready.get(job.id) is job), None)
    return (oldest, oldest.figures.ready[0]) if oldest else None


def _has_room(state: SchedulerState, device: Device) -> bool:
    """Whether the device has room for one more unit."""
    return len(device.held) < state.config.max_held


def _refine(state: SchedulerState, device: Device, candidate: Candidate, now: float, why: str) -> Decision:
    """The next phase of a unit."""
    job, unit = candidate
    key = (job.id, unit.row.index)
    if unit.is_preview:
        return _regress(device, job, why)
    if key not in device.held:
        return grant(state, device, job, unit, now, why)
    if _is_stepped(unit):
        return Decision(device=device.number, phase=Phase.FINISH, units=(key,), why=why)
    # Companions must have steps left, the same size and few active cells: a dense unit fills a device by itself, and a
    # step ends for all of them at once.
    units = (key, *_companions(state, device, candidate)) if state.config.packing else (key,)
    return Decision(device=device.number, phase=Phase.STEP, units=units, why=why)


def _companions(state: SchedulerState, device: Device, candidate: Candidate) -> list[UnitKey]:
    """Held units that can share a step with this one, the most pressing first."""
    job, unit = candidate
    if not _is_sparse(state, unit):
        return []
    others = [
        other
        for other in state.held(device)
        if other[1] is not unit
        and other[0].request.size == job.request.size
        and _is_sparse(state, other[1])
        and not _is_stepped(other[1])
    ]
    others.sort(key=lambda other: (other[0].is_late, rank(state, other[0])))
    return [(j.id, u.row.index) for j, u in others[: state.config.max_pack - 1]]


def _packs_with(state: SchedulerState, device: Device, job: Job) -> bool:
    """Whether beginning this job now lets it share the steps of everything that the device holds."""
    held = list(state.held(device))
    if not state.config.packing or not job.is_previewed or len(held) >= state.config.max_pack:
        return False
    return all(other.request.size == job.request.size and _is_sparse(state, unit) for other, unit in held)


def _is_sparse(state: SchedulerState, unit: UnitEntry) -> bool:
    """Whether a unit leaves most of a step's cells alone."""
    return unit.share < state.config.pack_below


def _is_stepped(unit: UnitEntry) -> bool:
    """Whether all of its steps are taken."""
    return unit.steps is not None and unit.done >= unit.steps
