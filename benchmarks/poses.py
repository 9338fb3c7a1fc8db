"""Cameras of captures whose poses are thrown away, compared with the poses that they came with.

    python benchmarks/poses.py --quick                      JSON: scene -> registered, rotation_deg, direction_deg,
                                                            focal_ratio, seconds, refused
    python benchmarks/poses.py --scenes fox ramen --photos 3 6 12
    python benchmarks/poses.py --psnr                       with the PSNR of held-out photos

Photos are given as JPEGs without EXIF: all of the longest split's stretch, or unordered subsets of it, whose rows are
named `scene/photos`. `--exif` says the focal length. Found cameras are aligned with the given ones by a similarity.
`rotation_deg` is the median angle between found and given rotations, `rotation_max_deg` the largest; `direction_deg` is
the median angle between found and given directions from one camera to another; `focal_ratio` is found by given. With
`--psnr`, at most four held-out photos of that split are rendered by regression from its context views, with given
cameras and with found ones: `psnr_db`, in this order. `cpu_s` are seconds of all threads.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import random
import sys
import tempfile
import time
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from sphinx_nvs.cli.selection import spread
from sphinx_nvs.errors import InputError
from sphinx_nvs.evaluation import mean_metrics, measure
from sphinx_nvs.pipeline.pipeline import Pipeline
from sphinx_nvs.posing import pose_photos
from sphinx_nvs.posing.colmap_library import muted
from sphinx_nvs.presets import load_preset
from sphinx_nvs.sampling_params import SamplingParams
from sphinx_nvs.scene import Capture, read_capture

CAPTURES = Path(os.environ.get("SPHINX_CAPTURES_DIR", "../shared/captures"))
_QUALITY = 95
_MOST_TARGETS = 4
_SHORT_SIDE = 256


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=CAPTURES, help="folder of posed scenes")
    parser.add_argument("--scenes", nargs="*", help="names of scenes (default: all of the folder)")
    parser.add_argument("--photos", type=int, nargs="*", help="unordered subsets of so many photos (default: all)")
    parser.add_argument("--exif", action="store_true", help="the photos say their focal length")
    parser.add_argument("--psnr", action="store_true", help="render held-out photos with given and found cameras")
    parser.add_argument("--seed", type=int, default=0, help="of the subset and of posing")
    parser.add_argument("--quick", action="store_true", help="captures only; the same as no option")
    options = parser.parse_args()
    names = options.scenes or sorted(path.parent.name for path in options.folder.glob("*/transforms.json"))
    rows = {}
    for name in names:
        for photos in options.photos or [None]:
            row = name if photos is None else f"{name}/{photos}"
            rows[row] = measured(options.folder / name, photos, options)
            sys.stderr.write(f"{row} {rows[row]}\n")
    sys.stderr.write(f"{summary(list(rows.values()))}\n")
    sys.stdout.write(f"{json.dumps(rows)}\n")


def summary(rows: list[dict[str, Any]]) -> str:
    """The rows in one sentence."""
    whole = [row for row in rows if row["registered"] == row["of"]]
    accepted = [row for row in rows if row["refused"] is None]
    if not accepted:
        return f"0 of {len(rows)} accepted"
    worst = max(abs(row["focal_ratio"] - 1) for row in accepted)
    median = np.median([row["rotation_deg"] for row in accepted])
    largest = max(row["rotation_deg"] for row in accepted)
    return (
        f"{len(whole)} of {len(rows)} registered whole, {len(accepted)} accepted; rotation {median:.2f} degrees "
        f"(median), {largest:.2f} (worst); focal length off by {worst:.1%} at worst"
    )


def measured(scene: Path, photos: int | None, options: argparse.Namespace) -> dict[str, Any]:
    """One scene's row."""
    capture = read_capture(scene)
    ids = _stretch(capture)
    if photos is not None:
        ids = random.Random(options.seed).sample(ids, min(photos, len(ids)))
    focal_mm = 43.27 * _focal(capture, ids[0]) if options.exif else None
    started, cpu = time.perf_counter(), time.process_time()

    def spent() -> dict[str, Any]:
        seconds = {"seconds": time.perf_counter() - started, "cpu_s": time.process_time() - cpu}
        return {"of": len(ids), **{name: round(value, 1) for name, value in seconds.items()}}

    with tempfile.TemporaryDirectory() as folder:
        files = _bare_photos(capture, ids, Path(folder) / "photos")
        try:
            with muted():
                posed = pose_photos(files, Path(folder) / "scene", focal_mm=focal_mm, seed=options.seed)
        except InputError as error:
            return {"registered": 0, **spent(), "refused": str(error)}
        times, found = spent(), read_capture(posed.folder)
        psnr = {"psnr_db": held_out_psnr(capture, ids, found)} if options.psnr and capture.splits else {}
    return {**compared(capture, ids, found), **times, "refused": None, **psnr}


