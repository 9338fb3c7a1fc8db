"""`sphinx-nvs bench serve`: load test of a simulated server, a running one, or one started for the test."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Mapping, Sequence

from sphinx_nvs.cli.options.bench_serve_options import BenchServe
from sphinx_nvs.cli.serve_requirements import check_packages
from sphinx_nvs.errors import InputError, OutputError, SphinxError
from sphinx_nvs.json_types import JSONMapping, JSONObject
from sphinx_nvs.load_testing.simulation.arrivals import Arrival, read_trace, write_trace
from sphinx_nvs.load_testing.simulation.comparing import ADAPTIVE, PRICES, compared, headline, rounded, table
from sphinx_nvs.load_testing.simulation.loads import load, standard_mix
from sphinx_nvs.load_testing.simulation.run_summary import Summary, summarise
from sphinx_nvs.load_testing.simulation.simulated_prices import read_prices

SIMULATED_S, REAL_S = 600.0, 60.0
"""Default seconds of load."""

PERIOD_S = 120.0
"""Period of bursts in seconds; a shorter load is one burst."""

REST_S = 30.0
"""Deadline in seconds of requests without one, on a real server."""


MODES = {
    "real": "--real generates its own load, scaled to the server that it starts",
    "url": "a running server has its own devices and speed",
    "trace": "a trace determines when requests are sent",
}
"""What each mode determines by itself."""

UNUSED = {
    "real": ("trace", "save_trace", "seconds", "pattern", "devices", "prices", "api_key", "scene"),
    "url": ("devices", "prices", "rounds"),
    "trace": ("seconds", "pattern"),
}
"""Options that have no effect in each mode."""


def bench_serve(options: BenchServe) -> None:
    """Runs the command.

    Raises:
        InputError: an option or a file cannot be used.
        OutputError: the file of `--save-trace` exists, or cannot be written.
        SphinxError: the server cannot be reached, or accepts no request.
    """
    _check(options)
    if options.url is None and not options.real:
        _tell(_simulated(options), options)
        return
    check_packages()
    _tell(asyncio.run(_compared(options) if options.real else _running(options)), options)


def _check(options: BenchServe) -> None:
    """Raises InputError for options that conflict or are outside their range, OutputError for a file that exists."""
    if options.url is not None and options.real:
        raise InputError("--url", "it is given with --real", "give one of them: --real starts a server itself")
    if options.url is not None and not options.url.startswith(("http://", "https://")):
        raise InputError("--url", f"it is {options.url!r}", "give the server's URL, e.g. http://127.0.0.1:8000")
    for mode, unused in UNUSED.items():
        if getattr(options, mode):
            _check_unused(options, mode, unused)
    if options.save_trace is not None and options.save_trace.exists():
        raise OutputError(f"output {options.save_trace}", "it exists", "choose another name")
    for name in ("devices", "rounds", "seconds"):
        value = getattr(options, name)
        if value is not None and not 0 < value < float("inf"):
            raise InputError(f"--{name}", f"it is {value:g}", "give a number above 0")


def _check_unused(options: BenchServe, mode: str, unused: Sequence[str]) -> None:
    """Raises InputError for an option that has no effect."""
    for name in unused:
        if getattr(options, name) != getattr(BenchServe(), name):
            flag = f"--{name.replace('_', '-')}"
            raise InputError(flag, f"it has no effect with --{mode}", f"leave one of them out; {MODES[mode]}")


def _simulated(options: BenchServe) -> JSONObject:
    """Runs every policy on the same trace."""
    pricing = read_prices(options.prices or PRICES)
    arrivals = _arrivals(options, pricing.view_s, options.devices, options.seconds or SIMULATED_S)
    runs = compared(arrivals, pricing, options.devices, options.seed)
    summaries = {name: summarise(run) for name, run in runs.items()}
    return {"summaries": summaries, **headline(summaries), "requests": len(arrivals), "devices": options.devices}


def _arrivals(options: BenchServe, view_s: float, devices: int, seconds: float) -> list[Arrival]:
    """The requests to send."""
    if options.trace is not None:
        arrivals = read_trace(options.trace)
    else:
        period_s = min(PERIOD_S, seconds)
        mix = standard_mix(view_s)
        arrivals = load(options.pattern, mix, devices=devices, seconds=seconds, seed=options.seed, period_s=period_s)
    if not arrivals:
        raise InputError("--trace" if options.trace else "--seconds", "it yields no request", "give more")
    if options.save_trace is not None:
        write_trace(options.save_trace, arrivals)
    return arrivals


async def _running(options: BenchServe) -> JSONObject:
    """Sends the load to a running server."""
    from sphinx_nvs.load_testing.ab_comparison import Rounds, last_deadline, view_seconds
    from sphinx_nvs.load_testing.load_generator import Sender, as_requested

    assert options.url is not None
    async with Sender(options.url, options.api_key, options.scene) as sender:
        devices = await sender.devices()
        view_s = 0.0 if options.trace else await view_seconds(sender, Rounds())
        arrivals = _arrivals(options, view_s, devices, options.seconds or REAL_S)
        run = await sender.send(arrivals, as_requested, until_s=last_deadline(arrivals, REST_S))
        if sender.problems and not any(outcome.accepted for outcome in run.outcomes):
            raise SphinxError(f"the server accepted none of {len(arrivals)} requests: {sender.problems[0]}")
        found = summarise(run)
        return {
            "summaries": {ADAPTIVE: found},
            **found.to_json(),
            "devices": devices,
            "view_s": view_s,
            "problems": sender.problems,
        }


async def _compared(options: BenchServe) -> JSONObject:
    """Starts a server, and compares it with fixed qualities."""
    from sphinx_nvs.load_testing.ab_comparison import Rounds, compare

    found = await compare(Rounds(rounds=options.rounds, seed=options.seed))
    return {**found, **headline(found["summaries"])}


def _tell(found: JSONMapping, options: BenchServe) -> None:
    """Prints a table, a one-line summary, and with `--json` the figures."""
    summaries: Mapping[str, Summary] = found["summaries"]
    lines = [table(summaries)]
    if "best_fixed" in found:
        lines.append(
            f"goodput over full quality {found['goodput_over_full']:.1f}x, over the best fixed quality "
            f"({found['best_fixed']}) {found['goodput_over_best_fixed']:.2f}x"
        )
    lines += _problems(found.get("problems", ()))
    sys.stdout.write("\n".join(lines) + "\n")
    if options.json:
        figures = {name: value for name, value in found.items() if name != "summaries"}
        policies = {name: summary.to_json() for name, summary in summaries.items()}
        sys.stdout.write(json.dumps(rounded({**figures, "policies": policies})) + "\n")


def _problems(problems: Sequence[str]) -> list[str]:
    """The server's error messages, without duplicates."""
    return [f"{problems.count(sentence)} x {sentence}" for sentence in dict.fromkeys(problems)]
