"""Cost and loss of plans: speed-up and quality against full diffusion, on scenes that nothing was fitted to.

    python benchmarks/plans.py [--quick] [--scenes 20] [--size 192] [--leave-one-out] [--metrics ...] [--out folder]
    SPHINX_CAPTURES_DIR=../shared/captures python benchmarks/plans.py --captures [--targets 4] ...

Full diffusion is 50 steps, every call dense, with the same kernels, solver, seed and fixed costs (regression, encoding,
decoding); on each scene the methods run in turn, and times are the process's CPU time. *ours* is what
`sphinx-nvs render` does: the planner at `--quality`, its probe included. All other rows combine two parts: the paper's
*rules* at quality 0.95, and the savings of *levers*; *ours, paper's rules* has the preset's.
Losses are relative to full
diffusion, positive if a plan is worse, of every requested metric of `sphinx_nvs.evaluation.registry` that can be
computed (the perceptual ones need `scripts/setup --metrics` once), over whole frames and, for metrics with a map, over
regions: *unseen* (the regressor's alpha times confidence below 0.5), *masked* (cells that the plan refines), *boundary*
(16 pixels around those). `to_warm` is the RMSE, in dB PSNR, against the dense warm start from the same noise: the
change by acceleration alone. *research* has the released code's savings and our mask, *research, own map* its whole
plan (docs/explanation/released-code.md). Competitors: fewer steps of full diffusion (every third, or merged up to a
number of nats), and a dense warm start on a coarse grid (D4). `kept` is the memory that a request holds between calls.
Intervals are 95 % bootstrap intervals over scenes. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import io
import json
import math
import os
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from scipy.stats import bootstrap
from torch import Tensor

from sphinx_nvs import media
from sphinx_nvs.cli.selection import spread
from sphinx_nvs.evaluation.methods import every_kth_level, plan_with, research_code_plan
from sphinx_nvs.evaluation.regions import regions_of
from sphinx_nvs.evaluation.registry import METRICS as REGISTRY
from sphinx_nvs.evaluation.registry import Metric, available
from sphinx_nvs.models.embedded.denoiser import NANO, Nano
from sphinx_nvs.models.embedded.shipped import load_nano
from sphinx_nvs.pipeline.pipeline import Pipeline
from sphinx_nvs.pipeline.request import Result
from sphinx_nvs.plan import Levers
from sphinx_nvs.plan.cost import ideal_flops, plan_flops
from sphinx_nvs.plan.levers import D4, NO_SAVINGS, R_PLUS, RESEARCH, RT, R
from sphinx_nvs.presets import load_preset, preset_named
from sphinx_nvs.procedural import procedural_views
from sphinx_nvs.sampling_params import SamplingParams
from sphinx_nvs.scene import Scene, read_capture

HALF = ", bfloat16"
FULL, WARM, SKIPPING = "full diffusion", "warm start, dense", "every third step"
RESEARCH_CODE = "research, own map"
PLANNED, RULES = "ours", "ours, paper's rules"
OURS = preset_named("embedded").levers
"""The embedded preset's levers."""
PLANS: dict[str, tuple[str, Levers, str]] = {
    FULL: ("diffusion", NO_SAVINGS, "multistep"),
    WARM: ("sphinx", NO_SAVINGS, "multistep"),
    "research": ("sphinx", RESEARCH, "euler"),
    RESEARCH_CODE: ("sphinx", RESEARCH, "euler"),
    "D4": ("sphinx", D4, "multistep"),
    "RT": ("sphinx", RT, "multistep"),
    "R": ("sphinx", R, "multistep"),
    "R+": ("sphinx", R_PLUS, "multistep"),
    RULES: ("sphinx", OURS, "multistep"),
    PLANNED: ("sphinx", NO_SAVINGS, "multistep"),
    SKIPPING: ("diffusion", Levers(), "multistep"),
    "fewer steps 0.4": ("diffusion", Levers(width_nats=0.4), "multistep"),
    "D4 0.8": ("sphinx", replace(D4, width_nats=0.8), "multistep"),
    "fewer steps 0.8": ("diffusion", Levers(width_nats=0.8), "multistep"),
}
"""Method, levers and solver by name."""
SWITCHES: dict[str, dict[str, Any]] = {
    "without warm start": {"warm_start": False},
    "without masks": {"selective": False},
    "with the union of masks": {"per_view_masks": False},
    "without wider steps": {"width_nats": None},
    "without sparse calls": {"refresh_nats": None},
    "refresh by drift": {"refresh_nats": None, "refresh_drift": 0.5},
    "with a dense tail": {"tail_share": 0.2},
}
METRICS = ("rmse", "ssim", "lpips_alex")
PARTS = ("unseen", "masked", "boundary")
SPLIT_UP = {"rmse": PARTS, "ssim": PARTS, "lpips_alex": PARTS, "flip": PARTS}
"""Metrics that are also computed by region."""

