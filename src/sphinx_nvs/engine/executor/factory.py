"""Creates the configured devices."""

from __future__ import annotations

from collections.abc import Callable

from sphinx_nvs.engine.config import EngineConfig
from sphinx_nvs.engine.executor.inline import InlineExecutor
from sphinx_nvs.engine.executor.pool import PoolExecutor
from sphinx_nvs.engine.types.device_setup import setup_of
from sphinx_nvs.engine.types.device_speed import Facts


def open_executor(
    config: EngineConfig, artifacts: str, on_facts: Callable[[Facts], None]
) -> InlineExecutor | PoolExecutor:
    """The configured devices, not started yet.

    Args:
        config: the engine's configuration.
        artifacts: place of the artifact store.
        on_facts: see `PoolExecutor`.
    """
    setup = setup_of(config.preset, artifacts, config.options)
    kind = InlineExecutor if config.executor == "inline" else PoolExecutor
    return kind(setup, config.devices, on_facts)
