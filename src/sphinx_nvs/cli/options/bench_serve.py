"""Options of `sphinx-nvs bench serve`; as `cli.options`, without importing torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import arg

Pattern = Literal["burst", "poisson", "gamma", "step", "diurnal"]

BENCH_SERVE = """\
Sends load to a server, open loop, and says how it holds: goodput, deadlines met, quality, time to preview.

By default the server is simulated, with the engine's own scheduler, and compared with other ways to serve: full quality
in order of arrival, fixed qualities, deadlines without quality control, rejecting. Examples:

  sphinx-nvs bench serve                                 ten minutes of bursts on 4 simulated devices
  sphinx-nvs bench serve --pattern gamma --devices 64
  sphinx-nvs bench serve --url http://127.0.0.1:8000     a minute of bursts for a server that runs
  sphinx-nvs bench serve --real                          starts a server and compares there, 5 to 15 minutes
  sphinx-nvs bench serve --trace day.csv                 requests from a file: at_s,views,height,width,deadline_s,...
"""


def _worked_out(metavar: str, hint: str) -> object:
    """For options whose default is worked out."""
    return arg(metavar=metavar, help_behavior_hint=f"(default: {hint})")


Flag = Annotated[bool, arg(help_behavior_hint="")]


@dataclass(frozen=True, kw_only=True)
class BenchServe:
    """Options of `sphinx-nvs bench serve`."""

    pattern: Pattern = "burst"
    """When requests are sent: in bursts of 8 times what full quality could serve, or otherwise above that."""

    trace: Annotated[Path | None, _worked_out("FILE.csv", "made by --pattern")] = None
    """Requests from a file."""

    save_trace: Annotated[Path | None, arg(metavar="FILE.csv", help_behavior_hint="")] = None
    """Write the requests that are sent."""

    seconds: Annotated[float | None, _worked_out("S", "600 simulated, 60 real")] = None
    """How long requests are sent."""

    seed: Annotated[int, arg(metavar="SEED")] = 0
    """Of the requests, and of simulated devices."""

    devices: Annotated[int, arg(metavar="N")] = 4
    """Simulated devices."""

    prices: Annotated[Path | None, _worked_out("FILE.json", "the embedded pair's on one CPU core")] = None
    """What simulated devices take for each quality."""

    url: Annotated[str | None, arg(metavar="URL", help_behavior_hint="")] = None
    """A server that runs, and has nothing else to do; load is scaled to what it takes for a view."""

    api_key: Annotated[str | None, arg(metavar="KEY", help_behavior_hint="")] = None
    """Where that server needs one."""

    scene: Annotated[str, arg(metavar="ID")] = "demo"
    """A scene that it has."""

    real: Flag = False
    """Start a server for this, and compare it with fixed qualities asked of the same server, turn by turn."""

    rounds: Annotated[int, arg(metavar="N")] = 1
    """Of --real: calms with a burst behind, some 70 requests each, for each way to serve."""

    json: Flag = False
    """Print the figures as one JSON object, the last line of standard output."""
