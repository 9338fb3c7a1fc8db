"""`sphinx-nvs bench serve` as a user runs it, on simulated devices and on a fake server."""

import asyncio
from typing import get_args

import pytest

from sphinx_nvs.cli.options import bench_serve_options
from sphinx_nvs.load_testing import load_generator
from sphinx_nvs.load_testing.load_generator import NOTHING, Outcome
from sphinx_nvs.load_testing.simulation.arrivals import read_trace
from sphinx_nvs.load_testing.simulation.loads import PATTERNS

HEADER = "at_s,views,height,width,quality,deadline_s,min_quality,key"


@pytest.fixture
def trace(tmp_path):
    """Requests that full quality cannot serve in time."""
    path = tmp_path / "trace.csv"
    rows = [f"{0.3 * i},4,128,128,,{1.5 + i % 4},0.8,key-{i % 2}" for i in range(12)]
    path.write_text("\n".join([HEADER, *rows]) + "\n")
    return path


def test_a_simulated_server_is_compared(run, trace, tmp_path):
    saved = tmp_path / "saved.csv"
    outcome = run("bench", "serve", "--trace", trace, "--devices", "1", "--save-trace", saved, "--json")
    assert outcome.code == 0, outcome.err
    lines = outcome.out.splitlines()
    assert lines[0].startswith("| policy | goodput /s |")
    assert any(line.startswith("| adaptive | ") for line in lines)
    assert lines[-2].startswith("goodput over full quality ")
    figures = outcome.json
    assert figures["goodput_over_full"] > 1
    assert figures["goodput_over_best_fixed"] > 0.9
    assert (figures["requests"], figures["devices"]) == (12, 1)
    assert figures["best_fixed"] in figures["policies"]
    assert read_trace(saved) == read_trace(trace)


def test_pattern_choices_match_the_generator():
    assert get_args(bench_serve_options.Pattern) == tuple(PATTERNS)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("--real", "--url", "http://127.0.0.1:1"), "--url: it is given with --real"),
        (("--real", "--trace", "x.csv"), "--trace: it has no effect with --real"),
        (("--real", "--seconds", "9"), "--seconds: it has no effect with --real"),
        (("--real", "--save-trace", "x.csv"), "--save-trace: it has no effect with --real"),
        (("--trace", "x.csv", "--pattern", "step"), "--pattern: it has no effect with --trace"),
        (("--url", "http://127.0.0.1:1", "--devices", "2"), "--devices: it has no effect with --url; leave one of"),
        (("--url", "localhost:8000"), "--url: it is 'localhost:8000'; give the server's URL, e.g. http://"),
        (("--devices", "0"), "--devices: it is 0; give a number above 0"),
        (("--seconds", "-1"), "--seconds: it is -1; give a number above 0"),
        (("--trace", "nowhere.csv"), "nowhere.csv: it cannot be read"),
        (("--prices", "nowhere.json"), "nowhere.json: it cannot be read; give a JSON file as typical_prices.json"),
        (("--seconds", "0.001"), "--seconds: it yields no request"),
        (("--url", "http://127.0.0.1:1"), "it cannot be reached"),
    ],
)
def test_errors_are_sentences(run, words, sentence):
    outcome = run("bench", "serve", *words)
    assert outcome.code in (1, 2)
    assert sentence in outcome.err
    assert "Traceback" not in outcome.err


def test_requests_reach_a_running_server_at_their_times(monkeypatch, run, trace):
    """The sender itself is tested in tests/load_testing; this checks that the command uses it."""

    class Sender:
        problems = ("the disk is full (HTTP 507)", "the disk is full (HTTP 507)")

        def __init__(self, url, api_key, scene):
            assert (url, api_key, scene) == ("http://server", "secret", "room")

        async def __aenter__(self):
            return self

        async def __aexit__(self, *error):
            return None

        async def devices(self):
            return 1

        async def send(self, arrivals, wishes, *, until_s):
            await asyncio.sleep(0)
            assert wishes(arrivals[0])["min_quality"] == 0.8
            assert until_s == max(arrival.at_s + arrival.deadline_s for arrival in arrivals)
            outcomes = [
                Outcome(arrival=a, quote=NOTHING, accepted=True, preview_s=0.1, done_s=0.5 + i / 100)
                for i, a in enumerate(arrivals)
            ]
            for outcome in outcomes:
                outcome.qualities = [(0.9, 4)]
            return load_generator.Run(outcomes=outcomes, devices=1, end_s=5.0)

    monkeypatch.setattr(load_generator, "Sender", Sender)
    words = ("--url", "http://server", "--api-key", "secret", "--scene", "room", "--trace", trace, "--json")
    outcome = run("bench", "serve", *words)
    assert outcome.code == 0, outcome.err
    assert outcome.json["slo_attainment"] == 1.0
    assert outcome.json["quality"] == pytest.approx(0.9)
    assert "2 x the disk is full (HTTP 507)" in outcome.out
    assert "goodput over full" not in outcome.out


def test_a_server_that_accepts_nothing_is_an_error(monkeypatch, run, trace):
    class Sender:
        problems = ("there is no such scene (HTTP 404)",)

        def __init__(self, *given):
            pass

        async def __aenter__(self):
            return self

        async def __aexit__(self, *error):
            return None

        async def devices(self):
            return 1

        async def send(self, arrivals, wishes, *, until_s):
            outcomes = [Outcome(arrival=a, quote=NOTHING, accepted=False) for a in arrivals]
            return load_generator.Run(outcomes=outcomes, devices=1, end_s=1.0)

    monkeypatch.setattr(load_generator, "Sender", Sender)
    outcome = run("bench", "serve", "--url", "http://server", "--trace", trace)
    assert outcome.code == 1
    assert "the server accepted none of 12 requests: there is no such scene (HTTP 404)" in outcome.err
