"""Creates the parts of an engine from its configuration."""

from __future__ import annotations

from pathlib import Path

from sphinx_nvs.engine.artifacts import ArtifactStore
from sphinx_nvs.engine.config import EngineConfig
from sphinx_nvs.engine.executor.factory import open_executor
from sphinx_nvs.engine.executor.pool import PoolExecutor
from sphinx_nvs.engine.pricing import ProfilePricing
from sphinx_nvs.engine.protocols import Parts
from sphinx_nvs.engine.scheduler.scheduler import Scheduler
from sphinx_nvs.engine.store import JobStore


def open_store(
    folder: Path,
    artifacts: ArtifactStore | None = None,
    *,
    database: str | None = None,
    exclusive: bool = False,
) -> JobStore:
    """The store of an engine, in its folder unless configured elsewhere; the folder is created if missing.

    Args:
        folder: the engine's folder.
        artifacts: the engine's files; None for a caller that only reads rows or creates keys.
        database: see `EngineConfig`.
        exclusive: see `JobStore.open`.

    Raises:
        InputError: it cannot be opened, or another engine claimed it.
    """
    scenes = folder / "scenes" if exclusive else None
    place = database or folder / "jobs.sqlite"
    return JobStore.open(place, artifacts=artifacts, scenes_folder=scenes, exclusive=exclusive)


def open_parts(config: EngineConfig, executor: PoolExecutor | None = None) -> Parts:
    """Store, scheduler, prices, and devices that are not ready yet.

    Args:
        config: the engine's configuration.
        executor: devices whose start has begun already; None creates them from the configuration.

    Raises:
        InputError: another engine uses the folder, or it cannot be used.
    """
    artifacts = ArtifactStore(config.artifacts_place)
    store = open_store(config.folder, artifacts, database=config.database, exclusive=True)
    pricing = ProfilePricing(config.resolved_window)
    if executor is not None:
        executor.report_facts_to(pricing.learn)
    return Parts(
        store=store,
        artifacts=artifacts,
        scheduler=Scheduler(config.scheduler, config.devices),
        executor=executor or open_executor(config, config.artifacts_place, pricing.learn),
        pricing=pricing,
        close=store.close,
    )
