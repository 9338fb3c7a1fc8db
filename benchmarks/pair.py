"""What the embedded pair is worth: full diffusion and sphinx against the regressor, on held-out procedural scenes.

    python benchmarks/pair.py [--quick] [--scenes 50] [--size 128] [--metrics psnr,ssim] [--save out/pair]

Scenes are of the split `test`, which shares neither seeds nor textures with training. A pixel is *unseen* where the
render's alpha times confidence, averaged over 5x5 pixels, is below 0.5. The last line is one JSON object: PSNR by
region and method (`unseen, n in sight` is the part of the unseen region whose points n context views really saw, by
exact depth; *copied* shows what those saw there, and the render where none did: no search of the context views can do
better), the share of pixels and of regression's error in each region, gains over the regressor in unseen regions (with
95 % bootstrap intervals over scenes), gains over whole frames by every metric that this machine can compute (in the
metric's own direction: positive is better), sharpness (mean absolute gradient over the truth's) in unseen regions, how
much neighbouring frames disagree over how much the truth's do (both warped by exact depth), the median CPU seconds of
planning and refining a scene, the autoencoder's PSNR there and on photos of the captures (`SPHINX_CAPTURES_DIR`; null
without), and CPU seconds of one network call (8 frames at 256x256), of decoding 20 frames and of regression (20 frames
at 256x256), and of loading the weights.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.stats import bootstrap
from torch import Tensor

from sphinx_nvs import media
from sphinx_nvs.cli.selection import spread
from sphinx_nvs.evaluation.consistency import reprojection_error, seen_through, warp_between
from sphinx_nvs.evaluation.regions import unseen_mask
from sphinx_nvs.evaluation.registry import METRICS, Metric
from sphinx_nvs.geometry.cameras import Cameras
from sphinx_nvs.models.base import Render
from sphinx_nvs.models.embedded import shipped
from sphinx_nvs.pipeline.pipeline import Pipeline
from sphinx_nvs.presets import load_preset
from sphinx_nvs.procedural import procedural_views
from sphinx_nvs.sampling_params import SamplingParams
from sphinx_nvs.scene import read_capture
from sphinx_nvs.scene.scene import Scene

METHODS: dict[str, dict[str, Any]] = {
    "sphinx": {"quality": 0.95},
    "sphinx 0.98": {"quality": 0.98},
    "diffusion": {"method": "diffusion"},
}
VIEWS, CONTEXT = 7, (0, 3)
"""Views 0 and 3 are context: 1 and 2 lie between them, 4 to 6 lead away from them."""

BOUNDS = ("autoencoder", "copied")
"""Pictures that no method could make: made from the truth's pixels, or by its depth."""

Squares = dict[tuple[str, str], list[Tensor]]
Values = dict[tuple[str, str], list[float]]
FIGURES_OF_QUICK = (
    "unseen_gain_db",
    "whole_gain",
    "sharpness_ratio_unseen",
    "reprojection_ratio",
    "ae_psnr",
    "call_s_8x256",
    "regression_s_20x256",
    "weights_mb",
)


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="2 scenes, 12 steps")
    parser.add_argument("--scenes", type=int, default=50)
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--metrics", help="names, comma-separated; all that can be computed here if not said")
    parser.add_argument("--save", type=Path, help="folder for contact sheets: truth, regression, sphinx, diffusion")
    options = parser.parse_args()
    scenes, steps = (2, 12) if options.quick else (options.scenes, options.steps)
    pipeline = load_preset(num_steps=steps)
    squares: Squares = defaultdict(list)
    metrics = _metrics(options.metrics, options.size)
    whole: Values = defaultdict(list)
    gradients: dict[str, list[Tensor]] = defaultdict(list)
    seconds: dict[str, list[float]] = defaultdict(list)
    for seed in range(scenes):
        _measure_scene(pipeline, seed, options.size, metrics, squares, whole, gradients, seconds, options.save)
        sys.stderr.write(f"scene {seed}: unseen {_db(squares['regression', 'unseen']):.2f} dB by regression, ")
        sys.stderr.write(f"{_db(squares['diffusion', 'unseen']):.2f} dB by diffusion so far\n")
    sharp = {name: float(torch.cat(parts).mean()) for name, parts in gradients.items()}
    sharpness = {name: round(value / sharp["truth"], 3) for name, value in sharp.items() if name != "truth"}
    reprojection = _reprojection_ratios(whole)
    gains = {name: {metric.name: _whole_gain(whole, metric, name) for metric in metrics} for name in METHODS}
    result = {
        "scenes": scenes,
        "size": options.size,
        "steps": steps,
        "unseen_gain_db": round(_db(squares["diffusion", "unseen"]) - _db(squares["regression", "unseen"]), 3),
        "unseen_gain_db_interval": {name: _gain_interval(squares, name) for name in METHODS},
        "seconds": {name: round(statistics.median(each), 2) for name, each in seconds.items()},
        "region_shares": _region_shares(squares),
        "psnr_db": {f"{name} {region}": round(_db(parts), 3) for (name, region), parts in sorted(squares.items())},
        "whole_gain": gains["diffusion"],
        "whole_gains": gains,
        "sharpness_ratio_unseen": sharpness["diffusion"],
        "sharpness_ratios_unseen": sharpness,
        "reprojection_ratio": reprojection["diffusion"],
        "reprojection_ratios": reprojection,
        "ae_psnr": round(_db(squares["autoencoder", "whole"]), 2),
        "ae_psnr_captures": _autoencoder_on_captures(pipeline),
        "call_s_8x256": round(_call_seconds(pipeline), 3),
        "decode_s_20x256": round(_decode_seconds(pipeline), 2),
        "regression_s_20x256": round(_regression_seconds(pipeline), 2),
        "load_s": round(min(_cpu_seconds(shipped.load_nano) for _ in range(3)), 3),
        "weights_mb": round(len((files("sphinx_nvs.models.embedded") / shipped.WEIGHTS).read_bytes()) / 1e6, 1),
    }
    if options.quick:
        result = {name: result[name] for name in FIGURES_OF_QUICK}
    sys.stdout.write(json.dumps(result) + "\n")


