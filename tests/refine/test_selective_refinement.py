"""Laws of refinement with caches: what a plan approximates is what it says, and requests keep to themselves."""

from dataclasses import replace

import pytest
import torch

from sphinx_nvs.diffusion.solvers import Multistep, sample
from sphinx_nvs.models.embedded.denoiser import Nano
from sphinx_nvs.plan import ComputePlan, Levers, economised
from sphinx_nvs.refine import Refinement, step_together

VIEWS, CONTEXT, SIDE = 3, 2, 8


@pytest.fixture(scope="module")
def nano():
    torch.manual_seed(1)
    model = Nano().eval().requires_grad_(False)
    for parameter in model.unet.parameters():
        torch.nn.init.normal_(parameter, std=0.05)
    return model


def conditioning_of(nano, seed=0):
    generator = torch.Generator().manual_seed(seed)
    z_context, z_render = (torch.randn(n, 24, SIDE, SIDE, generator=generator) for n in (CONTEXT, VIEWS))
    signals = torch.rand(VIEWS, 4, SIDE, SIDE, generator=generator)
    rays = torch.randn(CONTEXT + VIEWS, 6, SIDE, SIDE, generator=generator)
    return nano.assemble(z_context, z_render, signals, rays)


def plan_of(nano, dense_steps, steps=6, seed=0):
    generator = torch.Generator().manual_seed(seed)
    start = torch.full((VIEWS, SIDE, SIDE), steps)
    start[0, 2:5, 1:4] = 0
    start[1, 4:, 5:] = 2
    start[2][torch.rand(SIDE, SIDE, generator=generator) < 0.2] = 3
    return ComputePlan(start_step=start, sigmas=nano.sigmas(steps), dense_steps=dense_steps)


def refined(nano, plan, seed=5, conditioning=None, **memory):
    conditioning = conditioning or conditioning_of(nano)
    refinement = Refinement(nano, conditioning, conditioning.z_render, plan, seed, **memory)
    reports = []
    while not refinement.done:
        reports.append(refinement.step())
    return refinement.latents, reports


def test_a_dense_step_everywhere_is_plain_sampling(nano):
    conditioning = conditioning_of(nano)
    plan = ComputePlan(
        start_step=torch.zeros(VIEWS, SIDE, SIDE).long(), sigmas=nano.sigmas(6), dense_steps=tuple(range(6))
    )
    refinement = Refinement(nano, conditioning, conditioning.z_render, plan, 5)
    start = refinement.latents.clone()
    while not refinement.done:
        refinement.step()
    plain = sample(lambda x, s: nano.denoise(x, s, conditioning), start, plan.sigmas, Multistep())
    torch.testing.assert_close(refinement.latents, plain, rtol=1e-4, atol=1e-4)


def test_sparse_steps_compute_active_cells_only_and_come_near_the_dense_run(nano):
    exact, _ = refined(nano, plan_of(nano, tuple(range(6))))
    sparse, reports = refined(nano, plan_of(nano, (0, 3)))
    assert [r.dense for r in reports] == [True, False, False, True, False, False]
    assert [r.computed_cells for r in reports] == [VIEWS * SIDE * SIDE if r.dense else r.active_cells for r in reports]
    held = (plan_of(nano, ()).start_step == 6)[:, None].expand_as(exact)
    assert torch.equal(sparse[held], exact[held])
    moved = float((exact - conditioning_of(nano).z_render)[~held].abs().mean())
    error = float((sparse - exact)[~held].abs().mean())
    assert 0 < error < 0.5 * moved


def test_the_first_step_is_dense_whatever_the_plan_says(nano):
    _, reports = refined(nano, plan_of(nano, ()))
    assert [r.dense for r in reports] == [True] + [False] * 5


def test_drift_triggers_dense_steps_and_never_more_with_more_patience(nano):
    counts = []
    for patience in (1e-6, 0.3, 1e9):
        _, reports = refined(nano, replace(plan_of(nano, ()), refresh_drift=patience))
        assert all(r.dense == (r.step == 0 or r.drift > patience) for r in reports)
        counts.append(sum(r.dense for r in reports))
    assert counts[0] >= counts[1] >= counts[2] == 1
    assert counts[0] >= 3


def test_without_memory_for_features_every_step_is_dense_and_exact(nano):
    exact, _ = refined(nano, plan_of(nano, tuple(range(6))))
    found, reports = refined(nano, plan_of(nano, (0, 3)), cache_bytes=0)
    assert all(r.dense for r in reports)
    torch.testing.assert_close(found, exact, rtol=1e-4, atol=1e-4)


def test_without_memory_for_modulation_maps_nothing_changes(nano):
    _, features = nano.selective.memory(VIEWS + CONTEXT, SIDE, SIDE)
    plenty, _ = refined(nano, plan_of(nano, (0, 3)))
    tight, reports = refined(nano, plan_of(nano, (0, 3)), cache_bytes=features)
    assert sum(r.dense for r in reports) == 2
    torch.testing.assert_close(tight, plenty, rtol=1e-4, atol=1e-4)


def test_stepping_together_is_stepping_alone_bit_for_bit(nano):
    plans = [plan_of(nano, (0, 3)), plan_of(nano, (0,), seed=1), plan_of(nano, (0, 2, 4), seed=2)]
    conditionings = [conditioning_of(nano, seed) for seed in range(3)]
    alone = [refined(nano, p, seed, c)[0] for seed, (p, c) in enumerate(zip(plans, conditionings, strict=True))]
    together = [
        Refinement(nano, c, c.z_render, p, seed) for seed, (p, c) in enumerate(zip(plans, conditionings, strict=True))
    ]
    while running := [r for r in together if not r.done]:
        step_together(running)
    for refinement, latents in zip(together, alone, strict=True):
        assert torch.equal(refinement.latents, latents)


def test_interleaved_requests_are_each_what_they_are_alone(nano):
    a, b = conditioning_of(nano, 7), conditioning_of(nano, 8)
    alone, _ = refined(nano, plan_of(nano, (0, 3)), 1, a)
    first = Refinement(nano, a, a.z_render, plan_of(nano, (0, 3)), 1)
    second = Refinement(nano, b, b.z_render, plan_of(nano, (0,), seed=4), 2)
    while not first.done:
        first.step()
        if not second.done:
            second.step()
    assert torch.equal(first.latents, alone)


def test_requests_of_two_denoisers_cannot_step_together(nano):
    conditioning = conditioning_of(nano)
    other = Nano().eval()
    pair = [Refinement(model, conditioning, conditioning.z_render, plan_of(nano, (0,)), 0) for model in (nano, other)]
    with pytest.raises(ValueError, match="must share one denoiser"):
        step_together(pair)


def test_a_replayed_plan_gives_the_same_bits(nano, tmp_path):
    start = plan_of(nano, ()).start_step
    fine = ComputePlan(start_step=start * 8, sigmas=nano.sigmas(48), dense_steps=())
    plan = economised(fine, Levers(width_nats=0.8, refresh_nats=1.6))
    plan.save(tmp_path / "plan.safetensors")
    assert torch.equal(refined(nano, plan)[0], refined(nano, ComputePlan.load(tmp_path / "plan.safetensors"))[0])
