"""The report of an evaluation as one self-contained HTML file: plot, tables, and images with a comparison slider.

It is a function of the cases' files and the settings: equal inputs give an equal report. What it says stands in
`visualization/templates/evaluation.html`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence

from sphinx_nvs.evaluation.methods import FULL
from sphinx_nvs.evaluation.regions import REGIONS, WHOLE
from sphinx_nvs.evaluation.registry import METRICS
from sphinx_nvs.json_types import JSONMapping, JSONObject
from sphinx_nvs.visualization.html_page import html_page, inline_svg
from sphinx_nvs.visualization.pareto_plot import pareto_figure

_LABELS = {each.name: each.label + (" ↑" if each.higher_is_better else " ↓") for each in METRICS}


def report_html(summary: JSONMapping, cases: Sequence[JSONMapping]) -> str:
    """The page.

    Args:
        summary: the contents of `summary.json`.
        cases: the harness's results, in the order of the summary.
    """
    title = f"{summary['settings'].get('preset', '')} on {', '.join(sorted({case['source'] for case in cases}))}"
    rows = summary["methods"].values()
    return html_page(
        "evaluation.html",
        title=title,
        summary=summary,
        full=FULL,
        plot=inline_svg(pareto_figure(summary, title)),
        regions=[
            (r, "Whole frames" if r == WHOLE else r, labels) for r in (WHOLE, *REGIONS) if (labels := _labels(rows, r))
        ],
        stages=list(dict.fromkeys(stage for row in rows for stage in row["stages_s"])),
        scenes=[(case, _pictures(case)) for case in cases],
        settings_json=json.dumps(summary["settings"], indent=1),
    )


def _labels(rows: Iterable[JSONMapping], region: str) -> dict[str, str]:
    """The metrics that were computed in a region, and their labels."""
    # A dict as an ordered set: metrics stay in the order in which they were computed.
    names = dict.fromkeys(name for row in rows for name in row["values"].get(region, {}))
    return {name: _LABELS.get(name, f"{name} ↓") for name in names}


def _pictures(case: JSONMapping) -> JSONObject:
    """Images of one view by name, the scores below them, and which one the slider shows on the right at first."""
    shown = {"truth": case["pictures"]["truth"], **case["pictures"]["methods"]}
    ours = [name for name in shown if name.startswith("ours")]
    # A preset's plan is what the report is about; without one, the last method.
    right = (ours or list(shown))[-1]
    shown |= {f"plan of {name}": data for name, data in case["pictures"]["plans"].items()}
    return {"shown": shown, "right": right, "scores": {name: _scores(case, name) for name in shown}}


def _scores(case: JSONMapping, name: str) -> str:
    """PSNR of the shown view, and LPIPS if it was computed."""
    runs, view = case["methods"].get(name), case["pictures"]["view"]
    if not runs:
        return ""
    views = runs[0]["views"]
    forms = {"psnr": "{:.1f} dB", "lpips_vgg": "LPIPS {:.3f}"}
    return ", ".join(form.format(views[metric][view]) for metric, form in forms.items() if metric in views)
