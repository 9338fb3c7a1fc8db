"""Quality on real captures: every method and the trivial baselines against held-out photos.

    SPHINX_CAPTURES_DIR=../shared/captures python benchmarks/captures.py [--quick] [--save out/captures]

Renders the test views of each capture's splits from the split's context views, prints a Markdown table of PSNR (dB) and
SSIM, means over views and then over splits, and one JSON object as the last line. Without captures, procedural scenes
stand in. `--save` writes a contact sheet for each split: truth, regression, sphinx, diffusion, plan.

The JSON also has LPIPS (AlexNet) and DISTS where their weights are at hand, the share of specks
(`evaluation/specks.py`), and `reprojection_ratio`: how much neighbouring frames disagree over how much the photos do.
Both are warped by the depth that a plane sweep of all the split's photos agrees on; null where neighbours share none.
`support` is the share of the test views that context photos agree on (`assess/support.py`).
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from sphinx_nvs import media
from sphinx_nvs.assess.support import support
from sphinx_nvs.cli.selection import spread
from sphinx_nvs.errors import SphinxError
from sphinx_nvs.evaluation import cross_fade, mean_metrics, measure, nearest_context, plan_picture
from sphinx_nvs.evaluation.consistency import Warp, neighbour_warp, warp_error
from sphinx_nvs.evaluation.registry import METRICS
from sphinx_nvs.evaluation.specks import speck_rate
from sphinx_nvs.media import resize
from sphinx_nvs.pipeline.pipeline import Pipeline
from sphinx_nvs.pipeline.request import Result
from sphinx_nvs.presets import load_preset
from sphinx_nvs.sampling_params import SamplingParams
from sphinx_nvs.scene import Capture, Scene, read_capture
from sphinx_nvs.training.captures import DEPTH_SIDE, sequence_depth
from sphinx_nvs.training.decoder import KNOWN
from sphinx_nvs.versions import versions
from sphinx_nvs.visualization.contact_sheet import contact_sheet

METHODS = ("regression", "sphinx", "diffusion")
BASELINES = {"nearest": nearest_context, "cross-fade": cross_fade}
STAND_INS = ("procedural:room:1", "procedural:corridor:2", "procedural:plaza:3")
SHEET_ROWS = 4
PERCEPTUAL = ("lpips_alex", "dists")

DIGITS = {
    "psnr_db": 3,
    "ssim": 4,
    "seconds": 2,
    "lpips_alex": 4,
    "dists": 4,
    "speck_rate": 5,
    "reprojection_ratio": 3,
    "computed_share": 4,
}
"""Of means, by figure."""


@dataclass(frozen=True, kw_only=True)
class Score:
    """One way of making the test views of one split."""

    psnr_db: float
    ssim: float
    seconds: float
    lpips_alex: float | None = None
    dists: float | None = None
    speck_rate: float | None = None
    reprojection_ratio: float | None = None
    computed_share: float | None = None


@dataclass(kw_only=True)
class Row:
    """One split of one capture."""

    scene: str
    split: int
    targets: int
    size: str
    support: float
    scores: dict[str, Score] = field(default_factory=dict)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the benchmark; 0 when every split was rendered."""
    options = _options(argv)
    pipeline = load_preset(num_steps=options.steps)
    rows: list[Row] = []
    failed: list[str] = []
    for capture, split in _cases(options):
        try:
            rows.append(_run_split(pipeline, capture, split, options))
        except SphinxError as error:
            failed.append(f"{capture.name} split {split}: {error}")
            sys.stderr.write(f"failed: {failed[-1]}\n")
            continue
        sys.stderr.write(f"{_table_row(rows[-1], options)}\n")
    sys.stdout.write(f"{_table(rows, options)}\n")
    sys.stdout.write(f"{json.dumps(_result(rows, failed, options))}\n")
    return 1 if failed else 0


