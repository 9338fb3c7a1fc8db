"""Calibration of the planner: requested and delivered quality, deadlines, cost, and savings over fixed plans.

    python benchmarks/planner.py [--quick] [--data procedural:test:50] [--size 128] [--clock cpu] [--save out/planner]

Scenes are of the split `test` by default: the profile was fitted on `val`. Quality is the profile's: 1 minus the
distance to full diffusion's frames of the same noise, over the profile's scale. For every scene and requested quality
the planner makes a plan, the plan is run, and its quality measured. A request whose render alone reaches the requested
quality is not refined and delivers more than requested: `quality_error` is the mean of delivered minus requested
quality over refined requests, `quality_error_all` over all. Fixed plans use one start step and one rule for the cells
to refine (all, or those above a threshold of a signal) for all scenes. `compute_gain_over_fixed` is the FLOPs of the
cheapest of them, or of a mixture of two, that has the planner's mean quality, over the planner's FLOPs, denoiser and
decoder, the first-step probe included; `time_gain_over_fixed` is the same in seconds. The solver's grid is part of the
planner's choice: `*_over_fixed_grids` gives the fixed plans the planner's short grids, too, each for all scenes. A mean
hides scenes that get far less than requested: `compute_gain_at_equal_promise` compares with the cheapest short grid,
all
cells from noise, that leaves no larger share of scenes more than 0.03 below the requested quality than the planner
does, or than 5 %. `deadline_hit` is the share of runs, stages 1 to 3 included, that end before deadlines drawn between
the times of regression and of full diffusion on this machine. `auroc` measures how well a signal finds the fifth of a
scene's cells that full diffusion changes most, and `auroc_truth` the fifth where the render errs most.

The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.stats import mannwhitneyu
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from sphinx_nvs.assess.change import cell_means
from sphinx_nvs.evaluation.datasets import Case, Loaded, Size, cases_named
from sphinx_nvs.models.base import consistent_frames, decode_frames
from sphinx_nvs.models.unet.network import UNetConfig
from sphinx_nvs.pipeline.pipeline import Pipeline
from sphinx_nvs.pipeline.request import PlannedRequest, Prepared
from sphinx_nvs.plan import economised
from sphinx_nvs.plan.compute_plan import DECODINGS, ComputePlan
from sphinx_nvs.plan.cost import plan_flops
from sphinx_nvs.plan.cost_model import refined_views
from sphinx_nvs.plan.profile import CHANGE, REDRAW, FittedProfile, load_profile
from sphinx_nvs.presets import load_preset
from sphinx_nvs.profiling.calibration import calibrate, network_of
from sphinx_nvs.profiling.measuring import ProfileConfig, delivered_distance, distance_map
from sphinx_nvs.sampling_params import SamplingParams

QUALITIES = (0.90, 0.95, 0.98, 0.99)
SHORTFALL, FAILED = 0.03, 0.05
FIXED_RULES = (("all", 0.0), ("uncertainty", 0.2), ("uncertainty", 0.5), (REDRAW, 0.01))
"""Cells to refine: all, or where a signal is above a threshold."""
FIXED_STARTS = (0.0, 0.2, 0.4, 0.6)
"""Start steps as a share of the grid; short grids start from noise."""
Design = tuple[tuple[str, float], int, int]
"""A fixed plan: rule of cells, index of the lever set, start step."""
DEADLINES = 3
GRID, LONG_GRID = "grid", "long grid"
Cost = Callable[["Outcome"], float]
CLOCKS: dict[str, Callable[[], float]] = {"wall": time.perf_counter, "cpu": time.process_time}


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """Results of a plan.

    Args:
        delivered: measured quality.
        flops: FLOPs of the denoiser and the decoder, the first-step probe included.
        seconds: time of planning, its first call included, and of stages 5 to 7.
        predicted_s: predicted seconds of stages 5 to 7 after planning; None for fixed plans.
        run_s: measured seconds of the same.
        predicted: predicted quality; None for fixed plans.
        refined: whether any cell was refined.
        cells: share of cells that were refined.
    """

    delivered: float
    flops: float
    seconds: float
    run_s: float
    predicted_s: float | None = None
    predicted: float | None = None
    refined: bool = True
    cells: float = 1.0


@dataclass(frozen=True, kw_only=True)
class SceneOutcome:
    """Results of a scene.

    Args:
        name: name of the case.
        full: stages 5 to 7 of full diffusion.
        planned: the planner's plans, by requested quality.
        fixed: the fixed plans, by name; empty if they were not run.
        grids: the fixed plans run on every scene: all cells from noise, on each short grid.
        deadlines: (deadline, measured) seconds.
        auroc: by signal, for cells that full diffusion changes most.
        auroc_truth: by signal, for cells where the render errs most.
    """

    name: str
    full: Outcome
    planned: dict[float, Outcome]
    fixed: dict[str, Outcome]
    grids: dict[str, Outcome]
    deadlines: list[tuple[float, float]]
    auroc: dict[str, float]
    auroc_truth: dict[str, float]


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures and prints the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="12 scenes, fixed plans on 3 of them")
    parser.add_argument("--data", default="procedural:test:50", help="as for sphinx-nvs eval")
    parser.add_argument("--size", type=int, default=128, help="short side in pixels")
    parser.add_argument("--fixed-scenes", type=int, default=10, help="number of scenes on which fixed plans run, too")
    parser.add_argument("--clock", choices=sorted(CLOCKS), default="cpu", help="cpu is repeatable on a busy machine")
    parser.add_argument("--profile", type=Path, help="profile to use instead of the preset's")
    parser.add_argument("--save", type=Path, help="folder for the figures and the plot")
    options = parser.parse_args(arguments)
    pipeline = load_preset()
    if options.profile:
        pipeline = replace(pipeline, profile=load_profile(options.profile, "embedded"))
    pipeline = replace(pipeline, cost_model=calibrate(pipeline, clock=options.clock))
    if options.quick:
        options.data, options.fixed_scenes = "procedural:test:12", 3
    cases = cases_named(options.data)
    size, clock = Size(short_side=options.size, multiple=pipeline.denoiser.size_multiple), CLOCKS[options.clock]
    outcomes: list[SceneOutcome] = []
    for index, case in enumerate(cases):
        outcomes.append(measure_scene(pipeline, case, size, clock, with_fixed=index < options.fixed_scenes, seed=index))
        qualities = ", ".join(f"{q:g}: {o.delivered:.3f} in {o.seconds:.2f} s" for q, o in outcomes[-1].planned.items())
        sys.stderr.write(f"{case.name} ({index + 1} of {len(cases)}): {qualities}\n")
    figures = summary(outcomes)
    if options.save:
        options.save.mkdir(parents=True, exist_ok=True)
        (options.save / "planner.json").write_text(json.dumps(figures, indent=1) + "\n")
        draw(outcomes, options.save / "planner.png")
    sys.stdout.write(json.dumps(figures) + "\n")


def measure_scene(
    pipeline: Pipeline, case: Case, size: Size, clock: Callable[[], float], *, with_fixed: bool, seed: int
) -> SceneOutcome:
    """Runs all plans on a scene."""
    profile = pipeline.profile
    assert isinstance(profile, FittedProfile)
    config = ProfileConfig(preset="embedded", metric=profile.metric, against=profile.against, signal=profile.signal)
    loaded = case.load(size)
    started = clock()
    prepared = pipeline.prepare(loaded.scene, loaded.targets)
    prepare_s = clock() - started
    whole = pipeline.plan_prepared(prepared, SamplingParams(method="diffusion"))
    started = clock()
    full = pipeline.run(whole).frames
    full_s = clock() - started
    counter = Counter.of(pipeline, whole)

    def quality(frames: Tensor) -> float:
        if profile.against == "full":
            return 1 - delivered_distance(config, frames, full) / profile.scale
        grown = delivered_distance(config, frames, loaded.truth) - delivered_distance(config, full, loaded.truth)
        return 1 - grown / profile.scale

    planned = {asked: _planned(pipeline, prepared, asked, quality, counter, clock) for asked in QUALITIES}
    steps, longest = whole.plan.num_steps, len(profile.levers) - 1
    designs: list[Design] = [(FIXED_RULES[0], index, 0) for index in range(longest)]
    grids = _fixed(pipeline, prepared, whole, designs, quality, counter, clock)
    fixed = {}
    if with_fixed:
        designs = [(rule, longest, round(share * steps)) for rule in FIXED_RULES for share in FIXED_STARTS]
        designs += [(rule, index, 0) for rule in FIXED_RULES[1:] for index in range(longest)]
        rendered = Outcome(delivered=quality(prepared.render.rgb), flops=0.0, seconds=0.0, run_s=0.0, refined=False)
        more = _fixed(pipeline, prepared, whole, designs, quality, counter, clock)
        fixed = {"regression": rendered, **grids, **more}
    return SceneOutcome(
        name=case.name,
        full=Outcome(delivered=1.0, flops=counter(whole.plan, opened=False), seconds=full_s, run_s=full_s),
        planned=planned,
        fixed=fixed,
        grids=grids,
        deadlines=_deadlines(pipeline, loaded, prepare_s, full_s, clock, seed),
        **_signals(pipeline, prepared, full, loaded.truth, config),
    )


@dataclass(frozen=True, kw_only=True)
class Counter:
    """Counts the FLOPs of a request's plans: network calls and convolutions of decoding, without compiled loops.

    Args:
        config: configuration of the denoiser's network.
        num_known: context views.
        opening: FLOPs of conditioning, which finds the photos' surfaces.
        decoding: FLOPs of decoding one frame, by `DECODINGS`.
        agreeing: FLOPs of making one frame consistent with its neighbours.
    """

    config: UNetConfig
    num_known: int
    opening: float
    decoding: dict[str, float]
    agreeing: float

    @staticmethod
    def of(pipeline: Pipeline, whole: PlannedRequest) -> Counter:
        """A counter for full diffusion's plan of the request."""
        config, num_known = network_of(pipeline).config, whole.prepared.num_known
        assert config is not None
        views, height, width = whole.plan.start_step.shape
        latents = torch.zeros(views, config.out_channels, height, width)
        with FlopCounterMode(display=False) as opening:
            conditioning = pipeline.begin(whole.prepared, whole.plan).conditioning
        decoding = {}
        for name in DECODINGS:
            with FlopCounterMode(display=False) as counted, torch.inference_mode():
                frames = decode_frames(pipeline.denoiser, latents, conditioning, decoding=name)
            decoding[name] = counted.get_total_flops() / views
        with FlopCounterMode(display=False) as agreeing, torch.inference_mode():
            consistent_frames(pipeline.denoiser, frames, conditioning, range(views))
        return Counter(
            config=config,
            num_known=num_known,
            opening=opening.get_total_flops(),
            decoding=decoding,
            agreeing=agreeing.get_total_flops() / views,
        )

    def __call__(self, plan: ComputePlan, *, opened: bool) -> float:
        """FLOPs of a plan; `opened` where a probe was made, which a plan that keeps the render did not need."""
        frames, calls = refined_views(plan), plan_flops(plan, self.config, self.num_known)
        opening = self.opening if opened or frames else 0.0
        return sum(calls) + opening + frames * (self.decoding[plan.decoding] + self.agreeing)


