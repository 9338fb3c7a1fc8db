"""Figures of a report, computed from measured cases; nothing here computes images or time.

Over scenes i with seeds s, for a method m against full diffusion f (full-50):

    speed-up            sum_i T_f,i / sum_i T_m,i             T: median over a case's runs, stages 1 to 3 included
    loss of a metric    mean_i  +-(x_m,i - x_f,i) / |x_f,i|     x: mean over seeds; the sign makes worse positive
    D                   the largest loss over all metrics that count, over whole frames and over every region
    noise floor         the loss of one seed of full diffusion against another

S@x and HV consider methods that denoise: regression does not compute what diffusion would, and where it loses almost
nothing the scenes say little about diffusion, which `remarks` then reports.

Intervals are from the bootstrap over scenes, with the same draws for every method and metric: D, S@x and HV are
computed anew in every replicate. A region's loss counts in cases where full diffusion has a value there.

Shapes: M methods, K metrics (of regions), N scenes, R replicates.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float, Int

from sphinx_nvs.evaluation.front import Point, best_within, hypervolume, pareto
from sphinx_nvs.evaluation.methods import FULL, REGRESSION
from sphinx_nvs.evaluation.regions import REGIONS, WHOLE
from sphinx_nvs.evaluation.registry import metric
from sphinx_nvs.evaluation.statistics import FEWEST, interval, mean_with_interval, resamples
from sphinx_nvs.json_types import JSONMapping, JSONObject

COUNTED_REGIONS = (WHOLE, *REGIONS)
"""Regions whose losses D covers."""

THRESHOLDS = {"s_at_2pct": 0.02, "s_at_5pct": 0.05}
WORST_SCENES = 5
TAIL_LOSS = 0.05

Case = JSONMapping
"""The harness's results for one case."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Table:
    """All cases as arrays.

    Args:
        methods: names, including the reference.
        keys: metrics of regions that count, as (region, metric).
        seconds: time of each method on each case.
        losses: relative, positive is worse; NaN where a case has none.
    """

    methods: tuple[str, ...]
    keys: tuple[tuple[str, str], ...]
    seconds: Float[np.ndarray, "M N"]
    losses: Float[np.ndarray, "M K N"]


def tabulate(cases: Sequence[Case], clock: str) -> Table:
    """Collects the cases' times and losses.

    Args:
        cases: at least one, all with the same methods.
        clock: `wall` or `cpu`.
    """
    methods = tuple(cases[0]["methods"])
    keys = tuple(dict.fromkeys(key for case in cases for key in _counted(case)))
    seconds = [[method_seconds(case, name, clock) for case in cases] for name in methods]
    losses = [[[_loss(case, name, region, m) for case in cases] for region, m in keys] for name in methods]
    shape = (len(methods), len(keys), len(cases))
    return Table(
        methods=methods, keys=keys, seconds=np.array(seconds), losses=np.array(losses, np.float64).reshape(shape)
    )


def method_seconds(case: Case, name: str, clock: str) -> float:
    """Seconds of a method on a case: the median of its runs plus that of stages 1 to 3."""
    # Medians, as a mean would take over the one run that another process disturbed.
    runs = [seconds for run in case["methods"][name] for seconds in run[f"{clock}_s"]]
    return float(np.median(runs) + np.median([run[f"{clock}_s"] for run in case["prepare"]]))


def _counted(case: Case) -> Iterable[tuple[str, str]]:
    regions = case["methods"][FULL][0]["metrics"]
    for region in COUNTED_REGIONS:
        for name in regions.get(region, {}):
            if metric(name).counts:
                yield region, name


def mean_over_seeds(case: Case, name: str, region: str, metric_name: str) -> float:
    """A method's metric on a case; NaN if there is none."""
    values = [run["metrics"].get(region, {}).get(metric_name) for run in case["methods"][name]]
    return math.nan if None in values else float(np.mean(values))


def _loss(case: Case, name: str, region: str, metric_name: str) -> float:
    mine, full = (mean_over_seeds(case, m, region, metric_name) for m in (name, FULL))
    # A relative loss needs something to be relative to: perfect frames of full diffusion count for nothing here.
    if not (math.isfinite(mine) and math.isfinite(full)) or full == 0:
        return math.nan
    return metric(metric_name).loss(mine, full)


