"""What quality control is worth under load: the engine's scheduler against others on the same trace, simulated.

    python benchmarks/serve_load.py [--quick] [--devices 4] [--seed 0] [--prices FILE] [--trace FILE] [--out FILE]
    python benchmarks/serve_load.py --real [--quick] [--rounds 1] [--fixed 0.9 0.97] [--seed 0] [--out FILE]

Requests come open loop, in bursts of 8 times what full diffusion could serve, for 30 % of every two minutes, with 0.3
times that between them: 2.6 times capacity on average (`load_testing/simulation/loads.py`: the mix of requests).
Devices are simulated: they take the time of the price table, times the hardness of the scene,
which is unknown before its render. Scheduler, messages and phases are the engine's own. Every time counts from when
a request was to be sent.

`goodput` is the number of requests per second that were finished by their deadline and nowhere below their floor. It
is compared with that of: full quality first come first served (`goodput_over_full`); the best of a sweep of fixed
qualities, each in order of arrival and in order of deadline (`goodput_over_best_fixed`, and
`goodput_over_best_fixed_fifo` for the order of arrival alone); the same scheduler without quality control; rejecting
what would be late; and every request at its own floor. `predictor_mape` is the mean of |latency - quoted| / latency
over completed requests, from the quote given at acceptance; `service_mape` that of units once they are planned.
`decision_ms` is what the scheduler takes per event on this machine with 1000 queued jobs.

With `--real` a server is started, the embedded pair of 25 steps on one device, 128x128 frames, and the trace is scaled
down to it: it is timed with requests of every length, alone and at full quality, and rates, deadlines and the round's
length are multiples of that, as they are in the simulation. In every round each policy gets the same requests, some 70,
one policy after the other (`sphinx_nvs.load_testing.ab_comparison`). Fixed qualities are requested from the server as
quality = min_quality, in order of arrival or of deadline; a simulation says which two are worth the time. Quality is
what plans predict. `--quick` is a round of a third of the length.

The full form adds other patterns, a sweep of the bursts' height, devices that crash or are slower than their prices,
and 200 devices under one scheduler. A table goes to stderr; with `--out` also to FILE.md, a plot to FILE.png and
the figures to FILE.json. The one line on stdout is a JSON object.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sphinx_nvs.engine.scheduler.scheduler import Scheduler
from sphinx_nvs.engine.scheduler.types import Request, SchedulerConfig
from sphinx_nvs.engine.types.messages import DeviceReady
from sphinx_nvs.load_testing.ab_comparison import PERIOD, Rounds, compare
from sphinx_nvs.load_testing.simulation.arrivals import read_trace
from sphinx_nvs.load_testing.simulation.comparing import (
    ADAPTIVE,
    FULL,
    PRICES,
    SWEEP,
    compared,
    headline,
    policies,
    rounded,
    table,
)
from sphinx_nvs.load_testing.simulation.devices import Chance, Model
from sphinx_nvs.load_testing.simulation.loads import (
    BURST,
    burst_of,
    capacity_of,
    load,
    sent,
    standard_mix,
)
from sphinx_nvs.load_testing.simulation.policies import adaptive
from sphinx_nvs.load_testing.simulation.run_summary import Summary, summarise
from sphinx_nvs.load_testing.simulation.simulate import Run, cut, simulate
from sphinx_nvs.load_testing.simulation.simulated_prices import Measured, read_prices

HEIGHTS = (2.0, 4.0, 6.0, 8.0, 10.0)
FLEET = 200
FLEET_PERIOD_S = 30.0
QUEUED = 1000
EVENTS = 400


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the benchmark."""
    options = _options(argv)
    if options.real:
        return real(options)
    pricing = read_prices(options.prices)
    seconds = 240 if options.quick else 600
    mix = standard_mix(pricing.view_s)
    arrivals = (
        read_trace(options.trace)
        if options.trace
        else load("burst", mix, devices=options.devices, seconds=seconds, seed=options.seed)
    )
    runs = compared(arrivals, pricing, options.devices, options.seed, sweep=SWEEP)
    summaries = {name: summarise(run) for name, run in runs.items()}
    figures = headline(summaries)
    figures["load"] = {
        "trace": str(options.trace) if options.trace else "burst",
        "devices": options.devices,
        "seconds": seconds,
        "requests": len(arrivals),
        "burst_over_capacity": BURST,
        "mean_over_capacity": len(arrivals) / seconds / capacity_of(mix, options.devices),
    }
    figures["decision_ms"] = decision_times(pricing)
    figures["policies"] = {name: summary.to_json() for name, summary in summaries.items()}
    if not options.quick:
        figures |= further(pricing, options.devices, options.seed)
    sys.stderr.write(table(summaries) + "\n")
    if options.out:
        save(options.out, figures, summaries, runs[ADAPTIVE])
    sys.stdout.write(json.dumps(rounded(figures)) + "\n")
    return 0


