"""`sphinx-nvs render`: a scene in, frames, video, cameras, plan and report out."""

from __future__ import annotations

import json
import sys
from functools import partial
from pathlib import Path

from jaxtyping import Float
from torch import Tensor

from sphinx_nvs import media
from sphinx_nvs.cli.finished_path import Assembly, assemble
from sphinx_nvs.cli.opening import check_request, fields_as_flags, opened
from sphinx_nvs.cli.options.render_options import Render
from sphinx_nvs.cli.output import RENDER, check_output, claimed, folder_beside
from sphinx_nvs.cli.progress import say, stage_progress
from sphinx_nvs.cli.quote import Tally
from sphinx_nvs.cli.replay import check_plans, plans_at
from sphinx_nvs.cli.report import report_of, summary, units_of
from sphinx_nvs.cli.selection import Selection
from sphinx_nvs.evaluation.image_metrics import ViewMetrics, measure
from sphinx_nvs.json_types import JSONObject
from sphinx_nvs.long_paths.long_path import run_path
from sphinx_nvs.scene import Capture
from sphinx_nvs.scene.transforms import write_transforms
from sphinx_nvs.scene.world_frame import World
from sphinx_nvs.visualization.heatmap import plan_picture


@fields_as_flags()
def render(options: Render) -> None:
    """Runs the command.

    Raises:
        InputError: an option or an input cannot be used; nothing is written then.
        OutputError: the result cannot be written; nothing is left half-written then.
    """
    check_request(options)
    check_output(options.out, options.overwrite, Path(options.scene), or_video=True)
    with claimed(options.out):
        _render(options)


def _render(options: Render) -> None:
    """The command, once the place of its result is kept."""
    plans = None if options.replay is None else plans_at(options.replay, options)
    request = opened(options, needs_seconds=options.deadline_s is not None)
    if plans is not None:
        check_plans(plans, request)
    selection, pipeline = request.selection, request.pipeline
    tally = Tally(pipeline=pipeline, method=options.method)
    with stage_progress() as progress:
        units = run_path(
            pipeline,
            request.scene,
            request.targets,
            options.params,
            window=request.window,
            strategy=request.strategy,
            plans=None if plans is None else dict(enumerate(plans)),
            progress=progress,
        )
        measured = partial(_measured, request.capture, selection)
        result = assemble(tally.through(units), selection.targets, pipeline.denoiser.size_multiple, measured)
    report = report_of(options, request, result, tally)
    _write(options.out, request.capture.world, selection, result, report)
    for credit in report["credits"]:
        say(credit)
    if report["deadline"] is not None and report["deadline"]["note"]:
        say(report["deadline"]["note"])
    line = json.dumps({**report, "out": str(options.out)}) if options.json else summary(report, options.out)
    sys.stdout.write(f"{line}\n")


def _measured(
    capture: Capture, selection: Selection, targets: tuple[int, ...], frames: Float[Tensor, "V 3 H W"]
) -> list[ViewMetrics] | None:
    """Metrics per view, if the targets are photos of the capture."""
    ids = selection.test_ids
    if ids is None or any(capture.views[i].image is None for i in ids):
        return None
    truth = capture.load([ids[target] for target in targets], selection.targets.height, selection.targets.width)
    return measure(frames, truth.images)


def _write(out: Path, world: World, selection: Selection, result: Assembly, report: JSONObject) -> None:
    """The mp4 alone, or the whole folder; all of it or nothing."""
    if out.suffix.lower() == ".mp4":
        media.write_video(out, result.frames8)
        return
    with folder_beside(out, RENDER) as folder:
        digits = max(3, len(str(len(result) - 1)))
        names = [f"{index:0{digits}d}.png" for index in range(len(result))]
        for index, name in enumerate(names):
            frame = result.frame(index)
            media.write_png(folder / "frames" / name, frame)
            media.write_png(folder / "plan" / name, plan_picture(frame, *result.frame_plan(index)))
        media.write_video(folder / "video.mp4", result.frames8)
        write_transforms(folder / "transforms.json", selection.targets, [f"frames/{name}" for name in names], world)
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


def _json(value: JSONObject) -> bytes:
    return (json.dumps(value, indent=2) + "\n").encode()
