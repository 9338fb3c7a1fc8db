"""From settings to a device that is ready: models loaded, warm, its seconds known."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

from sphinx_nvs.engine.artifacts import ArtifactStore
from sphinx_nvs.engine.device.device import Device
from sphinx_nvs.engine.device.live_painter import LivePainter
from sphinx_nvs.engine.device.startup_timing import measured_costs
from sphinx_nvs.engine.pricing import facts_of
from sphinx_nvs.engine.types.device_setup import DeviceSetup, OpenedDevice
from sphinx_nvs.models.placement import memory_bytes
from sphinx_nvs.pipeline.pipeline import Pipeline
from sphinx_nvs.presets import load_preset
from sphinx_nvs.profiling.calibration import device_name

MEMORY_SHARE, MOST_MEMORY_BYTES = 1 / 16, 2e9
"""Default cache of a device: a share of its memory, and an upper bound."""


BYTES_PER_PIXEL = {"embedded": 400.0}
"""Memory that a unit takes for each pixel of its frames and of the views that it knows: measured where a preset is
named (450 to 1100 bytes with 2 photos, less the more pixels), a little less here, so that nothing is refused that
fits."""

LEAST_BYTES_PER_PIXEL = 60.0
"""The same of any preset: photos, renders with depth and opacity, and frames, in single precision."""


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
    painter = LivePainter(pipeline, memory_bytes=remembered)
    facts = replace(
        facts_of(pipeline),
        memory_bytes=_all_memory(pipeline),
        bytes_per_pixel=BYTES_PER_PIXEL.get(setup.preset, LEAST_BYTES_PER_PIXEL),
    )
    return OpenedDevice(device=device, painter=painter, name=device_name(pipeline), facts=facts)


def _default_memory(pipeline: Pipeline) -> float:
    """Bytes that a device may remember."""
    return min(MOST_MEMORY_BYTES, MEMORY_SHARE * _all_memory(pipeline))


def _all_memory(pipeline: Pipeline) -> float:
    """Memory of the device that a pipeline's network is on, bytes; infinite if it is unknown."""
    weights = getattr(getattr(pipeline.denoiser, "unet", None), "parameters", lambda: iter(()))()
    first = next(weights, None)
    if first is None:
        return math.inf
    limit = memory_limit() if first.device.type == "cpu" else math.inf
    return min(memory_bytes(first.device), limit)


def memory_limit(file: Path = Path("/sys/fs/cgroup/memory.max")) -> float:
    """Memory that the container of this process may take, bytes; infinite if there is no such limit."""
    try:
        return float(file.read_text())
    except (OSError, ValueError):  # The file says "max" where there is no limit.
        return math.inf
