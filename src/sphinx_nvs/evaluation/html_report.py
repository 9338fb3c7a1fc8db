"""The report of an evaluation as one self-contained HTML file: plot, tables, and images with a comparison slider.

It is a function of the cases' files and the settings: equal inputs give an equal report.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from html import escape
from importlib.resources import files
from typing import Any

from sphinx_nvs.evaluation import page
from sphinx_nvs.evaluation.methods import FULL
from sphinx_nvs.evaluation.regions import REGIONS, WHOLE
from sphinx_nvs.evaluation.registry import METRICS
from sphinx_nvs.visualization.pareto_plot import pareto_figure, svg_text

_LABELS = {each.name: each.label + (" ↑" if each.higher_is_better else " ↓") for each in METRICS}
_DASH = "–"


def report_html(summary: Mapping[str, Any], cases: Sequence[Mapping[str, Any]]) -> str:
    """The page.

    Args:
        summary: the contents of `summary.json`.
        cases: the harness's results, in the order of the summary.
    """
    title = f"{summary['settings'].get('preset', '')} on {', '.join(sorted({case['source'] for case in cases}))}"
    sections = [
        ("front", "Speed and loss", _front(summary, title)),
        ("methods", "Methods", _methods(summary)),
        ("quality", "Quality", _quality(summary)),
        ("losses", "Losses against full diffusion", _losses(summary)),
        ("time", "Where the time goes", _stages(summary)),
        ("hard", "Easy and hard scenes", _difficulty(summary)),
        ("worst", "Worst scenes", _worst(summary)),
        ("scenes", "Scenes", "".join(_scene(case) for case in cases)),
        ("settings", "Settings", _settings(summary)),
    ]
    nav = "".join(f'<a href="#{name}">{escape(heading)}</a>' for name, heading, _ in sections)
    body = "".join(f'<h2 id="{name}">{escape(heading)}</h2>{content}' for name, heading, content in sections)
    style, script = (files(page).joinpath(name).read_text() for name in ("report.css", "report.js"))
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{style}</style></head><body>"
        f"<h1>{escape(title)}</h1><p>{_subtitle(summary)}</p><nav>{nav}</nav>{_tiles(summary)}{body}"
        f"<script>{script}</script></body></html>\n"
    )


def _subtitle(summary: Mapping[str, Any]) -> str:
    settings = summary["settings"]
    return escape(
        f"Scenes: {summary['scenes']}; seeds: {settings['seeds']}; times by the {summary['clock']} clock; "
        f"sphinx-nvs {settings['versions']['sphinx_nvs']} on {settings['machine']}"
    )


def _tiles(summary: Mapping[str, Any]) -> str:
    tiles = []
    for key, label in (("s_at_2pct", "S@2 %"), ("s_at_5pct", "S@5 %")):
        sure = summary[f"{key}_sure"]
        note = f"{summary[f'{key}_method']}; at the losses' upper bounds {sure['speedup']:.2f}x ({sure['method']})"
        tiles.append((f"{summary[key]:.2f}x", label, summary[f"{key}_interval"], note))
    tiles.append(
        (f"{summary['hypervolume']:.3f}", "hypervolume", summary["hypervolume_interval"], "1 is 16x at no loss")
    )
    return (
        '<div class="tiles">'
        + "".join(
            f'<div class="tile"><span>{label}</span><b>{value}</b>'
            f"<span>{_interval_text(ends)}<br>{escape(note)}</span></div>"
            for value, label, ends, note in tiles
        )
        + "</div>"
    )


def _interval_text(ends: Sequence[float] | None) -> str:
    return "no interval: fewer than 3 scenes" if ends is None else f"95 %: {ends[0]:.2f} to {ends[1]:.2f}"


def _front(summary: Mapping[str, Any], title: str) -> str:
    svg, whole = svg_text(pareto_figure(summary, title)), summary["whole_frames"]
    return (
        "<p>Loss is that of the worst metric over whole frames and every region, relative to full diffusion, against "
        "held-out photos. Bars are 95 % intervals from resampling scenes. Steps join the methods that none beats in "
        f"both. Over whole frames alone S@2 % is {whole['s_at_2pct']:.2f}x ({escape(whole['s_at_2pct_method'])}) and "
        f"S@5 % {whole['s_at_5pct']:.2f}x ({escape(whole['s_at_5pct_method'])}).</p>"
        f'<div class="plot">{svg}</div>'
    )


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table; cells are already HTML."""
    head = "".join(f"<th>{cell}</th>" for cell in header)
    body = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows)
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def _ranged(value: float | None, ends: Sequence[float] | None, form: str) -> str:
    """A figure with its interval in small type."""
    if value is None:
        return _DASH
    text = form.format(value)
    return text if ends is None else f"{text} <small>{form.format(ends[0])} to {form.format(ends[1])}</small>"


def _plain(value: float | None, form: str) -> str:
    return _DASH if value is None else form.format(value)