def _focal(capture: Capture, index: int) -> float:
    """Of a view, as a share of its diagonal."""
    view = capture.views[index]
    return float(view.K[0, 0]) / math.hypot(view.width, view.height)


def held_out_psnr(capture: Capture, ids: list[int], found: Capture) -> list[float] | None:
    """PSNR of held-out photos with given cameras, and with found ones; None where a context view has none."""
    split = capture.splits[max(capture.splits)]
    place = {ids[int(Path(view.name).stem)]: number for number, view in enumerate(found.views)}
    targets = spread([index for index in split.test_ids if index in place], _MOST_TARGETS)
    if not targets or any(index not in place for index in split.train_ids):
        return None
    own = [[place[index] for index in part] for part in (split.train_ids, targets)]
    size = capture.default_size(_SHORT_SIDE, _pipeline().denoiser.size_multiple)
    return [_psnr(capture, split.train_ids, targets, size), _psnr(found, own[0], own[1], size)]


def _psnr(capture: Capture, contexts: Sequence[int], targets: Sequence[int], size: tuple[int, int]) -> float:
    scene, truth = capture.load(contexts, *size), capture.load(targets, *size)
    pipeline = _pipeline()
    result = pipeline.run(
        pipeline.plan_prepared(pipeline.prepare(scene, truth.cameras), SamplingParams(method="regression"))
    )
    return round(mean_metrics(measure(result.frames, truth.images)).psnr_db, 2)


@lru_cache(maxsize=1)
def _pipeline() -> Pipeline:
    return load_preset()


def _stretch(capture: Capture) -> list[int]:
    """All views from the first to the last context view of the split with the most of these."""
    if not capture.splits:
        return list(range(len(capture)))
    train = capture.splits[max(capture.splits)].train_ids
    return list(range(min(train), max(train) + 1))


def _bare_photos(capture: Capture, ids: list[int], folder: Path) -> list[Path]:
    """Copies without any metadata, in the order of `ids`."""
    folder.mkdir()
    files = []
    for number, index in enumerate(ids):
        image = capture.views[index].image
        assert isinstance(image, Path)
        files.append(folder / f"{number:04d}.jpg")
        with Image.open(image) as opened:
            opened.convert("RGB").save(files[-1], quality=_QUALITY, subsampling=0)
    return files


def compared(capture: Capture, ids: list[int], found: Capture) -> dict[str, Any]:
    """Found cameras against the given ones."""
    views = {int(Path(view.name).stem): view for view in found.views}
    given = [capture.views[ids[number]] for number in views]
    pairs = [(view.c2w.numpy(), truth.c2w.numpy()) for view, truth in zip(views.values(), given, strict=True)]
    turn = _rotation(np.sum([b[:3, :3] @ a[:3, :3].T for a, b in pairs], axis=0))
    angles = [_angle(turn @ a[:3, :3], b[:3, :3]) for a, b in pairs]
    ratios = [float(view.K[0, 0] / truth.K[0, 0]) for view, truth in zip(views.values(), given, strict=True)]
    return {
        "registered": len(views),
        "rotation_deg": round(float(np.median(angles)), 3),
        "rotation_max_deg": round(max(angles), 3),
        "direction_deg": round(_directions(turn, pairs), 3),
        "focal_ratio": round(float(np.median(ratios)), 4),
    }


def _rotation(matrix: np.ndarray) -> np.ndarray:
    """The nearest rotation."""
    u, _, v = np.linalg.svd(matrix)
    return u @ np.diag([1, 1, np.linalg.det(u @ v)]) @ v


def _angle(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.degrees(np.arccos(np.clip((np.trace(a.T @ b) - 1) / 2, -1, 1))))


def _directions(turn: np.ndarray, pairs: list[tuple[np.ndarray, np.ndarray]]) -> float:
    """Median angle between directions from camera to camera, degrees."""
    a = np.stack([turn @ found[:3, 3] for found, _ in pairs])
    b = np.stack([given[:3, 3] for _, given in pairs])
    i, j = np.triu_indices(len(a), 1)
    steps = [x[j] - x[i] for x in (a, b)]
    cosines = np.prod([1 / np.linalg.norm(step, axis=1) for step in steps], axis=0) * (steps[0] * steps[1]).sum(axis=1)
    return float(np.median(np.degrees(np.arccos(np.clip(cosines, -1, 1)))))


if __name__ == "__main__":
    main()
