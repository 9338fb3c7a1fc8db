"""From settings to a device that is ready: models loaded, warm, its seconds known."""

from __future__ import annotations

from dataclasses import replace

from sphinx_nvs.engine.artifacts import ArtifactStore
from sphinx_nvs.engine.device.device import Device
from sphinx_nvs.engine.device.startup_timing import measured_costs
from sphinx_nvs.engine.pricing import facts_of
from sphinx_nvs.engine.types.device_setup import DeviceSetup, OpenedDevice
from sphinx_nvs.models.placement import memory_bytes
from sphinx_nvs.pipeline.pipeline import Pipeline
from sphinx_nvs.presets import load_preset
from sphinx_nvs.profiling.calibration import device_name

MEMORY_SHARE, MOST_MEMORY_BYTES = 1 / 16, 2e9
"""Default cache of a device: a share of its memory, and an upper bound."""


def open_device(setup: DeviceSetup) -> OpenedDevice:
    """Loads models and prepares them.

    Raises:
        InputError: see `load_preset`.
        SphinxError: shipped weights are damaged.
    """
    pipeline = load_preset(setup.preset, **setup.options)
    pipeline = replace(pipeline, cost_model=measured_costs(pipeline, calibrate=setup.calibrate))
    remembered = 1e6 * setup.memory_mb if setup.memory_mb is not None else _default_memory(pipeline)
    device = Device(pipeline, ArtifactStore(setup.artifacts), memory_bytes=remembered)
    return OpenedDevice(device=device, name=device_name(pipeline), facts=facts_of(pipeline))


def _default_memory(pipeline: Pipeline) -> float:
    """Bytes that a device may remember."""
    weights = getattr(getattr(pipeline.denoiser, "unet", None), "parameters", lambda: iter(()))()
    first = next(weights, None)
    return MOST_MEMORY_BYTES if first is None else min(MOST_MEMORY_BYTES, MEMORY_SHARE * memory_bytes(first.device))
