"""Prices of requests from a profile's front and a cost model, before anything is computed."""

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sphinx_nvs.engine.device.startup_timing import REFERENCE, SPREAD_P95, measured_costs
from sphinx_nvs.engine.pricing import ProfilePricing, facts_of, front_of, units_of
from sphinx_nvs.engine.types.device_speed import Facts
from sphinx_nvs.engine.types.prices import Pricing
from sphinx_nvs.errors import InputError, SphinxError
from sphinx_nvs.plan import PAPER_PROFILE
from sphinx_nvs.plan.cost_model import QUANTITIES, VERSION, CostModel
from sphinx_nvs.plan.workload import Network
from sphinx_nvs.presets import load_preset
from sphinx_nvs.profiling import calibration

COSTS = CostModel(network=Network(config=None, factor=8), coefficients=REFERENCE, refining_p95=1.5, regressing_p95=1.25)
FRONT = ((0.0, 0.02, 0.05), (0.9, 0.1, 0.2), (0.95, 0.2, 0.3), (1.0, 1.0, 1.0))
FACTS = Facts(front=FRONT, num_steps=50, costs=json.loads(json.dumps(COSTS.to_json())))
SHAPE = {"height": 128, "width": 128}


@pytest.fixture(scope="module")
def pipeline():
    return load_preset(num_steps=8)


def test_a_short_path_costs_its_share_of_full_diffusion():
    pricing = ProfilePricing(48, FACTS)
    assert isinstance(pricing, Pricing)
    table = pricing.table(contexts=2, views=6, **SHAPE)
    full = COSTS.full_seconds(num_context=2, views=6, **SHAPE, num_steps=50)
    regression = COSTS.regression_seconds(num_context=2, views=6, **SHAPE)
    assert (table.regression_s, table.regression_p95_s) == (regression.median, regression.p95)
    assert [rung.quality for rung in table.rungs] == [0.0, 0.9, 0.95, 1.0]
    assert [rung.active_share for rung in table.rungs] == [0.02, 0.1, 0.2, 1.0]
    assert [rung.seconds for rung in table.rungs] == pytest.approx([s * full.median for s in (0.02, 0.1, 0.2, 1.0)])
    assert [rung.seconds_p95 for rung in table.rungs] == pytest.approx([s * full.p95 for s in (0.05, 0.2, 0.3, 1.0)])


def test_there_are_no_prices_before_a_device_reports_facts():
    pricing = ProfilePricing(48)
    with pytest.raises(SphinxError, match="no device is ready yet"):
        pricing.table(contexts=2, views=6, **SHAPE)
    pricing.learn(Facts())
    with pytest.raises(SphinxError, match="no device is ready yet"):
        pricing.table(contexts=2, views=6, **SHAPE)
    pricing.learn(FACTS)
    before = pricing.table(contexts=2, views=6, **SHAPE)
    pricing.learn(replace(FACTS, num_steps=100))
    assert pricing.table(contexts=2, views=6, **SHAPE).rungs[-1].seconds > 1.5 * before.rungs[-1].seconds


def test_a_table_says_how_much_memory_the_largest_unit_takes():
    """Of a long path, a part at a time: more frames of the same size take no more."""
    pricing = ProfilePricing(12, replace(FACTS, memory_bytes=8e9, bytes_per_pixel=400.0))
    short = pricing.table(contexts=2, views=6, **SHAPE)
    assert (short.memory_bytes, short.memory_limit) == (400 * 8 * 128 * 128, 8e9)
    long, longer = (pricing.table(contexts=2, views=views, **SHAPE) for views in (100, 900))
    assert short.memory_bytes < long.memory_bytes <= 400 * 12 * 128 * 128
    assert longer.memory_bytes <= 400 * 12 * 128 * 128
    unknown = ProfilePricing(12, FACTS).table(contexts=2, views=6, **SHAPE)
    assert unknown.memory_bytes < unknown.memory_limit


def test_damaged_facts_are_refused_when_they_come():
    pricing = ProfilePricing(48, FACTS)
    with pytest.raises(InputError, match="it is no cost model"):
        pricing.learn(replace(FACTS, costs={"version": VERSION}))
    assert pricing.table(contexts=2, views=6, **SHAPE).rungs


@given(
    contexts=st.integers(2, 12),
    views=st.integers(1, 300),
    side=st.sampled_from([64, 256]),
    window=st.integers(3, 48),
)
def test_tables_ascend_for_every_request(contexts, views, side, window):
    table = ProfilePricing(window, FACTS).table(contexts=contexts, views=views, height=side, width=side)
    for column in ("quality", "seconds", "seconds_p95", "active_share"):
        values = [getattr(rung, column) for rung in table.rungs]
        assert values == sorted(values)
    assert all(rung.seconds_p95 >= rung.seconds >= 0 for rung in table.rungs)
    assert 0 < table.regression_s <= table.regression_p95_s


