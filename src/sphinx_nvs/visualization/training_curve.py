"""The picture of a training run: loss, and what samples and estimates gain over the render where it did not see.

A run's `curve.jsonl` holds lines with a loss and lines of `validation.validate`, each with the update and the seconds
trained so far.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from sphinx_nvs.errors import InputError

Line = Mapping[str, float | int]

_SERIES = (
    ("one_step", "first estimate (a single call)", "#b4431f"),
    ("sample", "sample at temperature 1", "#2f6db3"),
)


def read_curve(folder: Path) -> list[Line]:
    """The lines of a run's curve.

    Args:
        folder: the run's folder, or the one in which its packets are collected (--home).

    Raises:
        InputError: there is no curve.
    """
    path = folder / "curve.jsonl"
    if not path.exists():
        raise InputError(f"run {folder}", "it holds no curve.jsonl", "name the folder given as --run or --home")
    return [json.loads(line) for line in path.read_text().splitlines()]


def curve_figure(lines: Sequence[Line], title: str = "") -> Figure:
    """Loss above, gains in unseen regions below (dB over the render); hours of training along both.

    Args:
        lines: lines from `read_curve`.
        title: what was trained, in a few words.

    Raises:
        InputError: nothing was validated.
    """
    validated = [line for line in lines if "render_unseen_db" in line]
    if not validated:
        raise InputError("curve", f"none of its {len(lines)} lines is a validation", "train until the first validation")
    figure = Figure(figsize=(7.2, 5.2), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True)
    losses = [line for line in lines if "loss" in line]
    above.plot([_hours(line) for line in losses], [line["loss"] for line in losses], color="#333333", lw=0.9)
    above.set_ylabel("loss")
    above.set_title(title, fontsize=10)
    for name, label, colour in _SERIES:
        _draw_gain(below, validated, name, label, colour)
    below.axhline(0, color="#333333", lw=0.8, ls=":")
    below.set_ylabel("dB over the render, unseen")
    below.set_xlabel("hours of training")
    below.legend(frameon=False, fontsize=8)
    for axes in (above, below):
        axes.spines[["top", "right"]].set_visible(False)
    return figure


def _draw_gain(axes: Axes, lines: Sequence[Line], name: str, label: str, colour: str) -> None:
    gains = [line[f"{name}_unseen_db"] - line["render_unseen_db"] for line in lines]
    axes.plot([_hours(line) for line in lines], gains, color=colour, marker="o", ms=3, lw=1.2, label=label)


def _hours(line: Line) -> float:
    return line["trained_s"] / 3600