def _metrics(names: str | None, size: int) -> list[Metric]:
    """The metrics asked for, or those that this machine can compute; MS-SSIM needs pictures of 176 pixels."""
    if names is not None:
        return [metric for metric in METRICS if metric.name in names.split(",")]
    able = [metric for metric in METRICS if metric.missing() is None]
    return [metric for metric in able if size >= 176 or metric.name != "ms_ssim"]


def _whole_gain(whole: Values, metric: Metric, name: str) -> float:
    """A method's mean over scenes less regression's; positive is better."""
    gain = _mean(whole[metric.name, name]) - _mean(whole[metric.name, "regression"])
    return round(gain if metric.higher_is_better else -gain, 4)


def _reprojection_ratios(whole: Values) -> dict[str, float]:
    """Each method's disagreement of neighbouring frames over the truth's, by means over scenes."""
    truth = _mean(whole["reprojection", "truth"])
    return {name: round(_mean(whole["reprojection", name]) / truth, 3) for name in ("regression", *METHODS)}


def _measure_scene(
    pipeline: Pipeline,
    seed: int,
    size: int,
    metrics: list[Metric],
    squares: Squares,
    whole: Values,
    gradients: dict[str, list[Tensor]],
    seconds: dict[str, list[float]],
    save: Path | None,
) -> None:
    """Adds one scene's errors, gradients and times to the lists."""
    scene, truth, depth, cameras, render, pictures, sights = _pictures(pipeline, seed, size, seconds)
    unseen = unseen_mask(render.alpha, render.confidence)
    regions = {"unseen": unseen, "seen": ~unseen, "whole": torch.ones_like(unseen)}
    regions |= {f"unseen, {n} in sight": unseen & (sights == n) for n in range(len(CONTEXT) + 1)}
    for name, picture in pictures.items():
        error = (picture - truth).square().mean(1)
        for region, mask in regions.items():
            squares[name, region].append(error[mask])
        if name not in BOUNDS:
            for metric in metrics:
                whole[metric.name, name].append(float(metric.score(picture, truth).values.mean()))
    for name, picture in {"truth": truth, **pictures}.items():
        disagreement = reprojection_error(picture, depth, cameras)
        if disagreement is not None:
            whole["reprojection", name].append(disagreement)
        gradients[name].append(picture.diff(dim=-1).abs().mean(1)[unseen[..., 1:]])
    if save is not None:
        rows = [truth, pictures["regression"], pictures["sphinx"], pictures["diffusion"]]
        media.write_png(save / f"{scene.name}.png", torch.cat([torch.cat(list(row), 2) for row in rows], 1))


def _pictures(
    pipeline: Pipeline, seed: int, size: int, seconds: dict[str, list[float]]
) -> tuple[Scene, Tensor, Tensor, Cameras, Render, dict[str, Tensor], Tensor]:
    """The scene, the targets' truth, depth and cameras, their render, every picture of them, sights of `_copied`."""
    rgb, depth, cameras, _ = procedural_views(seed, VIEWS, size, size, split="test")
    targets = [view for view in range(VIEWS) if view not in CONTEXT]
    scene = Scene(name=f"test-{seed:03d}", images=rgb[list(CONTEXT)], cameras=cameras[list(CONTEXT)])
    prepared = pipeline.prepare(scene, cameras[targets])
    pictures = {"regression": prepared.render.rgb}
    for name, wish in METHODS.items():
        started = time.process_time()
        pictures[name] = pipeline.run(pipeline.plan_prepared(prepared, SamplingParams(**wish))).frames
        seconds[name].append(time.process_time() - started)
    pictures["autoencoder"] = pipeline.denoiser.decode(pipeline.denoiser.encode(rgb[targets]))
    pictures["copied"], sights = _copied(rgb, depth, cameras, targets, prepared.render.rgb)
    return scene, rgb[targets], depth[targets], cameras[targets], prepared.render, pictures, sights


