"""How an engine is set up."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from sphinx_nvs.engine.scheduler.types import SchedulerConfig
from sphinx_nvs.engine.types.job_validation import Limits
from sphinx_nvs.errors import InputError
from sphinx_nvs.json_types import JSONMapping
from sphinx_nvs.presets import preset_named


@dataclass(frozen=True, kw_only=True)
class EngineConfig:
    """Where an engine stores its files, what it computes with, and how many requests it accepts.

    Args:
        folder: folder for the store, the artifacts and the scenes; created if missing. One engine at a time uses it.
        database: another place for the rows: an SQLAlchemy URL, e.g. `postgresql://USER@HOST/NAME`. One engine at a
            time uses it, and it goes with one folder.
        artifacts: another place for frames, videos and plans: a folder, or an fsspec address, e.g.
            `s3://BUCKET/FOLDER`.
        preset: name of the pair of models.
        options: further arguments of `presets.load_preset`.
        devices: number of workers, each with its own models.
        executor: `pool`, a process for each device, or `inline`, in the engine's own process.
        window: most views that the denoiser sees together; None for the preset's.
        limits: see `Limits`.
        scheduler: see `SchedulerConfig`.
        sweep_s: seconds between two sweeps for expired jobs and files.
        tick_s: longest time without a decision of the scheduler.
    """

    folder: Path
    database: str | None = None
    artifacts: str | None = None
    preset: str = "embedded"
    options: JSONMapping = field(default_factory=dict)
    devices: int = 1
    executor: str = "pool"
    window: int | None = None
    limits: Limits = field(default_factory=Limits)
    scheduler: SchedulerConfig = field(default_factory=SchedulerConfig)
    sweep_s: float = 60.0
    tick_s: float = 0.5

    def __post_init__(self) -> None:
        preset_named(self.preset)
        if self.devices < 1:
            raise InputError("devices", f"it is {self.devices}", "give at least 1")
        if self.executor not in ("pool", "inline"):
            raise InputError("executor", f"there is no {self.executor!r}", "choose pool or inline")
        for name in ("sweep_s", "tick_s"):
            if not getattr(self, name) > 0:
                raise InputError(name, f"it is {getattr(self, name):g}", "give a number of seconds above 0")

    @property
    def artifacts_place(self) -> str:
        """Folder or address of the artifacts."""
        return self.artifacts or str(self.folder / "artifacts")

    @property
    def resolved_window(self) -> int:
        """Most views that the denoiser sees together."""
        return self.window or preset_named(self.preset).window

    @property
    def size_multiple(self) -> int:
        """The least length of a side of frames, and what they are padded to multiples of, pixels."""
        return preset_named(self.preset).size_multiple
