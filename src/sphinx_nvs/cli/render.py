"""`sphinx-nvs render`: a scene in, frames, video, cameras, plan and report out."""

from __future__ import annotations

import json
import sys
import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from jaxtyping import Float
from torch import Tensor

from sphinx_nvs import media
from sphinx_nvs.cli.assembly import Assembly, assemble
from sphinx_nvs.cli.options import Render
from sphinx_nvs.cli.output import check_output, folder_beside
from sphinx_nvs.cli.progress import say, stage_progress
from sphinx_nvs.cli.report import report_of, summary, units_of, weights_of
from sphinx_nvs.cli.selection import Selection, Wish, select
from sphinx_nvs.cli.sizes import height_width_from
from sphinx_nvs.errors import InputError
from sphinx_nvs.evaluation.heatmap import plan_picture
from sphinx_nvs.evaluation.metrics import ViewMetrics, measure
from sphinx_nvs.pipeline import Pipeline
from sphinx_nvs.plan.research import QUALITIES
from sphinx_nvs.presets import SHORT_SIDES, WINDOWS, load_preset
from sphinx_nvs.scene import Capture, read_capture
from sphinx_nvs.scene.transforms import write_transforms
from sphinx_nvs.windows import run_path


def render(options: Render) -> None:
    """Runs the command.

    Raises:
        InputError: anything the user gave cannot be used; nothing is written then.
        OutputError: the result cannot be written; nothing is left half-written then.
    """
    _check_numbers(options)
    check_output(options.out, options.overwrite)
    pipeline = _pipeline(options)
    started = time.perf_counter()
    capture = read_capture(options.scene)
    size = (
        height_width_from(options.size)
        if options.size
        else capture.default_size(SHORT_SIDES[options.preset], pipeline.denoiser.size_multiple)
    )
    wish = Wish(contexts=options.contexts, split=options.split, targets=options.targets, frames=options.frames)
    selection = select(capture, wish, *size)
    for note in selection.notes:
        say(note)
    scene = capture.load(selection.context_ids, *size)
    read_s = time.perf_counter() - started
    window = WINDOWS[options.preset] if options.window is None else options.window
    strategy = options.chunks or _strategy(selection, window)
    with stage_progress() as progress:
        units = run_path(
            pipeline,
            scene,
            selection.targets,
            window=window,
            strategy=strategy,
            method=options.method,
            quality=options.quality,
            seed=options.seed,
            progress=progress,
        )
        result = assemble(units, len(selection.targets), partial(_measured, capture, selection))
    report = report_of(options, capture, selection, pipeline, result)
    report["stages_s"] = {"read": round(read_s, 4), **report["stages_s"]}
    report["settings"] |= {"window": window, "chunks": strategy}
    _write(options.out, selection, result, report)
    for credit in report["credits"]:
        say(credit)
    line = json.dumps({**report, "out": str(options.out)}) if options.json else summary(report, options.out)
    sys.stdout.write(f"{line}\n")


def _pipeline(options: Render) -> Pipeline:
    """The preset, with the models and the planner that the user names."""
    pipeline = load_preset(
        options.preset,
        num_steps=options.steps,
        exact=options.exact,
        cache_gb=options.cache_gb,
        compile=options.compile,
        device=options.device,
        dtype=options.dtype,
        offload=options.offload,
        random_weights=options.random_weights,
        weights=weights_of(options),
    )
    return replace(pipeline, planner=options.plan)


def _strategy(selection: Selection, window: int) -> str:
    """How to cut what is longer than the window: photos held out need not stand in the order of a path."""
    if selection.target_name != "test":
        return "interp"
    return "nearest-gt" if len(selection.context_ids) + 2 <= window else "nearest"


def _check_numbers(options: Render) -> None:
    """Before anything is computed; the planner would find a wrong quality only after the render."""
    if not 0 <= options.quality <= 1:
        raise InputError("--quality", f"it is {options.quality:g}", "give a number in 0..1, e.g. 0.95")
    if options.cache_gb is not None and not options.cache_gb >= 0:
        raise InputError("--cache-gb", f"it is {options.cache_gb:g}", "give a number of gigabytes from 0")
    if options.seed < 0:
        raise InputError("--seed", f"it is {options.seed}", "give a whole number from 0")
    if options.plan == "research":
        _check_research(options)


def _check_research(options: Render) -> None:
    """The research code plans in one way only."""
    if options.method != "sphinx":
        raise InputError("--plan research", f"--method {options.method} needs no planner", "leave one of them out")
    if options.exact:
        raise InputError("--plan research", "--exact would be another plan", "leave one of them out")
    if options.quality not in QUALITIES:
        known = " or ".join(f"{quality:g}" for quality in QUALITIES)
        raise InputError("--plan research", f"--quality is {options.quality:g}", f"give {known}: it has no other rules")


def _measured(
    capture: Capture, selection: Selection, targets: tuple[int, ...], frames: Float[Tensor, "V 3 H W"]
) -> list[ViewMetrics] | None:
    """Metrics per view, if the targets are photos of the capture."""
    ids = selection.test_ids
    if ids is None or any(capture.views[i].image is None for i in ids):
        return None
    truth = capture.load([ids[target] for target in targets], selection.targets.height, selection.targets.width)
    return measure(frames, truth.images)


def _write(out: Path, selection: Selection, result: Assembly, report: dict[str, Any]) -> None:
    """The mp4 alone, or the whole folder; all of it or nothing."""
    if out.suffix.lower() == ".mp4":
        media.write_video(out, result.frames8)
        return
    with folder_beside(out) as folder:
        digits = max(3, len(str(len(result) - 1)))
        names = [f"{index:0{digits}d}.png" for index in range(len(result))]
        for index, name in enumerate(names):
            frame = result.frame(index)
            media.write_png(folder / "frames" / name, frame)
            media.write_png(folder / "plan" / name, plan_picture(frame, *result.frame_plan(index)))
        media.write_video(folder / "video.mp4", result.frames8)
        write_transforms(folder / "transforms.json", selection.targets, [f"frames/{name}" for name in names])
        _write_plans(folder, result)
        media.write_bytes(folder / "report.json", _json(report))


def _write_plans(folder: Path, result: Assembly) -> None:
    """The plan, or one per unit."""
    if len(result.plans) == 1:
        result.plans[0].save(folder / "plan.safetensors")
        media.write_bytes(folder / "plan.json", _json(result.plans[0].to_json()))
        return
    (folder / "plans").mkdir()
    for unit, plan in zip(result.units, result.plans, strict=True):
        plan.save(folder / "plans" / f"{unit.index:03d}.safetensors")
    media.write_bytes(folder / "plan.json", _json({"units": units_of(result)}))


def _json(value: dict[str, Any]) -> bytes:
    return (json.dumps(value, indent=2) + "\n").encode()