def real(options: argparse.Namespace) -> int:
    """The same question to a real server, scaled down."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    rounds = Rounds(rounds=options.rounds, period=PERIOD / 3 if options.quick else PERIOD, seed=options.seed)
    found = asyncio.run(compare(rounds, options.fixed))
    summaries = found.pop("summaries")
    figures = headline(summaries) | {**found, "policies": {name: s.to_json() for name, s in summaries.items()}}
    sys.stderr.write(table(summaries) + "\n")
    if options.out:
        write(options.out, figures, summaries)
    sys.stdout.write(json.dumps(rounded(figures)) + "\n")
    return 0


def further(pricing: Measured, devices: int, seed: int) -> dict[str, Any]:
    """Other patterns, heights of bursts, worse devices, and many."""
    mix = standard_mix(pricing.view_s)
    fixed = [name for name in policies(devices) if name.startswith("fixed")]
    names = (ADAPTIVE, FULL, *fixed)
    loads = {
        name: load(name, mix, devices=devices, seconds=600, seed=seed)
        for name in ("poisson", "gamma", "step", "diurnal")
    }
    capacity = capacity_of(mix, devices)
    for height in HEIGHTS:
        loads[f"burst x{height:g}"] = sent(burst_of(height, capacity, 600), mix, seed=seed)
    found: dict[str, Any] = {}
    for name, arrivals in loads.items():
        runs = compared(arrivals, pricing, devices, seed, names=names, sweep=SWEEP)
        found[name] = headline({policy: summarise(run) for policy, run in runs.items()})
    return {"loads": found, "worse_devices": _worse(pricing, devices, seed), "fleet": _fleet(pricing, seed)}


def _worse(pricing: Measured, devices: int, seed: int) -> dict[str, Any]:
    """The burst trace on devices that crash, and on slower ones than the prices say."""
    arrivals = load("burst", standard_mix(pricing.view_s), devices=devices, seconds=600, seed=seed)
    chances = {
        "crashing 6 times an hour": Chance(crashes_per_hour=6.0),
        "slower by half than priced": Chance(speed=1.5),
    }
    return {
        name: summarise(
            simulate(arrivals, adaptive(devices), pricing, devices=devices, seed=seed, chance=chance)
        ).to_json()
        for name, chance in chances.items()
    }


def _fleet(pricing: Measured, seed: int) -> dict[str, Any]:
    """Hundreds of devices under one scheduler, in a shorter trace."""
    mix = standard_mix(pricing.view_s)
    arrivals = load("burst", mix, devices=FLEET, seconds=FLEET_PERIOD_S, seed=seed, period_s=FLEET_PERIOD_S)
    policy = Scheduler(SchedulerConfig(max_queue=10**6, max_queue_per_key=10**6), FLEET)
    began = time.process_time()
    run = simulate(arrivals, policy, pricing, devices=FLEET, seed=seed)
    took = time.process_time() - began
    return {
        "devices": FLEET,
        "decisions": run.decisions,
        "ms_per_decision": 1000 * took / max(1, run.decisions),
        "most_queued": max((jobs for _, jobs in run.queue), default=0),
        **summarise(run).to_json(),
    }


def decision_times(pricing: Measured) -> dict[str, float]:
    """Milliseconds of CPU per event with `QUEUED` jobs in the queue of one device; simulated time passes between."""
    scheduler = Scheduler(SchedulerConfig(max_queue_per_key=QUEUED), 1)
    requests = {request.job_id: request for request in _queue(pricing, QUEUED + EVENTS)}
    waiting = list(requests.values())
    scheduler.update(0.0, DeviceReady(device=0, name="simulated"))
    for request in waiting[:QUEUED]:
        scheduler.restore(0.0, request)
    model = Model(Chance(), np.random.default_rng(0))
    now, events, quotes = 0.0, [], []
    for request in waiting[QUEUED:]:
        began = time.process_time()
        scheduler.quote(now, request)
        quoted = time.process_time()
        (decision,) = scheduler.schedule(now)
        decided = time.process_time()
        seconds, report = model.carry_out(decision, requests)
        now += seconds
        resumed = time.process_time()
        scheduler.update(now, report)
        quotes.append(quoted - began)
        events.append(decided - quoted + time.process_time() - resumed)
    return {
        "p50": 1000 * float(np.median(events)),
        "p95": 1000 * float(np.quantile(events, 0.95)),
        "mean": 1000 * float(np.mean(events)),
        "quote_p50": 1000 * float(np.median(quotes)),
    }


def _queue(pricing: Measured, count: int) -> list[Request]:
    """Requests that all arrive at once, with deadlines that can be met."""
    mix = standard_mix(pricing.view_s)
    arrivals = sent(burst_of(1.0, count / 60, 120.0), mix, seed=0)[:count]
    made = []
    for number, arrival in enumerate(arrivals):
        units = cut(f"job-{number}", arrival.views, 16)
        prices = pricing.table(contexts=2, views=arrival.views, height=arrival.height, width=arrival.width)
        request = Request(
            job_id=f"job-{number}",
            key_id=arrival.key,
            accepted_at=0.0,
            num_views=arrival.views,
            prices=prices,
            quality=arrival.quality,
            deadline_s=(arrival.deadline_s or 0.0) * (1 + number / 4),
            min_quality=arrival.min_quality,
            units=units,
        )
        made.append(request)
    return made


def save(path: Path, figures: dict[str, Any], summaries: dict[str, Summary], run: Run) -> None:
    """Writes table, figures and plot into one folder."""
    write(path, figures, summaries)
    plot(path.with_suffix(".png"), figures, summaries, run)


def write(path: Path, figures: dict[str, Any], summaries: dict[str, Summary]) -> None:
    """Writes table and figures into one folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.with_suffix(".md").write_text(table(summaries) + "\n")
    path.with_suffix(".json").write_text(json.dumps(rounded(figures), indent=1) + "\n")