@given(contexts=st.integers(2, 12), views=st.integers(1, 300), window=st.integers(3, 48))
def test_every_frame_is_in_a_unit(contexts, views, window):
    units = units_of(contexts, views, window)
    assert views <= sum(count * made for count, _, made in units) <= 2 * views + window
    assert all(min(unit) >= 1 for unit in units)
    if contexts + views <= window:
        assert units == [(1, contexts, views)]


def test_a_longer_path_never_costs_less():
    pricing = ProfilePricing(12, FACTS)
    seconds = [pricing.table(contexts=2, views=views, **SHAPE).rungs[1].seconds for views in (4, 10, 30, 100, 300)]
    assert seconds == sorted(seconds)
    assert seconds[-1] > 20 * seconds[0]


def test_a_fitted_profile_has_its_typical_savings(pipeline):
    front = front_of(pipeline)
    assert front[-1] == (1.0, 1.0, 1.0)
    assert [row[0] for row in front] == sorted({row[0] for row in front})
    # As many calls are a larger part of 8 steps than of 50, but what comes around them is no call.
    long = front_of(replace(pipeline, num_steps=pipeline.profile.num_steps))
    costs = pipeline.profile.costs
    more = costs.full(50) / costs.full(8)
    assert [row[1:] for row in front] == [(min(1, more * share), min(1, more * p95)) for _, share, p95 in long]
    least = long[0][1] * costs.full(50)
    assert costs.fixed <= least < costs.fixed + costs.decoding[0], "quality 0 is the probe, which decodes few views"
    assert front[0][1] == pytest.approx(least / costs.full(8))
    assert long == pipeline.profile.typical
    assert front_of(replace(pipeline, profile=replace(pipeline.profile, typical=()))) == (
        (0.0, 0.0, 0.0),
        (1.0, 1.0, 1.0),
    )


def test_a_profile_of_rules_is_evaluated(pipeline):
    front = front_of(replace(pipeline, profile=PAPER_PROFILE, num_steps=50))
    assert [row[0] for row in front] == [0.0, 0.8, 0.85, 0.9, 0.95, 0.98, 1.0]
    assert front[1][1] == 0.0
    assert 0.1 < front[4][1] < front[5][1] < 1
    assert all(p95 >= share for _, share, p95 in front)


def test_facts_of_a_pipeline_that_was_never_measured(pipeline):
    assert facts_of(pipeline).costs is None
    facts = facts_of(replace(pipeline, cost_model=COSTS))
    assert (facts.num_steps, CostModel.from_json(facts.costs)) == (8, COSTS)


def test_the_reference_is_a_cost_model():
    assert {kind: len(row) for kind, row in REFERENCE.items()} == {kind: len(row) for kind, row in QUANTITIES.items()}
    assert CostModel.from_json(json.loads(json.dumps(COSTS.to_json()))) == COSTS


def test_an_uncalibrated_machine_counts_as_a_slower_or_faster_one(pipeline, monkeypatch, tmp_path):
    monkeypatch.setenv("SPHINX_NVS_HOME", str(tmp_path))
    costs = measured_costs(pipeline)
    ratios = {
        kind: [made / known for made, known in zip(costs.coefficients[kind], REFERENCE[kind], strict=True) if known]
        for kind in REFERENCE
    }
    for kinds in (
        ("dense", "sparse", "open", "close", "reclose", "survey", "agree"),
        ("reconstruct", "render", "assess"),
    ):
        values = [ratio for kind in kinds for ratio in ratios[kind]]
        assert values == pytest.approx([values[0]] * len(values))
        assert 0.01 < values[0] < 1000
    assert costs.refining_p95 == costs.regressing_p95 == SPREAD_P95
    assert costs.measured_s > 0
    assert not any(tmp_path.iterdir())


def test_a_calibrated_machine_is_known(pipeline, monkeypatch, tmp_path):
    monkeypatch.setenv("SPHINX_NVS_HOME", str(tmp_path))
    path = calibration.cached_path(pipeline)
    path.parent.mkdir(parents=True)
    COSTS.save(path)
    assert measured_costs(pipeline) == COSTS


def test_calibration_can_be_requested(pipeline, monkeypatch, tmp_path):
    monkeypatch.setenv("SPHINX_NVS_HOME", str(tmp_path))
    monkeypatch.setattr(calibration, "calibrate", lambda pipeline, **options: COSTS)
    assert measured_costs(pipeline, calibrate=True) == COSTS
    assert calibration.cached_path(pipeline).is_file()