CONTEXT = (0, 4)
VIEWS = 8


def main() -> None:
    """Measures and prints the results."""
    options = _options()
    plans = dict(PLANS)
    if options.leave_one_out or options.plans:
        plans |= {name: ("sphinx", replace(OURS, **change), "multistep") for name, change in SWITCHES.items()}
    if options.plans:
        plans = {name: plan for name, plan in plans.items() if name in {FULL, WARM, *options.plans}}
    pipelines = {"": load_preset(num_steps=50)}
    if options.bfloat16:
        pipelines[HALF] = load_preset(num_steps=50, dtype="bfloat16")
        plans |= {name + HALF: plans[name] for name in (FULL, PLANNED) if name in plans}
    metrics = available(options.metrics)
    rows: dict[str, list[dict[str, float]]] = defaultdict(list)
    for scene, targets in _requests(options):
        for name, row in _measure_scene(pipelines, plans, metrics, scene, targets, options.quality).items():
            rows[name].append(row)
        sys.stderr.write(f"{scene.name}: {', '.join(f'{name} {_speedup(rows, name):.2f}x' for name in plans)}\n")
    names = [m.name for m in metrics]
    names += [f"{name}_{region}" for name in names for region in SPLIT_UP.get(name, ())]
    table = {name: _summary(rows, name, names) for name in plans}
    sys.stderr.write(_markdown(table, names))
    if options.out is not None:
        _plot(options.out, table)
    result = {
        "data": "captures" if options.captures else "procedural",
        "scenes": len(rows[FULL]),
        "size": options.size,
        "speedup": {name: row["speedup"] for name, row in table.items()},
        "loss": {name: row["worst"] for name, row in table.items()},
        "eta_alg": {name: row["eta_alg"] for name, row in table.items()},
        "unseen_gain_db": {name: _unseen_gain(rows[name]) for name in (FULL, "ours") if name in plans},
        "table": table,
    }
    sys.stdout.write(json.dumps(result) + "\n")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="2 scenes of 96 pixels")
    parser.add_argument("--scenes", type=int, default=20)
    parser.add_argument("--first-seed", type=int, default=0, help="first seed of the test split's scenes")
    parser.add_argument("--size", type=int, default=192)
    parser.add_argument("--leave-one-out", action="store_true", help="also switch off each lever alone")
    parser.add_argument("--plans", nargs="+", choices=(*PLANS, *SWITCHES), help="only these, besides the references")
    parser.add_argument("--bfloat16", action="store_true", help="also full diffusion and ours in bfloat16")
    parser.add_argument("--captures", action="store_true", help="real photos: split 2 of every capture")
    parser.add_argument("--targets", type=int, default=4, help="target views per capture, evenly spaced")
    parser.add_argument("--metrics", nargs="+", default=METRICS, help=f"default: {' '.join(METRICS)}")
    parser.add_argument("--quality", type=float, default=0.95, help="what *ours* is asked for")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads")
    parser.add_argument("--out", type=Path, help="folder for a plot")
    options = parser.parse_args()
    if options.quick:
        options.scenes, options.size = 2, 96
    torch.set_num_threads(options.threads)
    return options


def _requests(options: argparse.Namespace) -> Iterator[tuple[Scene, Scene]]:
    """Context views, and target views with their truth."""
    if options.captures:
        folder = Path(os.environ.get("SPHINX_CAPTURES_DIR", Path(__file__).parents[1] / "../shared/captures"))
        paths = sorted(path.parent for path in folder.glob("*/transforms.json"))
        if not paths:
            sys.exit(f"no captures in {folder}: set SPHINX_CAPTURES_DIR")
        for path in paths[: options.scenes]:
            capture = read_capture(str(path))
            height, width = capture.default_size(options.size, Nano.size_multiple)
            split = capture.splits[2]
            targets = spread(split.test_ids, options.targets)
            yield capture.load(split.train_ids, height, width), capture.load(targets, height, width)
        return
    for seed in range(options.first_seed, options.first_seed + options.scenes):
        rgb, _, cameras, _ = procedural_views(seed, VIEWS, options.size, options.size, split="test")
        name, context = f"test-{seed:03d}", list(CONTEXT)
        asked = [view for view in range(VIEWS) if view not in CONTEXT]
        yield (
            Scene(name=name, images=rgb[context], cameras=cameras[context]),
            Scene(name=name, images=rgb[asked], cameras=cameras[asked]),
        )