def _planned(
    pipeline: Pipeline,
    prepared: Prepared,
    asked: float,
    quality: Callable[[Tensor], float],
    counter: Counter,
    clock: Callable[[], float],
) -> Outcome:
    started = clock()
    planned = pipeline.plan_prepared(prepared, SamplingParams(quality=asked))
    planned_at = clock()
    frames = pipeline.run(planned).frames
    ended = clock()
    plan = planned.plan
    assert plan.predicted is not None
    return Outcome(
        delivered=quality(frames),
        flops=counter(plan, opened=planned.prepared.probe is not None),
        seconds=ended - started,
        run_s=ended - planned_at,
        predicted_s=plan.predicted.seconds,
        predicted=plan.predicted.quality,
        refined=plan.first_step < plan.num_steps,
        cells=float((plan.start_step < plan.num_steps).double().mean()),
    )


def _fixed(
    pipeline: Pipeline,
    prepared: Prepared,
    whole: PlannedRequest,
    designs: Sequence[Design],
    quality: Callable[[Tensor], float],
    counter: Counter,
    clock: Callable[[], float],
) -> dict[str, Outcome]:
    """One lever set and one rule for all scenes; the targets are redrawn if the rule needs that."""
    found: dict[str, Outcome] = {}
    assert isinstance(pipeline.profile, FittedProfile)
    steps, levers = whole.plan.num_steps, pipeline.profile.levers
    for (name, threshold), index, start in designs:
        started = clock()
        request = pipeline.probed(prepared, signal=REDRAW) if name == REDRAW else prepared
        signal = prepared.assessment.uncertainty if request.probe is None else request.probe.change
        start_step = torch.full_like(whole.plan.start_step, start)
        if name != "all":
            cells = cell_means(signal, pipeline.denoiser.factor) > threshold
            start_step = torch.where(cells, start_step, steps)
        plan = economised(replace(whole.plan, start_step=start_step), levers[index])
        frames = pipeline.run_plan(request, plan).frames
        taken = clock() - started
        kind = LONG_GRID if index == len(levers) - 1 else GRID
        found[f"{name} {threshold:g} from {start}, {kind} {index}"] = Outcome(
            delivered=quality(frames),
            flops=counter(plan, opened=request.probe is not None),
            seconds=taken,
            run_s=taken,
        )
    return found


