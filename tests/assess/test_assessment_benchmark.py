"""The benchmark of the assessment keeps its contract: tables, sheets, and one JSON object as the last line."""

import importlib.util
import json
import math
import sys
from pathlib import Path

import pytest
import torch

from sphinx_nvs.media import read_image

pytestmark = pytest.mark.skipif(
    not importlib.util.find_spec("flip_evaluator"),
    reason="flip-evaluator is not installed (pip install 'sphinx-nvs[eval]')",
)

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "assessment.py"


@pytest.fixture
def benchmark(monkeypatch):
    spec = importlib.util.spec_from_file_location("assessment_benchmark", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)
    spec.loader.exec_module(module)
    return module


def test_one_small_scene(benchmark, capsys, tmp_path):
    benchmark.main(["--data", "procedural:val:1", "--size", "64", "--save", str(tmp_path)])
    said = capsys.readouterr().out.splitlines()
    found = json.loads(said[-1])["procedural:val:1"]
    assert found["scenes"] == 1
    assert found["views"] == 6
    assert {"alpha", "confidence", "disagreement", "distance", "combination"} < set(found["auroc"])
    blurry, sharp = (found["where"][f"blur: {side}"]["cells_flip"][0] for side in ("blurry", "sharp"))
    assert math.isclose(blurry + sharp, 1, abs_tol=2e-3)
    assert found["where"]["combination"]["cells_rmse"][0] > 0.5
    assert -1 <= found["spearman"]["score"]["psnr"][0] <= 1
    assert 0 <= found["plan_mask"]["share_of_cells"][0] <= 1
    assert sum(line.startswith("| combination |") for line in said) == 1
    sheet = read_image(tmp_path / "procedural-val-000.png")
    assert sheet.shape[-1] > 64 * 10


def test_the_roc_area_worked_out(benchmark):
    bad = torch.tensor([True, True, False, False])
    assert benchmark._auroc(torch.tensor([4.0, 3.0, 2.0, 1.0]), bad) == 1
    assert benchmark._auroc(torch.tensor([4.0, 1.0, 2.0, 3.0]), bad) == 0.5
    assert benchmark._auroc(torch.ones(4), bad) == 0.5
    assert math.isnan(benchmark._auroc(torch.ones(4), torch.zeros(4, dtype=torch.bool)))
