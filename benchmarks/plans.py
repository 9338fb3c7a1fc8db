"""What plans cost and what they lose: speed-up and quality against full diffusion, on held-out procedural scenes.

    python benchmarks/plans.py [--quick] [--scenes 20] [--size 192] [--leave-one-out] [--out folder]

Full diffusion is 50 steps, every call dense, with the same kernels, solver, seed and fixed costs (regression, encoding,
decoding); on each scene the methods run in turn, and times are the process's CPU time. Two plans hold for one request:
the *rules* of the profile at quality 0.95, and what the *levers* save. Losses are relative to full diffusion, positive
where a plan is worse: of the RMSE and of SSIM against the truth, over whole frames and over regions: *unseen* (the
regressor's alpha times confidence below 0.5), *masked* (cells that the plan refines), *boundary* (the cells around
those). `to_warm` is the RMSE, in dB PSNR, against the dense warm start from the same noise: what acceleration alone
changes. Rivals: fewer steps of full diffusion (every third, or merged up to so many nats), and a dense warm start on a
coarse grid (D4). Intervals are 95 % bootstrap
intervals over scenes. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import io
import json
import math
import sys
import time
from collections import defaultdict
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from scipy.stats import bootstrap
from torch import Tensor

from sphinx_nvs import media
from sphinx_nvs.evaluation.metrics import ssim
from sphinx_nvs.models.nano import NANO
from sphinx_nvs.pipeline import Pipeline, Prepared, Result
from sphinx_nvs.plan import ComputePlan, Levers, economised
from sphinx_nvs.plan.cost import ideal_flops, plan_flops
from sphinx_nvs.plan.levers import D4, NO_SAVINGS, R_PLUS, RESEARCH, RT, R
from sphinx_nvs.presets import LEVERS, load_preset
from sphinx_nvs.scene.procedural import procedural_views
from sphinx_nvs.scene.scene import Scene
from sphinx_nvs.training.validation import unseen_mask

FULL, WARM, SKIPPING = "full diffusion", "warm start, dense", "every third step"
OURS = LEVERS["embedded"]
"""What the embedded preset ships with."""
PLANS: dict[str, tuple[str, Levers, str]] = {
    FULL: ("diffusion", NO_SAVINGS, "multistep"),
    WARM: ("sphinx", NO_SAVINGS, "multistep"),
    "research": ("sphinx", RESEARCH, "euler"),
    "D4": ("sphinx", D4, "multistep"),
    "RT": ("sphinx", RT, "multistep"),
    "R": ("sphinx", R, "multistep"),
    "R+": ("sphinx", R_PLUS, "multistep"),
    "ours": ("sphinx", OURS, "multistep"),
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
METRICS = ("rmse", "ssim", "rmse_unseen", "rmse_masked", "rmse_boundary")
CONTEXT = (0, 4)
VIEWS = 8


def main() -> None:
    """Measures and prints."""
    options = _options()
    plans = dict(PLANS)
    if options.leave_one_out:
        plans |= {name: ("sphinx", replace(OURS, **change), "multistep") for name, change in SWITCHES.items()}
    pipeline = load_preset(num_steps=50)
    rows: dict[str, list[dict[str, float]]] = defaultdict(list)
    for seed in range(options.scenes):
        for name, row in _measure_scene(pipeline, plans, options.first_seed + seed, options.size).items():
            rows[name].append(row)
        sys.stderr.write(f"scene {seed}: R {_speedup(rows, 'R'):.2f}x, ours {_speedup(rows, 'ours'):.2f}x so far\n")
    table = {name: _summary(rows, name) for name in plans}
    sys.stderr.write(_markdown(table))
    if options.out is not None:
        _plot(options.out, table)
    result = {
        "scenes": options.scenes,
        "size": options.size,
        "speedup": {name: row["speedup"] for name, row in table.items()},
        "loss": {name: row["worst"] for name, row in table.items()},
        "eta_alg": {name: row["eta_alg"] for name, row in table.items()},
        "unseen_gain_db": {name: _unseen_gain(rows[name]) for name in (FULL, "ours")},
        "table": table,
    }
    sys.stdout.write(json.dumps(result) + "\n")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="2 scenes of 96 pixels")
    parser.add_argument("--scenes", type=int, default=20)
    parser.add_argument("--first-seed", type=int, default=0, help="of the test split's scenes")
    parser.add_argument("--size", type=int, default=192)
    parser.add_argument("--leave-one-out", action="store_true", help="also switch each lever of ours alone")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads")
    parser.add_argument("--out", type=Path, help="folder for a plot")
    options = parser.parse_args()
    if options.quick:
        options.scenes, options.size = 2, 96
    torch.set_num_threads(options.threads)
    return options


def _measure_scene(
    pipeline: Pipeline, plans: dict[str, tuple[str, Levers, str]], seed: int, size: int
) -> dict[str, dict[str, float]]:
    """Every plan on one scene."""
    rgb, _, cameras, _ = procedural_views(seed, VIEWS, size, size, split="test")
    targets = [view for view in range(VIEWS) if view not in CONTEXT]
    scene = Scene(name=f"test-{seed:03d}", images=rgb[list(CONTEXT)], cameras=cameras[list(CONTEXT)])
    started = time.process_time()
    prepared = pipeline.prepare(scene, cameras[targets])
    fixed_s = time.process_time() - started
    regions = _regions(pipeline, prepared)
    results, seconds = {}, {}
    for name, (method, levers, solver) in plans.items():
        started = time.process_time()
        plan = _plan(pipeline, prepared, method, levers, solver)
        results[name] = pipeline.run(prepared, _skipping(plan, 3) if name == SKIPPING else plan, seed=seed)
        seconds[name] = fixed_s + time.process_time() - started
    return {name: _row(result, results, rgb[targets], regions, seconds[name]) for name, result in results.items()}


def _plan(pipeline: Pipeline, prepared: Prepared, method: str, levers: Levers, solver: str) -> ComputePlan:
    """The plan of a method on the denoiser's own grid, economised."""
    plain = replace(pipeline, plan_config=replace(pipeline.plan_config, levers=NO_SAVINGS, solver=solver))
    return economised(plain.plan(prepared, method=method, quality=0.95), levers)


