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
from html import escape
from importlib.resources import files

import numpy as np
import torch
from jaxtyping import Bool, Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from sphinx_nvs.evaluation import page
from sphinx_nvs.plan import ComputePlan, economised
from sphinx_nvs.plan.profile import FittedProfile
from sphinx_nvs.profiling.fitting import Choice, held_out_losses, partly_held
from sphinx_nvs.profiling.measuring import ProfileConfig, Record
from sphinx_nvs.visualization.pareto_plot import svg_text

_LOWEST = 0.5
"""Lower qualities are not drawn: they are rarely requested."""

_LEAST_LOSS = 1e-4
"""Smaller losses and signals are drawn at this value."""

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
    corrected = [profile.corrected(float(loss), partly=bool(p)) for loss, p in zip(losses, partly, strict=True)]
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
    return [plan.num_steps - plan.first_step for plan in plans]


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
    runs = held_out(profile, records, config)
    sections = (
        ("Loss by region", _losses_text(profile), losses_figure(profile, lever_calls(profile, sigmas))),
        ("Calibration", _calibration_text(profile), calibration_figure(runs)),
        ("Clusters and score bins", _shape_text(profile), choices_figure(choices, profile)),
        ("Compute by quality", _front_text(), front_figure(profile)),
    )
    body = "".join(
        f'<h2>{escape(title)}</h2><p>{escape(text)}</p><div class="plot">{svg_text(figure)}</div>'
        for title, text, figure in sections
    )
    title = f"Profile {profile.name} of the preset {profile.preset}"
    style = files(page).joinpath("report.css").read_text()
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{style}</style></head><body>"
        f"<h1>{escape(title)}</h1><p>{escape(_subtitle(profile))}</p>{_tiles(profile)}{body}</body></html>\n"
    )


def _subtitle(profile: FittedProfile) -> str:
    evidence = profile.evidence
    frames, height, width = evidence["size"]
    return (
        f"{evidence['scenes']} scenes of {', '.join(evidence['sources'])}; {evidence['runs']} runs of {frames} frames "
        f"of {height} x {width} cells; quality 1 is {_reference(profile)} in {profile.metric}, 0 a loss of "
        f"{profile.scale:.4g}; sphinx-nvs {evidence['version']}"
    )


def _reference(profile: FittedProfile) -> str:
    return "full diffusion's frames" if profile.against == "full" else "full diffusion's error against the photos"


def _tiles(profile: FittedProfile) -> str:
    error = profile.evidence["held_out"]
    if not error.get("runs"):
        return ""
    tiles = (
        (f"{error['mean']:+.4f}", "mean error on held-out scenes", "delivered minus predicted quality"),
        (f"{error['mean_absolute']:.4f}", "mean absolute error", f"{error['runs']} runs predicted at 0.8 or better"),
        (f"{error['share_below_by_0.03']:.1%}", "runs that fall short by 0.03", f"5th percentile {error['p05']:+.3f}"),
    )
    return (
        '<div class="tiles">'
        + "".join(
            f'<div class="tile"><span>{escape(label)}</span><b>{value}</b><span>{escape(note)}</span></div>'
            for value, label, note in tiles
        )
        + "</div>"
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


def _losses_text(profile: FittedProfile) -> str:
    return (
        "A cell's loss by its region signal, for every lever set, brighter for more calls; in red the loss of keeping "
        f"the render. 1 is {profile.scale:.4g} in {profile.metric}. Requests without kept cells; cells start from "
        "noise."
    )


def _calibration_text(profile: FittedProfile) -> str:
    error = profile.evidence["held_out"]
    if not error.get("runs"):
        return "No run was predicted at 0.8 or better."
    return (
        f"Each dot is a run on a scene that its prediction was not fitted to: mean error {error['mean']:+.4f}, mean "
        f"absolute error {error['mean_absolute']:.4f}. The grey band ends 0.03 below the prediction."
    )


def _shape_text(profile: FittedProfile) -> str:
    return (
        f"Chosen: {len(profile.clusters)} clusters, {len(profile.score_edges) + 1} bins of {profile.score}: the "
        "simplest shape whose error on held-out scenes is within 2 % of the least."
    )


def _front_text() -> str:
    return "The planner's choices for the scenes of this profile, by requested quality."