def _percent(value: float) -> str:
    return f"{100 * value:+.1f} %"


def _loss_cell(row: Mapping[str, Any]) -> str:
    ends = row["loss_interval"]
    text = _percent(row["loss"]) + (
        "" if ends is None else f" <small>{_percent(ends[0])} to {_percent(ends[1])}</small>"
    )
    return f'<span class="{"within" if row["loss"] <= 0.02 else "beyond"}">{text}</span>'


def _methods(summary: Mapping[str, Any]) -> str:
    header = (
        "method",
        "speed-up",
        "loss of the worst metric",
        "that metric",
        "scenes over 5 %",
        "seconds, median",
        "p95",
        "calls (dense)",
        "FLOPs saved",
        "eta_alg",
        "eta",
        "to warm start",
        "energy",
    )
    rows = []
    for name, row in summary["methods"].items():
        to_warm = row["psnr_to_warm"]["mean"]
        rows.append(
            (
                escape(name),
                _ranged(row["speedup"], row["speedup_interval"], "{:.2f}x"),
                _loss_cell(row),
                escape(row["worst_metric"] or _DASH) if name != FULL else _DASH,
                f"{row['scenes_over_5pct']:.0%}",
                f"{row['seconds']['median']:.2f}",
                f"{row['seconds']['p95']:.2f}",
                f"{row['calls']:.0f} ({row['dense_calls']:.0f})",
                _plain(row["flops_ratio"], "{:.2f}x"),
                _plain(row["eta_alg"], "{:.2f}"),
                _plain(row["eta"], "{:.2f}"),
                _plain(to_warm, "{:.1f} dB"),
                _plain(row["energy_j"], "{:.1f} J"),
            )
        )
    energy = "" if summary["energy"] is None else f" Energy: {escape(summary['energy'])}."
    note = (
        "<p>eta_alg: least FLOPs that the plan's steps and masks allow, over those that it took. eta: measured over "
        f"ideal speed-up. To warm start: PSNR against the dense warm start from the same noise.{energy}</p>"
    )
    return note + _table(header, rows)


def _quality(summary: Mapping[str, Any]) -> str:
    """Means over scenes, one table per region."""
    parts = []
    for region in (WHOLE, *REGIONS):
        names = list(dict.fromkeys(m for row in summary["methods"].values() for m in row["values"].get(region, {})))
        if not names:
            continue
        rows = []
        for method, row in summary["methods"].items():
            values = (row["values"].get(region, {}).get(name, {}).get("mean") for name in names)
            digits = ("{:.2f}" if name == "psnr" else "{:.4f}" for name in names)
            rows.append((escape(method), *(_plain(value, form) for value, form in zip(values, digits, strict=True))))
        if region == WHOLE:
            names, rows = [*names, "reprojection"], _with_reprojection(rows, summary)
        header = ("method", *(escape(_LABELS.get(name, f"{name} ↓")) for name in names))
        parts.append(f"<h3>{'Whole frames' if region == WHOLE else region}</h3>{_table(header, rows)}")
    if summary["sets"]:
        parts.append(f"<h3>Sets of frames</h3>{_sets(summary)}")
    missing = "".join(f"<li>{escape(name)}: {escape(why)}</li>" for name, why in summary["not_computed"].items())
    notes = "".join(f"<li>{escape(note)}</li>" for note in summary["notes"])
    truth = summary["truth_reprojection"]["mean"]
    reference = "" if truth is None else f"<p>Reprojection error of the held-out photos themselves: {truth:.4f}.</p>"
    return "".join(parts) + reference + (f"<ul>{missing}{notes}</ul>" if missing or notes else "")


def _sets(summary: Mapping[str, Any]) -> str:
    """FID and KID of all frames."""
    rows = [
        (escape(name), _plain(row["fid"], "{:.2f}"), f"{row['kid']:.5f}", str(row["pictures"]))
        for name, row in summary["sets"].items()
    ]
    return _table(("method", "FID ↓", "KID ↓", "frames"), rows)


def _with_reprojection(rows: Sequence[Sequence[str]], summary: Mapping[str, Any]) -> list[tuple[str, ...]]:
    values = (row["reprojection"]["mean"] for row in summary["methods"].values())
    return [(*row, _plain(value, "{:.4f}")) for row, value in zip(rows, values, strict=True)]


def _losses(summary: Mapping[str, Any]) -> str:
    """Every counted loss with its interval, and the noise floor."""
    keys = list(next(iter(summary["methods"].values()))["losses"])
    header = ("method", *(escape(key) for key in keys))
    rows = []
    for name, row in summary["methods"].items():
        if name != FULL:
            rows.append((escape(name), *(_mean_cell(row["losses"][key]) for key in keys)))
    floor = summary["noise_floor"]
    if floor is not None:
        rows.append(("full-50, another seed", *(_mean_cell(floor[key]) for key in keys)))
        rows.append(
            (
                "typical of one scene",
                *(_plain(None if (t := floor[key]["typical"]) is None else 100 * t, "{:.1f} %") for key in keys),
            )
        )
    return "<p>Means over scenes; positive is worse than full diffusion.</p>" + _table(header, rows)


