"""The part of an engine that the HTTP layer uses: implemented by `engine.engine.Engine`, and by fakes in tests."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Protocol, runtime_checkable

from sphinx_nvs.engine.config import EngineConfig
from sphinx_nvs.engine.live_desk import LiveFrame
from sphinx_nvs.engine.metrics import Metrics
from sphinx_nvs.engine.store.row_types import KeyRow, SceneRow, Usage
from sphinx_nvs.engine.types.jobs import Event, JobRow, JobSpec, Quote, UnitRow
from sphinx_nvs.engine.types.live import LiveCamera
from sphinx_nvs.engine.types.status import Capacity, Model
from sphinx_nvs.json_types import JSONObject


@runtime_checkable
class LibraryBackend(Protocol):
    """Scenes, keys and files; see `engine.catalog.Library`."""

    def new_scene_folder(self) -> tuple[str, Path]:
        """Returns a new id and an empty folder."""
        ...

    async def add_scene(self, scene: SceneRow, *, ttl_s: float | int | None = None) -> SceneRow:
        """Adds a scene."""
        ...

    async def scene(self, scene_id: str) -> SceneRow | None:
        """Returns a scene."""
        ...

    async def scenes(self, *, key_id: str, after: str | None = None, limit: int = 50) -> list[SceneRow]:
        """Lists a key's scenes, newest first."""
        ...

    async def delete_scene(self, scene_id: str) -> SceneRow | None:
        """Removes a scene."""
        ...

    async def posing_scenes(self) -> list[SceneRow]:
        """Returns scenes whose cameras are being found, oldest first."""
        ...

    async def finish_posing(self, scene: SceneRow) -> SceneRow | None:
        """Writes what became of a scene whose cameras were being found."""
        ...

    async def keep_scene(self, scene_id: str, *, ttl_s: float | int) -> None:
        """Postpones a scene's expiry."""
        ...

    async def share_job(self, job_id: str) -> str | None:
        """Makes a link to a job's video."""
        ...

    async def unshare_job(self, job_id: str) -> None:
        """Ends the link."""
        ...

    async def shared_job(self, token: str) -> JobRow | None:
        """Returns the job that a link is for."""
        ...

    async def key_of(self, secret: str) -> KeyRow | None:
        """Returns the valid key with this secret."""
        ...

    async def has_keys(self) -> bool:
        """Returns whether a key was ever created."""
        ...

    async def valid_keys(self) -> frozenset[str]:
        """Returns the ids of keys that are not revoked."""
        ...

    async def check(self) -> None:
        """Raises an error if nothing can be stored."""
        ...

    async def usage(self, key_id: str) -> Usage:
        """Returns what a key's resources take up."""
        ...

    async def file(self, digest: str) -> Path:
        """Returns an artifact as a file of this machine."""
        ...


@runtime_checkable
class LiveView(Protocol):
    """One live session; see `engine.live_desk.LiveSession`."""

    def move(self, camera: LiveCamera) -> None:
        """Shows what a camera sees."""
        ...

    async def next(self) -> LiveFrame | None:
        """Returns the newest frame, None when the session is closed."""
        ...

    def close(self) -> None:
        """Ends the session."""
        ...


@runtime_checkable
class LiveBackend(Protocol):
    """Live sessions; see `engine.live_desk.LiveDesk`."""

    def open(self, scene_path: str, key_id: str) -> LiveView:
        """Opens a session."""
        ...


@runtime_checkable
class Backend(Protocol):
    """Jobs; see `engine.engine.Engine`, whose methods these are."""

    config: EngineConfig
    metrics: Metrics

    @property
    def library(self) -> LibraryBackend:
        """Scenes, keys and files."""
        ...

    @property
    def live(self) -> LiveBackend:
        """Live sessions."""
        ...

    @property
    def ready(self) -> bool:
        """Whether jobs are accepted."""
        ...

    @property
    def health(self) -> str:
        """What is wrong, empty if nothing is."""
        ...

    async def quote(self, spec: JobSpec) -> Quote:
        """Predicts a job's latency and quality."""
        ...

    async def accept(
        self,
        spec: JobSpec,
        *,
        key_id: str,
        idempotency_key: str | None = None,
        allow: Callable[[Usage], None] = lambda usage: None,
    ) -> tuple[JobRow, bool]:
        """Accepts a job, or returns the earlier one with the same idempotency key."""
        ...

    async def cancel(self, job_id: str) -> JobRow | None:
        """Cancels a job."""
        ...

    async def delete(self, job_id: str) -> JobRow | None:
        """Deletes a finished job."""
        ...

    async def job(self, job_id: str) -> JobRow | None:
        """Returns a job."""
        ...

    async def jobs(self, *, key_id: str | None = None, after: str | None = None, limit: int = 100) -> list[JobRow]:
        """Lists jobs, newest first."""
        ...

    async def units(self, job_id: str) -> Sequence[UnitRow]:
        """Returns a job's units."""
        ...

    def events(self, job_id: str, after: int = 0) -> AsyncIterator[Event]:
        """Yields a job's events after a number."""
        ...

    async def plan(self, job_id: str) -> list[JSONObject]:
        """Returns the plans of a job's units."""
        ...

    async def frame(self, job_id: str, index: int, level: str = "final") -> str | None:
        """Returns a frame's digest, None while there is no frame."""
        ...

    async def video(self, job_id: str) -> str | None:
        """Returns a video's digest, None if there is none."""
        ...

    async def repair(self, job_id: str) -> bool:
        """Has damaged files of a completed job made again; False if they cannot be."""
        ...

    def models(self) -> tuple[Model, ...]:
        """Returns the models in use."""
        ...

    def capacity(self) -> Capacity:
        """Returns the current load."""
        ...

    async def close(self, drain_s: float | int = 0.0) -> None:
        """Closes the engine."""
        ...
