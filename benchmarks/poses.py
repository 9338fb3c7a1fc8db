"""Cameras of captures whose poses are thrown away, compared with the poses that they came with.

    python benchmarks/poses.py --quick                      JSON: scene -> registered, rotation_deg, direction_deg,
                                                            focal_ratio, seconds, refused
    python benchmarks/poses.py --scenes fox ramen --photos 6

Photos are given as JPEGs without EXIF: all of the longest split's stretch, or an unordered subset of it. Found cameras
are aligned with the given ones by a similarity. `rotation_deg` is the median angle between found and given rotations,
`rotation_max_deg` the largest; `direction_deg` is the median angle between found and given directions from one camera
to another; `focal_ratio` is found by given.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from sphinx_nvs.errors import InputError
from sphinx_nvs.posing import pose_photos
from sphinx_nvs.posing.colmap_library import muted
from sphinx_nvs.scene import Capture, read_capture

CAPTURES = Path(os.environ.get("SPHINX_CAPTURES_DIR", "../shared/captures"))
_QUALITY = 95


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=CAPTURES, help="folder of posed scenes")
    parser.add_argument("--scenes", nargs="*", help="names of scenes (default: all of the folder)")
    parser.add_argument("--photos", type=int, help="an unordered subset of this many photos (default: all)")
    parser.add_argument("--seed", type=int, default=0, help="of the subset and of posing")
    parser.add_argument("--quick", action="store_true", help="captures only; the same as no option")
    options = parser.parse_args()
    names = options.scenes or sorted(path.parent.name for path in options.folder.glob("*/transforms.json"))
    rows = {}
    for name in names:
        rows[name] = measured(options.folder / name, options.photos, options.seed)
        sys.stderr.write(f"{name} {rows[name]}\n")
    sys.stdout.write(f"{json.dumps(rows)}\n")


def measured(scene: Path, photos: int | None, seed: int) -> dict[str, Any]:
    """One scene's row."""
    capture = read_capture(scene)
    ids = _stretch(capture)
    if photos is not None:
        ids = random.Random(seed).sample(ids, min(photos, len(ids)))
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        files = _bare_photos(capture, ids, Path(folder) / "photos")
        try:
            with muted():
                posed = pose_photos(files, Path(folder) / "scene", seed=seed)
        except InputError as error:
            return {"registered": 0, "of": len(ids), "seconds": _since(started), "refused": str(error)}
        seconds = _since(started)
        found = read_capture(posed.folder)
    return {**compared(capture, ids, found), "of": len(ids), "seconds": seconds, "refused": None}


def _since(started: float) -> float:
    return round(time.perf_counter() - started, 1)


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
