"""The benchmark of SEVA's step: its stages and figures, on tiny networks."""

import importlib.util
import json
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "seva_step.py"

pytestmark = pytest.mark.skipif(
    not (importlib.util.find_spec("diffusers") and importlib.util.find_spec("transformers")),
    reason="diffusers and transformers are not installed (pip install 'sphinx-nvs[seva]')",
)


def test_seconds_and_peak_of_every_stage_are_reported(capsys, monkeypatch):
    spec = importlib.util.spec_from_file_location("seva_step", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)
    spec.loader.exec_module(module)
    module.main(["--networks", "tiny", "--frames", "4", "--size", "64", "--steps", "2", "--cache-gb", "1"])
    said = capsys.readouterr()
    found = json.loads(said.out)
    stages = ["build", "encode", "condition", "begin", "step 0", "step 1", "decode"]
    assert list(found["seconds"]) == list(found["peak_so_far_gb"]) == stages
    assert [line.split()[0] for line in said.err.splitlines()] == [name.split()[0] for name in ["stage", *stages]]
    assert found["finite"]
    assert 0.1 < found["peak_gb"] == max(found["peak_so_far_gb"].values())
    assert 10 < found["latents_std"] < 1000
