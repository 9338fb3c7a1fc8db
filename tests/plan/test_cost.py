"""A plan's cost is that of its calls."""

from dataclasses import replace

import pytest
import torch

from sphinx_nvs.diffusion.sigmas import karras_grid
from sphinx_nvs.models.embedded.denoiser import NANO
from sphinx_nvs.models.unet.flops import CallShape, active_counts, call_flops, total
from sphinx_nvs.plan import ComputePlan
from sphinx_nvs.plan.cost import ideal_flops, plan_flops

SIGMAS = karras_grid(6, sigma_min=0.01, sigma_max=10.0)


@pytest.fixture
def plan():
    start = torch.full((3, 8, 8), 6)
    start[0, :4, :4], start[2, 6:, 6:] = 1, 3
    return ComputePlan(start_step=start, sigmas=SIGMAS, dense_steps=(1, 5))


def dense():
    return total(call_flops(NANO, CallShape(size=(8, 8), num_frames=5, folded=True)))


def sparse(plan, step):
    cells = torch.cat([torch.zeros(2, 8, 8, dtype=torch.bool), plan.active(step)])
    shape = CallShape(size=(8, 8), num_frames=5, folded=True, active=active_counts(cells, 3))
    return total(call_flops(NANO, shape))


def test_each_step_costs_its_call(plan):
    expected = [dense(), sparse(plan, 2), sparse(plan, 3), sparse(plan, 4), dense()]
    assert plan_flops(plan, NANO, 2) == expected
    assert expected[1] < expected[2] < dense()


def test_the_first_step_is_dense_and_measured_steps_replace_planned_ones(plan):
    assert plan_flops(plan, NANO, 2, dense_steps=(3,))[0] == dense()
    assert plan_flops(plan, NANO, 2, dense_steps=(3,))[2] == dense()
    assert plan_flops(plan, NANO, 2, dense_steps=(3,))[4] == sparse(plan, 5)


def test_the_ideal_is_one_dense_call_and_then_active_cells(plan):
    assert ideal_flops(plan, NANO, 2) == dense() + sum(sparse(plan, step) for step in (2, 3, 4, 5))
    whole = replace(plan, dense_steps=tuple(range(6)))
    assert ideal_flops(whole, NANO, 2) < sum(plan_flops(whole, NANO, 2)) == 5 * dense()


def test_branches_cost_the_same_each(plan):
    assert plan_flops(plan, NANO, 2, branches=2) == [2 * flops for flops in plan_flops(plan, NANO, 2)]
