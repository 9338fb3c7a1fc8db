"""Ways to serve, compared on one real server: turn by turn on the same stretches of load.

The load is a simulation's, in units of what this machine takes. With S the seconds of a mean request at full quality,
measured when it is alone on the server:

    capacity = 1 / S,   a round lasts 28 S, the last 30 % of it a burst of 8 times capacity,   deadlines count in S

so that a slow machine gets fewer requests a second and longer deadlines, but as many requests. In every round each
policy serves the same requests, one policy after the other, beginning with another one each time: a machine that is
slower for a while is slower for all of them. A round ends when all is done, or with its last deadline; what is left
then is cancelled, and could not have become good.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

from sphinx_nvs.client.job_options import JobOptions
from sphinx_nvs.json_types import JSONObject
from sphinx_nvs.load_testing.load_generator import Requests, Sender, as_requested, fixed
from sphinx_nvs.load_testing.server_process import ServerProcess
from sphinx_nvs.load_testing.simulation.arrivals import Arrival, Mix
from sphinx_nvs.load_testing.simulation.comparing import ADAPTIVE, FULL, PRICES, compared
from sphinx_nvs.load_testing.simulation.loads import REQUEST_KINDS, capacity_of, load
from sphinx_nvs.load_testing.simulation.run_summary import summarise
from sphinx_nvs.load_testing.simulation.simulate import Run
from sphinx_nvs.load_testing.simulation.simulated_prices import Measured, read_prices

STEPS = 25
"""Solver steps of full diffusion: half of the usual, so that a comparison takes minutes on one core."""

LOG = ("--log-format", "json", "--log-level", "warning")
SERVER = (*LOG, "--steps", str(STEPS), "--rate", "10000", "--streams", "1000", "--no-metrics")
"""Options of the server; the limits are high enough to have no effect."""

ORDERS = ("fifo", "edf")
"""Order in which the server works: by arrival (all requests get the same distant deadline), or by deadline."""

VIEWS = ((4, 3), (8, 4), (16, 2))
"""Numbers of target views with their weights; as `loads.VIEWS` without the longest."""

WARM = 1
"""Requests before the server's speed is measured."""

PERIOD = 28.0
"""Length of a round, in mean requests at full quality: as many as a simulated device serves from burst to burst."""


@dataclass(frozen=True, kw_only=True)
class Rounds:
    """The extent of a comparison.

    Args:
        rounds: number of rounds, each calm and burst.
        period: length of each in mean requests at full quality; 2.6 times as many are sent.
        size: height and width of frames, pixels.
        seed: seed of the requests.
    """

    rounds: int = 1
    period: float | int = PERIOD
    size: tuple[int, int] = (128, 128)
    seed: int = 0

    def arrivals(self, view_s: float) -> list[list[Arrival]]:
        """The requests of every round, for a device that takes the given seconds for a view at full quality."""
        mix = Mix(kinds=tuple(REQUEST_KINDS.values()), views=VIEWS, view_s=view_s, size=self.size, keys=1)
        seconds = self.period / capacity_of(mix, 1)
        return [
            load("burst", mix, devices=1, seconds=seconds, seed=self.seed + number, period_s=seconds)
            for number in range(self.rounds)
        ]


async def view_seconds(sender: Sender, rounds: Rounds, times: int = 3) -> float:
    """Seconds of a view at full quality, from requests of every length that were alone on the server.

    The median of several of each length, weighted as the load is.
    """
    height, width = rounds.size
    total = views = 0.0
    for count, weight in VIEWS:
        request = JobOptions(path="interpolate", num_frames=count, size=(width, height), quality=1.0, min_quality=1.0)
        if not views:
            await sender.seconds(request, WARM)
        total += weight * sorted(await sender.seconds(request, times))[times // 2]
        views += weight * count
    return total / views


def last_deadline(trace: Sequence[Arrival], rest_s: float | int = 0.0) -> float:
    """Seconds after the start when nothing can become good any more.

    Args:
        trace: the requests.
        rest_s: seconds that a request without a deadline is given.
    """
    return max(a.at_s + (rest_s if a.deadline_s is None else a.deadline_s) for a in trace)


def real_policies(
    traces: Sequence[Sequence[Arrival]], pricing: Measured, seed: int, qualities: Sequence[float] = ()
) -> dict[str, Requests]:
    """The server as it is, full quality, and fixed qualities.

    Args:
        traces: traces of the rounds.
        pricing: prices of the simulation.
        seed: seed of the simulation.
        qualities: fixed ones; none takes those that a simulation finds best, one for each order.
    """
    names = [f"fixed {quality:g}, {order}" for quality in qualities for order in ORDERS]
    chosen: dict[str, Requests] = {ADAPTIVE: as_requested, FULL: fixed(1.0, with_deadline=False)}
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


async def compare(rounds: Rounds, fixed_qualities: Sequence[float] = ()) -> JSONObject:
    """Starts a server, finds out how fast it is, and compares.

    Args:
        rounds: see `Rounds`.
        fixed_qualities: to compare with, in both orders, in place of those that a simulation finds best.

    Returns:
        `summaries` by policy, `view_s`, `requests`, and `problems` that the server answered.

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
                sys.stderr.write(outline(traces, policies, view_s))
                runs = await alternate(sender, traces, policies)
                return {
                    "summaries": {name: summarise(run) for name, run in runs.items()},
                    "view_s": view_s,
                    "requests": sum(map(len, traces)),
                    "problems": sender.problems,
                }
        finally:
            server.stop(5)


def outline(traces: Sequence[Sequence[Arrival]], policies: Mapping[str, Requests], view_s: float) -> str:
    """A line on what is about to be measured."""
    longest_s = sum(last_deadline(trace) for trace in traces)
    return (
        f"a view takes {view_s:.2f} s at full quality; {sum(map(len, traces))} requests go out for each of "
        f"{len(policies)} ways to serve, which takes {longest_s:.0f} s at most for each\n"
    )


async def alternate(
    sender: Sender,
    traces: Sequence[Sequence[Arrival]],
    policies: Mapping[str, Requests],
    tell: Callable[[str], object] = sys.stderr.write,
) -> dict[str, Run]:
    """Runs every policy on every round; returns the outcomes by policy.

    Args:
        sender: sends to the server.
        traces: traces of the rounds.
        policies: for each name, the requests that arrivals become.
        tell: called with a line for each run.
    """
    names, offset_s = list(policies), 0.0
    runs = {name: Run(outcomes=[], devices=1) for name in names}
    for number, trace in enumerate(traces):
        turn = number % len(names)
        for name in names[turn:] + names[:turn]:
            found = await sender.send(trace, policies[name], until_s=last_deadline(trace))
            good = sum(outcome.is_good for outcome in found.outcomes)
            tell(f"round {number + 1} of {len(traces)}, {name}: {good} of {len(trace)} good, {found.end_s:.0f} s\n")
            _add(runs[name], found, offset_s)
        offset_s += last_deadline(trace)
    return runs


def _add(run: Run, found: Run, offset_s: float) -> None:
    """Appends a round to those before it."""
    for outcome in found.outcomes:
        outcome.arrival = replace(outcome.arrival, at_s=outcome.arrival.at_s + offset_s)
    run.outcomes += found.outcomes
    run.devices, run.end_s = found.devices, offset_s + found.end_s