def _skipping(plan: ComputePlan, stride: int) -> ComputePlan:
    """Full diffusion with every `stride`-th level of the grid."""
    sigmas = torch.cat([plan.sigmas[:-1:stride], plan.sigmas[-1:]])
    return replace(plan, sigmas=sigmas, dense_steps=tuple(range(len(sigmas) - 1)))


def _regions(pipeline: Pipeline, prepared: Prepared) -> dict[str, Tensor]:
    """Pixel masks `V H W`."""
    render = prepared.render
    plan = _plan(pipeline, prepared, "sphinx", NO_SAVINGS, "multistep")
    cells = (plan.start_step < plan.num_steps)[:, None].float()
    masked = F.interpolate(cells, size=render.rgb.shape[-2:]) > 0
    grown = F.interpolate(F.max_pool2d(cells, 3, 1, 1), size=render.rgb.shape[-2:]) > 0
    return {
        "": torch.ones_like(masked[:, 0]),
        "_unseen": unseen_mask(render.alpha, render.confidence),
        "_masked": masked[:, 0],
        "_boundary": (grown & ~masked)[:, 0],
    }


def _row(
    result: Result, results: dict[str, Result], truth: Tensor, regions: dict[str, Tensor], seconds: float
) -> dict[str, float]:
    """One plan's figures on one scene; NaN where a region is empty."""
    num_context = len(CONTEXT)
    dense = [report.step for report in result.steps if report.dense]
    flops = sum(plan_flops(result.plan, NANO, num_context, dense_steps=dense)) if result.steps else 0
    ideal = ideal_flops(result.plan, NANO, num_context) if result.steps else 0
    row = {
        "seconds": seconds,
        "flops": float(flops),
        "ideal": float(ideal),
        "calls": float(len(result.steps)),
        "dense_calls": float(len(dense)),
        "active_share": float((result.plan.start_step < result.plan.num_steps).float().mean()),
        "ssim": float(ssim(result.frames, truth).mean()),
        "to_warm": _rmse(result.frames, results[WARM].frames, regions[""]),
        "render_rmse_unseen": _rmse(result.prepared.render.rgb, truth, regions["_unseen"]),
    }
    return row | {f"rmse{name}": _rmse(result.frames, truth, mask) for name, mask in regions.items()}


def _rmse(frames: Tensor, truth: Tensor, mask: Tensor) -> float:
    return float((frames - truth).square().mean(1)[mask].mean().sqrt())


def _losses(rows: dict[str, list[dict[str, float]]], name: str, metric: str) -> np.ndarray:
    """Per scene: by how much a plan is worse than full diffusion, relatively."""
    pairs = [(row[metric], full[metric]) for row, full in zip(rows[name], rows[FULL], strict=True)]
    sign = -1 if metric == "ssim" else 1
    return np.array([sign * (a - b) / b for a, b in pairs if math.isfinite(a) and math.isfinite(b)])


def _summary(rows: dict[str, list[dict[str, float]]], name: str) -> dict[str, Any]:
    """A plan's means over scenes, losses with intervals."""
    mine, full = rows[name], rows[FULL]
    losses = {metric: _with_interval(_losses(rows, name, metric)) for metric in METRICS}
    total_flops = sum(row["flops"] for row in mine)
    return {
        "speedup": round(_speedup(rows, name), 3),
        "speedup_interval": _with_interval(
            np.array([f["seconds"] / r["seconds"] for r, f in zip(mine, full, strict=True)])
        ),
        "flops_ratio": round(sum(row["flops"] for row in full) / max(total_flops, 1), 3),
        "eta_alg": round(sum(row["ideal"] for row in mine) / max(total_flops, 1), 3),
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
    """By how many dB a plan beats the render in unseen regions, mean over scenes with its interval."""
    pairs = [(row["render_rmse_unseen"], row["rmse_unseen"]) for row in rows]
    return _with_interval(np.array([20 * math.log10(a / b) for a, b in pairs if math.isfinite(a) and b > 0]))


def _markdown(table: dict[str, dict[str, Any]]) -> str:
    """The table as people read it."""
    lines = [
        "| plan | speed-up | FLOPs | calls (dense) | eta_alg | " + " | ".join(METRICS) + " | to warm start |",
        "|" + "---|" * (6 + len(METRICS)),
    ]
    for name, row in table.items():
        losses = " | ".join(f"{100 * m:+.1f} % ({100 * a:+.1f}..{100 * b:+.1f})" for m, a, b in row["loss"].values())
        lines.append(
            f"| {name} | {row['speedup']:.2f}x | {row['flops_ratio']:.2f}x | {row['calls']:.0f} "
            f"({row['dense_calls']:.0f}) | {row['eta_alg']:.2f} | {losses} | {row['to_warm_db']:.1f} dB |"
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
