"""What a worker sends to the pool beside reports: that it has loaded, that it cannot, that it is running."""

from __future__ import annotations

from dataclasses import dataclass, field

from sphinx_nvs.engine.types.device_speed import Facts


@dataclass(frozen=True, kw_only=True)
class Loaded:
    """The models are loaded.

    Args:
        name: name of the device, for people.
        facts: cost of requests on it.
    """

    name: str
    facts: Facts = field(default_factory=Facts)


@dataclass(frozen=True, kw_only=True)
class Failed:
    """The models cannot be loaded; the process ends.

    Args:
        sentence: why.
        is_users_fault: whether it would be no different another time.
    """

    sentence: str
    is_users_fault: bool


@dataclass(frozen=True, kw_only=True)
class Beat:
    """The process is running.

    Args:
        busy_s: seconds since the current command started; 0 if the device is idle.
    """

    busy_s: float
