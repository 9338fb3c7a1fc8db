"""Ways to serve, compared on one real server: turn by turn on the same stretches of load.

The trace is cut into rounds, each a calm and a burst. In every round each policy serves the same requests, one policy
after the other, beginning with another one each time: a machine that is slower for a while is slower for all of them.
A round ends when all is done, or some time after its last request; what is left then is cancelled, and was no good.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from sphinx_nvs.benchmarking.process import ServerProcess
from sphinx_nvs.benchmarking.sending import Sender, Wishes, as_asked, fixed
from sphinx_nvs.client.wishes import Wish
from sphinx_nvs.engine.simulation.arrivals import Arrival, Mix
from sphinx_nvs.engine.simulation.comparing import ADAPTIVE, FULL, PRICES, compared
from sphinx_nvs.engine.simulation.loads import WISHES, load
from sphinx_nvs.engine.simulation.prices import Measured, read_prices
from sphinx_nvs.engine.simulation.simulate import Run
from sphinx_nvs.engine.simulation.summary import summarise

SERVER = ("--log-format", "json", "--log-level", "warning", "--rate", "10000", "--streams", "1000", "--no-metrics")
"""Of the server: limits do not come into it."""

ORDERS = ("fifo", "edf")
"""In which the server works: by arrival (it is told no deadlines), or by deadline."""

VIEWS = ((4, 3), (8, 4), (16, 2))
"""Numbers of target views with their weights; as `loads.VIEWS` without the longest."""

ALONE_VIEWS = 8
"""Of the request that the server's speed is measured with."""

WARM = 3
"""Requests before that."""


@dataclass(frozen=True, kw_only=True)
class Rounds:
    """How long a comparison is.

    Args:
        rounds: of calm and burst.
        seconds: in which a round's requests are sent.
        rest_s: after them, for what is left.
        size: height and width of frames, pixels.
        seed: of the requests.
    """

    rounds: int = 3
    seconds: float = 30.0
    rest_s: float = 15.0
    size: tuple[int, int] = (128, 128)
    seed: int = 0

    def arrivals(self, view_s: float) -> list[list[Arrival]]:
        """The requests of every round, in bursts of 8 times what full quality could serve at these seconds a view."""
        mix = Mix(wishes=tuple(WISHES.values()), views=VIEWS, view_s=view_s, size=self.size, keys=1)
        return [
            load("burst", mix, devices=1, seconds=self.seconds, seed=self.seed + number, period_s=self.seconds)
            for number in range(self.rounds)
        ]


async def view_seconds(sender: Sender, rounds: Rounds, times: int = 3) -> float:
    """Seconds of a view at full quality, the median of several requests that were alone on the server."""
    height, width = rounds.size
    wish = Wish(path="interpolate", num_frames=ALONE_VIEWS, size=(width, height), quality=1.0, min_quality=1.0)
    await sender.seconds(wish, WARM)
    return sorted(await sender.seconds(wish, times))[times // 2] / ALONE_VIEWS


def real_policies(
    traces: Sequence[Sequence[Arrival]], pricing: Measured, seed: int, qualities: Sequence[float] = ()
) -> dict[str, Wishes]:
    """The server as it is, full quality, and fixed qualities.

    Args:
        traces: of the rounds.
        pricing: what is simulated with.
        seed: of that.
        qualities: fixed ones; none takes those that a simulation finds best, one for each order.
    """
    names = [f"fixed {quality:g}, {order}" for quality in qualities for order in ORDERS]
    chosen: dict[str, Wishes] = {ADAPTIVE: as_asked, FULL: fixed(1.0, with_deadline=False)}
    for name in names or _best_fixed(traces, pricing, seed):
        chosen[name] = fixed(float(name.split()[1].rstrip(",")), with_deadline=name.endswith("edf"))
    return chosen


def _best_fixed(traces: Sequence[Sequence[Arrival]], pricing: Measured, seed: int) -> list[str]:
    """The best fixed quality in each order, as simulated."""
    goodput: dict[str, float] = {}
    for trace in traces:
        for name, run in compared(trace, pricing, 1, seed).items():
            if name.startswith("fixed"):
                goodput[name] = goodput.get(name, 0.0) + summarise(run).goodput
    return [max((name for name in goodput if name.endswith(order)), key=goodput.__getitem__) for order in ORDERS]


async def compare(rounds: Rounds, fixed_qualities: Sequence[float] = ()) -> dict[str, Any]:
    """Starts a server, finds out how fast it is, and compares.

    Args:
        rounds: see `Rounds`.
        fixed_qualities: to compare with, in both orders, in place of those that a simulation finds best.

    Returns:
        `summaries` by policy, `view_s`, `requests`, and `problems` that the server told.

    Raises:
        SphinxError: the server does not become ready.
    """
    with TemporaryDirectory(prefix="sphinx-bench-") as place:
        server = ServerProcess(Path(place) / "server", SERVER)
        server.start()
        try:
            await server.ready()
            async with Sender(server.url) as sender:
                view_s = await view_seconds(sender, rounds)
                traces = rounds.arrivals(view_s)
                policies = real_policies(traces, read_prices(PRICES).at(view_s), rounds.seed, fixed_qualities)
                runs = await alternate(sender, traces, policies, rounds)
                return {
                    "summaries": {name: summarise(run) for name, run in runs.items()},
                    "view_s": view_s,
                    "requests": sum(map(len, traces)),
                    "problems": sender.problems,
                }
        finally:
            server.stop(5)


async def alternate(
    sender: Sender,
    traces: Sequence[Sequence[Arrival]],
    policies: Mapping[str, Wishes],
    rounds: Rounds,
    tell: Callable[[str], object] = sys.stderr.write,
) -> dict[str, Run]:
    """Every policy on every round; what became of the requests, by policy.

    Args:
        sender: of the server.
        traces: of the rounds.
        policies: by name, what is asked for.
        rounds: see `Rounds`.
        tell: told a line for each.
    """
    names = list(policies)
    runs = {name: Run(outcomes=[], devices=1) for name in names}
    for number, trace in enumerate(traces):
        turn = number % len(names)
        for name in names[turn:] + names[:turn]:
            found = await sender.send(trace, policies[name], until_s=rounds.seconds + rounds.rest_s)
            good = sum(outcome.is_good for outcome in found.outcomes)
            tell(f"round {number + 1} of {len(traces)}, {name}: {good} of {len(trace)} good, {found.end_s:.0f} s\n")
            _add(runs[name], found, number * (rounds.seconds + rounds.rest_s))
    return runs


def _add(run: Run, found: Run, offset_s: float) -> None:
    """Puts a round behind those before it."""
    for outcome in found.outcomes:
        outcome.arrival = replace(outcome.arrival, at_s=outcome.arrival.at_s + offset_s)
    run.outcomes += found.outcomes
    run.devices, run.end_s = found.devices, offset_s + found.end_s
