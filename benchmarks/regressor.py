"""Quality and speed of the regressor without weights, on real captures, else on procedural scenes.

    SPHINX_CAPTURES_DIR=../shared/captures python benchmarks/regressor.py [--quick]

Reconstructs each capture from the two context views of its 2-view split, renders the views between them, and
compares with the nearest context view and with a cross-fade; then times two 256x256 context views rendered from
twenty 256x256 targets. Prints a table and, as its last line, one JSON object. Times are CPU seconds.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from sphinx_nvs.evaluation import cross_fade, mean_metrics, measure, nearest_context
from sphinx_nvs.geometry.interpolation import interpolate_path
from sphinx_nvs.models.planesweep import PlaneSweep
from sphinx_nvs.scene import Capture, read_capture

STAND_INS = ("procedural:room:1", "procedural:corridor:2", "procedural:plaza:3", "procedural:mixed:4")
QUICK_SCENES, QUICK_VIEWS = 6, 2
SHORT_SIDE = 256
NUM_TARGETS = 20


def main() -> None:
    """Measures and prints the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="six scenes, two views each")
    options = parser.parse_args()
    # On several threads, small operations spend more time waiting for each other than computing.
    torch.set_num_threads(1)
    captures = list(_captures(options.quick))
    rows = {}
    for capture in captures:
        rows[capture.name] = _quality(capture, QUICK_VIEWS if options.quick else None)
        _say(capture.name, rows[capture.name])
    report = {
        "mean_psnr_db": _mean(rows, "psnr_db"),
        "mean_ssim": _mean(rows, "ssim"),
        "mean_gain_db": _mean(rows, "gain_db"),
        "regression_s_20x256": round(_seconds(captures[0]), 2),
        "scenes": rows,
    }
    sys.stdout.write(json.dumps(report) + "\n")


def _captures(is_quick: bool) -> Iterator[Capture]:
    """The available captures, else procedural ones; for a quick run a few of them, evenly spaced."""
    folder = Path(os.environ.get("SPHINX_CAPTURES_DIR", "../shared/captures"))
    found: Sequence[Any] = sorted(path.parent for path in folder.glob("*/train_test_split_2.json"))
    found = found or STAND_INS
    if is_quick:
        found = found[:: max(1, len(found) // QUICK_SCENES)][:QUICK_SCENES]
    return (read_capture(path) for path in found)


def _quality(capture: Capture, most: int | None) -> dict[str, float]:
    """PSNR and SSIM of the render and of both baselines, means over the split's test views."""
    height, width = capture.default_size(SHORT_SIDE)
    split = capture.splits[min(capture.splits)]
    stride = 1 if most is None else max(1, len(split.test_ids) // most)
    scene = capture.load(split.train_ids, height, width)
    truth = capture.load(split.test_ids[stride // 2 :: stride][:most], height, width)
    begin = time.process_time()
    reconstruction = PlaneSweep().reconstruct(scene)
    seconds = time.process_time() - begin
    ours = mean_metrics(measure(reconstruction.render(truth.cameras).rgb, truth.images))
    trivial = {
        name: mean_metrics(measure(picture(scene, truth.cameras), truth.images))
        for name, picture in (("nearest", nearest_context), ("cross_fade", cross_fade))
    }
    best = max(metrics.psnr_db for metrics in trivial.values())
    row = {"psnr_db": ours.psnr_db, "ssim": ours.ssim, "gain_db": ours.psnr_db - best}
    for name, metrics in trivial.items():
        row |= {f"{name}_psnr_db": metrics.psnr_db, f"{name}_ssim": metrics.ssim}
    return {name: round(value, 3) for name, value in (row | {"reconstruct_s": seconds}).items()}


def _seconds(capture: Capture) -> float:
    """CPU seconds from two 256x256 photos to twenty 256x256 views between them, after a warm-up compilation."""
    scene = capture.load(capture.splits[min(capture.splits)].train_ids[:2], SHORT_SIDE, SHORT_SIDE)
    targets = interpolate_path(scene.cameras, NUM_TARGETS)
    PlaneSweep().reconstruct(capture.load([0, 1], 32, 32)).render(capture.cameras([0], 32, 32))
    begin = time.process_time()
    PlaneSweep().reconstruct(scene).render(targets)
    return time.process_time() - begin


def _mean(rows: dict[str, dict[str, float]], name: str) -> float:
    return round(statistics.mean(row[name] for row in rows.values()), 3)


def _say(name: str, row: dict[str, float]) -> None:
    columns = "  ".join(f"{key} {value:7.3f}" for key, value in row.items())
    sys.stdout.write(f"{name:20s} {columns}\n")


if __name__ == "__main__":
    main()