def _measure_scene(
    pipelines: dict[str, Pipeline],
    plans: dict[str, tuple[str, Levers, str]],
    metrics: list[Metric],
    scene: Scene,
    targets: Scene,
    quality: float,
) -> dict[str, dict[str, float]]:
    """Every plan on one scene."""
    pipeline = pipelines[""]
    started = time.process_time()
    prepared = pipeline.prepare(scene, targets.cameras)
    fixed_s = time.process_time() - started
    rules = plan_with(pipeline, prepared, method="sphinx")
    regions = regions_of(prepared.render, rules.start_step < rules.num_steps)
    results, seconds = {}, {}
    for name, (method, levers, solver) in plans.items():
        started = time.process_time()
        runner = pipelines[HALF if name.endswith(HALF) else ""]
        if name.removesuffix(HALF) == PLANNED:
            results[name] = runner.run(runner.plan_prepared(prepared, SamplingParams(quality=quality)))
            seconds[name] = fixed_s + time.process_time() - started
            continue
        if name == RESEARCH_CODE:
            plan = research_code_plan(pipeline, prepared)
        else:
            plan = plan_with(pipeline, prepared, method=method, levers=levers, solver=solver)
        results[name] = runner.run_plan(prepared, every_kth_level(plan, 3) if name == SKIPPING else plan)
        seconds[name] = fixed_s + time.process_time() - started
    warm = results[WARM].frames
    return {
        name: _costs(result, scene, seconds[name])
        | {"to_warm": float((result.frames - warm).square().mean().sqrt())}
        | _quality(result, targets.images, metrics, regions)
        for name, result in results.items()
    }


def _quality(result: Result, truth: Tensor, metrics: list[Metric], regions: dict[str, Tensor]) -> dict[str, float]:
    """Every metric over whole frames, and by region; NaN if a region is empty."""
    row = {}
    for metric in metrics:
        scores = metric.score(result.frames, truth)
        row[metric.name] = float(scores.values.mean())
        for region in SPLIT_UP.get(metric.name, ()):
            value = metric.over(scores, regions[region])
            row[f"{metric.name}_{region}"] = math.nan if value is None else value
    render = (result.prepared.render.rgb - truth).square().mean(1)[regions["unseen"]]
    return row | {"render_rmse_unseen": float(render.mean().sqrt())}


def _costs(result: Result, scene: Scene, seconds: float) -> dict[str, float]:
    """Cost of one plan on one scene."""
    num_context = len(scene.images)
    dense = [report.step for report in result.steps if report.dense]
    flops = sum(plan_flops(result.plan, NANO, num_context, dense_steps=dense)) if result.steps else 0
    ideal = ideal_flops(result.plan, NANO, num_context) if result.steps else 0
    return {
        "seconds": seconds,
        "flops": float(flops),
        "ideal": float(ideal),
        "calls": float(len(result.steps)),
        "dense_calls": float(len(dense)),
        "active_share": float((result.plan.start_step < result.plan.num_steps).float().mean()),
        "kept_mb": _kept_bytes(result, num_context, len(result.steps) > len(dense)) / 1e6,
    }


def _kept_bytes(result: Result, num_context: int, any_sparse: bool) -> int:
    """Bytes that a request keeps between calls in float32: modulation maps, and features if a call is sparse."""
    views, height, width = result.plan.start_step.shape
    film, features = load_nano().selective.memory(num_context + views, height, width)
    return film + any_sparse * features if result.steps else 0


def _losses(rows: dict[str, list[dict[str, float]]], name: str, metric: str) -> np.ndarray:
    """Relative loss of a plan against full diffusion, per scene."""
    pairs = [(row[metric], full[metric]) for row, full in zip(rows[name], rows[FULL], strict=True)]
    loss = next(m.loss for m in REGISTRY if metric in (m.name, *(f"{m.name}_{r}" for r in SPLIT_UP.get(m.name, ()))))
    return np.array([loss(a, b) for a, b in pairs if math.isfinite(a) and math.isfinite(b)])


