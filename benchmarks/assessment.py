"""Does the assessment know where and how much a render errs? On real captures, else on procedural scenes.

    SPHINX_CAPTURES_DIR=../shared/captures python benchmarks/assessment.py [--quick]

Renders the test views of each scene's smallest split with the embedded regressor and prints, as one JSON object on the
last line: Spearman's rank correlation of each per-view score with PSNR, the area under the ROC curve of the uncertainty
map (and of each of its signals) for a view's worst fifth of pixels, and the root mean square error inside and outside
the mask that plans are made from.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import torch
from scipy.stats import rankdata, spearmanr
from torch import Tensor

from sphinx_nvs.assess import AssessConfig, assess
from sphinx_nvs.assess.quality import benchmark_quality, image_quality
from sphinx_nvs.evaluation.metrics import psnr
from sphinx_nvs.models.planesweep import PlaneSweep
from sphinx_nvs.plan import PlanConfig
from sphinx_nvs.scene import Capture, read_capture

STAND_INS = ("procedural:room:1", "procedural:corridor:2", "procedural:plaza:3", "procedural:mixed:4")


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="four scenes at 160 pixels")
    options = parser.parse_args()
    scores: dict[str, list[Tensor]] = {}
    curves: dict[str, list[float]] = {}
    inside, outside, quality = [], [], []
    for capture in _captures(options.quick):
        height, width = capture.default_size(160 if options.quick else 256)
        split = capture.splits[min(capture.splits)]
        scene, truth = capture.load(split.train_ids, height, width), capture.load(split.test_ids, height, width)
        render = PlaneSweep().reconstruct(scene).render(truth.cameras)
        assessment = assess(scene, truth.cameras, render)
        error = (render.rgb - truth.images).square().mean(1)
        quality.append(psnr(render.rgb, truth.images))
        benchmark = benchmark_quality(
            image_quality(scene.images), scene.cameras, truth.cameras, AssessConfig().benchmark_power
        )
        found = {
            "view_score": assessment.quality,
            "sharpness_ratio": image_quality(render.rgb) / benchmark,
            "mean_certainty": 1 - assessment.uncertainty.flatten(1).mean(1),
        }
        for name, value in found.items():
            scores.setdefault(name, []).append(value)
        signals = {
            "uncertainty": assessment.uncertainty,
            "1 - alpha": 1 - render.alpha,
            "1 - confidence": 1 - render.confidence,
            "disagreement": render.disagreement,
        }
        for name, value in signals.items():
            curves.setdefault(name, []).extend(_auroc(v, e) for v, e in zip(value, error, strict=True))
        mask = assessment.uncertainty > PlanConfig().threshold
        inside.append(error[mask])
        outside.append(error[~mask])
        sys.stderr.write(
            f"{capture.name}: {float(quality[-1].mean()):.2f} dB, masked {float(mask.float().mean()):.0%}\n"
        )
    views = torch.cat(quality)
    result = {
        "views": len(views),
        "spearman_with_psnr": {k: round(float(spearmanr(torch.cat(v), views).statistic), 3) for k, v in scores.items()},
        "auroc_worst_fifth": {k: round(sum(v) / len(v), 3) for k, v in curves.items()},
        "rms_error": {"masked": _rms(inside), "held": _rms(outside)},
    }
    sys.stdout.write(json.dumps(result) + "\n")


def _captures(quick: bool) -> Iterator[Capture]:
    folder = Path(os.environ.get("SPHINX_CAPTURES_DIR", "../shared/captures"))
    names = sorted(str(p) for p in folder.iterdir() if p.is_dir()) if folder.is_dir() else list(STAND_INS)
    for name in names[:: max(1, len(names) // 4)][:4] if quick else names:
        yield read_capture(name)


def _auroc(score: Tensor, error: Tensor) -> float:
    """The chance that a pixel of the worst fifth scores above one of the others."""
    bad = (error >= error.flatten().quantile(0.8)).flatten().numpy()
    ranks = rankdata(score.flatten().numpy())
    count = bad.sum()
    return float((ranks[bad].sum() - count * (count + 1) / 2) / (count * (len(bad) - count)))


def _rms(parts: list[Tensor]) -> float | None:
    values = torch.cat(parts)
    return round(float(values.mean().sqrt()), 4) if len(values) else None


if __name__ == "__main__":
    main()