def summarise(cases: Sequence[Case], clock: str) -> JSONObject:
    """The measurements' part of `summary.json`.

    Args:
        cases: at least one.
        clock: clock of the speed-ups, `wall` or `cpu`.
    """
    table = tabulate(cases, clock)
    draws = resamples(len(cases)) if len(cases) >= FEWEST else None
    whole = [k for k, (region, _) in enumerate(table.keys) if region == WHOLE]
    over_whole = replace(table, keys=tuple(table.keys[k] for k in whole), losses=table.losses[:, whole])
    methods = {
        name: {
            **_place(table, index, draws),
            "loss_of_whole_frames": float(_worst_losses(over_whole, None)[index, 0]),
            **_details(cases, table, index, clock),
        }
        for index, name in enumerate(table.methods)
    }
    return {
        "scenes": len(cases),
        "clock": clock,
        **headline(table, draws),
        "whole_frames": headline(over_whole, draws),
        "speedup": {name: row["speedup"] for name, row in methods.items()},
        "loss": {name: row["loss"] for name, row in methods.items()},
        "methods": methods,
        "noise_floor": noise_floor(cases),
        "difficulty": by_difficulty(cases, clock),
        "truth_reprojection": mean_with_interval([_number(case["truth_reprojection"]) for case in cases]),
        "worst_scenes": worst_scenes(cases, table),
    }


def headline(table: Table, draws: Int[np.ndarray, "R N"] | None) -> JSONObject:
    """S@x, HV and the front of a table's denoising methods.

    Args:
        table: all cases.
        draws: the scenes of each replicate; None gives no intervals.

    Returns:
        For each of `THRESHOLDS`: its value, `_method`, `_interval`, and `_sure`, the value that still holds at every
        loss's upper bound; `hypervolume` with `_interval` and `_sure`; `front`, names by increasing loss.
    """
    rows = [index for index, name in enumerate(table.methods) if name != REGRESSION]
    names = [table.methods[index] for index in rows]
    points = _points(names, _speedups(table, None)[rows, 0], _worst_losses(table, None)[rows, 0])
    speedups, worst = _speedups(table, draws)[rows], _worst_losses(table, draws)[rows]
    upper = worst[:, 0] if draws is None else np.array([interval(row)[1] for row in worst])
    sure = _points(names, _speedups(table, None)[rows, 0], upper)
    said: JSONObject = {}
    for key, loss in THRESHOLDS.items():
        best, safe = best_within(points, loss), best_within(sure, loss)
        # In a replicate where no method stays within the loss, full diffusion itself (1x) is the best point.
        ends = None if draws is None else interval(np.where(worst <= loss, speedups, 1.0).max(0))
        said |= {key: best.speedup, f"{key}_method": best.name, f"{key}_interval": ends}
        said[f"{key}_sure"] = {"speedup": safe.speedup, "method": safe.name}
    replicates = (hypervolume(_points(names, *pair)) for pair in zip(speedups.T, worst.T, strict=True))
    said["hypervolume"] = hypervolume(points)
    said["hypervolume_interval"] = None if draws is None else interval(np.array(list(replicates)))
    said["hypervolume_sure"] = hypervolume(sure)
    said["front"] = [point.name for point in pareto(points)]
    return said


def _points(names: Sequence[str], speedups: Float[np.ndarray, "M"], losses: Float[np.ndarray, "M"]) -> list[Point]:
    return [Point(n, float(s), float(d)) for n, s, d in zip(names, speedups, losses, strict=True)]


def _place(table: Table, index: int, draws: Int[np.ndarray, "R N"] | None) -> JSONObject:
    """A method's position in the plot."""
    return {
        "speedup": float(_speedups(table, None)[index, 0]),
        "speedup_interval": None if draws is None else interval(_speedups(table, draws)[index]),
        "loss": float(_worst_losses(table, None)[index, 0]),
        "loss_interval": None if draws is None else interval(_worst_losses(table, draws)[index]),
        "worst_metric": _worst_key(table, index),
    }


def _speedups(table: Table, draws: np.ndarray | None) -> Float[np.ndarray, "M R"]:
    """Speed-up of each method in each replicate; without draws one column, over all scenes."""
    drawn = table.seconds[:, None] if draws is None else table.seconds[:, draws]
    totals = drawn.sum(-1)
    # A ratio of totals, not a mean of ratios: long scenes weigh more, as they do for a user.
    return totals[table.methods.index(FULL)] / totals


