"""Checks that the scheduler's state is consistent; tests call it after every event."""

from __future__ import annotations

from sphinx_nvs.engine.scheduler.job_entries import Job, Standing, UnitEntry
from sphinx_nvs.engine.scheduler.scheduler_state import Device, SchedulerState


def check(state: SchedulerState) -> None:
    """Raises RuntimeError, naming what is wrong, if the state contradicts itself."""
    for device in state.devices:
        _check_device(state, device)
    for job in state.jobs.values():
        for unit in job.units.values():
            _check_unit(state, job, unit)
        _require((job.id in state.ready) == bool(job.figures.ready), f"{job.id}: the index of ready jobs is wrong")
        waits = job.preview.standing is Standing.WAITING
        _require((job.id in state.waiting_previews) == waits, f"{job.id}: the index of waiting previews is wrong")


def _check_device(state: SchedulerState, device: Device) -> None:
    """A device's units are consistent with its entries, and within its bounds."""
    name = f"device {device.number}"
    _require(len(device.held) <= state.config.max_held, f"{name} holds {len(device.held)} units")
    _require(device.is_ready or not (device.held or device.stale or device.running), f"{name} is lost but has work")
    _require(not device.held.keys() & device.stale.keys(), f"{name} holds a unit that is stale")
    for key in device.held:
        found = state.unit(key)
        _require(found is not None and found[1].device == device.number, f"{name} holds {key}, which is unknown")


def _check_unit(state: SchedulerState, job: Job, unit: UnitEntry) -> None:
    """A unit is on the device that it names, and its dependencies are done."""
    key = (job.id, unit.row.index)
    holders = [device.number for device in state.devices if key in device.held]
    runners = [d.number for d in state.devices if d.running and key in d.running.units and key not in d.stale]
    named = [unit.device] if unit.device is not None else []
    is_begun = unit.standing in (Standing.RUNNING, Standing.HELD)
    _require(bool(named) == is_begun, f"{key} is {unit.standing} on device {unit.device}")
    _require(holders == (named if is_begun and not unit.is_preview else []), f"{key} is held by {holders}")
    if unit.standing is Standing.RUNNING:
        _require(named == [n for n in runners if n in named], f"{key} runs on {runners}")
    if is_begun and not unit.is_preview:
        done = [job.units[index].standing is Standing.DONE for index in unit.row.depends_on]
        _require(all(done), f"{key} has begun before its dependencies")


def _require(holds: bool, sentence: str) -> None:
    if not holds:
        raise RuntimeError(f"scheduler: {sentence}")
