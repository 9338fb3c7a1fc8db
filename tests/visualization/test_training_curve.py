import json

import pytest

from sphinx_nvs.errors import InputError
from sphinx_nvs.visualization.training_curve import curve_figure, read_curve

VALIDATION = {"render_unseen_db": 22.0, "sample_unseen_db": 20.5, "one_step_unseen_db": 22.5}
LINES = [
    {"step": 50, "trained_s": 900.0, "loss": 0.7},
    {"step": 60, "trained_s": 1800.0, **VALIDATION},
    {"step": 120, "trained_s": 3600.0, **VALIDATION, "one_step_unseen_db": 22.75},
]


def test_gains_are_over_the_render_by_hours(tmp_path):
    (tmp_path / "curve.jsonl").write_text("".join(json.dumps(line) + "\n" for line in LINES))
    above, below = curve_figure(read_curve(tmp_path), "nano").axes
    assert above.lines[0].get_xydata().tolist() == [[0.25, 0.7]]
    gains = {line.get_label(): line.get_xydata().tolist() for line in below.lines}
    assert gains["first estimate (a single call)"] == [[0.5, 0.5], [1.0, 0.75]]
    assert gains["sample at temperature 1"] == [[0.5, -1.5], [1.0, -1.5]]


def test_undrawable_input_is_an_error(tmp_path):
    with pytest.raises(InputError, match=r"holds no curve\.jsonl; name the folder given as --run or --home"):
        read_curve(tmp_path)
    with pytest.raises(InputError, match="none of its 1 lines is a validation; train until the first validation"):
        curve_figure(LINES[:1])
