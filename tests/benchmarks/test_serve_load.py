"""The benchmark of serving keeps its contract: one JSON line on stdout, a table, a plot where asked for."""

import importlib.util
import json
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "serve_load.py"
KEYS = {"goodput_over_full", "goodput_over_best_fixed", "preview_p95_s", "slo_attainment", "predictor_mape"}


@pytest.fixture
def benchmark(monkeypatch):
    """The script, with a short sweep and a short queue."""
    spec = importlib.util.spec_from_file_location("serve_load_benchmark", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)
    spec.loader.exec_module(module)
    for name, value in {"SWEEP": (0.9,), "QUEUED": 40, "EVENTS": 10}.items():
        monkeypatch.setattr(module, name, value)
    return module


def test_quick_on_a_trace(benchmark, capsys, tmp_path):
    rows = [f"{0.2 * i},{4 + i % 5},128,128,,{1.5 + i % 4},0.8,key-{i % 2}" for i in range(30)]
    trace = tmp_path / "trace.csv"
    trace.write_text("\n".join(["at_s,views,height,width,quality,deadline_s,min_quality,key", *rows]) + "\n")
    words = ["--quick", "--devices", "1", "--trace", str(trace), "--out", str(tmp_path / "out" / "load")]
    assert benchmark.main(words) == 0
    printed = capsys.readouterr()
    (line,) = printed.out.splitlines()
    figures = json.loads(line)
    assert set(figures) >= KEYS
    assert figures["goodput_over_full"] > 1
    assert figures["load"]["requests"] == 30
    assert figures["best_fixed"] in figures["policies"]
    assert 0 < figures["decision_ms"]["p50"] < figures["decision_ms"]["quote_p50"] * 100
    assert "| adaptive |" in printed.err
    assert (tmp_path / "out" / "load.md").read_text().strip() == printed.err.strip()
    assert json.loads((tmp_path / "out" / "load.json").read_text()) == figures
    assert (tmp_path / "out" / "load.png").stat().st_size > 1000


def test_the_same_seed_prints_the_same_figures(benchmark):
    pricing = benchmark.read_prices(benchmark.PRICES)
    arrivals = benchmark.load(
        "burst", benchmark.standard_mix(pricing.view_s), devices=1, seconds=20, seed=3, period_s=10
    )
    figures = [
        benchmark.headline(
            {
                name: benchmark.summarise(run)
                for name, run in benchmark.compared(arrivals, pricing, 1, 3, sweep=(0.9,)).items()
            }
        )
        for _ in range(2)
    ]
    assert figures[0] == figures[1]
