"""The simulation: everything that is accepted ends, figures count what they say, patterns have the rates they claim."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scheduler_world import prices_of

from sphinx_nvs.engine.types.jobs import Quote, UnitKind
from sphinx_nvs.engine.types.prices import Pricing
from sphinx_nvs.errors import InputError, OutputError
from sphinx_nvs.load_testing.simulation.arrivals import (
    Arrival,
    Mix,
    Phase,
    RequestKind,
    bursts,
    diurnal,
    draw,
    read_trace,
    steady,
    times,
    write_trace,
)
from sphinx_nvs.load_testing.simulation.devices import Chance
from sphinx_nvs.load_testing.simulation.loads import PATTERNS, capacity_of, load, standard_mix
from sphinx_nvs.load_testing.simulation.policies import Fixed, Policy, WithoutQualityControl, adaptive
from sphinx_nvs.load_testing.simulation.run_summary import summarise
from sphinx_nvs.load_testing.simulation.simulate import Outcome, Run, simulate, split_units
from sphinx_nvs.load_testing.simulation.simulated_prices import Measured, read_prices

PRICES = Measured(measured=prices_of(8), views=8, pixels=64 * 64)
MIX = standard_mix(PRICES.view_s, size=(64, 64))
POLICIES = {
    "adaptive": adaptive,
    "without control": WithoutQualityControl,
    "full": lambda devices: Fixed(devices, 1.0),
    "fixed": lambda devices: Fixed(devices, 0.9, "edf"),
    "floor": lambda devices: Fixed(devices, "floor", "edf"),
    "reject": lambda devices: Fixed(devices, "asked", rejects=True),
}


def short_load(seed=0, seconds=40.0, pattern="burst"):
    """A burst for one device."""
    return load(pattern, MIX, devices=1, seconds=seconds, seed=seed, period_s=20.0)


@pytest.mark.parametrize("name", POLICIES)
@pytest.mark.parametrize("chance", [Chance(), Chance(crashes_per_hour=400.0, restart_s=1.0, speed=1.5)])
def test_everything_that_is_accepted_ends(name, chance):
    run = simulate(short_load(), POLICIES[name](1), PRICES, devices=1, seed=0, chance=chance)
    assert len(run.outcomes) > 12
    for outcome in run.outcomes:
        assert (outcome.done_s is not None) == outcome.accepted
        if outcome.done_s is not None:
            assert 0 <= outcome.preview_s <= outcome.done_s
            assert sum(views for _, views in outcome.qualities) == outcome.arrival.views
    assert run.queue[-1][1] == 0


@settings(deadline=None, max_examples=4)
@given(st.integers(0, 100))
def test_the_scheduler_never_goes_below_a_floor_and_delivers_more_in_time_than_others(seed):
    arrivals = short_load(seed)
    ours = summarise(simulate(arrivals, adaptive(1), PRICES, devices=1, seed=seed))
    full = summarise(simulate(arrivals, Fixed(1, 1.0), PRICES, devices=1, seed=seed))
    assert ours.below_floor == 0
    assert ours.goodput > full.goodput


def test_the_same_seed_gives_the_same_run():
    runs = [simulate(short_load(), adaptive(2), PRICES, devices=2, seed=seed) for seed in (0, 0, 1)]
    assert runs[0] == runs[1]
    assert runs[0] != runs[2]


def test_quality_comes_back_after_a_burst():
    """The scheduler gives the last request, long after the burst, the requested quality."""
    last = Arrival(at_s=400.0, views=4, height=64, width=64, quality=1.0, deadline_s=60.0, min_quality=0.5)
    run = simulate([*short_load(), last], adaptive(1), PRICES, devices=1, seed=0)
    assert any(outcome.degraded for outcome in run.outcomes[:-1])
    assert (run.outcomes[-1].quality, run.outcomes[-1].degraded) == (1.0, [])


def test_policies_are_driven_alike():
    assert all(isinstance(make(1), Policy) for make in POLICIES.values())
    assert isinstance(PRICES, Pricing)


def test_rejecting_policies_serve_accepted_requests_in_time():
    run = simulate(short_load(), Fixed(1, "asked", rejects=True), PRICES, devices=1, seed=0)
    taken = [outcome for outcome in run.outcomes if outcome.accepted]
    assert 0 < len(taken) < len(run.outcomes)
    assert np.mean([outcome.in_time for outcome in taken]) > 0.8


def test_a_long_path_is_split_into_anchors_and_chunks():
    rows = split_units("job", 20, 8)
    assert [row.kind for row in rows] == [UnitKind.REGRESSION, UnitKind.ANCHORS, UnitKind.CHUNK, UnitKind.CHUNK]
    assert sorted(view for row in rows[1:] for view in row.targets) == list(range(20))
    assert all(row.depends_on == (0, 1) for row in rows[2:])
    assert len(split_units("job", 8, 8)) == 2


def outcome_of(at, *, done=None, deadline=5.0, floor=0.9, quality=0.95, accepted=True):
    """The outcome of a request."""
    arrival = Arrival(
        at_s=at, views=2, height=64, width=64, quality=1.0, deadline_s=deadline, min_quality=floor, key="a"
    )
    quote = Quote(latency_s=4.0, latency_p95_s=6.0, wait_s=0.0, quality=0.95, active_share=0.1, reason="")
    outcome = Outcome(arrival=arrival, quote=quote, accepted=accepted, done_s=done)
    if done is not None:
        outcome.preview_s = 1.0
        outcome.qualities = [(quality, 2)]
    return outcome


def test_goodput_counts_what_came_in_time_and_above_its_floor():
    outcomes = [
        outcome_of(0.0, done=4.0),
        outcome_of(1.0, done=6.0),
        outcome_of(2.0, done=2.0, quality=0.85),
        outcome_of(5.0, accepted=False),
    ]
    figures = summarise(Run(outcomes=outcomes, devices=2, end_s=10.0, busy_s=5.0, planned=[(2.0, 1.0)]))
    assert figures.goodput == pytest.approx(1 / 10.0)
    assert figures.slo_attainment == 0.25
    assert figures.below_floor == pytest.approx(1 / 3)
    assert (figures.rejected, figures.degraded, figures.busy) == (0.25, 1.0, 0.25)
    assert figures.quote_mape == pytest.approx((0 + 2 / 6 + 2 / 2) / 3)
    assert figures.quote_p95_coverage == 1.0
    assert figures.service_mape == 0.5
    assert json.loads(json.dumps(figures.to_json()))["requests"] == 4


def test_an_empty_run_has_figures():
    assert summarise(Run(outcomes=[], devices=1)).goodput == 0.0


@pytest.mark.parametrize("cv", [0.5, 1.0, 3.0])
def test_gaps_have_the_requested_rate_and_burstiness(cv):
    sent = times(steady(5.0, 2000.0), np.random.default_rng(0), cv=cv)
    gaps = np.diff(sent)
    assert len(sent) == pytest.approx(10000, rel=0.1)
    assert gaps.std() / gaps.mean() == pytest.approx(cv, rel=0.1)
    assert sent == sorted(sent)


def test_rates_vary_as_configured():
    phases = bursts(1.0, 20.0, 100.0, 0.2, 1000.0)
    sent = np.array(times(phases, np.random.default_rng(0)))
    in_burst = (sent % 100) >= 80
    assert in_burst.sum() == pytest.approx(20 * 200, rel=0.1)
    assert (~in_burst).sum() == pytest.approx(800, rel=0.1)
    day = np.array(times(diurnal(10.0, 0.9, 1000.0, 1000.0), np.random.default_rng(0)))
    assert len(day) == pytest.approx(10000, rel=0.05)
    assert ((day > 400) & (day < 600)).sum() > 5 * ((day < 100) | (day > 900)).sum()


@pytest.mark.parametrize("pattern", PATTERNS)
def test_named_patterns_are_seeded(pattern):
    first, again, other = (short_load(seed, 100.0, pattern) for seed in (0, 0, 1))
    assert first == again != other
    assert len(first) > 0.5 * 100 * capacity_of(MIX, 1)
    assert all(0 <= arrival.at_s <= 100 for arrival in first)


def test_an_unknown_pattern_is_named():
    with pytest.raises(InputError, match="there is no 'tides'"):
        short_load(pattern="tides")


def test_a_deadline_is_in_multiples_of_full_quality():
    mix = Mix(kinds=(RequestKind(weight=1, tightness=2.0, quality=None, min_quality=0.5),), views=((6, 1),), view_s=0.5)
    (arrival,) = draw([1.0], mix, np.random.default_rng(0))
    assert (arrival.at_s, arrival.deadline_s, arrival.min_quality) == (1.0, 6.0, 0.5)


@pytest.mark.parametrize("cv", [0.0, -1.0, float("nan"), float("inf")])
def test_a_burstiness_that_cannot_be_is_refused(cv):
    with pytest.raises(InputError, match="cv"):
        times(steady(1.0, 1.0), np.random.default_rng(0), cv=cv)


def test_a_rate_that_cannot_be_is_refused():
    with pytest.raises(InputError, match="phases"):
        times([Phase(seconds=1.0, rate=-1.0)], np.random.default_rng(0))


def test_a_trace_comes_back_as_it_was_written(tmp_path):
    arrivals = short_load()
    write_trace(tmp_path / "trace.csv", arrivals)
    assert read_trace(tmp_path / "trace.csv") == arrivals


@pytest.mark.parametrize(
    "text",
    [
        "at_s,views\n1,2\n",
        "at_s,views,height,width\nsoon,2,64,64\n",
        "at_s,views,height,width\n-1,2,64,64\n",
        "at_s,views,height,width\n1,0,64,64\n",
        "at_s,views,height,width\n1,2\n",
    ],
)
def test_a_damaged_trace_is_refused_by_its_row(text, tmp_path):
    (tmp_path / "trace.csv").write_text(text)
    with pytest.raises(InputError, match="row 1 of"):
        read_trace(tmp_path / "trace.csv")


def test_files_that_are_not_there_are_named(tmp_path):
    with pytest.raises(InputError, match=r"missing\.csv"):
        read_trace(tmp_path / "missing.csv")
    with pytest.raises(OutputError, match=r"trace\.csv"):
        write_trace(tmp_path / "no folder" / "trace.csv", [])
    with pytest.raises(InputError, match=r"prices\.json"):
        read_prices(tmp_path / "prices.json")


def test_prices_grow_with_the_pixels(tmp_path):
    values = {"views": 4, "height": 64, "width": 64, "regression_s": 0.2, "regression_p95_s": 0.3, "full_s": 2.0}
    path = tmp_path / "prices.json"
    path.write_text(json.dumps({**values, "rungs": [[0.0, 0.1, 0.2], [1.0, 1.0, 1.1]]}))
    table = read_prices(path).table(contexts=2, views=8, height=64, width=128)
    assert (table.regression_s, table.rungs[0].seconds, table.rungs[1].seconds_p95) == pytest.approx((0.8, 0.8, 8.8))
    assert read_prices(path).view_s == pytest.approx(0.55)
