"""`sphinx-nvs eval` and `sphinx-nvs bench`: comparison of methods on held-out photos, or of their speed alone."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch

from sphinx_nvs.cli.machine_speed import with_seconds
from sphinx_nvs.cli.options.eval_options import Bench, Eval
from sphinx_nvs.cli.output import check_folder_name
from sphinx_nvs.cli.progress import eta_text, say, share_progress
from sphinx_nvs.cli.sizes import size_from
from sphinx_nvs.errors import InputError
from sphinx_nvs.evaluation.bench import METHODS, bench, markdown
from sphinx_nvs.evaluation.datasets import cases_named
from sphinx_nvs.evaluation.harness import EvalConfig
from sphinx_nvs.evaluation.methods import DEADLINE, DEFAULT, methods_named
from sphinx_nvs.evaluation.run_evaluation import OnStatus, Status, evaluate, finite
from sphinx_nvs.json_types import JSONObject
from sphinx_nvs.pipeline.pipeline import Pipeline
from sphinx_nvs.presets import load_preset, preset_named

_QUICK_SIDE, _QUICK_VIEWS, _QUICK_SEEDS = 96, 3, 2
_VIEWS, _SEEDS = 8, 3


def run_eval(options: Eval) -> None:
    """Runs `sphinx-nvs eval`.

    Raises:
        InputError: an option cannot be used.
        OutputError: the folder has other contents, or cannot be written to.
    """
    check_folder_name(options.out)
    cases = cases_named(options.data, _numbers(options.splits))
    clock = _clock(options.clock)
    pipeline = _pipeline(options)
    config = _config(options, pipeline)
    pipeline = _in_time(pipeline, config.methods, clock)
    with _reporter() as on_status:
        summary = evaluate(pipeline, cases, config, options.out, clock=clock, on_status=on_status)
    for name, why in summary["not_computed"].items():
        say(f"{name}: {why}")
    for name, why in summary["failed"].items():
        say(f"failed: {name}: {why}")
    sys.stdout.write(_table(summary))
    for note in summary["notes"]:
        say(note)
    page = options.out / "report.html"
    line = json.dumps({**summary, "out": str(options.out)}) if options.json else f"report: {page}"
    sys.stdout.write(f"{line}\n")


def run_bench(options: Bench) -> None:
    """Runs `sphinx-nvs bench`.

    Raises:
        InputError: an option cannot be used.
    """
    methods = _words(options.methods) or METHODS
    methods_named(methods)
    case = cases_named(options.scene)[0]
    pipeline = _in_time(_pipeline(options), methods, options.clock)
    size = size_from(options.size, preset_named(options.preset).short_side, _VIEWS, pipeline.denoiser.size_multiple)
    result = bench(
        pipeline,
        case,
        methods=methods,
        size=size,
        repeats=options.repeats,
        on_method=lambda name: say(f"timing {name}"),
    )
    sys.stdout.write(markdown(result, options.clock) + "\n")
    if options.json:
        sys.stdout.write(json.dumps(finite(result)) + "\n")


def _pipeline(options: Eval | Bench) -> Pipeline:
    """The preset; with untrained models only if `--random-weights` is given."""
    return load_preset(options.preset, device=options.device, random_weights=options.random_weights)


def _in_time(pipeline: Pipeline, methods: Sequence[str], clock: str) -> Pipeline:
    """The pipeline with this machine's cost model by the chosen clock, if a method has a deadline."""
    methods_named(methods)
    return with_seconds(pipeline, clock=clock) if any(name.startswith(DEADLINE) for name in methods) else pipeline


def _config(options: Eval, pipeline: Pipeline) -> EvalConfig:
    usual_side = preset_named(options.preset).short_side
    views = options.views or (_QUICK_VIEWS if options.quick else _VIEWS)
    if views < 1:
        raise InputError("--views", f"it is {views}", "give 1 or more")
    return EvalConfig(
        methods=_words(options.methods) or DEFAULT,
        size=size_from(
            options.size, _QUICK_SIDE if options.quick else usual_side, views, pipeline.denoiser.size_multiple
        ),
        seeds=options.seeds if options.seeds is not None else (_QUICK_SEEDS if options.quick else _SEEDS),
        repeats=options.repeats,
        metrics=_words(options.metrics) or None,
        settings={
            "preset": options.preset,
            "device": options.device,
            "random_weights": options.random_weights,
            "regressor": pipeline.regressor.name,
            "denoiser": pipeline.denoiser.name,
        },
    )


def _words(text: str | None) -> tuple[str, ...]:
    return tuple(word.strip() for word in (text or "").split(",") if word.strip())


def _numbers(text: str | None) -> tuple[int, ...] | None:
    words = _words(text)
    if not all(word.isdecimal() for word in words):
        raise InputError("--splits", f"'{text}'", "give numbers as 2,6")
    return tuple(map(int, words)) or None


def _clock(asked: str) -> str:
    if asked != "auto":
        return asked
    return "wall" if torch.cuda.is_available() else "cpu"


@contextmanager
def _reporter() -> Iterator[OnStatus]:
    """A progress bar on a terminal; else one line per scene."""
    with share_progress() as bar:
        if bar is None:
            yield _report_lines
            return

        def report(status: Status) -> None:
            name = f"{status.case} ({status.index + 1}/{status.cases}) {status.what}"
            bar(name, status.share, eta_text(status.eta_s))

        yield report


def _report_lines(status: Status) -> None:
    if status.what == "begins":
        already = "" if status.is_new else ", measured before"
        eta = eta_text(status.eta_s)
        say(f"scene {status.index + 1} of {status.cases}: {status.case}{already}{f', {eta}' if eta else ''}")


def _table(summary: JSONObject) -> str:
    """One line per method, then the summary figures."""
    lines = ["| method | speed-up | loss of the worst metric | that metric |", "|---|---|---|---|"]
    for name, row in summary["methods"].items():
        lines.append(
            f"| {name} | {_ranged(row['speedup'], row['speedup_interval'], 1, 'x')} "
            f"| {_ranged(row['loss'], row['loss_interval'], 100, ' %')} | {row['worst_metric']} |"
        )
    for key, label in (("s_at_2pct", "S@2 %"), ("s_at_5pct", "S@5 %")):
        value = _ranged(summary[key], summary[f"{key}_interval"], 1, "x")
        lines.append(f"{label}: {value} by {summary[f'{key}_method']}")
    lines.append(f"hypervolume: {summary['hypervolume']:.3f}")
    return "\n".join(lines) + "\n"


def _ranged(value: float, ends: list[float] | None, factor: float | int, unit: str) -> str:
    text = f"{factor * value:.2f}{unit}"
    return text if ends is None else f"{text} ({factor * ends[0]:.2f} to {factor * ends[1]:.2f})"