def _worst_losses(table: Table, draws: np.ndarray | None) -> Float[np.ndarray, "M R"]:
    """D of each method in each replicate."""
    drawn = table.losses[:, :, None] if draws is None else table.losses[:, :, draws]
    finite = np.isfinite(drawn).sum(-1)
    # -inf marks a region that no drawn scene has, so that it never is the maximum.
    means = np.where(finite > 0, np.nansum(drawn, -1) / np.maximum(finite, 1), -np.inf)
    return means.max(1)


def _worst_key(table: Table, index: int) -> str | None:
    """The metric and region that determine D."""
    finite = np.isfinite(table.losses[index]).sum(-1)
    if not finite.any():
        return None
    means = np.where(finite > 0, np.nansum(table.losses[index], -1) / np.maximum(finite, 1), -np.inf)
    region, name = table.keys[int(means.argmax())]
    return name if region == WHOLE else f"{name} of {region}"


def _details(cases: Sequence[Case], table: Table, index: int, clock: str) -> JSONObject:
    """A method's other figures."""
    name = table.methods[index]
    runs = [run for case in cases for run in case["methods"][name]]
    of_scene = table.losses[index]
    worst_of_scene = np.array([np.nanmax(c) if np.isfinite(c).any() else np.nan for c in of_scene.T])
    return {
        "losses": {
            f"{region}.{m}": mean_with_interval(of_scene[k].tolist()) for k, (region, m) in enumerate(table.keys)
        },
        "scenes_over_5pct": float(np.mean(worst_of_scene > TAIL_LOSS)),
        "values": _values(cases, name),
        "reprojection": mean_with_interval([_mean(run["reprojection"] for run in c["methods"][name]) for c in cases]),
        "psnr_to_warm": mean_with_interval([_mean(run["psnr_to_warm"] for run in c["methods"][name]) for c in cases]),
        "calls": _mean(run["calls"] for run in runs),
        "dense_calls": _mean(run["dense_calls"] for run in runs),
        "computed_share": _mean(run["computed_share"] for run in runs),
        "energy_j": _finite_or_none(_mean(e for run in runs for e in run["energy_j"])),
        "seconds": _seconds(cases, name, clock),
        "stages_s": _stages(cases, name),
        **_efficiency(cases, table, index),
    }


def _values(cases: Sequence[Case], name: str) -> dict[str, dict[str, dict[str, float | int | None]]]:
    """Every metric by region, including those that do not count; means over scenes with intervals."""
    runs = [run for case in cases for run in case["methods"][name]]
    names = dict.fromkeys(m for run in runs for m in run["metrics"][WHOLE])
    values: dict[str, dict[str, dict[str, float | int | None]]] = {}
    for region in (WHOLE, *REGIONS):
        means = {m: mean_with_interval([mean_over_seeds(case, name, region, m) for case in cases]) for m in names}
        values[region] = {m: mean for m, mean in means.items() if mean["mean"] is not None}
    return values


def _seconds(cases: Sequence[Case], name: str, clock: str) -> dict[str, float]:
    """Median and 95th percentile over all cases and repeats, including stages 1 to 3."""
    each = []
    for case in cases:
        before = float(np.median([run[f"{clock}_s"] for run in case["prepare"]]))
        each += [before + seconds for run in case["methods"][name] for seconds in run[f"{clock}_s"]]
    return {"median": float(np.median(each)), "p95": float(np.percentile(each, 95)), "runs": len(each)}


def _stages(cases: Sequence[Case], name: str) -> dict[str, float]:
    """Median wall seconds of each stage."""
    stages: dict[str, list[float]] = {}
    for case in cases:
        for run in (*case["prepare"], *case["methods"][name]):
            for stage, seconds in run["stages_s"].items():
                stages.setdefault(stage, []).append(seconds)
    return {stage: float(np.median(seconds)) for stage, seconds in stages.items()}


