"""Options of `sphinx-nvs bench serve`; imports no torch, so that help is fast."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import arg

from sphinx_nvs.cli.options.markers import Flag, computed

Pattern = Literal["burst", "poisson", "gamma", "step", "diurnal"]

BENCH_SERVE = """\
Sends open-loop load to a server and reports goodput, deadlines met, quality, and time to preview.

By default the server is simulated, with the engine's own scheduler, and compared with other policies: full quality in
order of arrival, fixed qualities, deadlines without quality control, rejection. Examples:

  sphinx-nvs bench serve                                 ten minutes of bursts on 4 simulated devices
  sphinx-nvs bench serve --pattern gamma --devices 64
  sphinx-nvs bench serve --url http://127.0.0.1:8000     a minute of bursts for a running server
  sphinx-nvs bench serve --real                          starts a server and compares there, 5 to 15 minutes
  sphinx-nvs bench serve --trace day.csv                 requests from a file: at_s,views,height,width,deadline_s,...
"""


@dataclass(frozen=True, kw_only=True)
class BenchServe:
    """Options of `sphinx-nvs bench serve`."""

    pattern: Pattern = "burst"
    """Arrival pattern: bursts of 8 times the capacity at full quality, or another load above capacity."""

    trace: Annotated[Path | None, computed("FILE.csv", "made by --pattern")] = None
    """Requests from a file."""

    save_trace: Annotated[Path | None, arg(metavar="FILE.csv", help_behavior_hint="")] = None
    """Write the sent requests to a file."""

    seconds: Annotated[float | None, computed("S", "600 simulated, 60 real")] = None
    """Duration of the load."""

    seed: Annotated[int, arg(metavar="SEED")] = 0
    """Seed of the requests and of simulated devices."""

    devices: Annotated[int, arg(metavar="N")] = 4
    """Simulated devices."""

    prices: Annotated[Path | None, computed("FILE.json", "the embedded pair's on one CPU core")] = None
    """Time that simulated devices take for each quality."""

    url: Annotated[str | None, arg(metavar="URL", help_behavior_hint="")] = None
    """A running, otherwise idle server; the load is scaled to its time per view."""

    api_key: Annotated[str | None, arg(metavar="KEY", help_behavior_hint="")] = None
    """API key of that server."""

    scene: Annotated[str, arg(metavar="ID")] = "demo"
    """A scene on that server."""

    real: Flag = False
    """Start a server and compare it with fixed qualities on the same server, in alternation."""

    rounds: Annotated[int, arg(metavar="N")] = 1
    """With --real: rounds of calm load followed by a burst, some 70 requests each, per policy."""

    json: Flag = False
    """Print the figures as one JSON object, the last line of standard output."""
