"""A view's plan as a picture: one frame's preview, tinted where and from which step on it is refined."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sphinx_nvs import media
from sphinx_nvs.geometry.padding import cropped_cells
from sphinx_nvs.plan.compute_plan import ComputePlan
from sphinx_nvs.visualization.heatmap import plan_picture


def unit_of(plans: Sequence[dict[str, Any]], frame: int) -> dict[str, Any] | None:
    """The plan of the unit that makes a frame; the last one if several do; None while there is none."""
    return next((plan for plan in reversed(plans) if frame in plan["targets"]), None)


def draw_plan(plan_file: Path, preview: Path, place: int, multiple: int) -> bytes:
    """The picture as a PNG file.

    Args:
        plan_file: of a unit, as `ComputePlan.save` writes it.
        preview: PNG of the frame.
        place: of the frame among the unit's targets.
        multiple: pixels that the sides of computed frames are multiples of, see `geometry.padding`.

    Raises:
        InputError: a file cannot be read.
    """
    plan = ComputePlan.load(plan_file)
    frame = media.read_image(preview)
    height, width = frame.shape[-2:]
    cells = cropped_cells(plan.start_step[place], height, width, multiple)
    return media.png_bytes(plan_picture(frame, cells, plan.num_steps))