def _summary(rows: dict[str, list[dict[str, float]]], name: str, metrics: list[str]) -> dict[str, Any]:
    """A plan's means over scenes, losses with intervals."""
    mine, full = rows[name], rows[FULL]
    losses = {metric: _with_interval(_losses(rows, name, metric)) for metric in metrics}
    total_flops = sum(row["flops"] for row in mine)
    return {
        "speedup": round(_speedup(rows, name), 3),
        "speedup_interval": _with_interval(
            np.array([f["seconds"] / r["seconds"] for r, f in zip(mine, full, strict=True)])
        ),
        "flops_ratio": round(sum(row["flops"] for row in full) / max(total_flops, 1), 3),
        "eta_alg": round(sum(row["ideal"] for row in mine) / max(total_flops, 1), 3),
        "kept_mb": round(float(np.mean([row["kept_mb"] for row in mine])), 1),
        "calls": round(float(np.mean([row["calls"] for row in mine])), 1),
        "dense_calls": round(float(np.mean([row["dense_calls"] for row in mine])), 1),
        "active_share": round(float(np.mean([row["active_share"] for row in mine])), 3),
        "loss": losses,
        "worst": max(value[0] for value in losses.values()),
        "to_warm_db": round(-20 * math.log10(max(float(np.mean([row["to_warm"] for row in mine])), 1e-6)), 1),
    }


def _with_interval(values: np.ndarray) -> list[float]:
    """Mean and the ends of its 95 % bootstrap interval over scenes."""
    mean = float(values.mean()) if len(values) else math.nan
    if len(values) < 3 or float(np.ptp(values)) == 0:
        return [round(mean, 4)] * 3
    interval = bootstrap((values,), np.mean, rng=np.random.default_rng(0), method="percentile").confidence_interval
    return [round(mean, 4), round(float(interval.low), 4), round(float(interval.high), 4)]


def _speedup(rows: dict[str, list[dict[str, float]]], name: str) -> float:
    """Ratio of total times over all scenes."""
    return sum(row["seconds"] for row in rows[FULL]) / sum(row["seconds"] for row in rows[name])


def _unseen_gain(rows: list[dict[str, float]]) -> list[float]:
    """PSNR gain of a plan over the render in unseen regions, dB: mean over scenes with its interval."""
    pairs = [(row["render_rmse_unseen"], row["rmse_unseen"]) for row in rows]
    return _with_interval(np.array([20 * math.log10(a / b) for a, b in pairs if math.isfinite(a) and b > 0]))


def _markdown(table: dict[str, dict[str, Any]], metrics: list[str]) -> str:
    """The results as a Markdown table."""
    lines = [
        "| plan | speed-up | FLOPs | calls (dense) | eta_alg | kept, MB | "
        + " | ".join(metrics)
        + " | to warm start |",
        "|" + "---|" * (7 + len(metrics)),
    ]
    for name, row in table.items():
        losses = " | ".join(f"{100 * m:+.1f} % ({100 * a:+.1f}..{100 * b:+.1f})" for m, a, b in row["loss"].values())
        lines.append(
            f"| {name} | {row['speedup']:.2f}x | {row['flops_ratio']:.2f}x | {row['calls']:.0f} "
            f"({row['dense_calls']:.0f}) | {row['eta_alg']:.2f} | {row['kept_mb']:.0f} | {losses} | "
            f"{row['to_warm_db']:.1f} dB |"
        )
    return "\n".join(lines) + "\n"


def _plot(folder: Path, table: dict[str, dict[str, Any]]) -> None:
    """Speed-up against the worst loss."""
    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.subplots()
    for name, row in table.items():
        axes.plot(row["speedup"], 100 * row["worst"], "o")
        axes.annotate(name, (row["speedup"], 100 * row["worst"]), xytext=(4, 4), textcoords="offset points", fontsize=8)
    axes.axhspan(-100, 2, color="tab:green", alpha=0.08)
    axes.set(xscale="log", xlabel="speed-up over full diffusion", ylabel="loss of the worst metric, %")
    losses = [100 * row["worst"] for row in table.values()]
    axes.set_ylim(min(losses) - 2, max(losses) + 2)
    data = io.BytesIO()
    figure.savefig(data, format="png", dpi=120)
    media.write_bytes(folder / "plans.png", data.getvalue())


if __name__ == "__main__":
    main()