def _efficiency(cases: Sequence[Case], table: Table, index: int) -> dict[str, float | None]:
    """Measured efficiency of a plan against the least FLOPs that its steps and masks allow, for network calls only.

    `eta_alg` = W_ideal / W_plan, `ideal_speedup` = W_full / W_ideal, `eta` = measured over ideal speed-up, and
    `eta_hw_relative` = eta / eta_alg: the plan's FLOP rate over full diffusion's.
    """
    flops = [_totals(cases, name) for name in (table.methods[index], FULL)]
    (plan, ideal), (full, _) = flops
    if not plan or not ideal or not full:
        return {"flops_ratio": None, "ideal_speedup": None, "eta_alg": None, "eta": None, "eta_hw_relative": None}
    speedup = float(_speedups(table, None)[index, 0])
    return {
        "flops_ratio": full / plan,
        "ideal_speedup": full / ideal,
        "eta_alg": ideal / plan,
        "eta": speedup * ideal / full,
        "eta_hw_relative": speedup * plan / full,
    }


def _totals(cases: Sequence[Case], name: str) -> tuple[float, float]:
    """FLOPs and ideal FLOPs over all cases; zeros if they cannot be counted."""
    runs = [case["methods"][name][0] for case in cases]
    plan, ideal = (sum(run[key] or 0 for run in runs) for key in ("flops", "ideal_flops"))
    return float(plan), float(ideal)


def noise_floor(cases: Sequence[Case]) -> dict[str, dict[str, float | int | None]] | None:
    """Loss of full diffusion against itself with another seed, by metric; None with a single seed.

    `mean` tends to 0; `typical` is the root of the mean square over scenes: a single scene's loss below it is not
    significant.
    """
    if len(cases[0]["methods"][FULL]) < 2:
        return None
    floor = {}
    for region, name in dict.fromkeys(key for case in cases for key in _counted(case)):
        losses = []
        for case in cases:
            first, second = (run["metrics"].get(region, {}).get(name) for run in case["methods"][FULL][:2])
            if first is not None and second is not None and first != 0:
                losses.append(metric(name).loss(second, first))
        typical = float(np.sqrt(np.mean(np.square(losses)))) if losses else None
        floor[f"{region}.{name}"] = {**mean_with_interval(losses), "typical": typical}
    return floor


def by_difficulty(cases: Sequence[Case], clock: str) -> JSONObject | None:
    """Speed-up and D on the easy and the hard half, split at the median distance of targets from the nearest photo.

    None with fewer than `2 * FEWEST` scenes.
    """
    if len(cases) < 2 * FEWEST:
        return None
    border = float(np.median([case["distance"] for case in cases]))
    halves = {
        "easy": [case for case in cases if case["distance"] <= border],
        "hard": [case for case in cases if case["distance"] > border],
    }
    said: JSONObject = {"border": border}
    for name, half in halves.items():
        if half:
            table = tabulate(half, clock)
            columns = zip(table.methods, _speedups(table, None)[:, 0], _worst_losses(table, None)[:, 0], strict=True)
            said[name] = {
                "scenes": len(half),
                "methods": {m: {"speedup": float(s), "loss": float(d)} for m, s, d in columns},
            }
    return said


def worst_scenes(cases: Sequence[Case], table: Table) -> dict[str, list[JSONObject]]:
    """For each method but full diffusion and regression, the scenes with the largest loss, and the metric."""
    said = {}
    for index, name in enumerate(table.methods):
        if name in (FULL, REGRESSION):
            continue
        ranked = []
        for n, case in enumerate(cases):
            losses = table.losses[index, :, n]
            if np.isfinite(losses).any():
                k = int(np.nanargmax(losses))
                ranked.append({"case": case["case"], "loss": float(losses[k]), "metric": ".".join(table.keys[k])})
        said[name] = sorted(ranked, key=lambda row: -row["loss"])[:WORST_SCENES]
    return said


def remarks(summary: JSONMapping) -> list[str]:
    """Caveats that readers of a summary should know."""
    said = []
    loss = summary["loss"].get(REGRESSION)
    if loss is not None and loss <= max(THRESHOLDS.values()):
        said.append(
            f"Regression alone loses {100 * loss:.1f} % against full diffusion: on these scenes, with this pair, "
            "diffusion adds little that these metrics see, and small losses of other methods prove little."
        )
    if summary["scenes"] < FEWEST:
        said.append(f"Fewer than {FEWEST} scenes: there are no intervals.")
    return said


def _number(value: float | None) -> float:
    return math.nan if value is None else value


def _mean(values: Iterable[float | int | None]) -> float:
    known = [float(value) for value in values if value is not None]
    return float(np.mean(known)) if known else math.nan


def _finite_or_none(value: float) -> float | None:
    return value if math.isfinite(value) else None
