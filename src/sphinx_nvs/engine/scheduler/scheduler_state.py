"""The scheduler's state: unfinished jobs, devices, and who was served how much. It records, and decides nothing."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from sphinx_nvs.engine.scheduler.fairness import ArrivalRate, Claim, Served
from sphinx_nvs.engine.scheduler.job_entries import LOOSE, Job, Standing, UnitEntry
from sphinx_nvs.engine.scheduler.price_correction import Correction
from sphinx_nvs.engine.scheduler.types import Decision, Phase, SchedulerConfig
from sphinx_nvs.engine.types.messages import UnitKey


@dataclass(kw_only=True)
class Device:
    """A device.

    Args:
        number: its name.
        previews: the claim of previews against urgent work.
        refinement: the claim of refinement against previews.
        late: the claim of late jobs against others.
        is_ready: whether it takes commands.
        running: its command that has not been answered.
        held: begun units in its memory, in order of their begin.
        stale: units of cancelled jobs that it still holds.
        previews_wait: whether there was a preview to make when its command was chosen.
        refinement_waits: the same of refinement.
        late_waits: the same of late jobs.
        serves_late: whether its command is for a late job.
    """

    number: int
    previews: Claim
    refinement: Claim
    late: Claim
    is_ready: bool = False
    running: Decision | None = None
    held: dict[UnitKey, None] = field(default_factory=dict)
    stale: dict[UnitKey, None] = field(default_factory=dict)
    previews_wait: bool = False
    refinement_waits: bool = False
    late_waits: bool = False
    serves_late: bool = False

    @property
    def is_idle(self) -> bool:
        """Whether it waits for a command."""
        return self.is_ready and self.running is None

    def spend(self, seconds: float) -> None:
        """Counts the time of its command."""
        # A drop counts as refinement: it frees the memory of refinement, and takes next to no time.
        refines = self.running is not None and self.running.phase is not Phase.REGRESS
        self.previews.spend(seconds, on_class=not refines, waits=self.previews_wait)
        self.refinement.spend(seconds, on_class=refines, waits=self.refinement_waits)
        self.late.spend(seconds, on_class=self.serves_late, waits=self.late_waits)


class SchedulerState:
    """Jobs, devices, served seconds and corrections."""

    def __init__(self, config: SchedulerConfig, devices: int) -> None:
        self.config = config
        self.jobs: dict[str, Job] = {}
        self.devices = [self._device(number) for number in range(devices)]
        self.previews, self.refinements = Served(), Served()
        self.preview_price, self.refinement_price, self.plan_price = Correction(), Correction(), Correction()
        self.latency = [Correction() for _ in range(len(LOOSE) + 1)]
        self.arriving = ArrivalRate(config.memory_s)
        self.waiting_previews: dict[str, Job] = {}
        self.ready: dict[str, Job] = {}
        # As of the last analysis; jobs that have ended since may still be in them.
        self.urgent: list[Job] = []
        self.late: list[Job] = []
        self._of_key: dict[str, int] = {}

    def _device(self, number: int) -> Device:
        config = self.config
        return Device(
            number=number,
            previews=Claim(share=config.preview_share, turn_s=config.turn_s),
            refinement=Claim(share=config.refinement_share, turn_s=config.turn_s),
            late=Claim(share=config.late_share, turn_s=config.turn_s),
        )

    @property
    def num_ready(self) -> int:
        """Devices that take commands, at least 1: predictions assume that a lost one comes back."""
        return max(1, sum(device.is_ready for device in self.devices))

    def jobs_of(self, key: str) -> int:
        """Unfinished jobs of an API key."""
        return self._of_key.get(key, 0)

    def add(self, job: Job) -> None:
        """Adds a job."""
        key = job.request.key_id
        self.jobs[job.id] = job
        self._of_key[key] = self.jobs_of(key) + 1
        self.previews.enter(key)
        self.refinements.enter(key)
        self.touch(job)

    def remove(self, job: Job) -> None:
        """Removes a job; what devices hold of it becomes stale."""
        for unit in job.units.values():
            self.take_back(job, unit)
        for index in (self.jobs, self.waiting_previews, self.ready):
            index.pop(job.id, None)
        key = job.request.key_id
        # Removed at zero, as the served seconds are: keys that come and go for months would else be kept for ever.
        self._of_key[key] -= 1
        if not self._of_key[key]:
            del self._of_key[key]
            self.previews.leave(key)
            self.refinements.leave(key)

    def touch(self, job: Job) -> None:
        """Recomputes a job's figures and indices after its units have changed."""
        job.changed()
        _keep(self.waiting_previews, job, job.preview.standing is Standing.WAITING)
        _keep(self.ready, job, bool(job.figures.ready))

    def take_back(self, job: Job, unit: UnitEntry) -> None:
        """A unit is waiting again unless it is done; the device that has it is to forget it."""
        if unit.device is not None:
            device = self.devices[unit.device]
            key = (job.id, unit.row.index)
            # A preview is not held: nothing of it stays in the device's memory, so nothing is to be dropped.
            if key in device.held:
                del device.held[key]
                device.stale[key] = None
        if unit.standing is not Standing.DONE:
            unit.take_back()

    def unit(self, key: UnitKey) -> tuple[Job, UnitEntry] | None:
        """A unit and its job, if there is such a thing."""
        job = self.jobs.get(key[0])
        unit = job.units.get(key[1]) if job else None
        return (job, unit) if job and unit else None

    def held(self, device: Device) -> Iterator[tuple[Job, UnitEntry]]:
        """Begun units on a device."""
        for job_id, index in device.held:
            job = self.jobs[job_id]
            yield job, job.units[index]


def _keep(index: dict[str, Job], job: Job, belongs: bool) -> None:
    """Puts a job into an index or takes it out."""
    if belongs:
        index[job.id] = job
    else:
        index.pop(job.id, None)
