"""Laws of step economy: a lever only ever saves, and what it saves is what it says."""

import math
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sphinx_nvs.diffusion.sigmas import karras_grid
from sphinx_nvs.errors import InputError
from sphinx_nvs.plan import ComputePlan, Levers, economised
from sphinx_nvs.plan.levers import D4, NO_SAVINGS, R_PLUS, RESEARCH, RT, R, widened

SIGMAS = karras_grid(50, sigma_min=0.01, sigma_max=10.0)
PLANS = st.integers(0, 10_000)


def plan_of(seed=0, share=0.3):
    generator = torch.Generator().manual_seed(seed)
    starts = torch.randint(0, 40, (4, 1, 1), generator=generator)
    cells = torch.rand(4, 5, 6, generator=generator) < share
    cells[1] = False
    return ComputePlan(start_step=torch.where(cells, starts, 50), sigmas=SIGMAS)


def gaps(plan):
    return [math.log(a / b) for a, b in zip(plan.sigmas[:-2].tolist(), plan.sigmas[1:-1].tolist(), strict=True)]


def test_without_levers_every_step_is_dense_and_the_map_stays():
    plan = economised(plan_of(), NO_SAVINGS)
    assert torch.equal(plan.start_step, plan_of().start_step)
    assert plan.dense_steps == tuple(range(plan.first_step, 50))


@given(seed=PLANS, width=st.floats(0.05, 1.5))
def test_wider_steps_keep_ends_and_never_start_a_cell_with_less_noise(seed, width):
    plan = plan_of(seed)
    wide = widened(plan, width)
    own = max(gaps(replace(plan, sigmas=plan.sigmas[plan.first_step :], start_step=torch.zeros(1, 1, 1).long())))
    assert max(gaps(wide), default=0) <= max(width, own) + 1e-9
    assert wide.first_step == 0
    assert wide.num_steps <= 50 - plan.first_step
    started = plan.start_step < 50
    assert torch.equal(started, wide.start_step < wide.num_steps)
    levels = plan.sigmas[plan.start_step[started]]
    coarser = wide.sigmas[wide.start_step[started]]
    assert (coarser >= levels - 1e-12).all()
    assert (coarser <= levels * math.exp(max(width, own)) + 1e-9).all()


@given(seed=PLANS, refresh=st.floats(0.1, 3))
def test_dense_calls_come_as_the_noise_falls(seed, refresh):
    plan = economised(plan_of(seed), Levers(refresh_nats=refresh))
    levels = plan.sigmas[list(plan.dense_steps)].tolist()
    assert plan.dense_steps[0] == plan.first_step
    assert all(math.log(a / b) >= refresh - 1e-6 for a, b in pairwise(levels))
    for step in range(plan.first_step, 50):
        last = plan.sigmas[max(s for s in plan.dense_steps if s <= step)]
        assert math.log(last / plan.sigmas[step]) < refresh


def test_a_tail_is_dense_and_everyone_joins():
    plan = economised(plan_of(), RESEARCH)
    assert int(plan.start_step.max()) == 40
    assert set(range(40, 50)) <= set(plan.dense_steps)
    every_fifth = {step for step in range(plan.first_step, 40) if step % 5 == 0}
    assert set(plan.dense_steps) >= {plan.first_step} | every_fifth
    crowded = {step for step in range(plan.first_step, 40) if float(plan.active(step).float().mean()) > 0.65}
    assert set(plan.dense_steps) == {plan.first_step} | every_fifth | crowded | set(range(40, 50))


def test_the_union_mask_covers_every_view_that_is_refined():
    plan = economised(plan_of(), Levers(per_view_masks=False))
    refined = plan.start_step < 50
    assert not refined[1].any()
    assert torch.equal(refined[0], refined[2])
    assert torch.equal(refined[0], (plan_of().start_step < 50).any(0))


def test_without_masks_refined_views_are_whole_and_without_warm_start_they_begin_with_noise():
    whole = economised(plan_of(), Levers(selective=False)).start_step
    assert (whole[1] == 50).all()
    assert all(len(view.unique()) == 1 for view in whole)
    assert torch.equal(whole[0, 0, 0], plan_of().start_step[0].min())
    cold = economised(plan_of(), Levers(warm_start=False)).start_step
    assert set(cold.unique().tolist()) == {0, 50}


def test_final_calls_and_crowded_calls_are_dense():
    plan = economised(plan_of(), R)
    assert plan.dense_steps[-1] == plan.num_steps - 1
    crowded = economised(plan_of(share=1.0), Levers(refresh_nats=5.0, dense_share=0.5))
    assert set(crowded.dense_steps) >= {s for s in range(50) if float(crowded.active(s).float().mean()) > 0.5}


def test_drift_alone_plans_one_dense_call():
    plan = economised(plan_of(), Levers(width_nats=0.4, refresh_drift=0.5))
    assert plan.dense_steps == (0,)
    assert plan.refresh_drift == 0.5


def test_guidance_levers_say_which_steps_compute_it_afresh():
    plan = economised(plan_of(), Levers(unconditional_every=2, guidance_interval=(0.1, 5.0)))
    first, afresh = plan.first_step, plan.unconditional_steps
    assert afresh == tuple(s for s in range(first, 50, 2) if 0.1 < float(plan.sigmas[s]) < 5.0)
    assert economised(plan_of(), R).unconditional_steps is None
    seldom = economised(plan_of(), Levers(unconditional_every=3))
    assert seldom.unconditional_steps == tuple(range(seldom.first_step, seldom.num_steps, 3))


def test_a_plan_that_keeps_every_render_stays_so():
    nothing = replace(plan_of(), start_step=torch.full((2, 3, 3), 50))
    for levers in (NO_SAVINGS, RESEARCH, D4, RT, R, R_PLUS):
        plan = economised(nothing, levers)
        assert plan.first_step == plan.num_steps
        assert plan.dense_steps == ()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"width_nats": 0.0}, "Levers.width_nats: it is 0"),
        ({"refresh_nats": -1.0}, "Levers.refresh_nats: it is -1"),
        ({"refresh_share": 0.0}, "Levers.refresh_share: it is 0"),
        ({"tail_share": 1.5}, "Levers.tail_share: it is 1.5"),
        ({"final_dense": -1}, "Levers.final_dense: it is -1"),
        ({"unconditional_every": 0}, "Levers.unconditional_every: it is 0"),
        ({"guidance_interval": (2.0, 1.0)}, "Levers.guidance_interval: it is .2.0, 1.0."),
    ],
)
def test_numbers_out_of_range(change, words):
    with pytest.raises(InputError, match=words):
        Levers(**change)


@given(seed=PLANS, end=st.floats(1e-4, 20))
def test_an_earlier_end_spares_calls_below_it_and_never_starts_a_cell_with_less_noise(seed, end):
    plan = plan_of(seed)
    shorter = economised(plan, Levers(end_sigma=end))
    if plan.first_step == plan.num_steps:
        assert torch.equal(shorter.start_step, plan.start_step)
        return
    assert float(shorter.sigmas[0]) == float(plan.sigmas[plan.first_step])
    assert float(shorter.sigmas[-1]) == 0
    assert all(float(sigma) >= end for sigma in shorter.sigmas[1:-1])
    refined = plan.start_step < plan.num_steps
    assert torch.equal(shorter.start_step < shorter.num_steps, refined)
    assert (shorter.sigmas[shorter.start_step][refined] >= plan.sigmas[plan.start_step][refined]).all()
