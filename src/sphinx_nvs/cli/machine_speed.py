"""This machine's cost model for a pipeline: measured on first use, with a note to the user, and cached."""

from __future__ import annotations

import contextlib
from dataclasses import replace

from sphinx_nvs.cli.progress import say, stage_progress
from sphinx_nvs.errors import InputError, OutputError
from sphinx_nvs.pipeline.pipeline import Pipeline
from sphinx_nvs.plan.cost_model import CostModel
from sphinx_nvs.profiling.calibration import NOTE, cached_path, calibrate, calibrated


def with_seconds(pipeline: Pipeline, *, again: bool = False, clock: str = "wall") -> Pipeline:
    """The pipeline with this machine's cost model, which is measured if it is not cached.

    Args:
        pipeline: the pair.
        again: whether to measure in any case, e.g. because the machine was busy the first time.
        clock: `wall` or `cpu`.

    Raises:
        InputError: the cached file is damaged.
    """
    with stage_progress() as report:
        progress = None if report is None else lambda what, done, total: report("calibrating", done, total)
        if not again:
            return replace(pipeline, cost_model=calibrated(pipeline, clock=clock, progress=progress, on_first_use=say))
        say(NOTE)
        model = calibrate(pipeline, clock=clock, progress=progress)
    with contextlib.suppress(OutputError):
        model.save(cached_path(pipeline, clock=clock))
    return replace(pipeline, cost_model=model)


def with_known_seconds(pipeline: Pipeline) -> Pipeline:
    """The pipeline with its cost model if this machine's is cached; never measures."""
    path = cached_path(pipeline)
    if path.is_file():
        with contextlib.suppress(InputError):
            return replace(pipeline, cost_model=CostModel.load(path))
    return pipeline
