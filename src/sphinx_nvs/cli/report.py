"""The report of a render: report.json, and one line for people."""

from __future__ import annotations

import math
from dataclasses import asdict, replace

from sphinx_nvs.cli.finished_path import Assembly
from sphinx_nvs.cli.opening import Opened, weights_of
from sphinx_nvs.cli.options.render_options import Render
from sphinx_nvs.cli.quote import Tally, joined
from sphinx_nvs.cli.selection import Selection
from sphinx_nvs.evaluation.image_metrics import ViewMetrics, mean_metrics
from sphinx_nvs.json_types import JSONObject
from sphinx_nvs.presets import preset_cards
from sphinx_nvs.released_code.masks import STAND_INS
from sphinx_nvs.scene import Capture
from sphinx_nvs.scene.diagnostics import warnings_for
from sphinx_nvs.versions import versions


def report_of(options: Render, request: Opened, result: Assembly, tally: Tally) -> JSONObject:
    """The report of a finished render; plain values that JSON can hold."""
    capture, selection = request.capture, request.selection
    targets, promised = selection.targets, joined(tally.quotes)
    stages_s = {"read": request.read_s, **result.stages_s}
    deadline = _deadline(options, options.params.quality, result, tally)
    late = [] if deadline is None or not deadline["note"] else [deadline["note"]]
    return {
        "frames": len(result),
        "size": f"{targets.width}x{targets.height}",
        "scene": capture.name,
        "method": options.method,
        "quality_requested": options.params.quality,
        "predicted": promised.to_json(),
        "seconds": round(tally.taken_s, 4),
        "deadline": deadline,
        "reason": promised.reason,
        "active_share": round(result.active_share, 6),
        "computed_share": round(result.computed_share, 6),
        "calls": {"dense": sum(s.dense for s in result.steps), "sparse": sum(not s.dense for s in result.steps)},
        "random_weights": options.random_weights is not None,
        **_terms(options),
        "metrics": _metrics(capture, selection, result.measured),
        "stages_s": {name: round(seconds, 4) for name, seconds in stages_s.items()},
        "seed": options.seed,
        "plan": result.plans[0].to_json() if len(result.plans) == 1 else None,
        "units": units_of(result) if len(result.plans) > 1 else [],
        "views_quality": [round(score, 4) for score in result.quality],
        "settings": _settings(options, request),
        "warnings": [*late, *selection.notes, *_warnings(capture, selection), *_stand_ins(options)],
        "versions": versions(),
    }


def units_of(result: Assembly) -> list[JSONObject]:
    """Each unit with its plan."""
    return [{**asdict(unit), "plan": plan.to_json()} for unit, plan in zip(result.units, result.plans, strict=True)]


def _terms(options: Render) -> JSONObject:
    """Licences of the frames and the credits that they require; none for untrained models."""
    cards = () if options.random_weights else preset_cards(options.preset, weights_of(options))
    licences = [
        {"model": card.name, "licence": card.licence.name, "url": card.licence.url, "summary": card.licence.summary}
        for card in cards
    ]
    credits = dict.fromkeys(card.licence.credit for card in cards if card.licence.credit)
    return {"licences": licences, "credits": list(credits)}


def _stand_ins(options: Render) -> tuple[str, ...]:
    """Notes on the parts of the released code that the package does not have."""
    return STAND_INS if options.plan == "research" else ()


def _warnings(capture: Capture, selection: Selection) -> list[str]:
    """Difficulties of this scene, without those of splits that are not in use."""
    used = {n: split for n, split in capture.splits.items() if n == selection.split}
    return warnings_for(replace(capture, splits=used))


def _metrics(capture: Capture, selection: Selection, measured: list[ViewMetrics] | None) -> JSONObject | None:
    """Mean metrics and metrics per view, where there is ground truth."""
    if measured is None or selection.test_ids is None:
        return None
    views = [
        {"view": i, "name": capture.views[i].name, **_rounded(metrics)}
        for i, metrics in zip(selection.test_ids, measured, strict=True)
    ]
    return {"mean": _rounded(mean_metrics(measured)), "views": views}


def _rounded(metrics: ViewMetrics) -> dict[str, float]:
    return {name: round(value, 4) for name, value in asdict(metrics).items()}


def _settings(options: Render, request: Opened) -> JSONObject:
    """The resolved options, enough to run this again."""
    capture, selection, pipeline = request.capture, request.selection, request.pipeline
    return {
        "scene": options.scene,
        "layout": capture.layout,
        "contexts": list(selection.context_ids),
        "split": selection.split,
        "targets": selection.target_name,
        "test_views": None if selection.test_ids is None else list(selection.test_ids),
        "preset": options.preset,
        "regressor": pipeline.regressor.name,
        "denoiser": pipeline.denoiser.name,
        "profile": pipeline.profile.name,
        "weights": weights_of(options),
        "random_weights": options.random_weights,
        "device": options.device,
        "dtype": options.dtype,
        "offload": options.offload,
        "steps": options.steps,
        "exact": options.exact,
        "planner": pipeline.planner,
        "min_quality": options.min_quality,
        "strict": options.strict,
        "replay": None if options.replay is None else str(options.replay),
        "cache_gb": round(pipeline.cache_bytes / 1e9, 3) if math.isfinite(pipeline.cache_bytes) else None,
        "compile": options.compile,
        "assess": asdict(pipeline.assess_config),
        "plan": asdict(pipeline.plan_config),
        "window": request.window,
        "chunks": request.strategy,
    }


def _deadline(options: Render, quality: float | None, result: Assembly, tally: Tally) -> JSONObject | None:
    """Whether the deadline was met, and at what cost; None without a deadline."""
    asked_s, taken_s = options.deadline_s, tally.taken_s
    if asked_s is None:
        return None
    kept = all(plan.first_step == plan.num_steps for plan in result.plans)
    reached = joined(tally.quotes).quality
    short = kept and (quality is None or reached is None or reached < quality)
    notes = []
    if short:
        notes.append(f"DEADLINE TOO SHORT: nothing can be refined within {asked_s:g} s, these are the renders alone")
    if taken_s > asked_s:
        held = f", to keep the quality at {options.min_quality:g}" if options.min_quality and not kept else ""
        notes.append(f"LATE: it took {taken_s:.2f} s, the deadline was {asked_s:g} s{held}")
    return {
        "asked_s": asked_s,
        "taken_s": round(taken_s, 4),
        "met": taken_s <= asked_s,
        "render_only": short,
        "note": "; ".join(notes),
    }


def _in_units(report: JSONObject) -> str:
    """The number of units in words, if there are several."""
    return f", {len(report['units'])} units," if report["units"] else ""


def _promised(predicted: JSONObject) -> str:
    """The prediction in words; empty without one."""
    quality, seconds = predicted["quality"], predicted["seconds"]
    parts = [] if quality is None else [f"quality {quality:.2f}"]
    parts += [] if seconds is None else [f"{seconds:.1f} s"]
    return f" (predicted: {', '.join(parts)})" if parts else ""


def summary(report: JSONObject, out: object) -> str:
    """The run in one line."""
    text = (
        f"{report['frames']} frames of {report['size']}{_in_units(report)} in {report['seconds']:.1f} s"
        f"{_promised(report['predicted'])}, {report['active_share']:.0%} of the denoising of full diffusion"
    )
    if report["random_weights"]:
        return f"{text}, of random weights: {out}"
    if report["metrics"]:
        mean = report["metrics"]["mean"]
        text += f", PSNR {mean['psnr_db']:.2f} dB, SSIM {mean['ssim']:.3f}"
    return f"{text}: {out}"
