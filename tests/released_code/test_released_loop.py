"""Laws of the research code's loop, and how far it is from ours on the same plan."""

from dataclasses import replace

import pytest
import torch

from sphinx_nvs.errors import InputError
from sphinx_nvs.models.embedded.denoiser import Nano
from sphinx_nvs.models.seva.seva_denoiser import Seva, SevaConditioning
from sphinx_nvs.models.unet.network import UNet, UNetConfig
from sphinx_nvs.plan import ComputePlan
from sphinx_nvs.refine import Refinement
from sphinx_nvs.released_code.loop import ResearchNoise, ResearchRefinement, arithmetic_for, begin_refinement

CONTEXT, VIEWS, SIDE, STEPS, TAIL = 2, 3, 8, 10, 8
CONFIG = UNetConfig(
    in_channels=11,
    out_channels=4,
    model_channels=8,
    channel_mult=(1, 2, 2),
    num_res_blocks=1,
    attention_resolutions=(2, 4),
    num_head_channels=4,
    context_dim=6,
    joint=("middle_ds4", "output_ds2"),
    norm_groups=4,
    ff_mult=2,
)


class Nothing:
    """In the place of autoencoder and embedder."""

    encode = decode = embed = staticmethod(torch.clone)


@pytest.fixture(scope="module")
def seva():
    torch.manual_seed(1)
    return Seva(UNet(CONFIG), Nothing(), Nothing()).eval().requires_grad_(False)


@pytest.fixture(scope="module")
def conditioning():
    torch.manual_seed(2)
    return SevaConditioning(
        z_context=torch.randn(CONTEXT, 4, SIDE, SIDE),
        eps_context=torch.randn(CONTEXT, 4, SIDE, SIDE),
        plucker=torch.randn(CONTEXT + VIEWS, 6, SIDE, SIDE),
        token=torch.randn(6),
        scale=torch.full((VIEWS,), 2.0),
    )


@pytest.fixture(scope="module")
def z_render():
    return torch.randn(VIEWS, 4, SIDE, SIDE, generator=torch.Generator().manual_seed(3))


def mask_of(share=0.4):
    return torch.rand(SIDE, SIDE, generator=torch.Generator().manual_seed(4)) < share


def plan_of(seva, starts=(4, 5, 8), mask=None, arithmetic="research", **changes):
    mask = mask_of() if mask is None else mask
    start_step = torch.where(mask, torch.tensor(starts)[:, None, None], TAIL)
    settings = {
        "start_step": start_step,
        "sigmas": seva.sigmas(STEPS),
        "solver": "euler",
        "dense_steps": (4, 8, 9),
        "arithmetic": arithmetic,
    }
    return ComputePlan(**(settings | changes))


def refined(seva, conditioning, z_render, plan, seed=7):
    refinement = begin_refinement(seva, conditioning, z_render, plan, seed)
    reports = []
    while not refinement.done:
        reports.append(refinement.step())
    return refinement.latents, reports


def test_the_plans_arithmetic_chooses_the_loop(seva, conditioning, z_render):
    assert arithmetic_for(seva) == "research"
    assert arithmetic_for(Nano()) == "exact"
    plan = plan_of(seva)
    assert isinstance(begin_refinement(seva, conditioning, z_render, plan, 0), ResearchRefinement)
    exact = replace(plan, arithmetic="exact")
    assert isinstance(begin_refinement(seva, conditioning, z_render, exact, 0), Refinement)


def test_steps_are_those_of_the_plan(seva, conditioning, z_render):
    plan = plan_of(seva)
    _, reports = refined(seva, conditioning, z_render, plan)
    assert [(report.step, report.dense) for report in reports] == [
        (4, True), (5, False), (6, False), (7, False), (8, True), (9, True),
    ]  # fmt: skip
    masked = int(mask_of().sum())
    assert [report.active_cells for report in reports[1:4]] == [2 * masked] * 3
    assert reports[0].computed_cells == VIEWS * SIDE * SIDE


def test_a_sparse_step_sets_all_other_cells_to_the_noised_render(seva, conditioning, z_render):
    noise = ResearchNoise.seeded(7, conditioning, z_render)
    refinement = ResearchRefinement(seva, conditioning, z_render, plan_of(seva), 7, noise)
    for _ in range(2):
        refinement.step()
    line = z_render + refinement.plan.sigmas[6] * noise.start
    held = ~(mask_of() & (torch.tensor([4, 5, 8])[:, None, None] <= 5))
    same = (refinement.latents == line).all(1)
    assert torch.equal(same, held)
    context = conditioning.z_context + refinement.plan.sigmas[6] * conditioning.eps_context
    assert torch.equal(refinement.rows[:CONTEXT], context)


def test_a_dense_step_moves_held_cells_too(seva, conditioning, z_render):
    refinement = ResearchRefinement(seva, conditioning, z_render, plan_of(seva), 7)
    refinement.step()
    line = z_render + refinement.plan.sigmas[5] * refinement.noise.start
    assert (refinement.latents != line).any(1).float().mean() > 0.99


def test_the_seed_alone_decides(seva, conditioning, z_render):
    plan = plan_of(seva)
    first, _ = refined(seva, conditioning, z_render, plan)
    assert torch.equal(first, refined(seva, conditioning, z_render, plan)[0])
    assert not torch.equal(first, refined(seva, conditioning, z_render, plan, seed=8)[0])


def relative(found, expected):
    return float((found - expected).norm() / expected.norm())


def test_a_dense_warm_start_is_nearly_ours(seva, conditioning, z_render):
    """Left between the two: the nudged noise level, and context views that follow the solver in the research code."""
    plan = plan_of(
        seva, starts=(4, 4, 4), mask=torch.ones(SIDE, SIDE, dtype=torch.bool), dense_steps=tuple(range(4, 10))
    )
    research, _ = refined(seva, conditioning, z_render, plan)
    exact, _ = refined(seva, conditioning, z_render, replace(plan, arithmetic="exact"))
    assert 1e-5 < relative(research, exact) < 0.05


def test_tiles_change_the_result(seva, conditioning, z_render):
    plan = plan_of(seva)
    plain, _ = refined(seva, conditioning, z_render, plan)
    tiled, _ = refined(seva, conditioning, z_render, replace(plan, arithmetic="research-tiled"))
    assert relative(tiled, plain) > 1e-4


def test_plans_that_the_research_code_could_not_run_are_refused(seva, conditioning, z_render):
    plan = plan_of(seva)
    other = plan.start_step.clone()
    other[1] = torch.where(mask_of().flip(0), 5, TAIL)
    held = plan.start_step.clone()
    held[0, 0, 0] = STEPS
    for change, words in [
        ({"solver": "multistep"}, "plan: its solver is multistep"),
        ({"temperature": 0.5}, "its temperature 0.5"),
        ({"dense_steps": (5, 8, 9)}, "plan: its first step 4 is not dense"),
        ({"start_step": other}, "plan: views differ in their masks at step 5"),
        ({"start_step": held}, "plan: it keeps cells to the end"),
        ({"start_step": plan.start_step[:2]}, r"plan: it is for \(2, 8, 8\) .* make one for \(3, 8, 8\)"),
    ]:
        with pytest.raises(InputError, match=words):
            begin_refinement(seva, conditioning, z_render, replace(plan, **change), 0)


def test_other_denoisers_are_refused(conditioning, z_render, seva):
    with pytest.raises(InputError, match="its arithmetic is 'research', and the denoiser is nano"):
        begin_refinement(Nano(), conditioning, z_render, plan_of(seva), 0)
