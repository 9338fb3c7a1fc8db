"""A complete evaluation: cases are measured one by one, then results, summary and report are computed from their files.

    scenes/CASE.json    measurements of a case; written once
    settings.json       what cases must share to be in one report
    results.csv         every figure, one a row
    summary.json        speed-ups, losses, S@2 %, S@5 %, hypervolume, with intervals
    pareto.png          the plot
    report.html         all of it for people, in one file

The last four are made from the first two alone.
"""

from __future__ import annotations

import json
import math
import os
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from sphinx_nvs import media
from sphinx_nvs.errors import SphinxError
from sphinx_nvs.evaluation.datasets import Case
from sphinx_nvs.evaluation.fidelity import set_distances
from sphinx_nvs.evaluation.harness import EvalConfig, case_path, open_folder, run_case, warm_up
from sphinx_nvs.evaluation.html_report import report_html
from sphinx_nvs.evaluation.optional import load_inception, why_missing
from sphinx_nvs.evaluation.registry import not_computed, notes_for
from sphinx_nvs.evaluation.result_rows import csv_text
from sphinx_nvs.evaluation.result_summary import remarks, summarise
from sphinx_nvs.json_types import JSONMapping, JSONObject
from sphinx_nvs.pipeline.pipeline import Pipeline
from sphinx_nvs.versions import versions
from sphinx_nvs.visualization.pareto_plot import pareto_figure, png_bytes


@dataclass(frozen=True, kw_only=True)
class Status:
    """Progress of an evaluation.

    Args:
        case: the current case.
        index: its number, from 0.
        cases: number of cases.
        what: current activity.
        share: completed share of the whole evaluation, 0..1.
        eta_s: estimated seconds left; NaN while unknown.
        is_new: whether the case is being measured; False if its file existed.
    """

    case: str
    index: int
    cases: int
    what: str
    share: float
    eta_s: float
    is_new: bool


OnStatus = Callable[[Status], None]


def evaluate(
    pipeline: Pipeline,
    cases: Sequence[Case],
    config: EvalConfig,
    folder: Path,
    *,
    clock: str,
    on_status: OnStatus | None = None,
) -> JSONObject:
    """Measures the missing cases, writes the folder's files, and returns the contents of `summary.json`.

    Args:
        pipeline: the pair.
        cases: the cases to measure.
        config: methods, metrics and repetitions.
        folder: a new folder, or one of an evaluation with the same settings.
        clock: clock of the speed-ups, `wall` or `cpu`.
        on_status: called on every progress update.

    Raises:
        OutputError: the folder has other contents, or cannot be written to.
        SphinxError: no case could be measured.
    """
    open_folder(folder, config.fingerprint())
    report_status = _StatusReporter(len(cases), on_status or (lambda status: None))
    measured: list[JSONObject] = []
    failed: dict[str, str] = {}
    is_warm = False
    for index, case in enumerate(cases):
        is_new = not case_path(folder, case).is_file()
        report_status.begin(case.name, index, is_new)
        try:
            # Only before the first measurement: a continued evaluation that measures nothing need not wait for it.
            if is_new and not is_warm:
                report_status("warm-up", 0, 1)
                warm_up(pipeline, case, config)
                is_warm = True
            measured.append(run_case(pipeline, case, config, folder, report_status))
        except SphinxError as error:
            failed[case.name] = str(error)
    if not measured:
        raise SphinxError(f"no scene could be measured; {next(iter(failed.items()))[1]}")
    return write_report(measured, failed, config, folder, clock)


def write_report(
    cases: Sequence[JSONMapping], failed: Mapping[str, str], config: EvalConfig, folder: Path, clock: str
) -> JSONObject:
    """Writes the files computed from measured cases; see the module docstring.

    Returns:
        The contents of `summary.json`.
    """
    summary = summarise(cases, clock)
    height, width = _size_of(cases[0])
    summary |= {
        "energy": next((case["energy"] for case in cases if case["energy"] is not None), None),
        "sets": set_distances(cases),
        "not_computed": _not_computed(config, cases),
        "notes": [*remarks(summary), *notes_for(height, width)],
        "failed": dict(failed),
        "settings": {**config.fingerprint(), "versions": versions(), "machine": machine()},
    }
    # Through text, so that the report is made of exactly what the file holds.
    text = json.dumps(finite(summary), indent=1, allow_nan=False) + "\n"
    summary = json.loads(text)
    title = f"{summary['settings'].get('preset', '')}, {summary['scenes']} scenes"
    media.write_bytes(folder / "results.csv", csv_text(cases).encode())
    media.write_bytes(folder / "summary.json", text.encode())
    media.write_bytes(folder / "pareto.png", png_bytes(pareto_figure(summary, title)))
    media.write_bytes(folder / "report.html", report_html(summary, cases).encode())
    return summary


def finite(value: object) -> object:
    """The same JSON values with None in place of non-finite numbers, which JSON cannot represent."""
    if isinstance(value, Mapping):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def machine() -> str:
    """A short description of the machine: the GPU if there is one, else cores and threads."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    return f"{platform.machine()}, {os.cpu_count()} CPU cores, {torch.get_num_threads()} threads"


def _not_computed(config: EvalConfig, cases: Sequence[JSONMapping]) -> dict[str, str]:
    """Metrics that could not be measured, with reasons."""
    lacking = not_computed(config.metrics)
    if config.metrics is None and not any(case.get("features") for case in cases):
        reason = why_missing(load_inception) or "no scene has features"
        lacking |= dict.fromkeys(("fid", "kid"), f"not computed: {reason}")
    return lacking


def _size_of(case: JSONMapping) -> tuple[int, int]:
    width, height = map(int, case["size"].split("x"))
    return height, width


class _StatusReporter:
    """Converts the harness's progress into `Status`, with an estimate from the cases measured so far."""

    def __init__(self, cases: int, on_status: OnStatus) -> None:
        self.cases, self.on_status = cases, on_status
        self.case, self.index, self.is_new = "", 0, False
        self.began = time.monotonic()
        self.spent, self.measured = 0.0, 0

    def begin(self, case: str, index: int, is_new: bool) -> None:
        """Starts the next case."""
        if self.is_new:
            self.spent += time.monotonic() - self.began
            self.measured += 1
        self.case, self.index, self.is_new, self.began = case, index, is_new, time.monotonic()
        self("begins", 0, 1)

    def __call__(self, what: str, done: int, total: int) -> None:
        """Implements `harness.Progress`."""
        of_case = done / max(total, 1)
        self.on_status(
            Status(
                case=self.case,
                index=self.index,
                cases=self.cases,
                what=what,
                share=(self.index + of_case) / self.cases,
                eta_s=self._eta(of_case),
                is_new=self.is_new,
            )
        )

    def _eta(self, of_case: float) -> float:
        """Seconds left if remaining cases take as long as measured ones; NaN before enough of the first is done."""
        here = time.monotonic() - self.began
        done = self.measured + of_case
        # The beginning of the first case, with its warm-up, predicts little.
        if done < 0.25:
            return math.nan
        return (self.spent + here) / done * (self.cases - self.index - of_case)
