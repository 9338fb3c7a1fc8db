"""Accuracy of the cost model's predicted seconds, on requests and plans that its calibration did not see.

    python benchmarks/cost.py [--quick] [--clock wall|cpu] [--requests 12] [--plans 4] [--repeats 3] [--seed 0]

The machine is calibrated as on first use, but nothing is cached. Requests then have random sizes, photos and frames
that no calibration case has; plans have random masks (blobs or single cells, thresholds, start steps per view) on the
denoiser's own grid of 50 steps, with random levers. Requests run in turn, each plan `--repeats` times; errors are those
of the median run, coverage counts every run. On a shared machine wall time is not repeatable: use `--clock cpu`. The
last line is one JSON object: `cost_mape` is the mean absolute percentage error of stages 5 to 7 of a plan
(`regression_mape` of stages 1 to 3, `request_mape` of both), `p95_coverage` the share of runs within their predicted
95th percentile, and `noise` the mean spread of a plan's runs around their own median: a lower bound of any
prediction's error.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from sphinx_nvs.evaluation.timing import CLOCKS, Stopwatch
from sphinx_nvs.geometry.cameras import Cameras
from sphinx_nvs.pipeline.pipeline import Pipeline
from sphinx_nvs.pipeline.request import Prepared
from sphinx_nvs.plan import ComputePlan, Levers, economised
from sphinx_nvs.plan.cost_model import CostModel, Seconds
from sphinx_nvs.presets import load_preset
from sphinx_nvs.procedural import procedural_views
from sphinx_nvs.profiling.calibration import calibrate
from sphinx_nvs.scene import Scene

SIDES = (96, 160, 192, 224, 288, 320)
"""Sides of the frames, pixels; no calibration case has them."""
CONTEXTS, VIEWS = (2, 3, 4), (2, 3, 5, 7, 9, 11)
GRID = 50


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """Predicted and measured seconds of a plan, or of stages 1 to 3 of a request.

    Args:
        what: description.
        predicted: prediction of the cost model.
        measured: seconds of each run.
    """

    what: str
    predicted: Seconds
    measured: list[float]

    @property
    def error(self) -> float:
        """Relative error of the predicted median."""
        measured = float(np.median(self.measured))
        return (self.predicted.median - measured) / measured


def main() -> None:
    """Measures and prints the results."""
    options = _options()
    torch.manual_seed(options.seed)
    rng = np.random.default_rng(options.seed)
    pipeline = load_preset(num_steps=GRID)
    model = calibrate(
        pipeline, clock=options.clock, progress=lambda what, done, total: _say(f"calibrating, {done}/{total}: {what}")
    )
    _say(json.dumps({"coefficients": model.coefficients, "p95": [model.refining_p95, model.regressing_p95]}))
    plans: list[Outcome] = []
    regressions: list[Outcome] = []
    for _ in range(options.requests):
        regression, refined = _measure_request(pipeline, model, rng, options)
        regressions.append(regression)
        plans += refined
        for outcome in (regression, *refined):
            runs = ", ".join(f"{seconds:.2f}" for seconds in outcome.measured)
            _say(f"{outcome.what}: {outcome.predicted.median:.2f} s predicted, measured {runs} ({outcome.error:+.0%})")
    sys.stdout.write(json.dumps(_summary(options, model, regressions, plans)) + "\n")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="6 requests of at most 192 pixels, 3 plans each")
    parser.add_argument("--clock", choices=CLOCKS, default="wall", help="the clock of predictions and measurements")
    parser.add_argument("--requests", type=int, default=12)
    parser.add_argument("--plans", type=int, default=4, help="plans per request")
    parser.add_argument("--repeats", type=int, default=3, help="runs per plan")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    options.sides = [side for side in SIDES if side <= 192] if options.quick else list(SIDES)
    if options.quick:
        options.requests, options.plans = 6, 3
    return options


def _measure_request(
    pipeline: Pipeline, model: CostModel, rng: np.random.Generator, options: argparse.Namespace
) -> tuple[Outcome, list[Outcome]]:
    """Stages 1 to 3 of a random request, and stages 5 to 7 of random plans for it."""
    height, width = rng.choice(options.sides, 2).tolist()
    contexts, views = int(rng.choice(CONTEXTS)), int(rng.choice(VIEWS))
    scene, targets = _request(int(rng.integers(1000)), contexts, views, height, width)
    what = f"{contexts} photos, {views} frames of {width}x{height}"
    preparing = []
    for _ in range(options.repeats):
        with Stopwatch.running() as watch:
            prepared = pipeline.prepare(scene, targets)
        preparing.append(_seconds(watch, options.clock))
    predicted = model.regression_seconds(num_context=contexts, views=views, height=height, width=width)
    regression = Outcome(what=f"{what}: regression", predicted=predicted, measured=preparing)
    plans = [_random_plan(pipeline, prepared, rng) for _ in range(options.plans)]
    pipeline.begin(prepared, plans[0]).step()  # the first call of a shape builds its kernels
    runs: list[list[float]] = [[] for _ in plans]
    for _ in range(options.repeats):
        for plan, seconds in zip(plans, runs, strict=True):
            with Stopwatch.running() as watch:
                pipeline.run_plan(prepared, plan)
            seconds.append(_seconds(watch, options.clock))
    refined = [
        Outcome(
            what=f"{what}: {plan.num_steps - plan.first_step} calls, {len(plan.dense_steps)} dense, "
            f"{float((plan.start_step < plan.num_steps).float().mean()):.0%} of cells",
            predicted=model.plan_seconds(plan, num_context=contexts),
            measured=seconds,
        )
        for plan, seconds in zip(plans, runs, strict=True)
    ]
    return regression, refined


def _request(seed: int, contexts: int, views: int, height: int, width: int) -> tuple[Scene, Cameras]:
    rgb, _, cameras, _ = procedural_views(seed, contexts + views, height, width, split="test", supersample=1)
    known = np.linspace(0, contexts + views - 1, contexts).round().astype(int).tolist()
    targets = [view for view in range(contexts + views) if view not in known]
    return Scene(name=f"test-{seed}", images=rgb[known], cameras=cameras[known]), cameras[targets]


def _random_plan(pipeline: Pipeline, prepared: Prepared, rng: np.random.Generator) -> ComputePlan:
    """A plan with random cells and a random start step per view, and random levers."""
    views, factor = len(prepared.targets), pipeline.denoiser.factor
    size = prepared.targets.height // factor, prepared.targets.width // factor
    noise = _noise(views, *size, coarse=bool(rng.integers(2)))
    uncertain = noise <= noise.flatten().quantile(float(rng.choice((0.02, 0.1, 0.25, 0.5, 0.8, 1.0))))
    starts = torch.from_numpy(rng.integers(0, int(rng.choice((2, 20, 40))), (views, 1, 1)))
    levers = Levers(
        width_nats=float(rng.choice((0.3, 0.4, 0.6, 0.8))),
        refresh_nats=float(rng.choice((0.8, 1.6, 2.4))) if rng.integers(4) else None,
        final_dense=int(rng.choice((0, 0, 1))),
        per_view_masks=bool(rng.integers(4)),
        dense_share=float(rng.choice((0.65, 0.9))),
    )
    sigmas = pipeline.denoiser.sigmas(GRID)
    plan = ComputePlan(start_step=torch.where(uncertain, starts, GRID), sigmas=sigmas, temperature=0.25)
    return economised(plan, levers)


def _noise(views: int, height: int, width: int, *, coarse: bool) -> Tensor:
    """Noise of about 0..1, `V h w`, as blobs or single cells."""
    if not coarse:
        return torch.rand(views, height, width)
    return F.interpolate(torch.rand(views, 1, 5, 5), size=(height, width), mode="bicubic", align_corners=True)[:, 0]


def _seconds(watch: Stopwatch, clock: str) -> float:
    return watch.wall_s if clock == "wall" else watch.cpu_s


def _summary(
    options: argparse.Namespace, model: CostModel, regressions: list[Outcome], plans: list[Outcome]
) -> dict[str, object]:
    """The figures of the last line."""
    requests = [
        Outcome(
            what="",
            predicted=plan.predicted + before.predicted,
            measured=[sum(runs) for runs in zip(plan.measured, before.measured, strict=True)],
        )
        for place, plan in enumerate(plans)
        for before in [regressions[place // options.plans]]
    ]
    covered = [seconds <= plan.predicted.p95 for plan in plans for seconds in plan.measured]
    noise = [abs(seconds / np.median(plan.measured) - 1) for plan in plans for seconds in plan.measured]
    return {
        "cost_mape": _mape(plans),
        "p95_coverage": round(float(np.mean(covered)), 4),
        "calibration_s": model.measured_s,
        "regression_mape": _mape(regressions),
        "request_mape": _mape(requests),
        "noise": round(float(np.mean(noise)), 4),
        "p95_over_median": round(model.refining_p95, 3),
        "clock": options.clock,
        "plans": len(plans),
        "machine": model.machine,
    }


def _mape(outcomes: list[Outcome]) -> float:
    return round(float(np.mean([abs(outcome.error) for outcome in outcomes])), 4)


def _say(text: str) -> None:
    sys.stderr.write(text + "\n")


if __name__ == "__main__":
    main()