def plot(path: Path, figures: dict[str, Any], summaries: dict[str, Summary], run: Run) -> None:
    """The adaptive run over time; goodput of every policy; what is gained at other heights of bursts."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    heights = {name: found for name, found in figures.get("loads", {}).items() if name.startswith("burst")}
    wide = bool(heights)
    grid = "ab;ac" if wide else "ab"
    figure, axes = plt.subplot_mosaic(grid, figsize=(12, 5.6), width_ratios=(3, 2))
    _over_time(axes["a"], run)
    best = sorted(summaries.items(), key=lambda item: item[1].goodput)
    best = [item for item in best if not item[0].startswith("fixed")] + _best_fixed(summaries)
    best.sort(key=lambda item: item[1].goodput)
    axes["b"].barh([name for name, _ in best], [s.goodput for _, s in best], color="tab:blue")
    axes["b"].set(xlabel="goodput, requests/s in time and above their floor")
    if wide:
        over = [float(name.removeprefix("burst x")) for name in heights]
        axes["c"].plot(over, [f["goodput_over_best_fixed"] for f in heights.values()], "o-", label="best fixed quality")
        axes["c"].plot(
            over, [f["goodput_over_best_fixed_fifo"] for f in heights.values()], "s--", label="best fixed quality, fifo"
        )
        axes["c"].axhline(1, c="0.8", lw=0.8)
        axes["c"].set(xlabel="height of bursts over capacity of full quality", ylabel="goodput, adaptive over")
        axes["c"].legend()
    figure.tight_layout()
    figure.savefig(path, dpi=80)
    plt.close(figure)


def _over_time(axis: Any, run: Run) -> None:
    """Unfinished jobs and the quality of those that arrive."""
    axis.fill_between([t for t, _ in run.queue], [n for _, n in run.queue], step="post", color="0.85")
    axis.set(xlabel="seconds", ylabel="unfinished jobs (grey)")
    right = axis.twinx()
    for floor, colour in ((0.8, "tab:red"), (0.9, "tab:orange"), (0.97, "tab:green"), (0.99, "tab:blue")):
        mine = [o for o in run.outcomes if o.arrival.min_quality == floor and o.done_s is not None]
        right.plot(
            [o.arrival.at_s for o in mine], [o.quality for o in mine], ".", ms=4, c=colour, label=f"floor {floor:g}"
        )
        right.axhline(floor, c=colour, lw=0.6, ls=":")
    right.set(ylabel="delivered quality by time of arrival", ylim=(0.78, 1.01))
    right.legend(loc="lower right", title="adaptive")


def _best_fixed(summaries: dict[str, Summary]) -> list[tuple[str, Summary]]:
    """The best fixed quality in each order."""
    found = []
    for order in ("fifo", "edf"):
        mine = [item for item in summaries.items() if item[0].startswith("fixed") and item[0].endswith(order)]
        found.append(max(mine, key=lambda item: item[1].goodput))
    return found


def _options(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--quick", action="store_true", help="the burst trace alone, shorter")
    parser.add_argument("--devices", type=int, default=4, help="simulated devices")
    parser.add_argument("--seed", type=int, default=0, help="of arrivals and devices")
    parser.add_argument("--prices", type=Path, default=PRICES, help="price table, as the package's typical_prices.json")
    parser.add_argument("--trace", type=Path, help="CSV of requests instead of the burst trace, see `read_trace`")
    parser.add_argument("--out", type=Path, help="table, figures and plot: FILE.md, FILE.json, FILE.png")
    parser.add_argument("--real", action="store_true", help="a real server, started for this, in place of simulations")
    parser.add_argument("--rounds", type=int, default=1, help="of --real: calm periods, each followed by a burst")
    parser.add_argument(
        "--fixed", type=float, nargs="+", default=(), help="of --real: qualities in place of those simulated to be best"
    )
    return parser.parse_args(argv)


if __name__ == "__main__":
    raise SystemExit(main())
