"""The cost model's arithmetic, on machines whose law is made up."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sphinx_nvs.diffusion.sigmas import karras_grid
from sphinx_nvs.errors import InputError
from sphinx_nvs.models.embedded.denoiser import NANO
from sphinx_nvs.plan import ComputePlan
from sphinx_nvs.plan.cost_model import (
    NOISE_FLOOR,
    QUANTITIES,
    REFINING,
    CostModel,
    Measured,
    Seconds,
    agreement_row,
    fit,
    fitted_law,
    refined_views,
    refining_rows,
    regression_rows,
)
from sphinx_nvs.plan.workload import Network, plan_calls

NETWORK = Network(config=NANO, factor=8)
SIGMAS = karras_grid(6, sigma_min=0.01, sigma_max=10.0)
TRUE = {
    "dense": (0.02, 0.01, 0.03, 0.007),
    "sparse": (0.015, 0.02, 0.04, 0.002, 0.03, 0.01),
    "open": (0.004, 0.003, 0.06, 0.05),
    "close": (0.002, 1.2, 0.4),
    "reclose": (0.001, 0.5, 0.3),
    "survey": (0.0015, 0.8, 0.35),
    "agree": (0.0005, 0.2),
    "reconstruct": (0.1, 9.0),
    "render": (0.02, 0.3, 0.1),
    "assess": (0.001, 0.06, 0.01),
}
"""Seconds per quantity of a made-up machine."""


def model(**changes):
    values = {
        "network": NETWORK,
        "coefficients": TRUE,
        "refining_p95": 1.2,
        "regressing_p95": 1.5,
        "machine": "made up",
    }
    return CostModel(**{**values, **changes})


def plan_of(start_step, dense_steps=(2,), **settings):
    return ComputePlan(start_step=start_step, sigmas=SIGMAS, dense_steps=dense_steps, **settings)


def random_map(seed, views=3, height=8, width=8):
    generator = torch.Generator().manual_seed(seed)
    start = torch.randint(0, 7, (views, height, width), generator=generator)
    start.view(views, -1)[0, :6] = torch.arange(6)
    return start


def timed(seed, noise=0.0):
    """A request as the made-up machine would take it."""
    rng = np.random.default_rng(seed)
    views, side, contexts = int(rng.integers(2, 9)), int(rng.integers(6, 33)), int(rng.integers(2, 5))
    # Cells start at few steps, so that sparse calls find new sets and old ones.
    start = random_map(seed, views, side, side)
    start = torch.where(start < 6, start // 3 * 3, 6)
    plan = plan_of(start, tuple(rng.choice(6, 2, replace=False).tolist()))
    calls, pixels = plan_calls(plan, NETWORK, contexts), 64 * side**2
    around = refining_rows(contexts, views, pixels)
    work = {
        **around,
        "reclose": around["close"],
        "survey": around["close"],
        "agree": agreement_row(views, pixels),
        **regression_rows(contexts, views, pixels),
        "dense": calls.dense,
        "sparse": calls.sparse,
    }
    seconds = {kind: rows @ np.array(TRUE[kind]) * (1 + noise * rng.standard_normal()) for kind, rows in work.items()}
    return Measured(work=work, seconds=seconds)


def test_a_machine_whose_law_is_known_is_recovered():
    fitted = fit(NETWORK, [timed(seed) for seed in range(12)])
    for kind, coefficients in TRUE.items():
        assert fitted.coefficients[kind] == pytest.approx(coefficients, rel=1e-4)
    assert fitted.refining_p95 == fitted.regressing_p95 == 1 + NOISE_FLOOR


def test_a_burst_of_other_work_hardly_moves_the_law():
    requests = [timed(seed) for seed in range(16)]
    disturbed = {kind: seconds * 3 for kind, seconds in requests[3].seconds.items()}
    fitted = fit(NETWORK, [*requests[:3], Measured(work=requests[3].work, seconds=disturbed), *requests[4:]])
    plan = plan_of(random_map(99))
    calm = model().plan_seconds(plan, num_context=2).median
    assert fitted.plan_seconds(plan, num_context=2).median == pytest.approx(calm, rel=0.05)
    assert fitted.refining_p95 > 1.5


def test_the_95th_percentile_covers_requests_that_were_not_measured():
    fitted = fit(NETWORK, [timed(seed, noise=0.1) for seed in range(20)])
    ratios = []
    for seed in range(1000, 1200):
        request = timed(seed, noise=0.1)
        predicted = sum((request.work[kind] @ np.array(fitted.coefficients[kind])).sum() for kind in REFINING)
        ratios.append(request.total(REFINING) / predicted)
    assert np.mean(np.array(ratios) <= fitted.refining_p95) >= 0.93
    assert fitted.refining_p95 < 1.3


def test_noise_does_not_make_the_law_too_fast():
    rng = np.random.default_rng(0)
    rows = rng.uniform(0.5, 2, (400, 1))
    seconds = rows[:, 0] * (1 + 0.2 * rng.standard_normal(400))
    assert fitted_law(rows, seconds) == pytest.approx((1.0,), abs=0.03)


def test_rows_count_relatively():
    rows = np.array([[1.0, 0.001], [1.0, 1.0], [1.0, 1000.0]])
    seconds = rows @ np.array([0.002, 3.0]) * np.array([1.001, 0.999, 1.001])
    assert fitted_law(rows, seconds) == pytest.approx((0.002, 3.0), rel=0.01)


def test_a_plans_seconds_are_its_calls_and_what_is_around_them():
    plan = plan_of(random_map(0))
    calls = plan_calls(plan, NETWORK, 2)
    pixels = 3 * 64 * 64 / 1e6
    expected = (calls.dense @ np.array(TRUE["dense"])).sum() + (calls.sparse @ np.array(TRUE["sparse"])).sum()
    expected += 0.004 + 2 * 0.003 + 0.06 * pixels + 0.05 * pixels * 2 / 3 + 3 * 0.002 + 1.2 * pixels + 0.4 * 2 * pixels
    seconds = model().plan_seconds(plan, num_context=2)
    assert seconds.median == pytest.approx(expected)
    assert seconds.p95 == pytest.approx(1.2 * expected)


def test_keeping_the_render_takes_nothing():
    assert model().plan_seconds(plan_of(torch.full((2, 4, 4), 6)), num_context=2) == Seconds(median=0.0, p95=0.0)


def test_full_diffusion_is_the_plan_of_zeros():
    plan = plan_of(torch.zeros(3, 4, 6, dtype=torch.long), tuple(range(6)))
    full = model().full_seconds(num_context=2, views=3, height=32, width=48, num_steps=6)
    assert full.median == pytest.approx(model().plan_seconds(plan, num_context=2).median)
    assert full.p95 == pytest.approx(1.2 * full.median)


def test_stages_1_to_3():
    seconds = model().regression_seconds(num_context=3, views=5, height=100, width=200)
    expected = 0.1 + 9 * 0.06 + 0.02 + 0.3 * 0.1 + 0.1 * 0.3 + 0.001 + 0.06 * 0.1 + 0.01 * 0.06
    assert seconds.median == pytest.approx(expected)
    assert seconds.p95 == pytest.approx(1.5 * expected)
    known = model().regression_seconds(num_context=3, views=5, height=100, width=200, reconstructed=True)
    assert known.median == pytest.approx(expected - 0.1 - 9 * 0.06)


def test_a_first_call_made_before_planning_is_not_paid_twice():
    priced, zeros = model(), plan_of(torch.zeros(3, 4, 6, dtype=torch.long), tuple(range(6)))
    shape = {"num_context": 2, "views": 3, "height": 32, "width": 48}
    whole = priced.plan_seconds(zeros, num_context=2).median
    rest = priced.plan_seconds(zeros, num_context=2, called=True).median
    decoding = 3 * 0.001 + (0.5 * 3 + 0.3 * 6) * 32 * 48 / 1e6
    assert priced.probe_seconds(**shape).median + rest == pytest.approx(whole + decoding)
    later = plan_of(torch.full((3, 4, 6), 2))
    opening = 0.004 + 2 * 0.003 + (0.06 * 3 + 0.05 * 2) * 32 * 48 / 1e6
    spared = priced.plan_seconds(later, num_context=2).median - opening
    for probe in ({"called": True}, {"opened": True}):
        assert priced.plan_seconds(later, num_context=2, **probe).median == pytest.approx(spared)
    assert priced.probe_seconds(**shape, called=False).median == pytest.approx(opening)


def test_each_decoding_has_its_own_price():
    zeros = torch.zeros(3, 4, 6, dtype=torch.long)
    plan = ComputePlan(start_step=zeros, sigmas=SIGMAS[[0, -1]], network=False)
    mpixels = 32 * 48 / 1e6
    expected = {
        "survey": 3 * (0.0015 + (0.8 + 0.35 * 2) * mpixels),
        "search": 3 * (0.002 + (1.2 + 0.4 * 2) * mpixels),
    }
    for decoding, seconds in expected.items():
        made = model().plan_seconds(replace(plan, decoding=decoding), num_context=2, opened=True)
        assert made.median == pytest.approx(seconds)


def test_only_refined_views_are_decoded_and_not_those_that_the_probe_decoded():
    start = torch.zeros(3, 4, 6, dtype=torch.long)
    start[0], start[1, :2] = 1, 1
    plan = ComputePlan(start_step=start, sigmas=SIGMAS[[0, -1]], dense_steps=(0,))
    assert (refined_views(plan), refined_views(plan, called=True)) == (2, 1)
    assert refined_views(plan_of(torch.where(start > 0, 6, 0)), called=True) == 2
    more = model().plan_seconds(replace(plan, start_step=torch.zeros_like(start)), num_context=2).median
    spared = more - model().plan_seconds(plan, num_context=2).median
    assert spared == pytest.approx(0.002 + (1.2 + 0.4 * 2) * 32 * 48 / 1e6)


def test_frames_that_the_probe_decoded_are_brought_to_agree():
    probe = ComputePlan(start_step=torch.zeros(3, 4, 6, dtype=torch.long), sigmas=SIGMAS[[0, -1]], dense_steps=(0,))
    assert refined_views(probe, called=True) == 0
    agreeing = 3 * (0.0005 + 0.2 * 32 * 48 / 1e6)
    assert model().plan_seconds(probe, num_context=2, called=True).median == pytest.approx(agreeing)


def test_drift_may_make_every_call_dense():
    plan = plan_of(torch.where(torch.rand(6, 32, 32) < 0.02, 1, 6))
    drifting = replace(plan, refresh_drift=0.5)
    planned = model().plan_seconds(plan, num_context=2)
    unsure = model().plan_seconds(drifting, num_context=2)
    dense = model().plan_seconds(replace(plan, dense_steps=tuple(range(6))), num_context=2)
    assert unsure.median == planned.median
    assert unsure.p95 == pytest.approx(dense.p95)
    assert model().plan_seconds(drifting, num_context=2, dense_steps=(0, 2)) == planned


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_more_active_cells_are_never_cheaper(seed):
    start = random_map(seed)
    generator = torch.Generator().manual_seed(seed + 1)
    # Every start that the first plan has stays in use by the cells of the first row.
    joins = torch.rand(start.shape, generator=generator) < 0.3
    joins[0, 0] = False
    more = torch.where(joins, torch.minimum(start, random_map(seed + 2)), start)
    before, after = (model().plan_seconds(plan_of(each), num_context=2) for each in (start, more))
    assert after.median >= before.median * (1 - 1e-12)
    assert after.p95 >= before.p95 * (1 - 1e-12)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10**6), first=st.integers(0, 6), dense=st.sets(st.integers(0, 5)))
def test_a_plan_that_starts_later_never_costs_more(seed, first, dense):
    start = random_map(seed)
    seconds = [
        model().plan_seconds(plan_of(torch.where(start < 6, start.clamp_min(k), 6), tuple(dense)), num_context=2).median
        for k in (first, min(first + 1, 6))
    ]
    assert seconds[1] <= seconds[0] * (1 + 1e-12)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10**6), ratio=st.floats(1, 3))
def test_the_95th_percentile_is_never_below_the_median(seed, ratio):
    fitted = fit(NETWORK, [timed(seed + place, noise=0.05) for place in range(4)])
    for priced in (fitted, model(refining_p95=ratio)):
        seconds = priced.plan_seconds(plan_of(random_map(seed)), num_context=2)
        assert seconds.p95 >= seconds.median > 0


def test_round_trip(tmp_path):
    path = tmp_path / "cost.json"
    for each in (model(), model(network=Network(config=None, factor=8, branches=2, selective=False))):
        each.save(path)
        assert CostModel.load(path) == each


def damaged(**changes):
    return json.dumps({**model().to_json(), **changes})


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[1, 2]",
        '{"version": 6}',
        damaged(network={"config": None}),
        damaged(coefficients={**TRUE, "dense": (1.0,)}),
        damaged(coefficients={**TRUE, "dense": (1.0, -1.0, 0.0, 0.0)}),
        damaged(coefficients={kind: row for kind, row in TRUE.items() if kind != "open"}),
        damaged(refining_p95=0.5),
        damaged(surprise=1),
    ],
)
def test_a_damaged_file_is_one_sentence(tmp_path, text):
    path = tmp_path / "cost.json"
    path.write_text(text)
    with pytest.raises(InputError) as error:
        CostModel.load(path)
    assert str(error.value) == (
        f"file {path}: it is no cost model, or a damaged one; delete it, and this machine is measured anew"
    )


def test_a_file_of_another_version_is_one_sentence(tmp_path):
    path = tmp_path / "cost.json"
    path.write_text(damaged(version=7))
    with pytest.raises(InputError, match=r"it is of version 7, not 6; delete it, and this machine is measured anew$"):
        CostModel.load(path)


def test_a_missing_file_is_one_sentence(tmp_path):
    with pytest.raises(InputError, match=r"cannot be read \(No such file or directory\); measure this machine$"):
        CostModel.load(tmp_path / "none.json")


def test_seconds_add_and_scale():
    total = (Seconds(median=1.0, p95=2.0) + Seconds(median=0.5, p95=0.5)).times(2.0)
    assert total == Seconds(median=3.0, p95=5.0)


def test_every_kind_of_work_has_names_for_its_columns():
    request = timed(0)
    assert {kind: rows.shape[1] for kind, rows in request.work.items()} == {k: len(v) for k, v in QUANTITIES.items()}
