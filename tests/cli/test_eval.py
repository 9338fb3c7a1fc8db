"""`sphinx-nvs eval` and `sphinx-nvs bench` as a user runs them."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

TINY = ("--size", "32", "--views", "2", "--seeds", "1", "--metrics", "rmse,psnr", "--methods", "regression,ours-0.95")
TIMES = ("wall_s", "cpu_s", "stages_s", "energy_j")


def test_an_evaluation_leaves_results_summary_and_report(run, tmp_path):
    out = tmp_path / "e"
    outcome = run("eval", "--data", "procedural:test:1", *TINY, "--out", out, "--json")
    assert outcome.code == 0, outcome.err
    summary = json.loads((out / "summary.json").read_text())
    assert outcome.json == {**summary, "out": str(out)}
    for name in ("s_at_2pct", "s_at_5pct", "hypervolume"):
        assert isinstance(summary[name], float)
    for row in summary["methods"].values():
        assert {"speedup", "loss"} <= set(row)
    assert list(summary["methods"]) == ["full-50", "regression", "ours-0.95"]
    assert summary["settings"]["preset"] == "embedded"
    assert {"results.csv", "report.html", "pareto.png", "settings.json"} <= {path.name for path in out.iterdir()}
    assert "scene 1 of 1: procedural-test-000" in outcome.err
    assert "| ours-0.95 |" in outcome.out
    again = run("eval", "--data", "procedural:test:1", *TINY, "--out", out)
    assert again.code == 0
    assert "procedural-test-000, measured before" in again.err
    assert json.loads((out / "summary.json").read_text()) == summary
    other = run("eval", "--data", "procedural:test:1", *TINY, "--repeats", "2", "--out", out)
    assert other.code == 2
    assert f"output {out}: it was started with other repeats" in other.err


def test_bench_prints_a_table_to_publish(run):
    outcome = run("bench", "--size", "32", "--methods", "regression,ours-0.95", "--repeats", "1", "--json")
    assert outcome.code == 0, outcome.err
    lines = outcome.out.splitlines()
    assert "6 frames of 32x32" in lines[0]
    assert [line.split(" | ")[0] for line in lines[4:7]] == ["| full-50", "| regression", "| ours-0.95"]
    assert outcome.json["methods"]["full-50"]["calls"] == 50
    assert len(outcome.json["methods"]["ours-0.95"]["wall_s"]) == 1


def test_deadlines_use_this_machines_cost_model(run, tmp_path, machine):
    # So slow a machine in the model that what this one really takes leaves every plan its time.
    uses = machine(dense_s=2.0)
    words = ("--size", "32", "--views", "1", "--seeds", "1", "--metrics", "rmse")
    methods = "deadline-0.5,deadline-0.001"
    outcome = run(
        "eval", "--data", "procedural:test:1", *words, "--methods", methods, "--out", tmp_path / "e", "--json"
    )
    assert outcome.code == 0, outcome.err
    assert uses == ["known"]
    rows = outcome.json["methods"]
    assert rows["deadline-0.001"]["calls"] == 0 < rows["deadline-0.5"]["calls"]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("--data", "procedural:test:1", "--methods", "magic"), "method: there is no 'magic'"),
        (("--data", "procedural:test"), "give procedural:SPLIT:N, e.g. procedural:test:50"),
        (("--data", "procedural:test:1", "--size", "big"), "--size: 'big'"),
        (("--data", "procedural:test:1", "--seeds", "0"), "--seeds: it is 0; give 1 or more"),
        (("--data", "procedural:test:1", "--views", "-1"), "--views: it is -1; give 1 or more"),
        (("--data", "procedural:test:1", "--splits", "two"), "--splits: 'two'; give numbers as 2,6"),
        (("--data", "procedural:test:1", "--metrics", "beauty"), "metric: there is no 'beauty'"),
        (("--data", "procedural:test:1", "--preset", "best"), "preset: there is no 'best'"),
    ],
)
def test_errors_are_one_sentence_and_leave_nothing(run, tmp_path, words, sentence):
    outcome = run("eval", *words, "--out", tmp_path / "e")
    assert outcome.code == 2
    assert sentence in outcome.err
    assert outcome.err.count("\n") == 1
    assert not (tmp_path / "e").exists()


def _start(out):
    command = [sys.executable, "-m", "sphinx_nvs.cli", "eval", "--data", "procedural:test:3", *TINY, "--out", str(out)]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def _cases(out):
    """Measurements without times."""
    cases = {}
    for path in sorted((out / "scenes").glob("*.json")):
        case = json.loads(path.read_text())
        case.pop("prepare")
        for run in (run for runs in case["methods"].values() for run in runs):
            for name in TIMES:
                run.pop(name)
        cases[path.name] = case
    return cases


@pytest.mark.slow
def test_a_killed_evaluation_continues_to_the_same_result(tmp_path):
    """SIGKILL after the first scene's file exists: that file is kept, and the result equals an uninterrupted run's."""
    assert _start(tmp_path / "whole").wait() == 0
    process = _start(tmp_path / "cut")
    deadline = time.monotonic() + 300
    while not list((tmp_path / "cut" / "scenes").glob("*.json")):
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    kept = {path: path.read_bytes() for path in (tmp_path / "cut" / "scenes").glob("*.json")}
    assert 1 <= len(kept) < 3
    assert _start(tmp_path / "cut").wait() == 0
    assert all(path.read_bytes() == data for path, data in kept.items())
    assert _cases(tmp_path / "cut") == _cases(tmp_path / "whole")
    assert len(_cases(tmp_path / "cut")) == 3
