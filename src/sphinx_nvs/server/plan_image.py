"""A job's plan as an image: one frame's preview, tinted by the step at which refinement starts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from sphinx_nvs import media
from sphinx_nvs.geometry.padding import cropped_cells
from sphinx_nvs.json_types import JSONObject
from sphinx_nvs.plan.compute_plan import ComputePlan
from sphinx_nvs.visualization.heatmap import plan_picture


def plan_of_frame(plans: Sequence[JSONObject], frame: int) -> JSONObject | None:
    """Returns the plan of the last unit that makes a frame, None while there is none."""
    return next((plan for plan in reversed(plans) if frame in plan["targets"]), None)


def draw_plan(plan_file: Path, preview: Path, place: int, multiple: int) -> bytes:
    """Draws a plan as a PNG file.

    Args:
        plan_file: a unit's plan, as `ComputePlan.save` writes it.
        preview: PNG of the frame.
        place: index of the frame among the unit's targets.
        multiple: computed sides are multiples of this, pixels; see `geometry.padding`.

    Raises:
        InputError: a file cannot be read.
    """
    plan = ComputePlan.load(plan_file)
    frame = media.read_image(preview)
    height, width = frame.shape[-2:]
    cells = cropped_cells(plan.start_step[place], height, width, multiple)
    return media.png_bytes(plan_picture(frame, cells, plan.num_steps))
