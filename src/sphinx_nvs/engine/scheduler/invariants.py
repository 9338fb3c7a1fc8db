"""Whether the scheduler's book agrees with itself; tests ask after every event."""

from __future__ import annotations

from sphinx_nvs.engine.scheduler.job_entries import Job, Standing, UnitEntry
from sphinx_nvs.engine.scheduler.scheduler_state import Device, SchedulerState


def check(book: SchedulerState) -> None:
    """Raises RuntimeError, naming what is wrong, if the book contradicts itself."""
    for device in book.devices:
        _check_device(book, device)
    for job in book.jobs.values():
        for unit in job.units.values():
            _check_unit(book, job, unit)
        _require((job.id in book.ready) == bool(job.figures.ready), f"{job.id}: the index of ready jobs is wrong")
        waits = job.preview.standing is Standing.WAITING
        _require((job.id in book.waiting_previews) == waits, f"{job.id}: the index of waiting previews is wrong")


def _check_device(book: SchedulerState, device: Device) -> None:
    """A device holds what its units say, and no more than it may."""
    name = f"device {device.number}"
    _require(len(device.held) <= book.config.max_held, f"{name} holds {len(device.held)} units")
    _require(device.is_ready or not (device.held or device.stale or device.running), f"{name} is lost but has work")
    _require(not device.held.keys() & device.stale.keys(), f"{name} holds a unit that is stale")
    for key in device.held:
        found = book.unit(key)
        _require(found is not None and found[1].device == device.number, f"{name} holds {key}, which is not there")


def _check_unit(book: SchedulerState, job: Job, unit: UnitEntry) -> None:
    """A unit is where it says, and everything that it looks at is done."""
    key = (job.id, unit.row.index)
    holders = [device.number for device in book.devices if key in device.held]
    runners = [d.number for d in book.devices if d.running and key in d.running.units and key not in d.stale]
    named = [unit.device] if unit.device is not None else []
    is_begun = unit.standing in (Standing.RUNNING, Standing.HELD)
    _require(bool(named) == is_begun, f"{key} is {unit.standing} on device {unit.device}")
    _require(holders == (named if is_begun and not unit.is_preview else []), f"{key} is held by {holders}")
    if unit.standing is Standing.RUNNING:
        _require(named == [n for n in runners if n in named], f"{key} runs on {runners}")
    if is_begun and not unit.is_preview:
        done = [job.units[index].standing is Standing.DONE for index in unit.row.depends_on]
        _require(all(done), f"{key} has begun before what it depends on")


def _require(holds: bool, sentence: str) -> None:
    if not holds:
        raise RuntimeError(f"scheduler: {sentence}")
