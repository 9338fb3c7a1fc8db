"""All measurements as one long table, one figure per row: the contents of `results.csv`.

`kind` is `metric` (`region` is the region), `cost` or `time`; for repeated runs, `region` holds the repeat's number.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence

from sphinx_nvs.evaluation.regions import WHOLE
from sphinx_nvs.json_types import JSONMapping, JSONObject


def rows(cases: Sequence[JSONMapping]) -> list[JSONObject]:
    """The rows, each with the fields `COLUMNS`."""
    said = []
    for case in cases:
        for name, runs in case["methods"].items():
            for run in runs:
                said += [{"case": case["case"], "method": name, "seed": run["seed"], **row} for row in _rows_of(run)]
        for index, run in enumerate(case["prepare"]):
            said += [
                {"case": case["case"], "method": "", "seed": "", **row}
                for row in _time_rows(run["stages_s"], [run["wall_s"]], [run["cpu_s"]], index)
            ]
    return said


COLUMNS = ("case", "method", "seed", "kind", "region", "name", "value")


def _rows_of(run: JSONMapping) -> list[JSONObject]:
    said = [
        {"kind": "metric", "region": region, "name": name, "value": value}
        for region, values in run["metrics"].items()
        for name, value in values.items()
    ]
    for name in ("reprojection", "psnr_to_warm"):
        if run[name] is not None:
            said.append({"kind": "metric", "region": WHOLE, "name": name, "value": run[name]})
    for name in ("calls", "dense_calls", "computed_share", "active_share", "flops", "ideal_flops"):
        if run[name] is not None:
            said.append({"kind": "cost", "region": "", "name": name, "value": run[name]})
    said += [
        {"kind": "cost", "region": str(i), "name": "energy_j", "value": joules}
        for i, joules in enumerate(run["energy_j"])
        if joules is not None
    ]
    return said + _time_rows(run["stages_s"], run["wall_s"], run["cpu_s"], 0)


def _time_rows(
    stages: Mapping[str, float], wall: Sequence[float], cpu: Sequence[float], first: int
) -> list[JSONObject]:
    """Seconds; the region column holds the number of the repeat."""
    said = [{"kind": "time", "region": "", "name": f"{stage}_s", "value": seconds} for stage, seconds in stages.items()]
    for clock, values in (("wall", wall), ("cpu", cpu)):
        said += [
            {"kind": "time", "region": str(first + i), "name": f"{clock}_s", "value": value}
            for i, value in enumerate(values)
        ]
    return said


def csv_text(cases: Sequence[JSONMapping]) -> str:
    """The table as a CSV file with a header."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows(cases))
    return text.getvalue()
