"""Accuracy of the assessment: where and how much a render errs, and where full diffusion changes it.

    SPHINX_CAPTURES_DIR=../shared/captures python benchmarks/assessment.py [--quick] [--save DIR]

Renders held-out views of procedural scenes (split `test`; constants were chosen on `val`) and of captures, if
available, with the embedded pair's regressor, and refines all of them by full diffusion of 14 steps. Per scene it
measures:

*Where.* The area under the ROC curve of every signal's map, of both sides of the blur split, of their combination, of
the combination without each signal, and of the released code's one mask, for a scene's worst fifth of pixels and of
8-pixel cells (maps and errors are averaged over a cell), by squared error and by FLIP. Spearman's rank correlation
of a map's cells with the change that full diffusion makes there (FLIP between both). For the plan's binary mask: share
of cells, of squared error and of change inside, and the ROC area.

*How much.* Spearman's rank correlation of views' scores with PSNR, with FLIP and with the change, over all views and
within scenes.

Intervals are 95 % bootstrap intervals over scenes. Tables go to stdout; the last line is one JSON object. `--save`
writes a sheet per scene: render, truth, error, change, each signal, combination and mask.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import torch
import torch.nn.functional as F
from scipy.stats import rankdata, spearmanr
from torch import Tensor

from sphinx_nvs.assess import AssessConfig
from sphinx_nvs.assess.quality import benchmark_quality, image_quality
from sphinx_nvs.assess.uncertainty import UncertaintyConfig, signal_maps, uncertainty_map
from sphinx_nvs.evaluation.datasets import Case, Loaded, Size, cases_named
from sphinx_nvs.evaluation.image_metrics import psnr
from sphinx_nvs.evaluation.methods import plan_with
from sphinx_nvs.evaluation.statistics import FEWEST, interval, mean_with_interval, resamples
from sphinx_nvs.evaluation.structure import flip
from sphinx_nvs.media import write_png
from sphinx_nvs.pipeline.pipeline import Pipeline
from sphinx_nvs.pipeline.request import Prepared
from sphinx_nvs.plan.score_plan import uncertain_cells
from sphinx_nvs.presets import load_preset
from sphinx_nvs.released_code.masks import research_assess
from sphinx_nvs.visualization.contact_sheet import contact_sheet

CELL = 8
STEPS = 14
WORST = 0.2
REPLICATES = 300
SIZE_MULTIPLE = 32
"""Side in pixels; one that the embedded denoiser takes."""

LETTER = 8
"""Width of a title's character in pixels, at most."""

SWITCHES = ("use_alpha", "use_confidence", "use_disagreement", "use_distance")
COMBINED = "combination"


@dataclass(frozen=True, kw_only=True)
class Measured:
    """Measurements of a scene.

    Args:
        where: prediction accuracy per map and target.
        mask: figures of the plan's cells.
        scores: per score, one value per view.
        outcomes: per target, one value per view; larger is worse.
        sheet: the sheet of images.
    """

    where: dict[str, dict[str, float]]
    mask: dict[str, float]
    scores: dict[str, Tensor]
    outcomes: dict[str, Tensor]
    sheet: Tensor


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures and prints the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a few scenes at 96 pixels")
    parser.add_argument("--data", help="scenes as for `sphinx-nvs eval --data`, instead of the default ones")
    parser.add_argument("--size", type=int, help="short side in pixels; 128, with --quick 96")
    parser.add_argument("--save", type=Path, metavar="DIR", help="write a sheet of images per scene")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    short_side = options.size or (96 if options.quick else 128)
    size = Size(short_side=short_side, multiple=SIZE_MULTIPLE, most_views=6)
    pipeline, result = load_preset(num_steps=STEPS), {}
    for name, cases in _groups(options.data, options.quick).items():
        scenes = []
        for case in cases:
            scenes.append(_measured(pipeline, case.load(size)))
            sys.stderr.write(f"{case.name}\n")
            if options.save is not None:
                options.save.mkdir(parents=True, exist_ok=True)
                write_png(options.save / f"{case.name}.png", scenes[-1].sheet)
        result[name] = _summary(scenes)
        _write_tables(name, result[name])
    sys.stdout.write(json.dumps(result) + "\n")


