"""The size of frames where none is named: the photos' own if that is quick enough here, else a smaller one.

Sizes are tried from the largest to the preset's own: `LARGEST_SIDE` pixels or the photos' short side, then `SIDES`. The
first whose predicted seconds are within the limit is taken. A machine that was never measured is taken for the
reference one, made slower or faster by one small request, whose result is cached.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from sphinx_nvs.cli.options.render_options import Request
from sphinx_nvs.engine.device.startup_timing import measured_costs
from sphinx_nvs.engine.pricing import ProfilePricing, facts_of
from sphinx_nvs.errors import InputError, OutputError
from sphinx_nvs.geometry.padding import padded_size
from sphinx_nvs.pipeline.pipeline import Pipeline
from sphinx_nvs.plan.cost_model import CostModel
from sphinx_nvs.presets import preset_named
from sphinx_nvs.profiling.calibration import cached_path
from sphinx_nvs.sampling_params import DEFAULT_QUALITY
from sphinx_nvs.scene import Capture

LARGEST_SIDE = 720
"""Short side of the largest frames, pixels."""

SIDES = (576, 480, 384, 320)
"""Short sides between that and the preset's."""

EVEN = 2
"""Sides are multiples of this, as videos need; what networks need is added inside and cut off again."""

MOST_S = 60.0
"""Predicted seconds that a request may take at its default size."""


MEASURABLE = "embedded"
"""The preset that one small request measures (`startup_timing.REFERENCE`); others need a calibration."""


@dataclass(frozen=True, kw_only=True)
class Shape:
    """What determines a request's seconds beside the size of its frames.

    Args:
        contexts: context views.
        views: target views.
        window: most views that the denoiser sees together.
    """

    contexts: int
    views: int
    window: int


def preset_size(capture: Capture, pipeline: Pipeline, preset: str) -> tuple[int, int]:
    """Height and width of the preset's own size in the photos' shape."""
    return capture.default_size(preset_named(preset).short_side, pipeline.denoiser.size_multiple)


def default_size(capture: Capture, pipeline: Pipeline, options: Request, shape: Shape) -> tuple[int, int, str]:
    """Chooses the size of a request's frames.

    Args:
        capture: the scene's source.
        pipeline: the models, with this machine's seconds where they are known.
        options: preset, method, quality and deadline.
        shape: see `Shape`.

    Returns:
        Height and width in pixels; and what was chosen and why, empty where there was nothing to choose.
    """
    usual, multiple = preset_named(options.preset).short_side, pipeline.denoiser.size_multiple
    own = min(LARGEST_SIDE, *(min(view.height, view.width) for view in capture.views))
    sides = [side for side in (own, *SIDES) if usual < side <= own]
    if not sides or (pipeline.cost_model is None and options.preset != MEASURABLE):
        return *preset_size(capture, pipeline, options.preset), ""
    pricing = ProfilePricing(shape.window, facts_of(_with_seconds(pipeline)))
    limit_s = min(MOST_S, options.deadline_s or MOST_S)
    sizes = [*(capture.default_size(side, EVEN) for side in sides), preset_size(capture, pipeline, options.preset)]
    tried = [_priced(*size, multiple, pricing, options, shape) for size in sizes]
    chosen = next((each for each in tried if each.seconds <= limit_s), tried[-1])
    return chosen.height, chosen.width, _note(tried, chosen)


class _Tried(NamedTuple):
    """Height and width in pixels, and predicted seconds."""

    height: int
    width: int
    seconds: float


def _priced(height: int, width: int, multiple: int, pricing: ProfilePricing, options: Request, shape: Shape) -> _Tried:
    """Frames of a size with their predicted seconds."""
    padded = padded_size(height, width, multiple)
    table = pricing.table(contexts=shape.contexts, views=shape.views, height=padded[0], width=padded[1])
    rung = {"regression": table.rungs[0], "diffusion": table.rungs[-1]}.get(options.method)
    rung = rung or table.at_least(DEFAULT_QUALITY if options.quality is None else options.quality)
    return _Tried(height, width, table.regression_s + rung.seconds)


def _note(tried: Sequence[_Tried], chosen: _Tried) -> str:
    """Says what was chosen."""
    taken = f"frames of {chosen.width}x{chosen.height}, some {chosen.seconds:.0f} s"
    if chosen != tried[0]:
        return f"{taken}: {tried[0].width}x{tried[0].height} would take some {tried[0].seconds:.0f} s, see --size"
    quick = tried[-1]
    return f"{taken}; with --size {quick.width}x{quick.height} some {quick.seconds:.0f} s"


def _with_seconds(pipeline: Pipeline) -> Pipeline:
    """The pipeline with this machine's seconds: from its calibration, an earlier small request, or one made now."""
    if pipeline.cost_model is not None:
        return pipeline
    path = _trial_path(pipeline)
    with contextlib.suppress(InputError):
        return replace(pipeline, cost_model=CostModel.load(path))
    model = measured_costs(pipeline)
    with contextlib.suppress(OutputError):
        model.save(path)
    return replace(pipeline, cost_model=model)


def _trial_path(pipeline: Pipeline) -> Path:
    """The cache file of what one small request measured."""
    path = cached_path(pipeline)
    return path.with_name(f"{path.stem}-trial.json")