def _deadlines(
    pipeline: Pipeline, loaded: Loaded, prepare_s: float, full_s: float, clock: Callable[[], float], seed: int
) -> list[tuple[float, float]]:
    """Runs with deadlines between regression alone and full diffusion, log-uniformly spaced."""
    rng = np.random.default_rng(seed)
    runs = []
    for share in (np.arange(DEADLINES) + rng.uniform(size=DEADLINES)) / DEADLINES:
        deadline = float((1.05 * prepare_s) * ((prepare_s + full_s) / (1.05 * prepare_s)) ** share)
        started = clock()
        prepared = pipeline.prepare(loaded.scene, loaded.targets)
        planned = pipeline.plan_prepared(prepared, SamplingParams(deadline_s=deadline - (clock() - started)))
        pipeline.run(planned)
        runs.append((deadline, clock() - started))
    return runs


def _signals(
    pipeline: Pipeline, prepared: Prepared, full: Tensor, truth: Tensor, config: ProfileConfig
) -> dict[str, dict[str, float]]:
    """How well each signal finds the cells that matter."""
    render, factor = prepared.render, pipeline.denoiser.factor
    redraw, change = (pipeline.probed(prepared, signal=signal).probe for signal in (REDRAW, CHANGE))
    assert redraw is not None
    assert change is not None
    signals = {
        "alpha": 1 - render.alpha,
        "confidence": 1 - render.confidence,
        "disagreement": render.disagreement,
        "uncertainty": prepared.assessment.uncertainty,
        "redraw": redraw.change,
        "change": change.change,
    }
    cells = {name: cell_means(signal, factor).flatten().numpy() for name, signal in signals.items()}
    figures = {}
    for key, to in (("auroc", full), ("auroc_truth", truth)):
        error = cell_means(distance_map(config.measure, render.rgb, to), factor).flatten().numpy()
        worst = error > np.quantile(error, 0.8)
        figures[key] = {name: _auroc(values, worst) for name, values in cells.items()}
    return figures


