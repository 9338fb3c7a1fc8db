"""Time from a command to a video with the embedded pair: where the seconds go, and what size and photos cost.

    python benchmarks/time_to_video.py [--quick] [--repeats 3]

Measured are: `demo_s` and `demo_cpu_s`, seconds of the demo's 24 frames of 384x256, and its `stages_s`
(`stages_share` is their sum over the whole, 1 if nothing is hidden); `first_frame_s`, seconds until every frame is
there as a render; `startup_s`, CPU seconds of the process `sphinx-nvs render demo --frames 2` beyond what it computes;
`reconstruct_3x352_cpu_s` and `frame_cpu_s`, CPU seconds of the regressor on three photos of 352x256 and of one frame
rendered from them; `frame_720p_over_256`, CPU seconds of a frame of 1280x720 over one of 384x256, all stages, from the
same two photos at the frame's size. Medians of the repeats, after a run that compiles. `--quick`: 8 frames of the demo,
and one repeat. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch.nn.functional as F

import sphinx_nvs
from sphinx_nvs.geometry.paths import scene_path
from sphinx_nvs.json_types import JSONObject
from sphinx_nvs.models.planesweep import PlaneSweep
from sphinx_nvs.pipeline.pipeline import Pipeline
from sphinx_nvs.procedural import procedural_views
from sphinx_nvs.scene.scene import Scene

STEPS = 25
"""Solver steps of the demo's video, as `scripts/demo` renders it."""


def main() -> None:
    """Measures and prints the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="8 frames of the demo, one repeat")
    parser.add_argument("--repeats", type=int, default=3, help="runs of each measurement")
    options = parser.parse_args()
    frames, repeats = (8, 1) if options.quick else (24, options.repeats)
    pipeline = sphinx_nvs.load_preset("embedded", num_steps=STEPS)
    found: JSONObject = {"frames": frames, **_demo(pipeline, frames, repeats), "startup_s": _startup()}
    reconstruct, frame = _regressor(repeats)
    found |= {"reconstruct_3x352_cpu_s": reconstruct, "frame_cpu_s": frame}
    small, large = (_frame_seconds(pipeline, *size, repeats) for size in ((256, 384), (704, 1280)))
    found["frame_720p_over_256"] = round(large / small, 2)
    sys.stdout.write(json.dumps(found) + "\n")


def _demo(pipeline: Pipeline, frames: int, repeats: int) -> JSONObject:
    scene = sphinx_nvs.read_scene("demo")
    targets = scene_path("interpolate", scene.cameras, frames)
    runs = []
    for _ in range(repeats + 1):
        started, cpu_started = time.perf_counter(), time.process_time()
        result = pipeline(scene, targets, quality=0.95)
        runs.append((time.perf_counter() - started, time.process_time() - cpu_started, result.stages_s))
    # The first run compiles, and is dropped.
    seconds, cpu_s, stages = sorted(runs[1:], key=lambda run: run[0])[len(runs[1:]) // 2]
    regression = sum(stages[stage] for stage in ("reconstruct", "render"))
    return {
        "demo_s": round(seconds, 3),
        "demo_cpu_s": round(cpu_s, 3),
        "stages_s": {stage: round(value, 3) for stage, value in stages.items()},
        "stages_share": round(sum(stages.values()) / seconds, 3),
        "first_frame_s": round(regression, 3),
    }


def _startup() -> float:
    """CPU seconds of a process that renders two frames, without the seconds that its own report says it computed."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "out"
        command = [sys.executable, "-m", "sphinx_nvs.cli", "render", "demo", "--frames", "2", "--method", "regression"]
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([*command, "--out", str(out)], check=True, capture_output=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        whole = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        report = json.loads((out / "report.json").read_text())
    return round(whole - report["seconds"], 3)


def _regressor(repeats: int) -> tuple[float, float]:
    """CPU seconds of reconstructing three photos of 352x256, and of rendering one frame."""
    rgb, _, cameras, _ = procedural_views(3, 4, 256, 352, split="val", supersample=1)
    scene = Scene(name="room", images=rgb[:3], cameras=cameras[:3])
    reconstruction = PlaneSweep().reconstruct(scene)
    return (
        _cpu_seconds(lambda: PlaneSweep().reconstruct(scene), repeats),
        _cpu_seconds(lambda: reconstruction.render(cameras[3:]), repeats),
    )


def _frame_seconds(pipeline: Pipeline, height: int, width: int, repeats: int) -> float:
    """CPU seconds of one refined frame between the demo's photos, which are brought to its size."""
    scene = sphinx_nvs.read_scene("demo")
    images = F.interpolate(scene.images, size=(height, width), mode="bicubic", align_corners=False).clamp(0, 1)
    scene = replace(scene, images=images, cameras=scene.cameras.resized(height, width))
    target = scene_path("interpolate", scene.cameras, 3)[1]
    return _cpu_seconds(lambda: pipeline(scene, target, quality=0.95), repeats)


def _cpu_seconds(work: Callable[[], object], repeats: int) -> float:
    work()
    seconds = []
    for _ in range(repeats):
        started = time.process_time()
        work()
        seconds.append(time.process_time() - started)
    return round(float(np.median(seconds)), 3)


if __name__ == "__main__":
    main()
