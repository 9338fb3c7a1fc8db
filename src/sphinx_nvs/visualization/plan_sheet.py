"""A plan on one sheet, before it is run: where and when frames are refined, and what other qualities would cost.

Above, frames of the render with the start steps of their cells as tints (see `heatmap`). Below left, the schedule: the
share of cells that each network call computes, at its noise level. Below right, quality over seconds: every level that
can be requested, from the render to full diffusion, and the chosen plan.

Shapes: H W pixels of the frame, h w latent cells, V frames.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import ListedColormap, Normalize
from matplotlib.figure import Figure, SubFigure
from matplotlib.ticker import FuncFormatter, MaxNLocator
from torch import Tensor

from sphinx_nvs.plan import ComputePlan
from sphinx_nvs.visualization.heatmap import start_colours, tinted
from sphinx_nvs.visualization.level import Level

MOST_FRAMES = 12
_COLUMNS = 6
# Lower qualities are drawn at the lower border, with their value beside them.
_LEAST = 0.6

_DENSE, _SPARSE, _CHOSEN, _FRONT = "#2f6db3", "#9cc0e6", "#b4431f", "#333333"


def plan_sheet(
    renders: Sequence[Float[Tensor, "3 H W"]],
    plan: ComputePlan,
    levels: Sequence[Level],
    chosen: Level | None,
    title: str,
) -> Figure:
    """The sheet.

    Args:
        renders: one per frame of the plan, in [0, 1].
        plan: the plan to draw.
        levels: ascending in seconds; may be empty.
        chosen: prediction for the plan; None if unknown.
        title: a sentence.
    """
    shown = _spread(len(renders), MOST_FRAMES)
    rows = math.ceil(len(shown) / _COLUMNS)
    aspect = renders[0].shape[-2] / renders[0].shape[-1]
    pictures_in = rows * (11.0 / min(_COLUMNS, max(4, len(shown))) * aspect + 0.25) + 0.4
    figure = Figure(figsize=(11.5, pictures_in + 3.9), layout="constrained")
    figure.suptitle(title, fontsize=10)
    parts: Any = figure.subfigures(2, 1, height_ratios=[pictures_in, 3.5])
    above, below = parts
    _draw_frames(above, renders, plan, shown, rows)
    _draw_schedule(below.add_subplot(1, 2, 1), plan)
    _draw_front(below.add_subplot(1, 2, 2), levels, chosen)
    return figure


def _spread(count: int, most: int) -> list[int]:
    """At most `most` frame indices, evenly spaced."""
    if count <= most:
        return list(range(count))
    return [round(i * (count - 1) / (most - 1)) for i in range(most)]


def _draw_frames(
    figure: SubFigure, renders: Sequence[Tensor], plan: ComputePlan, shown: Sequence[int], rows: int
) -> None:
    """Heat maps over renders, and their legend."""
    columns = min(_COLUMNS, max(4, len(shown)))
    grid = figure.subplots(rows, columns, squeeze=False)
    for axes in grid.flat:
        axes.set_axis_off()
    for axes, index in zip(grid.flat, shown, strict=False):
        cells = plan.start_step[index]
        axes.imshow(tinted(renders[index].cpu(), cells, plan.num_steps))
        refined = float((cells < plan.num_steps).double().mean())
        axes.set_title(f"frame {index}: {refined:.0%} refined", fontsize=8)
    colours = ListedColormap(start_colours(np.linspace(0, 1, 256)))
    bar = figure.colorbar(
        ScalarMappable(Normalize(0, plan.num_steps), colours), ax=grid.ravel().tolist(), pad=0.01, fraction=0.02
    )
    bar.ax.yaxis.set_major_locator(MaxNLocator(integer=True))
    bar.ax.invert_yaxis()
    bar.set_label("start step (grey: render kept)", fontsize=8)
    bar.ax.tick_params(labelsize=8)


def _draw_schedule(axes: Axes, plan: ComputePlan) -> None:
    """Share of active cells at each call."""
    axes.set_title("schedule", fontsize=9)
    if plan.first_step == plan.num_steps or not plan.network:
        kept = plan.first_step == plan.num_steps
        outcome = "the render is kept" if kept else "decoded beside the photos"
        axes.text(0.5, 0.5, f"no network call:\n{outcome}", ha="center", va="center", transform=axes.transAxes)
        axes.set_axis_off()
        return
    steps = list(range(plan.first_step, plan.num_steps))
    dense = {plan.first_step, *plan.dense_steps}
    for kind, colour, of_kind in (
        ("dense call: every token", _DENSE, [s for s in steps if s in dense]),
        ("sparse call: active tokens", _SPARSE, [s for s in steps if s not in dense]),
    ):
        shares = [100 * float(plan.active(step).double().mean()) for step in of_kind]
        if of_kind:
            axes.bar(of_kind, shares, color=colour, width=0.8, label=kind)
    every = max(1, math.ceil(len(steps) / 10))
    ticks = steps[::every]
    axes.set_xticks(ticks, [f"{step}\n{float(plan.sigmas[step]):.3g}" for step in ticks], fontsize=8)
    axes.set_ylim(0, 105)
    axes.set_xlabel("step, and its noise level", fontsize=8)
    axes.set_ylabel("denoised cells, %", fontsize=8)
    axes.tick_params(axis="y", labelsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(fontsize=8, frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=2)


def _draw_front(axes: Axes, levels: Sequence[Level], chosen: Level | None) -> None:
    """Quality over seconds; a bar to the right ends at the 95th percentile."""
    axes.set_title("time by quality", fontsize=9)
    known = [level for level in levels if level.quality is not None]
    if not known:
        axes.text(0.5, 0.5, "no levels to choose from", ha="center", va="center", transform=axes.transAxes)
        axes.set_axis_off()
        return
    floor = max(_LEAST, min(level.quality or 0.0 for level in known)) - 0.05
    qualities = [max(floor, level.quality or 0.0) for level in known]
    axes.step([level.seconds for level in known], qualities, where="post", color=_FRONT, lw=1)
    for level, quality in zip(known, qualities, strict=True):
        axes.plot(level.seconds, quality, "v" if quality == floor else "o", ms=5, color=_FRONT, clip_on=False)
        axes.hlines(quality, level.seconds, level.seconds_p95, color=_FRONT, lw=0.8, alpha=0.6)
    for level, quality in ((known[0], qualities[0]), (known[-1], qualities[-1])):
        name = f"{level.name} ({level.quality:.2f})" if quality == floor else level.name
        axes.annotate(name, (level.seconds, quality), (6, 5), textcoords="offset points", fontsize=8)
    axes.set_ylim(floor, 1.02)
    if chosen is not None and chosen.quality is not None:
        axes.plot(chosen.seconds, max(floor, chosen.quality), "*", ms=13, color=_CHOSEN, label=chosen.name)
        axes.legend(fontsize=8, frameon=False, loc="lower right")
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda seconds, _: f"{seconds:g} s"))
    axes.set_xlabel("predicted seconds (bar: up to the 95th percentile)", fontsize=8)
    axes.set_ylabel("predicted quality", fontsize=8)
    axes.tick_params(labelsize=8)
    axes.spines[["top", "right"]].set_visible(False)