def _auroc(values: np.ndarray, positive: np.ndarray) -> float:
    """Area under the ROC curve: the probability that a positive's value exceeds a negative's."""
    statistic = mannwhitneyu(values[positive], values[~positive]).statistic
    return float(statistic / (positive.sum() * (~positive).sum()))


def summary(outcomes: Sequence[SceneOutcome]) -> dict[str, Any]:
    """The figures, as JSON values."""
    by_quality = {q: [o.planned[q] for o in outcomes] for q in QUALITIES}
    refined = {q: [p for p in runs if p.refined] for q, runs in by_quality.items()}
    everything = [(q, p) for q, runs in by_quality.items() for p in runs]
    timed = [p for _, p in everything if p.refined and p.predicted_s]
    deadlines = [pair for o in outcomes for pair in o.deadlines]
    full_s = float(np.mean([o.full.seconds for o in outcomes]))
    return {
        "scenes": len(outcomes),
        "quality_error": {f"{q:.2f}": _round(np.mean([p.delivered - q for p in refined[q]])) for q in QUALITIES},
        "quality_error_all": {f"{q:.2f}": _round(np.mean([p.delivered - q for p in by_quality[q]])) for q in QUALITIES},
        "delivered": {f"{q:.2f}": _round(np.mean([p.delivered for p in by_quality[q]])) for q in QUALITIES},
        "prediction_error": {
            f"{q:.2f}": _round(np.mean([abs(p.delivered - (p.predicted or 0)) for p in by_quality[q]]))
            for q in QUALITIES
        },
        "refined": {f"{q:.2f}": len(refined[q]) for q in QUALITIES},
        "cells": {f"{q:.2f}": _round(np.mean([p.cells for p in by_quality[q]])) for q in QUALITIES},
        "share_below_by_0.03": _round(np.mean([p.delivered < q - SHORTFALL for q, p in everything])),
        "share_below": {
            f"{q:.2f}": _round(np.mean([p.delivered < q - SHORTFALL for p in by_quality[q]])) for q in QUALITIES
        },
        "speedup": {f"{q:.2f}": _round(full_s / np.mean([p.seconds for p in by_quality[q]])) for q in QUALITIES},
        "deadline_hit": _round(np.mean([taken <= deadline for deadline, taken in deadlines])),
        "deadline_used": _round(np.median([taken / deadline for deadline, taken in deadlines])),
        "cost_mape": _round(np.mean([abs((p.predicted_s or 0) / p.run_s - 1) for p in timed])),
        "compute_gain_over_fixed": gains(outcomes, _flops, short=False),
        "time_gain_over_fixed": gains(outcomes, _seconds, short=False),
        "compute_gain_over_fixed_grids": gains(outcomes, _flops, short=True),
        "time_gain_over_fixed_grids": gains(outcomes, _seconds, short=True),
        "compute_gain_at_equal_promise": promised_gains(outcomes, _flops),
        "time_gain_at_equal_promise": promised_gains(outcomes, _seconds),
        "auroc": _mean_by_name([o.auroc for o in outcomes]),
        "auroc_truth": _mean_by_name([o.auroc_truth for o in outcomes]),
    }