def _options(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--quick", action="store_true", help="one scene, split 2, two views, few steps: under 50 s")
    parser.add_argument("--scenes", type=_words, help="names of captures, comma separated (default: all)")
    parser.add_argument("--splits", type=_words, help="numbers of splits, comma separated (default: all)")
    parser.add_argument("--methods", type=_words, default=METHODS, help=f"of {', '.join(METHODS)} (default: all)")
    parser.add_argument("--steps", type=int, help="solver steps of full diffusion (default: 50)")
    parser.add_argument("--targets", type=int, help="at most so many views of a split, spread (default: all)")
    parser.add_argument("--short-side", type=int, help="of the frames, in pixels (default: 256)")
    parser.add_argument("--quality", type=float, default=0.95, help="of sphinx (default: 0.95)")
    parser.add_argument("--seed", type=int, default=0, help="of the noise (default: 0)")
    parser.add_argument("--save", type=Path, metavar="DIR", help="write contact sheets and results.json there")
    options = parser.parse_args(argv)
    unknown = set(options.methods) - set(METHODS)
    if unknown:
        parser.error(f"--methods: {', '.join(sorted(unknown))} unknown; choose one of {', '.join(METHODS)}")
    quick = {"steps": 4, "targets": 2, "short_side": 128} if options.quick else {}
    usual = {"steps": 50, "targets": None, "short_side": 256}
    for name, value in {**usual, **quick}.items():
        if getattr(options, name) is None:
            setattr(options, name, value)
    return options


def _words(text: str) -> tuple[str, ...]:
    return tuple(word.strip() for word in text.split(",") if word.strip())


def _cases(options: argparse.Namespace) -> Iterator[tuple[Capture, int]]:
    """The captures with the splits to run."""
    folder = Path(os.environ.get("SPHINX_CAPTURES_DIR", Path(__file__).parents[1] / "../shared/captures"))
    names = sorted(path.parent.name for path in folder.glob("*/transforms.json"))
    sources = [str(folder / name) for name in names if not options.scenes or name in options.scenes]
    sources = sources or list(options.scenes or STAND_INS)
    for source in sources[:1] if options.quick else sources:
        capture = read_capture(source)
        splits = sorted(n for n in capture.splits if not options.splits or str(n) in options.splits)
        yield from ((capture, n) for n in (splits[:1] if options.quick else splits))


def _run_split(pipeline: Pipeline, capture: Capture, number: int, options: argparse.Namespace) -> Row:
    """Renders one split by every method."""
    height, width = capture.default_size(options.short_side, pipeline.denoiser.size_multiple)
    split = capture.splits[number]
    test_ids = spread(split.test_ids, options.targets)
    scene, truth = capture.load(split.train_ids, height, width), capture.load(test_ids, height, width)
    prepared = pipeline.prepare(scene, truth.cameras)
    row = Row(
        scene=capture.name,
        split=number,
        targets=len(test_ids),
        size=f"{width}x{height}",
        support=round(support(prepared.render), 3),
    )
    score = partial(_score, truth=truth, warp=_warp(capture, split.train_ids, test_ids, truth))
    for name, baseline in BASELINES.items():
        started = time.perf_counter()
        row.scores[name] = score(baseline(scene, truth.cameras), seconds=time.perf_counter() - started)
    results: dict[str, Result] = {}
    for method in options.methods:
        planned = pipeline.plan_prepared(
            prepared, SamplingParams(method=method, quality=options.quality, seed=options.seed)
        )
        result = pipeline.run(planned)
        results[method] = result
        seconds = sum(result.stages_s.values())
        row.scores[method] = score(result.frames, seconds=seconds, computed_share=round(result.computed_share, 4))
    if options.save:
        _save_sheet(options.save / f"{capture.name}_{number}.png", truth, results)
    return row


def _warp(capture: Capture, train_ids: Sequence[int], test_ids: Sequence[int], truth: Scene) -> Warp | None:
    """Where each test view is seen in the next one, by the depth of all the split's photos; None for a single one."""
    if len(test_ids) < 2:
        return None
    together = replace(capture, views=tuple(capture.views[i] for i in (*test_ids, *train_ids)), splits={})
    height, width = truth.images.shape[-2:]
    scale = DEPTH_SIDE / min(height, width)
    depth = sequence_depth(together, (round(scale * height), round(scale * width)))
    maps = torch.stack([depth.inverse_depth, depth.confidence], 1)[: len(test_ids)]
    inverse_depth, confidence = F.interpolate(maps, size=(height, width), mode="nearest-exact").unbind(1)
    return neighbour_warp(1 / inverse_depth, truth.cameras, confidence > KNOWN)


def _score(
    frames: Float[Tensor, "V 3 H W"],
    *,
    truth: Scene,
    warp: Warp | None,
    seconds: float,
    computed_share: float | None = None,
) -> Score:
    mean = mean_metrics(measure(frames, truth.images))
    errors = [warp_error(images, warp) if warp else None for images in (frames, truth.images)]
    able = {metric.name: metric for metric in METRICS if metric.name in PERCEPTUAL and metric.missing() is None}
    perceptual = {
        name: round(float(metric.score(frames, truth.images).values.mean()), 4) for name, metric in able.items()
    }
    return Score(
        psnr_db=round(mean.psnr_db, 3),
        ssim=round(mean.ssim, 4),
        seconds=round(seconds, 2),
        speck_rate=round(float(speck_rate(frames, truth.images).mean()), 5),
        reprojection_ratio=round(errors[0] / errors[1], 3) if errors[0] is not None and errors[1] else None,
        computed_share=computed_share,
        **perceptual,
    )


def _save_sheet(path: Path, truth: Scene, results: dict[str, Result]) -> None:
    """Truth, every method and the plan of sphinx side by side, for a few views spread over the split."""
    views = spread(range(len(truth.images)), SHEET_ROWS)
    scores = {name: measure(result.frames, truth.images) for name, result in results.items()}
    rows, titles = [], []
    for view in views:
        pictures, words = [truth.images[view]], [f"truth {view}"]
        for name, result in results.items():
            pictures.append(result.frames[view])
            words.append(f"{name} {scores[name][view].psnr_db:.1f} dB / {scores[name][view].ssim:.3f}")
        if "sphinx" in results:
            pictures.append(_plan_picture(results["sphinx"], view))
            words.append("plan of sphinx")
        rows.append(pictures)
        titles.append(words)
    media.write_png(path, contact_sheet(rows, titles))


def _plan_picture(result: Result, view: int) -> Tensor:
    """The heat map at the frames' own height."""
    picture = plan_picture(result.frames[view], result.plan.start_step[view], result.plan.num_steps)
    height = result.frames.shape[-2]
    return resize(picture[None], height, round(picture.shape[-1] * height / picture.shape[-2]))[0]


def _names(options: argparse.Namespace) -> tuple[str, ...]:
    return (*BASELINES, *options.methods)


def _table(rows: Sequence[Row], options: argparse.Namespace) -> str:
    """Markdown: a line per split, the mean last; PSNR / SSIM, and the share of denoising that sphinx did."""
    names = _names(options)
    header = f"| capture | split | views | {' | '.join(names)} | sphinx's share |"
    lines = [header, "|---|---|---|" + "---|" * (len(names) + 1), *(_table_row(row, options) for row in rows)]
    if rows:
        lines.append(_table_row(_mean_row(rows, names), options))
    return "\n".join(lines)


def _table_row(row: Row, options: argparse.Namespace) -> str:
    cells = [f"{row.scores[n].psnr_db:.2f} / {row.scores[n].ssim:.3f}" for n in _names(options)]
    share = row.scores["sphinx"].computed_share if "sphinx" in row.scores else None
    last = "" if share is None else f"{share:.0%}"
    return f"| {row.scene} | {row.split or ''} | {row.targets} | {' | '.join(cells)} | {last} |"


def _mean_row(rows: Sequence[Row], names: Sequence[str]) -> Row:
    """Means over splits, each counting once."""
    return Row(
        scene="mean",
        split=0,
        targets=sum(row.targets for row in rows),
        size="",
        support=round(sum(row.support for row in rows) / len(rows), 3),
        scores={name: _mean_score([row.scores[name] for row in rows]) for name in names},
    )


def _mean_score(scores: Sequence[Score]) -> Score:
    """The mean of every figure over the splits that have it."""
    means: dict[str, Any] = {}
    for figure, digits in DIGITS.items():
        values = [getattr(score, figure) for score in scores if getattr(score, figure) is not None]
        means[figure] = round(sum(values) / len(values), digits) if values else None
    return Score(**means)


def _result(rows: Sequence[Row], failed: Sequence[str], options: argparse.Namespace) -> dict[str, Any]:
    """Everything, as plain JSON values; also written to `--save`."""
    result = {
        "benchmark": "captures",
        "settings": {name: getattr(options, name) for name in ("quick", "steps", "short_side", "quality", "seed")},
        "rows": [asdict(row) for row in rows],
        "mean": asdict(_mean_row(rows, _names(options)))["scores"] if rows else None,
        "failed": list(failed),
        "versions": versions(),
    }
    if options.save:
        media.write_bytes(options.save / "results.json", (json.dumps(result, indent=1) + "\n").encode())
    return result


if __name__ == "__main__":
    sys.exit(main())
