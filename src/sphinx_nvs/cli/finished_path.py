"""A path's units in the path's order, as `render` writes and reports them.

Frames are kept with 8 bits, as they are written: so a path of hundreds of frames fits memory.

Shapes: N frames of the path, V of a unit, H W pixels, h w latent cells.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from sphinx_nvs.evaluation.image_metrics import ViewMetrics
from sphinx_nvs.geometry import Cameras
from sphinx_nvs.geometry.padding import cropped_cells, cropped_frames
from sphinx_nvs.long_paths.long_path import FinishedUnit, Unit
from sphinx_nvs.media import float_from_uint8, uint8_from_float
from sphinx_nvs.plan import ComputePlan
from sphinx_nvs.refine import StepReport

Measure = Callable[[tuple[int, ...], Float[Tensor, "V 3 H W"]], list[ViewMetrics] | None]
"""From targets' numbers and their frames to metrics per view, where there is ground truth."""


@dataclass(frozen=True, kw_only=True)
class Assembly:
    """A finished path.

    Args:
        frames8: sRGB, 0..255, in the path's order, without padding.
        multiple: pixels that the sides of padded frames are multiples of; plans cover the padding.
        units: units in the order in which they were finished.
        plans: plan of each unit.
        steps: steps of all units, one after another.
        stages_s: seconds each stage took, over all units.
        quality: quality of each frame's render, see `Assessment`.
        measured: metrics of each frame, None without ground truth.
        full_steps: solver steps of full diffusion.
    """

    frames8: UInt8[Tensor, "N 3 H W"]
    multiple: int
    units: list[Unit]
    plans: list[ComputePlan]
    steps: list[StepReport]
    stages_s: dict[str, float]
    quality: list[float]
    measured: list[ViewMetrics] | None
    full_steps: int

    def __len__(self) -> int:
        return len(self.frames8)

    def frame(self, index: int) -> Float[Tensor, "3 H W"]:
        """One frame in [0, 1]."""
        return float_from_uint8(self.frames8[index])

    def frame_plan(self, index: int) -> tuple[Tensor, int]:
        """The start steps of a frame's cells, and how many steps its plan has."""
        unit, plan = next((u, p) for u, p in zip(self.units, self.plans, strict=True) if index in u.targets)
        cells = plan.start_step[unit.targets.index(index)]
        height, width = self.frames8.shape[-2:]
        return cropped_cells(cells, height, width, self.multiple), plan.num_steps

    @property
    def active_share(self) -> float:
        """Share of full diffusion's (cell, step) pairs that followed the solver, 0..1."""
        return sum(step.active_cells for step in self.steps) / self._full_cells

    @property
    def computed_share(self) -> float:
        """Share of full diffusion's (cell, step) pairs that the network computed, 0..1."""
        return sum(step.computed_cells for step in self.steps) / self._full_cells

    @property
    def _full_cells(self) -> int:
        return sum(plan.start_step.numel() for plan in self.plans) * self.full_steps


def assemble(finished: Iterable[FinishedUnit], targets: Cameras, multiple: int, measure: Measure) -> Assembly:
    """Consumes units as they are finished and keeps what is written and reported.

    Args:
        finished: all units of a path, in any order.
        targets: the path's cameras, without padding.
        multiple: pixels that the sides of the units' frames are multiples of.
        measure: called with each unit's frames before they are rounded to 8 bits.
    """
    num_frames, height, width = len(targets), targets.height, targets.width
    frames8 = torch.zeros(num_frames, 3, height, width, dtype=torch.uint8)
    units, plans, steps = [], [], []
    stages_s: dict[str, float] = {}
    quality = [0.0] * num_frames
    measured: dict[int, ViewMetrics] = {}
    full_steps = 0
    for made in finished:
        numbers, result = made.unit.targets, made.result
        frames = cropped_frames(made.frames, height, width).cpu()
        frames8[list(numbers)] = uint8_from_float(frames)
        # Not strict: without ground truth there is nothing to pair with the numbers.
        measured |= dict(zip(numbers, measure(numbers, frames) or (), strict=False))
        for target, score in zip(numbers, result.prepared.assessment.quality.tolist(), strict=True):
            quality[target] = score
        for stage, seconds in result.stages_s.items():
            stages_s[stage] = stages_s.get(stage, 0.0) + seconds
        units.append(made.unit)
        plans.append(result.plan)
        steps += result.steps
        full_steps = result.full_steps
    return Assembly(
        frames8=frames8,
        multiple=multiple,
        units=units,
        plans=plans,
        steps=steps,
        stages_s=stages_s,
        quality=quality,
        measured=[measured[i] for i in range(num_frames)] if measured else None,
        full_steps=full_steps,
    )
