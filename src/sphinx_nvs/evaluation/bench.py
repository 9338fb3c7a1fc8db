"""A speed benchmark of this machine that takes a few minutes: one scene, every method, a table to publish.

Stages 1 to 3 are part of every method's time. Frame quality is not measured: see `evaluate`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from sphinx_nvs.evaluation.datasets import Case, Size
from sphinx_nvs.evaluation.energy import EnergyMeter
from sphinx_nvs.evaluation.harness import EvalConfig, timed_preparation, timed_run, warm_up
from sphinx_nvs.evaluation.methods import FULL, methods_named
from sphinx_nvs.evaluation.run_evaluation import machine
from sphinx_nvs.json_types import JSONMapping, JSONObject
from sphinx_nvs.pipeline.pipeline import Pipeline
from sphinx_nvs.versions import versions

METHODS = ("regression", FULL, "full-14", "research", "ours-0.95")
"""Methods timed by default."""


def bench(
    pipeline: Pipeline,
    case: Case,
    *,
    methods: Sequence[str] = METHODS,
    size: Size,
    repeats: int = 3,
    on_method: Callable[[str], None] | None = None,
) -> JSONObject:
    """Times methods on one case.

    Args:
        pipeline: the pair.
        case: the case to render.
        methods: method names; full diffusion is added.
        size: size of the frames.
        repeats: runs of every method.
        on_method: called with each method's name before it runs.

    Raises:
        InputError: a method is unknown, or `repeats` is below 1.
    """
    config = EvalConfig(methods=tuple(methods), size=size, repeats=repeats, metrics=("rmse",))
    warm_up(pipeline, case, config)
    loaded, meter = case.load(size), EnergyMeter.open()
    preparations, prepared = timed_preparation(pipeline, loaded, repeats)
    said = {}
    for method in methods_named(config.methods):
        if on_method is not None:
            on_method(method.name)
        times, result = timed_run(pipeline, prepared, method, 0, repeats, meter)
        said[method.name] = {
            "about": method.about,
            **{f"{clock}_s": _with_preparation(times, preparations, f"{clock}_s") for clock in ("wall", "cpu")},
            "stages_s": {**preparations[-1]["stages_s"], **times["stages_s"]},
            "energy_j": times["energy_j"],
            "calls": len(result.steps),
            "dense_calls": sum(step.dense for step in result.steps),
        }
    return {
        "machine": machine(),
        "versions": versions(),
        "regressor": pipeline.regressor.name,
        "denoiser": pipeline.denoiser.name,
        "size": f"{loaded.targets.width}x{loaded.targets.height}",
        "contexts": len(loaded.scene.images),
        "targets": len(loaded.targets),
        "repeats": repeats,
        "energy": meter.missing,
        "methods": said,
    }


def _with_preparation(times: JSONMapping, preparations: Sequence[JSONMapping], key: str) -> list[float]:
    """A method's seconds, including stages 1 to 3."""
    before = float(np.median([run[key] for run in preparations]))
    return [before + seconds for seconds in times[key]]


def markdown(result: JSONMapping, clock: str) -> str:
    """The results as a Markdown table.

    Args:
        result: the result of `bench`.
        clock: `wall` or `cpu`.
    """
    key = f"{clock}_s"
    full = float(np.median(result["methods"][FULL][key]))
    lines = [
        f"{result['machine']}; sphinx-nvs {result['versions']['sphinx_nvs']}, torch {result['versions']['torch']}; "
        f"{result['denoiser']} after {result['regressor']}; {result['contexts']} context views, {result['targets']} "
        f"frames of {result['size']}; {clock} seconds of {result['repeats']} runs, stages in wall seconds",
        "",
        "| method | median | p95 | speed-up | a frame | calls (dense) | regression | refine | encode + decode |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name, row in result["methods"].items():
        median, stages = float(np.median(row[key])), row["stages_s"]
        before = stages.get("reconstruct", 0.0) + stages.get("render", 0.0)
        coding = stages.get("encode", 0.0) + stages.get("decode", 0.0)
        lines.append(
            f"| {name} | {median:.2f} s | {float(np.percentile(row[key], 95)):.2f} s | {full / median:.2f}x "
            f"| {1000 * median / result['targets']:.0f} ms | {row['calls']} ({row['dense_calls']}) "
            f"| {before:.2f} s | {stages.get('refine', 0.0):.2f} s | {coding:.2f} s |"
        )
    return "\n".join(lines)