def _flops(outcome: Outcome) -> float:
    return outcome.flops


def _seconds(outcome: Outcome) -> float:
    return outcome.seconds


def gains(outcomes: Sequence[SceneOutcome], cost: Cost, *, short: bool) -> dict[str, float | None]:
    """By requested quality: cost of the cheapest fixed plans with the planner's mean quality, over the planner's."""
    scenes = [o for o in outcomes if o.fixed]
    if not scenes:
        return {}
    points = [(quality, own) for name, quality, own in fixed_points(scenes, cost) if short or not is_short(name)]
    found = {}
    for q in QUALITIES:
        quality, own = planner_point(scenes, q, cost)
        cheapest = cheapest_at(quality, points)
        found[f"{q:.2f}"] = None if cheapest is None else _round(cheapest / own)
    return found


def promised_gains(outcomes: Sequence[SceneOutcome], cost: Cost) -> dict[str, float]:
    """By requested quality: cost of the cheapest grid that fails as few scenes as the planner, over the planner's."""
    found = {}
    for q in QUALITIES:

        def failed(runs: Sequence[Outcome], asked: float = q) -> float:
            return float(np.mean([run.delivered < asked - SHORTFALL for run in runs]))

        own = [o.planned[q] for o in outcomes]
        allowed = max(FAILED, failed(own))
        rivals = [[o.full for o in outcomes], *([o.grids[name] for o in outcomes] for name in outcomes[0].grids)]
        kept = [runs for runs in rivals if failed(runs) <= allowed]
        cheapest = min(float(np.mean([cost(run) for run in runs])) for runs in kept)
        found[f"{q:.2f}"] = _round(cheapest / np.mean([cost(run) for run in own]))
    return found