def _mean_cell(mean: Mapping[str, Any]) -> str:
    if mean["mean"] is None:
        return _DASH
    text = _percent(mean["mean"])
    return text if mean["low"] is None else f"{text} <small>{_percent(mean['low'])} to {_percent(mean['high'])}</small>"


def _stages(summary: Mapping[str, Any]) -> str:
    stages = list(dict.fromkeys(s for row in summary["methods"].values() for s in row["stages_s"]))
    rows = [
        (escape(name), *(_plain(row["stages_s"].get(stage), "{:.3f}") for stage in stages))
        for name, row in summary["methods"].items()
    ]
    return "<p>Wall seconds, medians.</p>" + _table(("method", *map(escape, stages)), rows)


def _difficulty(summary: Mapping[str, Any]) -> str:
    found = summary["difficulty"]
    if found is None:
        return "<p>Fewer than 6 scenes: not split.</p>"
    halves = [half for half in ("easy", "hard") if half in found]
    header = (
        "method",
        *(f"{half} ({found[half]['scenes']}): {what}" for half in halves for what in ("speed-up", "loss")),
    )
    rows = [
        (
            escape(name),
            *(
                text
                for half in halves
                for row in (found[half]["methods"][name],)
                for text in (f"{row['speedup']:.2f}x", _percent(row["loss"]))
            ),
        )
        for name in summary["methods"]
    ]
    border = f"Easy: targets at most {found['border']:.3f} median depths from the nearest photo, on average."
    return f"<p>{border}</p>" + _table(header, rows)


def _worst(summary: Mapping[str, Any]) -> str:
    rows = [
        (
            escape(name),
            f'<a href="#{escape(row["case"])}">{escape(row["case"])}</a>',
            _percent(row["loss"]),
            escape(row["metric"]),
        )
        for name, ranked in summary["worst_scenes"].items()
        for row in ranked
    ]
    return _table(("method", "scene", "loss", "of"), rows)


def _scene(case: Mapping[str, Any]) -> str:
    """Thumbnails of one view, and the slider between any two of them."""
    shown = {"truth": case["pictures"]["truth"], **case["pictures"]["methods"]}
    shown |= {f"plan of {name}": data for name, data in case["pictures"]["plans"].items()}
    view = case["pictures"]["view"]
    figures = "".join(
        f'<figure><img data-name="{escape(name)}" alt="{escape(name)}" src="data:image/jpeg;base64,{data}">'
        f"<figcaption>{escape(name)}{_view_scores(case, name, view)}</figcaption></figure>"
        for name, data in shown.items()
    )
    return (
        f'<section class="scene" id="{escape(case["case"])}"><h3>{escape(case["case"])}</h3>'
        f"<p>{case['contexts']} context views, {case['targets']} targets at {case['size']}; "
        f"{case['shares']['unseen']:.0%} unseen, {case['shares']['masked']:.0%} masked; target {view} is shown.</p>"
        '<div class="pictures"><div>'
        '<div class="wipe"><img alt=""><img class="left" alt=""><div class="bar"></div></div>'
        '<input type="range" min="0" max="100" value="50" aria-label="wipe">'
        f'<div class="names">{_select(shown, FULL, "left")}{_select(shown, _initial_right(shown), "right")}</div></div>'
        f'<div class="multiples">{figures}</div></div></section>'
    )


def _initial_right(shown: Mapping[str, str]) -> str:
    """The initial image on the right: a plan of the preset, else the last method."""
    ours = [name for name in shown if name.startswith("ours")]
    return ours[-1] if ours else next(reversed([name for name in shown if not name.startswith("plan of")]))


def _select(names: Mapping[str, str], chosen: str, label: str) -> str:
    options = "".join(f"<option{' selected' if n == chosen else ''}>{escape(n)}</option>" for n in names)
    return f'<select aria-label="{label} picture">{options}</select>'


def _view_scores(case: Mapping[str, Any], name: str, view: int) -> str:
    """PSNR of the shown view, and LPIPS if it was computed."""
    runs = case["methods"].get(name)
    if not runs:
        return ""
    views = runs[0]["views"]
    parts = [f"{views['psnr'][view]:.1f} dB"] if "psnr" in views else []
    parts += [f"LPIPS {views[m][view]:.3f}" for m in ("lpips_vgg",) if m in views]
    return f"<br>{', '.join(parts)}" if parts else ""


def _settings(summary: Mapping[str, Any]) -> str:
    failed = "".join(f"<li>{escape(name)}: {escape(why)}</li>" for name, why in summary["failed"].items())
    said = json.dumps(summary["settings"], indent=1)
    return (f"<p>Scenes that failed:</p><ul>{failed}</ul>" if failed else "") + f"<pre>{escape(said)}</pre>"
