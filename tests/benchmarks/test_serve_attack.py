"""The attacks: what their program says, and its long form against real servers."""

import importlib.util
import json
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "serve_attack.py"


@pytest.fixture
def benchmark(monkeypatch):
    """The script."""
    spec = importlib.util.spec_from_file_location("serve_attack_benchmark", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)
    spec.loader.exec_module(module)
    return module


class NoServer:
    """Nothing to measure."""

    is_alive = False


def test_an_attack_that_breaks_something_or_ends_in_an_error_is_named(benchmark, monkeypatch, capsys):
    async def held(stage):
        return ""

    async def broke(stage):
        return "it went down"

    async def failed(stage):
        raise OSError("no answer")

    monkeypatch.setattr(benchmark, "ATTACKS", {"first": held, "second": broke, "third": failed})

    async def attacked(place, sockets):
        assert sockets == 300
        nothing = dict.fromkeys(("keys", "key_ids", "temporary", "http"))
        stage = benchmark.Stage(keyed=NoServer(), keyless=NoServer(), sockets=sockets, **nothing)
        return await benchmark.judged(stage)

    monkeypatch.setattr(benchmark, "attacked", attacked)
    assert benchmark.main(["--quick"]) == 1
    figures = json.loads(capsys.readouterr().out)
    assert (figures["attacks"], figures["held"], figures["broken"]) == (3, 1, ["second", "third"])
    monkeypatch.setattr(benchmark, "ATTACKS", {"first": held})
    assert benchmark.main(["--quick"]) == 0


@pytest.mark.slow
def test_a_real_server_holds_against_the_long_form(benchmark, tmp_path, monkeypatch, capsys):
    """With 1,003 sockets: a request with a key is answered within a second, probes within a tenth."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    assert (benchmark.NEWCOMER_S, benchmark.PROBE_S) == (1.0, 0.1)
    sockets = []
    stage = benchmark.Stage
    monkeypatch.setattr(benchmark, "Stage", lambda **fields: sockets.append(fields["sockets"]) or stage(**fields))
    code = benchmark.main([])
    out = capsys.readouterr()
    assert code == 0, out.err
    figures = json.loads(out.out)
    assert figures["broken"] == []
    assert figures["held"] == figures["attacks"] >= 17
    assert sockets == [1003]
    assert figures["peak_mib"] < 2500