def planner_point(scenes: Sequence[SceneOutcome], asked: float, cost: Cost) -> tuple[float, float]:
    """Mean quality and mean cost of the planner's plans."""
    runs = [o.planned[asked] for o in scenes]
    return float(np.mean([r.delivered for r in runs])), float(np.mean([cost(r) for r in runs]))


def fixed_points(scenes: Sequence[SceneOutcome], cost: Cost) -> list[tuple[str, float, float]]:
    """Name, mean quality and mean cost of every fixed plan, full diffusion included."""
    points = [
        (
            name,
            float(np.mean([o.fixed[name].delivered for o in scenes])),
            float(np.mean([cost(o.fixed[name]) for o in scenes])),
        )
        for name in scenes[0].fixed
    ]
    return [*points, ("full diffusion", 1.0, float(np.mean([cost(o.full) for o in scenes])))]


def is_short(name: str) -> bool:
    """Whether a fixed plan uses one of the short grids."""
    return GRID in name and LONG_GRID not in name


def cheapest_at(quality: float, points: Sequence[tuple[float, float]]) -> float | None:
    """Least seconds for a mean quality by one plan or a mixture of two; None if none reaches it."""
    single = [b for a, b in points if a >= quality]
    mixed = [
        b0 + (b1 - b0) * (quality - a0) / (a1 - a0) for a0, b0 in points for a1, b1 in points if a0 < quality <= a1
    ]
    return min([*single, *mixed], default=None)


def draw(outcomes: Sequence[SceneOutcome], path: Path) -> None:
    """Plots planner against fixed plans, and requested against delivered quality."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, (left, middle, right) = plt.subplots(1, 3, figsize=(15, 4.4))
    scenes = [o for o in outcomes if o.fixed] or list(outcomes)
    _draw_front(left, scenes, _flops, "FLOPs of denoiser and decoder, % of full diffusion's")
    _draw_front(middle, scenes, _seconds, "time, % of full diffusion's")
    for q in QUALITIES:
        delivered = np.sort([o.planned[q].delivered for o in outcomes])
        right.plot(delivered, np.linspace(0, 1, len(delivered)), label=f"asked {q:g}")
        right.axvline(q, c="0.8", lw=0.8)
    right.set(xlim=(0.8, 1.002), xlabel="quality delivered", ylabel="share of scenes at most this good")
    right.legend(loc="upper left")
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _draw_front(axes: Any, scenes: Sequence[SceneOutcome], cost: Cost, of: str) -> None:
    """Plots the planner's plans against fixed ones."""
    full = float(np.mean([cost(o.full) for o in scenes]))
    if scenes[0].fixed:
        points = [(is_short(name), a, 100 * b / full) for name, a, b in fixed_points(scenes, cost)]
        for short, colour, label in ((False, "tab:blue", "fixed plans"), (True, "0.7", "fixed plans on short grids")):
            of_kind = [(b, a) for kind, a, b in points if kind == short]
            axes.scatter(*zip(*of_kind, strict=True), s=16, c=colour, label=label)
    own = [planner_point(scenes, q, cost) for q in QUALITIES]
    axes.plot([100 * b / full for _, b in own], [a for a, _ in own], "o-", c="tab:red", label="planner")
    axes.set(xscale="log", xlabel=of, ylabel="mean quality delivered", ylim=(0.6, 1.01))
    axes.legend(loc="lower right")


def _mean_by_name(rows: Sequence[dict[str, float]]) -> dict[str, float]:
    return {name: _round(np.mean([row[name] for row in rows])) for name in rows[0]}


def _round(value: Any) -> float:
    return round(float(value), 4)


if __name__ == "__main__":
    main()
