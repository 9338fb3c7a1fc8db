"""Devices, where they run: in the engine's own process (`inline`), or each in its own (`pool`). See `parts.Devices`.

The engine sends a device one command after another, and gets one report for each, in order. No HTTP here, no rows.
"""

from __future__ import annotations

from collections.abc import Callable

from sphinx_nvs.engine.config import EngineConfig
from sphinx_nvs.engine.device_setup import setup_of
from sphinx_nvs.engine.executor.inline import InlineExecutor
from sphinx_nvs.engine.executor.pool import Patience, PoolExecutor
from sphinx_nvs.engine.prices import Facts

__all__ = ["InlineExecutor", "Patience", "PoolExecutor", "open_executor"]


def open_executor(
    config: EngineConfig, artifacts: str, on_facts: Callable[[Facts], None]
) -> InlineExecutor | PoolExecutor:
    """The devices that a configuration asks for, not started yet.

    Args:
        config: of the engine.
        artifacts: place of the artifact store.
        on_facts: see `PoolExecutor`.
    """
    setup = setup_of(config.preset, artifacts, config.options)
    kind = InlineExecutor if config.executor == "inline" else PoolExecutor
    return kind(setup, config.devices, on_facts)
