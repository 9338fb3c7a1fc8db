"""The plot of an evaluation: speed-up to the right, loss downwards, full diffusion at (1, 0).

Grey bands end at losses of 2 % and 5 %; the steps join methods that no other beats in both; the dotted line is the
speed-up if a plan's network calls did only unavoidable work (FLOPs, see `plan.cost`).
"""

from __future__ import annotations

import io
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Annotation
from matplotlib.ticker import FuncFormatter
from matplotlib.transforms import Bbox

from sphinx_nvs.json_types import JSONMapping

# Losses above this many per cent are drawn at the lower border, with their value beside them.
_DEEPEST = 20.0

_NEAR = 12
# Offsets of a label from its point, nearest first; beyond `_NEAR` a line connects them.
_OFFSETS = tuple(sign * distance + shift for distance in range(5, 110, 11) for sign, shift in ((1, 0), (-1, -6)))

_OURS, _RIVAL, _BASE = "#b4431f", "#2f6db3", "#333333"


def pareto_figure(summary: JSONMapping, title: str = "") -> Figure:
    """The plot.

    Args:
        summary: the result of `result_summary.summarise`.
        title: short description of the measurement.
    """
    figure = Figure(figsize=(8.4, 4.9), layout="constrained")
    axes = figure.subplots()
    methods = summary["methods"]
    bottom = min(_DEEPEST, max(6.0, *(100 * row["loss"] for row in methods.values()))) + 1.5
    top = min(0.0, *(100 * _low(row) for row in methods.values()))
    for depth, shade in ((5, 0.05), (2, 0.07)):
        axes.axhspan(-100, depth, color="black", alpha=shade, lw=0)
        axes.text(0.995, depth, f"{depth} %", transform=axes.get_yaxis_transform(), ha="right", va="bottom", fontsize=8)
    _draw_front(axes, summary, bottom)
    labels = [_draw_point(axes, name, row, bottom) for name, row in _by_speed(methods)]
    _draw_ideal(axes, methods)
    fastest = max(row["speedup"] for row in methods.values())
    ideal = ideal_method(methods)
    if ideal is not None:
        fastest = max(fastest, methods[ideal]["ideal_speedup"])
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}x"))
    axes.set_xlim(0.85, 1.6 * max(2.0, fastest))
    axes.set_ylim(bottom, max(top, -15) - 1.5)
    axes.set_xlabel("speed-up over full diffusion (50 first-order steps)")
    axes.set_ylabel("loss of the worst metric, %")
    axes.set_title(title, fontsize=10)
    axes.spines[["top", "right"]].set_visible(False)
    _spread(axes, figure, labels)
    return figure


def _by_speed(methods: JSONMapping) -> list[tuple[str, JSONMapping]]:
    return sorted(methods.items(), key=lambda item: item[1]["speedup"])


def _spread(axes: Axes, figure: Figure, labels: Sequence[Annotation]) -> None:
    """Moves overlapping labels up or down to the nearest free position; a line connects each to its point."""
    # Label extents are known only after a layout pass.
    figure.draw_without_rendering()
    taken: list[Bbox] = []
    for label in labels:
        for offset in _OFFSETS:
            label.set_position((5, offset))
            place = label.get_window_extent()
            if not any(place.overlaps(other) for other in taken):
                break
        taken.append(place)
        if abs(offset) > _NEAR:
            line = {"arrowstyle": "-", "color": label.get_color(), "lw": 0.5, "shrinkA": 0, "shrinkB": 3}
            axes.annotate("", label.xy, (9, offset), textcoords="offset points", arrowprops=line)


def _low(row: JSONMapping) -> float:
    return row["loss_interval"][0] if row["loss_interval"] else row["loss"]


def _draw_front(axes: Axes, summary: JSONMapping, bottom: float) -> None:
    front = [summary["methods"][name] for name in summary["front"]]
    front = [row for row in front if row["speedup"] >= 1]
    losses = [min(100 * row["loss"], bottom) for row in front]
    axes.step([row["speedup"] for row in front], losses, where="pre", color="0.6", lw=1, zorder=1)


def _draw_point(axes: Axes, name: str, row: JSONMapping, bottom: float) -> Annotation:
    loss, is_deep = 100 * row["loss"], 100 * row["loss"] > bottom - 0.5
    colour = _OURS if name.startswith("ours") else _BASE if name == "full-50" else _RIVAL
    y = bottom - 0.4 if is_deep else loss
    if row["loss_interval"] and not is_deep:
        low, high = (100 * end for end in row["loss_interval"])
        axes.vlines(row["speedup"], low, min(high, bottom), color=colour, lw=1, alpha=0.7)
    if row["speedup_interval"] and not is_deep:
        axes.hlines(y, *row["speedup_interval"], color=colour, lw=1, alpha=0.7)
    axes.plot(row["speedup"], y, "v" if is_deep else "o", color=colour, ms=6, zorder=3)
    label = f"{name} ({loss:.0f} %)" if is_deep else name
    return axes.annotate(
        label,
        (row["speedup"], y),
        xytext=(5, _OFFSETS[0]),
        textcoords="offset points",
        fontsize=8,
        color=colour,
    )


def _draw_ideal(axes: Axes, methods: JSONMapping) -> None:
    """The vertical line at the ideal speed-up."""
    name = ideal_method(methods)
    if name is None:
        return
    ideal = methods[name]["ideal_speedup"]
    axes.axvline(ideal, color=_OURS, ls=":", lw=1)
    where = axes.get_xaxis_transform()
    axes.text(ideal, 0.02, f" ideal of {name}", transform=where, fontsize=8, color=_OURS, rotation=90, ha="left")


def ideal_method(methods: JSONMapping) -> str | None:
    """The method whose ideal speed-up is drawn: the preset's plan nearest to quality 0.95; None if there is none."""
    ours = [name for name, row in methods.items() if name.startswith("ours-") and row["ideal_speedup"]]
    return min(ours, key=lambda name: abs(float(name.removeprefix("ours-")) - 0.95), default=None)


def png_bytes(figure: Figure) -> bytes:
    """The figure as a PNG file, for documents."""
    data = io.BytesIO()
    figure.savefig(data, format="png", dpi=130)
    return data.getvalue()
