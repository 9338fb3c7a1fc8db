"""From settings to a device that is ready: models loaded, warm, its seconds known."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from sphinx_nvs.engine.artifacts import ArtifactStore
from sphinx_nvs.engine.device import Device
from sphinx_nvs.engine.device_costs import known_costs
from sphinx_nvs.engine.prices import Facts, facts_of
from sphinx_nvs.models.devices import memory_bytes
from sphinx_nvs.pipeline import Pipeline
from sphinx_nvs.presets import load_preset
from sphinx_nvs.profiling.calibration import device_name

MAKER = "sphinx_nvs.engine.device_setup:open_device"
"""Who makes devices."""

MEMORY_SHARE, MOST_MEMORY_BYTES = 1 / 16, 2e9
"""What a device may remember, unless the caller says otherwise: a share of its memory, and never more."""


@dataclass(frozen=True, kw_only=True)
class DeviceSetup:
    """How devices are made; JSON values, so that it can travel to their processes.

    Args:
        preset: name of the pair of models.
        options: further arguments of `load_preset`.
        artifacts: place of the artifact store.
        memory_mb: for scenes and reconstructions that may be asked for again, 10^6 bytes; None for a part of what
            there is.
        calibrate: whether a machine that was never calibrated is, before the device is ready.
        maker: `module:function` that makes an opened device of a setup.
    """

    preset: str
    artifacts: str
    options: dict[str, Any] = field(default_factory=dict)
    memory_mb: float | None = None
    calibrate: bool = False
    maker: str = MAKER


@dataclass(frozen=True, kw_only=True)
class Opened:
    """A device that is ready.

    Args:
        device: carries out commands.
        name: for people.
        facts: what requests cost on it.
    """

    device: Any
    name: str
    facts: Facts


def setup_of(preset: str, artifacts: Path | str, options: Mapping[str, Any], **more: Any) -> DeviceSetup:
    """A setup whose options are JSON values, whatever paths the caller gave."""
    return DeviceSetup(preset=preset, artifacts=str(artifacts), options=_plain(options), **more)


def open_device(setup: DeviceSetup) -> Opened:
    """Loads models and makes them ready.

    Raises:
        InputError: see `load_preset`.
        SphinxError: shipped weights are damaged.
    """
    pipeline = load_preset(setup.preset, **setup.options)
    pipeline = replace(pipeline, cost_model=known_costs(pipeline, calibrate=setup.calibrate))
    remembered = 1e6 * setup.memory_mb if setup.memory_mb is not None else _default_memory(pipeline)
    device = Device(pipeline, ArtifactStore(setup.artifacts), memory_bytes=remembered)
    return Opened(device=device, name=device_name(pipeline), facts=facts_of(pipeline))


def _default_memory(pipeline: Pipeline) -> float:
    """Bytes that a device may remember."""
    weights = getattr(getattr(pipeline.denoiser, "unet", None), "parameters", lambda: iter(()))()
    first = next(weights, None)
    return MOST_MEMORY_BYTES if first is None else min(MOST_MEMORY_BYTES, MEMORY_SHARE * memory_bytes(first.device))


def _plain(value: Any) -> Any:
    """Mappings as dicts, paths as text."""
    if isinstance(value, Mapping):
        return {str(key): _plain(each) for key, each in value.items()}
    return str(value) if isinstance(value, Path) else value