def _copied(rgb: Tensor, depth: Tensor, cameras: Cameras, targets: list[int], render: Tensor) -> tuple[Tensor, Tensor]:
    """What context views see of the targets' points, found by exact depth, and how many of them see each.

    Where several do, it is their mean; where none does, the render.
    """
    colours, sights = torch.zeros_like(render), torch.zeros_like(depth[targets])
    for view in CONTEXT:
        there = [view] * len(targets)
        warp = warp_between(depth[targets], cameras[targets], depth[there], cameras[there])
        colours += warp.visible[:, None] * seen_through(rgb[there], warp).to(colours)
        sights += warp.visible
    known = sights[:, None] > 0
    return torch.where(known, colours / sights[:, None].clamp_min(1), render), sights


def _region_shares(squares: Squares) -> dict[str, dict[str, float]]:
    """Share of all pixels, and of regression's squared error, in each region."""
    whole = torch.cat(squares["regression", "whole"])
    parts = {region: torch.cat(part) for (name, region), part in squares.items() if name == "regression"}
    return {
        region: {
            "pixels": round(part.numel() / whole.numel(), 4),
            "error": round(float(part.sum() / whole.sum()), 4),
        }
        for region, part in sorted(parts.items())
    }


def _call_seconds(pipeline: Pipeline) -> float:
    """CPU seconds of one denoising call for 8 frames (2 of them context) at 256x256; least of three."""
    rgb, _, cameras, _ = procedural_views(0, 8, 256, 256, split="test")
    scene = Scene(name="timing", images=rgb[:2], cameras=cameras[:2])
    prepared = pipeline.prepare(scene, cameras[2:])
    z_render = pipeline.denoiser.encode(prepared.render.rgb)
    conditioning = pipeline.denoiser.condition(scene, cameras[2:], prepared.render, z_render)
    return min(_cpu_seconds(lambda: pipeline.denoiser.denoise(z_render, 1.0, conditioning)) for _ in range(3))


def _decode_seconds(pipeline: Pipeline) -> float:
    """CPU seconds of decoding twenty 256x256 frames; least of three."""
    z = pipeline.denoiser.encode(procedural_views(0, 20, 256, 256, split="test")[0])
    return min(_cpu_seconds(lambda: pipeline.denoiser.decode(z)) for _ in range(3))


def _autoencoder_on_captures(pipeline: Pipeline) -> float | None:
    """Mean over captures of the PSNR of four photos each, short side 256; None if they are not at hand."""
    folder = Path(os.environ.get("SPHINX_CAPTURES_DIR", Path(__file__).parents[1] / "../shared/captures"))
    values = []
    for path in sorted(folder.glob("*/transforms.json")):
        capture = read_capture(path.parent)
        height, width = capture.default_size(256, pipeline.denoiser.size_multiple)
        ids = sorted({number for split in capture.splits.values() for number in (*split.train_ids, *split.test_ids)})
        images = capture.load(spread(ids, 4), height, width).images
        decoded = pipeline.denoiser.decode(pipeline.denoiser.encode(images))
        values.append(_db([(decoded - images).square()]))
    return round(_mean(values), 2) if values else None


def _regression_seconds(pipeline: Pipeline) -> float:
    """CPU seconds from two 256x256 photos to twenty 256x256 renders; least of two."""
    rgb, _, cameras, _ = procedural_views(0, 22, 256, 256, split="test")
    scene = Scene(name="timing", images=rgb[[0, 21]], cameras=cameras[[0, 21]])
    return min(_cpu_seconds(lambda: pipeline.regressor.reconstruct(scene).render(cameras[1:21])) for _ in range(2))


def _cpu_seconds(work: Callable[[], object]) -> float:
    started = time.process_time()
    work()
    return time.process_time() - started


def _gain_interval(squares: Squares, name: str) -> list[float]:
    """Gain over regression in unseen regions, in dB over all scenes' pixels; the ends resample whole scenes."""
    pairs = zip(squares["regression", "unseen"], squares[name, "unseen"], strict=True)
    sums = np.array([(float(a.sum()), float(b.sum())) for a, b in pairs])

    def gain(before: np.ndarray, after: np.ndarray, axis: int = -1) -> np.ndarray:
        return 10 * np.log10(before.sum(axis) / after.sum(axis))

    if len(sums) < 3:
        return [round(float(gain(*sums.T)), 3)]
    drawn = bootstrap(tuple(sums.T), gain, paired=True, rng=np.random.default_rng(0), method="percentile")
    interval = drawn.confidence_interval
    return [round(float(value), 3) for value in (gain(*sums.T), interval.low, interval.high)]


def _db(parts: list[Tensor]) -> float:
    return -10 * math.log10(float(torch.cat(parts).mean()))


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)


if __name__ == "__main__":
    main()
