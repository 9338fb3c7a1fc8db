"""The report of a profile: one self-contained HTML file with the fitted rules and their errors.

    losses        a cell's loss by region signal, for each lever set and for keeping the render
    calibration   predicted against delivered quality of runs on held-out scenes
    shape         error on held-out scenes, for every number of clusters and score bins that was tried
    front         compute needed for a quality, mean over scenes and 95th percentile

Shapes: K score bins, B signal bins, S start options, R runs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from sphinx_nvs.plan import ComputePlan, economised
from sphinx_nvs.plan.profile import FittedProfile
from sphinx_nvs.profiling.fitting import Choice, held_out_losses, partly_held
from sphinx_nvs.profiling.measuring import ProfileConfig, Record
from sphinx_nvs.visualization.html_page import html_page, inline_svg

# Lower qualities are not drawn: they are rarely requested.
_LOWEST = 0.5

# Smaller losses and signals are drawn at this value.
_LEAST_LOSS = 1e-4

_PARTLY, _WHOLE, _LINE = "#b4431f", "#2f6db3", "#555555"


@dataclass(frozen=True, kw_only=True, eq=False)
class HeldOut:
    """Runs on held-out scenes.

    Args:
        predicted: predicted quality.
        delivered: measured quality.
        partly: whether some cells are held and others refined.
    """

    predicted: Float[np.ndarray, "R"]
    delivered: Float[np.ndarray, "R"]
    partly: Bool[np.ndarray, "R"]


def held_out(profile: FittedProfile, records: Sequence[Record], config: ProfileConfig) -> HeldOut:
    """Every run's quality, predicted without its scene.

    Args:
        profile: a finished profile.
        records: the records it was fitted to.
        config: how they were measured.
    """
    pairs = held_out_losses(profile, records, config)
    partly = np.concatenate([partly_held(record, config) for record in records])
    losses = np.concatenate([predicted for predicted, _ in pairs])
    active = np.where(partly, 0.5, 1.0).tolist()
    corrected = [profile.corrected(float(loss), active=share) for loss, share in zip(losses, active, strict=True)]
    delivered = np.concatenate([delivered for _, delivered in pairs])
    return HeldOut(predicted=1 - np.array(corrected), delivered=1 - delivered, partly=partly)


def lever_calls(profile: FittedProfile, sigmas: Float[torch.Tensor, "L"]) -> list[int]:
    """Number of network calls that denoise a cell from noise, for each lever set.

    Args:
        profile: the profile with the lever sets.
        sigmas: the denoiser's grid.
    """
    whole = ComputePlan(start_step=torch.zeros(1, 1, 1, dtype=torch.long), sigmas=sigmas)
    plans = (economised(whole, levers) for levers in profile.levers)
    return [plan.num_steps - plan.first_step if plan.network else 0 for plan in plans]


def profile_report(
    profile: FittedProfile,
    choices: Sequence[Choice],
    records: Sequence[Record],
    config: ProfileConfig,
    sigmas: Float[torch.Tensor, "L"],
) -> str:
    """The page.

    Args:
        profile: a finished profile.
        choices: shapes that were tried.
        records: the records it was fitted to.
        config: how they were measured.
        sigmas: the denoiser's grid.
    """
    figures = {
        "losses": losses_figure(profile, lever_calls(profile, sigmas)),
        "calibration": calibration_figure(held_out(profile, records, config)),
        "choices": choices_figure(choices, profile),
        "front": front_figure(profile),
    }
    return html_page(
        "profile.html", profile=profile, figures={name: inline_svg(figure) for name, figure in figures.items()}
    )


def losses_figure(profile: FittedProfile, calls: Sequence[int]) -> Figure:
    """Losses over the region signal: one line per lever set, one panel per cluster and score bin."""
    rows, columns = len(profile.clusters), len(profile.score_edges) + 1
    figure = Figure(figsize=(max(6.5, 4.2 * columns), 3.6 * rows), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False, sharey=True)
    middles = np.maximum(_middles(profile.signal_edges), _LEAST_LOSS)
    order = np.argsort(calls, kind="stable")
    for index, cluster in enumerate(profile.clusters):
        for score in range(columns):
            axes = panels[index][score]
            for rank, lever in enumerate(order):
                shade = 0.15 + 0.8 * rank / max(1, len(order) - 1)
                loss = np.maximum(cluster.whole[lever][score, :, 0], _LEAST_LOSS)
                axes.plot(middles, loss, color=(0.1, 0.3 * shade, shade), lw=1.3, label=str(calls[lever]))
            kept = np.maximum(cluster.losses[0][score, :, -1], _LEAST_LOSS)
            axes.plot(middles, kept, color=_PARTLY, lw=1.6, label="kept")
            axes.set_yscale("log")
            axes.set_xscale("log")
            axes.set_title(f"cluster {index}" + (f", score bin {score}" if columns > 1 else ""), fontsize=9)
            _tidy(axes, f"region signal: {profile.signal}", "mean loss of a cell" if score == 0 else "")
    _plain_ticks(panels)
    panels[0][0].legend(title="network calls", fontsize=7, title_fontsize=7, frameon=False, ncols=2)
    return figure


def _plain_ticks(panels: np.ndarray) -> None:
    """Formats ticks as plain numbers."""
    for axes in panels.flat:
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_formatter(lambda value, _: f"{value:g}")


def _middles(edges: Sequence[float]) -> Float[np.ndarray, "B"]:
    """A position for each bin: between its borders, the outer bins at theirs."""
    borders = np.array([edges[0], *edges, edges[-1]]) if len(edges) else np.zeros(2)
    return (borders[:-1] + borders[1:]) / 2


def calibration_figure(runs: HeldOut) -> Figure:
    """Delivered over predicted quality of every run on a held-out scene."""
    figure = Figure(figsize=(6.5, 4.6), layout="constrained")
    axes = figure.subplots()
    shown = (runs.predicted >= _LOWEST) & (runs.delivered >= _LOWEST - 0.2)
    axes.plot([_LOWEST, 1], [_LOWEST, 1], color=_LINE, lw=1)
    axes.fill_between([_LOWEST, 1], [_LOWEST - 0.03, 0.97], [_LOWEST, 1], color=_LINE, alpha=0.12, lw=0)
    for name, colour, mask in (("some cells kept", _PARTLY, runs.partly), ("all or none kept", _WHOLE, ~runs.partly)):
        axes.plot(runs.predicted[mask & shown], runs.delivered[mask & shown], ".", ms=4, color=colour, label=name)
    axes.set_xlim(_LOWEST, 1.01)
    _tidy(axes, "predicted quality", "delivered quality")
    axes.legend(fontsize=8, frameon=False)
    return figure


def choices_figure(choices: Sequence[Choice], profile: FittedProfile) -> Figure:
    """Error on held-out scenes over the number of clusters: one line per score and number of bins."""
    figure = Figure(figsize=(6.5, 3.4), layout="constrained")
    axes = figure.subplots()
    colours = (_WHOLE, _LINE, "#7a9a3a", "#a06ab4", "#c9a227", "#4a7a9a")
    for place, (bins, score) in enumerate(sorted({(choice.score_bins, choice.score) for choice in choices})):
        alike = [choice for choice in choices if (choice.score_bins, choice.score) == (bins, score)]
        own = sorted((choice.clusters, choice.error) for choice in alike)
        label = "no score" if bins == 1 else f"{score} in {bins} bins"
        axes.plot(*zip(*own, strict=True), "o-", color=colours[place % len(colours)], lw=1, ms=4, label=label)
    taken = (len(profile.clusters), profile.score, len(profile.score_edges) + 1)
    error = next((c.error for c in choices if (c.clusters, c.score, c.score_bins) == taken), None)
    if error is not None:
        axes.plot(taken[0], error, "o", ms=13, mfc="none", color=_PARTLY, label="taken")
    axes.set_xticks(sorted({choice.clusters for choice in choices}))
    _tidy(axes, "clusters of scenes", "mean absolute error of quality")
    axes.legend(fontsize=8, frameon=False)
    return figure


def front_figure(profile: FittedProfile) -> Figure:
    """Share of full diffusion's compute over the requested quality."""
    figure = Figure(figsize=(6.5, 3.6), layout="constrained")
    axes = figure.subplots()
    rows = np.array([row for row in profile.typical if row[0] >= _LOWEST])
    axes.fill_between(rows[:, 0], 100 * rows[:, 1], 100 * rows[:, 2], color=_WHOLE, alpha=0.15, lw=0)
    axes.plot(rows[:, 0], 100 * rows[:, 1], "o-", ms=4, color=_WHOLE, label="mean over scenes")
    axes.plot(rows[:, 0], 100 * rows[:, 2], "--", lw=1, color=_WHOLE, label="95th percentile")
    axes.set_yscale("log", base=2)
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:g} %")
    _tidy(axes, "requested quality", "compute of full diffusion's")
    axes.legend(fontsize=8, frameon=False)
    return figure


def _tidy(axes: Axes, x: str, y: str) -> None:
    axes.set_xlabel(x, fontsize=8)
    axes.set_ylabel(y, fontsize=8)
    axes.tick_params(labelsize=8)
    axes.spines[["top", "right"]].set_visible(False)
