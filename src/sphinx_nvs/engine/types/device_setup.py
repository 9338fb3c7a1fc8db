"""How devices are created: values that can be sent to other processes, without heavy imports."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from sphinx_nvs.engine.types.device_speed import Facts
from sphinx_nvs.engine.types.live import Draw, LiveReport
from sphinx_nvs.engine.types.messages import Command, Report
from sphinx_nvs.json_types import JSONMapping, JSONObject

MAKER = "sphinx_nvs.engine.device.loading:open_device"
"""The default maker of devices."""


@dataclass(frozen=True, kw_only=True)
class DeviceSetup:
    """How devices are created; JSON values, so that a setup can be sent to their processes.

    Args:
        preset: name of the pair of models.
        options: further arguments of `load_preset`.
        artifacts: place of the artifact store.
        memory_mb: cache for scenes and reconstructions that may be used again, 10^6 bytes; None for a part of what
            there is.
        calibrate: whether a machine that was never calibrated is, before the device is ready.
        maker: `module:function`, which creates an opened device from a setup.
    """

    preset: str
    artifacts: str
    options: JSONObject = field(default_factory=dict)
    memory_mb: float | None = None
    calibrate: bool = False
    maker: str = MAKER


@runtime_checkable
class CommandTaker(Protocol):
    """Carries out commands, one after another; see `engine.device.device.Device`."""

    def do(self, command: Command) -> Report:
        """Carries out a command; raises nothing."""
        ...


@runtime_checkable
class FramePainter(Protocol):
    """Draws frames of live sessions; see `engine.device.live_painter.LivePainter`."""

    def draw(self, command: Draw, is_stale: Callable[[], bool]) -> LiveReport:
        """Draws a frame, beside the commands; raises nothing."""
        ...


@dataclass(frozen=True, kw_only=True)
class OpenedDevice:
    """A device that is ready.

    Args:
        device: carries out commands.
        painter: draws frames of live sessions, in another thread.
        name: for people.
        facts: cost of requests on it.
    """

    device: CommandTaker
    painter: FramePainter
    name: str
    facts: Facts


def setup_of(preset: str, artifacts: Path | str, options: JSONMapping, **more: Any) -> DeviceSetup:
    """A setup whose options are JSON values, even if the caller gave paths."""
    plain = {str(key): _plain(value) for key, value in options.items()}
    return DeviceSetup(preset=preset, artifacts=str(artifacts), options=plain, **more)


def _plain(value: object) -> object:
    """Mappings as dicts, paths as text."""
    if isinstance(value, Mapping):
        return {str(key): _plain(each) for key, each in value.items()}
    return str(value) if isinstance(value, Path) else value
