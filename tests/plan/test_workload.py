"""What a plan asks, against the slower count of its FLOPs."""

import time

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sphinx_nvs.diffusion.sigmas import karras_grid
from sphinx_nvs.models.embedded.denoiser import NANO, NANO_L
from sphinx_nvs.models.unet.flops import active_counts
from sphinx_nvs.models.unet.network import UNetConfig
from sphinx_nvs.plan import ComputePlan
from sphinx_nvs.plan.cost import plan_flops
from sphinx_nvs.plan.workload import DENSE, SPARSE, Network, active_counts_by_step, full_calls, plan_calls

WITH_CONTEXT = UNetConfig(
    in_channels=11, out_channels=4, model_channels=32, channel_mult=(1, 2), num_head_channels=16, context_dim=8,
    attention_resolutions=(1, 2), joint=("middle_ds2",),
)  # fmt: skip
NETWORKS = [NANO, NANO_L, WITH_CONTEXT]


def random_plan(seed, shape=(3, 7, 6), num_steps=6, **settings):
    generator = torch.Generator().manual_seed(seed)
    start = torch.randint(0, num_steps + 1, shape, generator=generator)
    start[torch.rand(shape, generator=generator) < 0.6] = num_steps
    start[0, 0, 0] = int(torch.randint(0, num_steps, (), generator=generator))
    dense = tuple(step for step in range(num_steps) if torch.rand((), generator=generator) < 0.4)
    sigmas = karras_grid(num_steps, sigma_min=0.01, sigma_max=10.0)
    return ComputePlan(start_step=start, sigmas=sigmas, dense_steps=dense, **settings)


def flops_of(calls):
    """FLOPs of each call, in order."""
    flops = np.zeros(len(calls.is_dense))
    for kind, rows, names in (
        (calls.is_dense, calls.dense, DENSE),
        (~calls.is_dense, calls.sparse, SPARSE),
    ):
        flops[kind] = rows[:, [names.index("layers_gflop"), names.index("attention_gflop")]].sum(1)
    return flops * 1e9


@pytest.mark.parametrize("config", NETWORKS)
@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10**6), contexts=st.integers(1, 4))
def test_flops_are_those_of_the_slow_count(config, seed, contexts):
    plan = random_plan(seed)
    calls = plan_calls(plan, Network(config=config, factor=8), contexts)
    np.testing.assert_allclose(flops_of(calls), plan_flops(plan, config, contexts), rtol=1e-12)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_active_tokens_are_those_of_each_steps_mask(seed):
    plan = random_plan(seed, (2, 9, 5))
    counts = active_counts_by_step(plan.start_step.numpy(), plan.num_steps, 3)
    for step in range(plan.num_steps):
        assert counts[step].tolist() == [sum(frames) for frames in active_counts(plan.active(step), 3)]


def test_quantities_of_calls_worked_out():
    start = torch.full((1, 4, 4), 6)
    start[0, 0, 0], start[0, 3, 3] = 0, 4
    plan = ComputePlan(start_step=start, sigmas=karras_grid(6, sigma_min=0.01, sigma_max=10.0), dense_steps=(3, 4))
    calls = plan_calls(plan, Network(config=NANO, factor=8), 2)
    assert calls.is_dense.tolist() == [True, False, False, True, True, False]
    # 3 frames of 16 cells; the dense calls before sparse ones keep features, the one before a dense call does not.
    assert calls.dense[:, DENSE.index("kept_kcell")].tolist() == pytest.approx([0.048, 0, 0.048])
    assert calls.sparse[:, SPARSE.index("kcell")].tolist() == pytest.approx([0.048] * 3)
    assert calls.sparse[:, SPARSE.index("new_set")].tolist() == [1, 0, 1]
    assert calls.sparse[:, SPARSE.index("new_set_kcell")].tolist() == pytest.approx([0.001, 0, 0.002])


def test_guidance_counts_where_it_is_computed():
    start = torch.zeros(2, 4, 4, dtype=torch.long)
    sigmas = karras_grid(6, sigma_min=0.01, sigma_max=10.0)
    plan = ComputePlan(start_step=start, sigmas=sigmas, dense_steps=(0, 2, 3), unconditional_steps=())
    one, two = (flops_of(plan_calls(plan, Network(config=NANO, factor=8, branches=b), 2)) for b in (1, 2))
    # At the first step, and at dense steps before sparse ones: their features are for both branches.
    assert (two / one).tolist() == pytest.approx([2, 1, 1, 2, 1, 1])


def test_a_denoiser_without_sparse_calls_computes_everything():
    plan = random_plan(1)
    calls = plan_calls(plan, Network(config=None, factor=8, selective=False), 2)
    assert calls.is_dense.all()
    assert calls.sparse.shape == (0, len(SPARSE))


def test_without_a_unet_cells_are_counted():
    calls = plan_calls(random_plan(2), Network(config=None, factor=8), 2)
    kcells = 5 * 42 / 1e3
    assert calls.dense[:, DENSE.index("layers_gflop")].tolist() == pytest.approx([kcells] * len(calls.dense))
    assert calls.dense[:, DENSE.index("attention_gflop")].tolist() == pytest.approx([kcells**2] * len(calls.dense))


def test_full_diffusion_is_the_plan_of_zeros():
    sigmas = karras_grid(4, sigma_min=0.01, sigma_max=10.0)
    start = torch.zeros(3, 6, 4, dtype=torch.long)
    network = Network(config=NANO, factor=8, branches=2)
    plan = ComputePlan(start_step=start, sigmas=sigmas, dense_steps=(0, 1, 2, 3))
    full = full_calls(network, num_context=2, views=3, height=48, width=32, num_steps=4)
    np.testing.assert_allclose(full, plan_calls(plan, network, 2).dense)


def test_pricing_is_fast_enough_to_price_many_plans():
    plan = random_plan(3, (8, 32, 32), 50)
    network = Network(config=NANO, factor=8)
    plan_calls(plan, network, 2)
    seconds = []
    for _ in range(20):
        started = time.process_time()
        plan_calls(plan, network, 2)
        seconds.append(time.process_time() - started)
    assert min(seconds) < 3e-3