def _groups(data: str | None, is_quick: bool) -> dict[str, list[Case]]:
    """Cases by their source."""
    if data is not None:
        return {data: cases_named(data)}
    groups = {"procedural": cases_named(f"procedural:test:{4 if is_quick else 24}")}
    folder = Path(os.environ.get("SPHINX_CAPTURES_DIR", "../shared/captures"))
    if folder.is_dir():
        captures = cases_named(f"captures:{folder}", (2,))
        groups["captures"] = captures[:: max(1, len(captures) // 2)][:2] if is_quick else captures
    return groups


@torch.inference_mode()
def _measured(pipeline: Pipeline, loaded: Loaded) -> Measured:
    prepared = pipeline.prepare(loaded.scene, loaded.targets)
    plan = plan_with(pipeline, prepared, method="diffusion", num_steps=STEPS)
    frames = pipeline.run_plan(prepared, plan).frames
    render = prepared.render.rgb
    error = (render - loaded.truth).square().mean(1)
    views_flip, eyes = flip(render, loaded.truth)
    change = flip(frames, render)[1]
    maps = _maps(prepared)
    cells = uncertain_cells(prepared.assessment.uncertainty, CELL, pipeline.plan_config)
    return Measured(
        where={name: _where(found, error, eyes, change) for name, found in maps.items()},
        mask=_mask_figures(cells, _pooled(error), _pooled(eyes), _pooled(change)),
        scores=_scores(prepared, maps),
        outcomes={"psnr": -psnr(render, loaded.truth), "flip": views_flip, "change": change.flatten(1).mean(1)},
        sheet=_sheet(
            {"render": render, "truth": loaded.truth, "diffusion": frames},
            {"error (FLIP)": 2 * eyes, "change (FLIP)": 2 * change}
            | {name: found for name, found in maps.items() if not name.startswith("without")}
            | {"plan's cells": cells.float().repeat_interleave(CELL, 1).repeat_interleave(CELL, 2)},
        ),
    )


def _maps(prepared: Prepared) -> dict[str, Tensor]:
    """Every map by name, signals first."""
    render, views = prepared.render, (prepared.render, prepared.scene.cameras, prepared.targets)
    config = AssessConfig().uncertainty
    maps = signal_maps(*views, replace(config, blur="off"))
    for side in ("blurry", "sharp"):
        maps[f"blur: {side}"] = signal_maps(*views, UncertaintyConfig(blur=side, blur_weight=1.0))["blur"]
    maps[COMBINED] = uncertainty_map(*views, config)
    for switch in SWITCHES:
        off: dict[str, Any] = {switch: False}
        maps[f"without {switch.removeprefix('use_')}"] = uncertainty_map(*views, replace(config, **off))
    maps["without blur"] = uncertainty_map(*views, replace(config, blur="off"))
    maps["without distance, blur"] = uncertainty_map(*views, replace(config, blur="off", use_distance=False))
    maps["without clean-up"] = uncertainty_map(*views, replace(config, clean_radius=0))
    theirs = research_assess(prepared.scene, render, prepared.assessment.quality).holes_or_sharp
    maps["released code's mask"] = theirs.to(render.alpha).expand_as(render.alpha)
    return maps


def _scores(prepared: Prepared, maps: dict[str, Tensor]) -> dict[str, Tensor]:
    """Every score by name; larger means better."""
    scene, render = prepared.scene, prepared.render
    sharpness = image_quality(render.rgb)
    power = AssessConfig().benchmark_power
    benchmark = benchmark_quality(image_quality(scene.images), scene.cameras, prepared.targets, power)
    means = {name: -maps[name].flatten(1).mean(1) for name in (COMBINED, "alpha", "confidence", "distance")}
    return {
        "score": prepared.assessment.quality,
        "sharpness": sharpness,
        "sharpness over benchmark": sharpness / benchmark,
        **{f"mean {name}": value for name, value in means.items()},
    }


def _where(found: Tensor, error: Tensor, eyes: Tensor, change: Tensor) -> dict[str, float]:
    cells = _pooled(found)
    return {
        "pixels_rmse": _auroc(found, _worst(error)),
        "pixels_flip": _auroc(found, _worst(eyes)),
        "cells_rmse": _auroc(cells, _worst(_pooled(error))),
        "cells_flip": _auroc(cells, _worst(_pooled(eyes))),
        "rank_with_flip": _rank_correlation(cells, _pooled(eyes)),
        "rank_with_change": _rank_correlation(cells, _pooled(change)),
    }


def _mask_figures(cells: Tensor, error: Tensor, eyes: Tensor, change: Tensor) -> dict[str, float]:
    return {
        "share_of_cells": float(cells.float().mean()),
        "share_of_squared_error": float(error[cells].sum() / error.sum()),
        "share_of_change": float(change[cells].sum() / change.sum()),
        "auroc_rmse": _auroc(cells.float(), _worst(error)),
        "auroc_flip": _auroc(cells.float(), _worst(eyes)),
    }


def _pooled(values: Tensor) -> Tensor:
    """Means over cells."""
    return F.avg_pool2d(values[:, None], CELL)[:, 0]


def _worst(values: Tensor) -> Tensor:
    return values >= np.quantile(values.flatten().numpy(), 1 - WORST)


def _auroc(found: Tensor, bad: Tensor) -> float:
    """The probability that a bad cell scores above a good one; ties count half."""
    ranks, is_bad = rankdata(found.flatten().numpy()), bad.flatten().numpy()
    count = is_bad.sum()
    if not 0 < count < len(is_bad):
        return float("nan")
    return float((ranks[is_bad].sum() - count * (count + 1) / 2) / (count * (len(is_bad) - count)))


def _rank_correlation(a: Tensor, b: Tensor) -> float:
    """Spearman's rank correlation; NaN if one input is constant."""
    if float(a.max() - a.min()) == 0 or float(b.max() - b.min()) == 0:
        return float("nan")
    return float(spearmanr(a.flatten().numpy(), b.flatten().numpy()).statistic)


def _summary(scenes: list[Measured]) -> dict[str, Any]:
    """Means over scenes with their intervals, rounded."""
    where = {
        name: {target: _mean([scene.where[name][target] for scene in scenes]) for target in scenes[0].where[name]}
        for name in scenes[0].where
    }
    return {
        "scenes": len(scenes),
        "views": sum(len(scene.outcomes["psnr"]) for scene in scenes),
        "where": where,
        "auroc": {name: found["cells_flip"][0] for name, found in where.items()},
        "plan_mask": {name: _mean([scene.mask[name] for scene in scenes]) for name in scenes[0].mask},
        "spearman": {name: _score_figures(scenes, name) for name in scenes[0].scores},
    }


def _score_figures(scenes: list[Measured], name: str) -> dict[str, list[float | None]]:
    """A score's rank correlation with each outcome, over all views and within scenes."""
    figures: dict[str, list[float | None]] = {}
    for target in scenes[0].outcomes:
        pairs = [(scene.scores[name], -scene.outcomes[target]) for scene in scenes]
        figures[target] = _rounded([_joint(pairs), *_joint_interval(pairs)])
        figures[f"{target}_within_scenes"] = _mean([_rank_correlation(a, b) for a, b in pairs if len(a) > 2])
    return figures


def _joint(pairs: list[tuple[Tensor, Tensor]]) -> float:
    """Rank correlation over all views of several scenes."""
    scores, outcomes = (torch.cat(part) for part in zip(*pairs, strict=True))
    return _rank_correlation(scores, outcomes)


def _joint_interval(pairs: list[tuple[Tensor, Tensor]]) -> tuple[float | None, float | None]:
    """Bootstrap interval of `_joint` over scenes; none with too few scenes."""
    if len(pairs) < FEWEST:
        return None, None
    drawn = [_joint([pairs[i] for i in pick]) for pick in resamples(len(pairs), replicates=REPLICATES)]
    return interval(np.array(drawn))


def _mean(values: Sequence[float]) -> list[float | None]:
    """Mean over scenes and its interval."""
    found = mean_with_interval(values)
    return _rounded([found["mean"], found["low"], found["high"]])


def _rounded(values: Sequence[float | None]) -> list[float | None]:
    return [None if value is None or not np.isfinite(value) else round(float(value), 3) for value in values]


def _write_tables(name: str, found: dict[str, Any]) -> None:
    """Writes the results as Markdown tables."""
    sys.stdout.write(f"\n{name}: {found['scenes']} scenes, {found['views']} views\n")
    for title, rows in (("map", found["where"]), ("score", found["spearman"])):
        columns = list(next(iter(rows.values())))
        sys.stdout.write(f"\n| {title} | {' | '.join(columns)} |\n|{'---|' * (len(columns) + 1)}\n")
        for row, values in rows.items():
            sys.stdout.write(f"| {row} | {' | '.join(_cell_text(values[column]) for column in columns)} |\n")
    sys.stdout.write(f"\nplan's mask: {json.dumps(found['plan_mask'])}\n")


def _cell_text(values: list[float | None]) -> str:
    mean, low, high = values
    if mean is None:
        return "–"
    return f"{mean:.2f}" if low is None or high is None else f"{mean:.2f} ({low:.2f}–{high:.2f})"


def _sheet(pictures: dict[str, Tensor], maps: dict[str, Tensor]) -> Tensor:
    """A row per view: images, errors, and signals."""
    columns = pictures | {name: torch.stack([_heat(view) for view in values]) for name, values in maps.items()}
    views = len(next(iter(pictures.values())))
    rows = [[column[view] for column in columns.values()] for view in range(views)]
    letters = columns["render"].shape[-1] // LETTER
    return contact_sheet(rows, [[title[:letters] for title in columns]] * views)


def _heat(values: Tensor) -> Tensor:
    """Values in [0, 1] as colours."""
    colours = mpl.colormaps["inferno"](values.clamp(0, 1).numpy())[..., :3].astype(np.float32)
    return torch.from_numpy(colours).permute(2, 0, 1)


if __name__ == "__main__":
    main()
