"""The benchmark on captures keeps its contract: a table, then one JSON object as the last line."""

import importlib.util
import json
import sys
from pathlib import Path

import pytest

from sphinx_nvs.cli.main import main as sphinx_nvs
from sphinx_nvs.evaluation.registry import METRICS
from sphinx_nvs.models.embedded.denoiser import Nano

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "captures.py"


@pytest.fixture
def benchmark(monkeypatch, tmp_path):
    """The script's `main` on a folder with one tiny capture and an untrained denoiser."""
    words = [
        "scene",
        "make",
        "--kind",
        "room",
        "--views",
        "4",
        "--size",
        "64x64",
        "--out",
        tmp_path / "captures" / "room",
    ]
    assert sphinx_nvs([str(word) for word in words]) == 0
    monkeypatch.setenv("SPHINX_CAPTURES_DIR", str(tmp_path / "captures"))
    monkeypatch.setattr("sphinx_nvs.presets.load_nano", lambda: Nano().eval())
    spec = importlib.util.spec_from_file_location("captures_benchmark", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)
    spec.loader.exec_module(module)
    return module.main


def test_quick(benchmark, capsys, tmp_path):
    capsys.readouterr()
    assert benchmark(["--quick", "--steps", "2", "--short-side", "64", "--save", str(tmp_path / "save")]) == 0
    *table, last = capsys.readouterr().out.splitlines()
    result = json.loads(last)
    (row,) = result["rows"]
    assert (row["scene"], row["split"], row["targets"], row["size"]) == ("room", 2, 2, "64x64")
    assert 0 < row["support"] < 1
    assert list(row["scores"]) == ["nearest", "cross-fade", "regression", "sphinx", "diffusion"]
    assert (row["scores"]["regression"]["computed_share"], row["scores"]["diffusion"]["computed_share"]) == (0, 1)
    assert result["mean"]["sphinx"]["psnr_db"] == row["scores"]["sphinx"]["psnr_db"]
    for name, score in row["scores"].items():
        assert 0 <= score["speck_rate"] < 1, name
        assert score["reprojection_ratio"] > 0, name
        for metric in METRICS:
            if metric.name in ("lpips_alex", "dists"):
                assert (score[metric.name] is None) == (metric.missing() is not None), name
    assert result["mean"]["nearest"]["reprojection_ratio"] == row["scores"]["nearest"]["reprojection_ratio"]
    assert table[0].startswith("| capture | split | views | nearest | cross-fade | regression | sphinx | diffusion |")
    assert f"{row['scores']['sphinx']['psnr_db']:.2f}" in table[2]
    assert json.loads((tmp_path / "save" / "results.json").read_text()) == result
    assert (tmp_path / "save" / "room_2.png").is_file()


def test_unknown_method(benchmark, capsys):
    with pytest.raises(SystemExit) as leaving:
        benchmark(["--methods", "magic"])
    assert leaving.value.code == 2
    assert "choose one of regression, sphinx, diffusion" in capsys.readouterr().err
