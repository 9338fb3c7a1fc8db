"""`sphinx-nvs plan`: predicted seconds and quality of a render, printed and drawn, with nothing refined."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from sphinx_nvs import media
from sphinx_nvs.cli.opening import Opened, check_request, fields_as_flags, opened
from sphinx_nvs.cli.options.render_options import Plan
from sphinx_nvs.cli.output import check_output, check_photos_kept
from sphinx_nvs.cli.progress import say, stage_progress
from sphinx_nvs.cli.quote import Quote, joined, quote_of
from sphinx_nvs.errors import InputError
from sphinx_nvs.json_types import JSONObject
from sphinx_nvs.long_paths.long_path import LongPath, Unit, prepare_unit
from sphinx_nvs.pipeline.pipeline import Pipeline
from sphinx_nvs.pipeline.regression import render_targets
from sphinx_nvs.pipeline.request import PlannedRequest, Prepared, Progress
from sphinx_nvs.plan.cost_model import CostModel, Seconds
from sphinx_nvs.sampling_params import SamplingParams
from sphinx_nvs.visualization.level import Level

QUALITIES = (0.8, 0.85, 0.9, 0.92, 0.95, 0.97, 0.98, 0.99)
"""Qualities that are quoted beside the requested one."""

RENDER, FULL = "render alone", "full diffusion"


@dataclass(frozen=True, kw_only=True)
class Planned:
    """A unit's plan.

    Args:
        unit: unit of the path.
        request: prepared and planned.
        quote: the plan's quote.
        levels: quotes of other qualities.
    """

    unit: Unit
    request: PlannedRequest
    quote: Quote
    levels: list[Level]


@fields_as_flags()
def plan(options: Plan) -> None:
    """Runs the command.

    Raises:
        InputError: an option or an input cannot be used.
        OutputError: the plot or the plan cannot be written.
    """
    check_request(options)
    for file, ending in ((options.plot, ".png"), (options.save_plan, ".safetensors")):
        if file is not None:
            check_output(file, options.overwrite, Path(options.scene), ending=ending)
    request = opened(options, needs_seconds=True)
    if options.plot is not None:
        check_photos_kept(options.plot, request.capture)
    with stage_progress() as progress:
        planned = planned_units(options, request, progress)
    if options.save_plan is not None:
        if len(planned) > 1:
            found = f"this path is made in {len(planned)} units, whose plans depend on each other's frames"
            raise InputError("--save-plan", found, "render it: the result's folder holds all plans")
        options.save_plan.parent.mkdir(parents=True, exist_ok=True)
        planned[0].request.plan.save(options.save_plan)
    report = report_of(options, request, planned)
    if options.plot is not None:
        _draw(options, planned, report)
    sys.stdout.write(f"{json.dumps(report) if options.json else text_of(report)}\n")


def planned_units(options: Plan, request: Opened, progress: Progress | None) -> list[Planned]:
    """Every unit's plan; renders stand in for the finished frames that condition a unit.

    Args:
        options: options of the command.
        request: models, scene and views that the options name.
        progress: receives stages.
    """
    started = time.perf_counter()
    pipeline, targets = request.pipeline, request.targets
    path = LongPath.of(
        pipeline, request.scene, targets, options.params, window=request.window, strategy=request.strategy
    )
    alone = len(path.units) == 1
    finished = {}
    if not alone:
        with torch.inference_mode():
            finished = dict(enumerate(render_targets(path.reconstruction, targets).rgb))
        say(f"{len(path.units)} units: renders stand in for the finished frames that condition later units")
    planned: list[Planned] = []
    for position, unit in enumerate(path.units):
        prepared = prepare_unit(
            pipeline,
            request.scene,
            targets,
            unit,
            finished,
            reconstruction=path.reconstruction,
            alone=alone,
            progress=progress,
        )
        spent_s = time.perf_counter() - started if not planned else _seconds(joined([p.quote for p in planned])).median
        views_left = sum(len(later.targets) for later in path.units[position:])
        params = path.unit_params(unit)
        if params.deadline_s is not None:
            params = params.due_in((params.deadline_s - spent_s) * len(unit.targets) / views_left)
        planned.append(_planned(options, request, unit, prepared, params))
    return planned


def _planned(options: Plan, request: Opened, unit: Unit, prepared: Prepared, params: SamplingParams) -> Planned:
    pipeline, later = request.pipeline, unit.index > 0
    made = pipeline.plan_prepared(prepared, params)
    quote = quote_of(pipeline, made.prepared, made.plan, params.method, reconstructed=later)
    levels = []
    if params.method == "sphinx" and options.plan == "ours":
        levels = _levels(pipeline, made.prepared, params.seed, reconstructed=later)
    return Planned(unit=unit, request=made, quote=quote, levels=levels)


def _levels(pipeline: Pipeline, prepared: Prepared, seed: int, *, reconstructed: bool) -> list[Level]:
    """The render alone, `QUALITIES`, and full diffusion."""
    cost_model = _cost_model(pipeline)
    targets = prepared.targets
    size = {"views": len(targets), "height": targets.height, "width": targets.width}
    least = cost_model.regression_seconds(num_context=len(prepared.scene.images), reconstructed=reconstructed, **size)
    most = least + cost_model.full_seconds(num_context=prepared.num_known, num_steps=pipeline.num_steps, **size)
    options = pipeline.options(prepared, seed)
    levels = [_level(RENDER, None, None if options is None else options.front[0].quality, least)]
    for quality in QUALITIES:
        made = pipeline.plan_prepared(prepared, SamplingParams(quality=quality, seed=seed))
        prepared = made.prepared
        quote = quote_of(pipeline, prepared, made.plan, "sphinx", reconstructed=reconstructed)
        levels.append(_level(f"quality {quality:g}", quality, quote.quality, _seconds(quote)))
    return [*levels, _level(FULL, None, 1.0, most)]


def _level(name: str, asked: float | None, quality: float | None, seconds: Seconds) -> Level:
    return Level(name=name, asked=asked, quality=quality, seconds=seconds.median, seconds_p95=seconds.p95)


def _cost_model(pipeline: Pipeline) -> CostModel:
    assert pipeline.cost_model is not None, "opened with needs_seconds"
    return pipeline.cost_model


def _seconds(quote: Quote) -> Seconds:
    assert quote.seconds is not None, "opened with needs_seconds"
    return quote.seconds


def summed(levels: Sequence[Sequence[Level]], views: Sequence[int]) -> list[Level]:
    """Levels of several units, level by level: seconds add up, qualities are averaged over frames."""
    total = sum(views)
    rows = []
    for same in zip(*levels, strict=True):
        known = [level.quality for level in same if level.quality is not None]
        quality = sum(q * n for q, n in zip(known, views, strict=True)) / total if len(known) == len(same) else None
        seconds = Seconds(median=sum(each.seconds for each in same), p95=sum(each.seconds_p95 for each in same))
        rows.append(_level(same[0].name, same[0].asked, quality, seconds))
    return rows


def report_of(options: Plan, request: Opened, planned: Sequence[Planned]) -> JSONObject:
    """The quote; plain values that JSON can hold."""
    quote, targets = joined([each.quote for each in planned]), request.selection.targets
    kept = all(each.request.plan.first_step == each.request.plan.num_steps for each in planned)
    levels = summed([each.levels for each in planned], [len(each.unit.targets) for each in planned])
    return {
        "scene": request.capture.name,
        "frames": len(targets),
        "size": f"{targets.width}x{targets.height}",
        "method": options.method,
        "quality_requested": options.params.quality,
        "deadline_s": options.deadline_s,
        "min_quality": options.min_quality,
        "predicted": quote.to_json(),
        "reason": quote.reason,
        "in_time": None if options.deadline_s is None else _seconds(quote).p95 <= options.deadline_s,
        "render_only": kept,
        "levels": [_rounded(level) for level in levels],
        "plan": planned[0].request.plan.to_json() if len(planned) == 1 else None,
        "units": [{**asdict(each.unit), **each.quote.to_json(), "reason": each.quote.reason} for each in planned]
        if len(planned) > 1
        else [],
        "machine": _cost_model(request.pipeline).machine,
        "profile": request.pipeline.profile.name,
        "plot": None if options.plot is None else str(options.plot),
        "save_plan": None if options.save_plan is None else str(options.save_plan),
    }


def _rounded(level: Level) -> JSONObject:
    values = asdict(level)
    return {name: round(value, 4) if isinstance(value, float) else value for name, value in values.items()}


def text_of(report: JSONObject) -> str:
    """The quote for people: a sentence, the reason, and the quotes of other qualities."""
    predicted = report["predicted"]
    quality = "quality unknown" if predicted["quality"] is None else f"quality {predicted['quality']:.3f}"
    units = f" in {len(report['units'])} units" if report["units"] else ""
    lines = [
        f"{report['frames']} frames of {report['size']}{units}: {quality}, {predicted['seconds']:.2f} s "
        f"(95 %: {predicted['seconds_p95']:.2f} s), {predicted['active_share']:.1%} of full diffusion's denoising",
        f"because of {report['reason']}",
    ]
    if report["in_time"] is False:
        lines.append(f"LATE: the deadline of {report['deadline_s']:g} s would probably be missed")
    if report["levels"]:
        lines += ["", f"{'':<16}{'quality':>8}{'seconds':>9}{'95 %':>8}"]
    for level in report["levels"]:
        quality = "" if level["quality"] is None else f"{level['quality']:.3f}"
        lines.append(f"{level['name']:<16}{quality:>8}{level['seconds']:>9.2f}{level['seconds_p95']:>8.2f}")
    lines += [f"{name}: {report[key]}" for key, name in (("plot", "drawn"), ("save_plan", "plan")) if report[key]]
    return "\n".join(lines)


def _draw(options: Plan, planned: Sequence[Planned], report: JSONObject) -> None:
    """The sheet: of the first unit where there are several."""
    first = planned[0]
    predicted = report["predicted"]
    chosen = _level("this plan", None, first.quote.quality, _seconds(first.quote))
    title = f"{report['scene']}, {report['frames']} frames of {report['size']}: {predicted['seconds']:.2f} s predicted"
    if len(planned) > 1:
        title += f"; the first of {len(planned)} units"
    # Matplotlib takes a second to load, which plans without a picture need not wait for.
    from sphinx_nvs.visualization.pareto_plot import png_bytes
    from sphinx_nvs.visualization.plan_sheet import plan_sheet

    figure = plan_sheet(list(first.request.prepared.render.rgb), first.request.plan, first.levels, chosen, title)
    assert options.plot is not None
    media.write_bytes(options.plot, png_bytes(figure))
