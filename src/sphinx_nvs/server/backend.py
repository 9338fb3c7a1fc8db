"""What the HTTP layer needs of an engine: `engine.engine.Engine`, or whatever else keeps these promises."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from sphinx_nvs.engine.config import EngineConfig
from sphinx_nvs.engine.metrics import Metrics
from sphinx_nvs.engine.store.row_types import KeyRow, SceneRow, Usage
from sphinx_nvs.engine.types.jobs import Event, JobRow, JobSpec, Quote, UnitRow
from sphinx_nvs.engine.types.status import Capacity, Model


@runtime_checkable
class Shelves(Protocol):
    """See `engine.library.Library`."""

    def new_scene_folder(self) -> tuple[str, Path]:
        """A new id, and an empty folder."""
        ...

    async def add_scene(self, scene: SceneRow, *, ttl_s: float | int | None = None) -> SceneRow:
        """Adds a scene."""
        ...

    async def scene(self, scene_id: str) -> SceneRow | None:
        """A scene."""
        ...

    async def scenes(self, *, key_id: str, after: str | None = None, limit: int = 50) -> list[SceneRow]:
        """A key's scenes."""
        ...

    async def delete_scene(self, scene_id: str) -> SceneRow | None:
        """Removes a scene."""
        ...

    async def keep_scene(self, scene_id: str, *, ttl_s: float | int) -> None:
        """Prolongs a scene's time."""
        ...

    async def key_of(self, secret: str) -> KeyRow | None:
        """The key of a secret."""
        ...

    async def has_keys(self) -> bool:
        """Whether there are keys."""
        ...

    async def usage(self, key_id: str) -> Usage:
        """What a key takes up."""
        ...

    async def file(self, digest: str) -> Path:
        """An artifact on this machine."""
        ...


@runtime_checkable
class Backend(Protocol):
    """See `engine.engine.Engine`, whose methods these are."""

    config: EngineConfig
    metrics: Metrics

    @property
    def library(self) -> Shelves:
        """Scenes, keys and files."""
        ...

    @property
    def ready(self) -> bool:
        """Whether jobs can be taken on."""
        ...

    @property
    def health(self) -> str:
        """What is wrong."""
        ...

    async def quote(self, spec: JobSpec) -> Quote:
        """What a job would take."""
        ...

    async def accept(
        self,
        spec: JobSpec,
        *,
        key_id: str,
        idempotency_key: str | None = None,
        allow: Callable[[Usage], None] = lambda usage: None,
    ) -> tuple[JobRow, bool]:
        """Takes on a job."""
        ...

    async def cancel(self, job_id: str) -> JobRow | None:
        """Ends a job."""
        ...

    async def delete(self, job_id: str) -> JobRow | None:
        """Removes a finished job."""
        ...

    async def job(self, job_id: str) -> JobRow | None:
        """A job."""
        ...

    async def jobs(self, *, key_id: str | None = None, after: str | None = None, limit: int = 100) -> list[JobRow]:
        """Jobs, newest first."""
        ...

    async def units(self, job_id: str) -> Sequence[UnitRow]:
        """A job's units."""
        ...

    def events(self, job_id: str, after: int = 0) -> AsyncIterator[Event]:
        """A job's events."""
        ...

    async def plan(self, job_id: str) -> list[dict[str, Any]]:
        """A job's plans."""
        ...

    async def frame(self, job_id: str, index: int, level: str = "final") -> str | None:
        """Digest of a frame."""
        ...

    async def video(self, job_id: str) -> str | None:
        """Digest of a video."""
        ...

    def models(self) -> tuple[Model, ...]:
        """The models."""
        ...

    def capacity(self) -> Capacity:
        """How busy it is."""
        ...

    async def close(self, drain_s: float | int = 0.0) -> None:
        """Ends it."""
        ...
