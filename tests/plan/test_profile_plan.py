import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from profile_helpers import STEPS, made_options

from sphinx_nvs.errors import InputError
from sphinx_nvs.plan.cost_model import Seconds
from sphinx_nvs.plan.profile_plan import MARGIN, ROUNDING
from sphinx_nvs.sampling_params import SamplingParams

QUALITIES = st.floats(0, 1)
SEEDS = st.integers(0, 30)


def _timing(plan):
    """A machine that takes a second for each step of each cell."""
    median = float(plan.active_share * plan.start_step.numel())
    return Seconds(median=median, p95=1.2 * median)


@settings(deadline=None)
@given(seed=SEEDS, low=QUALITIES, high=QUALITIES)
def test_a_higher_quality_never_lowers_compute(seed, low, high):
    options = made_options(seed)
    low, high = sorted((low, high))
    cheap, good = (options.plan(*_chosen(options, SamplingParams(quality=q))) for q in (low, high))
    assert cheap.predicted.compute <= good.predicted.compute
    assert cheap.predicted.quality <= good.predicted.quality
    assert good.predicted.quality >= high - ROUNDING * (1 - high) - 1e-12
    aim = high + MARGIN * (1 - high)
    gaps = [abs(way.quality - aim) for way in options.front if way.quality >= high - ROUNDING * (1 - high)]
    assert abs(good.predicted.quality - aim) <= min(gaps) + 1e-12


@settings(deadline=None)
@given(seed=SEEDS, soon=st.floats(1e-9, 60), late=st.floats(1e-9, 60), quality=st.none() | QUALITIES)
def test_a_later_deadline_never_lowers_quality(seed, soon, late, quality):
    options = made_options(seed, _timing)
    soon, late = sorted((soon, late))
    rushed, calm = (
        options.plan(*_chosen(options, SamplingParams(quality=quality, deadline_s=s))) for s in (soon, late)
    )
    assert rushed.predicted.quality <= calm.predicted.quality
    for plan, deadline_s in ((rushed, soon), (calm, late)):
        assert plan.predicted.seconds_p95 <= deadline_s or plan.first_step == plan.num_steps


def _steady(plan):
    """A machine that takes the longer the better a plan is."""
    return Seconds(median=10 * plan.quality, p95=10 * plan.quality)


def _erratic(plan):
    """A machine on which more work is sometimes done sooner."""
    median = _timing(plan).median
    return Seconds(median=median, p95=median * (1 + math.sin(1e3 * median) / 2))


@settings(deadline=None)
@given(seed=SEEDS, soon=st.floats(1e-9, 60), late=st.floats(1e-9, 60), low=QUALITIES, high=QUALITIES)
def test_both_laws_hold_where_a_better_plan_is_predicted_to_be_faster(seed, soon, late, low, high):
    options = made_options(seed, _erratic)
    soon, late = sorted((soon, late))
    low, high = sorted((low, high))
    chosen = {
        (q, s): options.choose(SamplingParams(quality=q, deadline_s=s))[0] for q in (low, high) for s in (soon, late)
    }
    assert chosen[low, soon] <= chosen[low, late] <= chosen[high, late]
    assert chosen[low, soon] <= chosen[high, soon] <= chosen[high, late]


@settings(deadline=None)
@given(seed=SEEDS, deadline_s=st.floats(1e-9, 12), quality=st.none() | QUALITIES)
def test_where_better_plans_take_longer_the_best_that_fits_is_chosen(seed, deadline_s, quality):
    options = made_options(seed, _steady)
    index, _ = options.choose(SamplingParams(quality=quality, deadline_s=deadline_s))
    top = len(options.front) - 1 if quality is None else options.choose(SamplingParams(quality=quality))[0]
    seconds = [0.0, *(10 * min(1.0, max(0.0, way.quality)) for way in options.front[1:])]
    assert index == max(i for i in range(top + 1) if seconds[i] <= deadline_s)


@settings(deadline=None)
@given(seed=SEEDS, floor=st.floats(0.01, 1), deadline_s=st.floats(1e-9, 5))
def test_the_floor_holds_against_any_deadline(seed, floor, deadline_s):
    options = made_options(seed, _timing)
    plan = options.plan(*_chosen(options, SamplingParams(deadline_s=deadline_s, min_quality=floor)))
    assert plan.predicted.quality >= floor
    index = next(i for i, way in enumerate(options.front) if way.quality >= floor)
    cheapest = options.plan(index, SamplingParams(quality=floor), "")
    assert plan.predicted.seconds_p95 <= max(deadline_s, cheapest.predicted.seconds_p95)


@settings(deadline=None)
@given(seed=SEEDS, quality=st.floats(0.01, 1), floor=st.floats(0.01, 1), deadline_s=st.none() | st.just(100.0))
def test_rounding_stays_above_the_floor(seed, quality, floor, deadline_s):
    options = made_options(seed, _timing)
    floor, quality = sorted((floor, quality))
    params = SamplingParams(quality=quality, deadline_s=deadline_s, min_quality=floor)
    assert options.plan(*_chosen(options, params)).predicted.quality >= floor


def test_a_plan_states_request_prediction_and_reason():
    plan = _plan(SamplingParams(quality=0.9))
    assert plan.quality == 0.9
    assert 0.88 <= plan.predicted.quality <= 1.0
    assert "quality 0.9: " in plan.reason
    assert "made, cluster 0" in plan.reason
    assert plan.predicted.seconds is None


def test_quality_1_is_full_diffusion():
    plan = _plan(SamplingParams(quality=1.0))
    assert (plan.start_step == 0).all()
    assert plan.num_steps == STEPS
    assert plan.dense_steps == tuple(range(STEPS))


def test_a_deadline_too_short_for_anything_keeps_the_render():
    plan = _plan(SamplingParams(deadline_s=1e-9), _timing)
    assert plan.first_step == plan.num_steps
    assert "too short for any refinement, the render stands" in plan.reason


def test_a_strict_deadline_that_cannot_hold_the_floor_is_an_error():
    params = SamplingParams(deadline_s=0.5, min_quality=0.99, strict=True)
    with pytest.raises(InputError, match=r"^deadline_s: 0\.50 s are left, quality 0\.99 needs [\d.]+ s; allow"):
        _plan(params, _timing)


def test_a_deadline_without_timing_is_a_programming_error():
    with pytest.raises(ValueError, match="timing"):
        _plan(SamplingParams(deadline_s=3.0))


def test_planning_twice_gives_the_same_plan():
    one, two = (_plan(SamplingParams(quality=0.93), seed=3) for _ in range(2))
    assert torch.equal(one.start_step, two.start_step)
    assert one.dense_steps == two.dense_steps
    assert one.reason == two.reason


def _chosen(options, params):
    index, why = options.choose(params)
    return index, params, why


def _plan(params, timing=None, seed=0):
    return made_options(seed, timing).plan(*_chosen(made_options(seed, timing), params))
