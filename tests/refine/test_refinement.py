"""Laws of refinement: plans' limits are plain sampling and the render itself, and requests do not touch each other."""

import pytest
import torch
from torch import Tensor

from sphinx_nvs.diffusion.solvers import Euler, Multistep, sample
from sphinx_nvs.errors import InputError
from sphinx_nvs.plan import ComputePlan
from sphinx_nvs.refine import Refinement, blend_held

SIGMAS = torch.tensor([4.0, 2.0, 1.0, 0.4, 0.1, 0.0])
S = 5


class Wiener:
    """A denoiser with memory of its calls: data ~ N(mean, 1), so D is linear; neighbours leak in, as in a real one."""

    name, factor, size_multiple, latent_channels = "wiener", 8, 8, 2

    def __init__(self):
        self.seen: list[Tensor] = []

    def encode(self, images):
        return torch.nn.functional.avg_pool2d(images[:, :2], 8)

    def decode(self, latents):
        return torch.nn.functional.interpolate(latents[:, [0, 1, 1]], scale_factor=8)

    def sigmas(self, num_steps):
        return SIGMAS[-num_steps - 1 :]

    def condition(self, scene, targets, render, z_render):
        return z_render.mean()

    def denoise(self, latents, sigma, conditioning):
        self.seen.append(latents.clone())
        blurred = torch.nn.functional.avg_pool2d(latents, 3, 1, 1)
        return conditioning + (0.5 * latents + 0.5 * blurred - conditioning) / (1 + sigma**2)


def plan_of(start_step, solver="multistep"):
    return ComputePlan(start_step=start_step, sigmas=SIGMAS, solver=solver)


def run(plan, seed=3, denoiser=None):
    z_render = torch.linspace(-1, 1, 2 * 2 * 4 * 4).view(2, 2, 4, 4)
    refinement = Refinement(denoiser or Wiener(), torch.tensor(0.3), z_render, plan, seed)
    while not refinement.done:
        refinement.step()
    return refinement


@pytest.mark.parametrize(("name", "solver"), [("euler", Euler()), ("multistep", Multistep())])
def test_all_cells_from_the_start_is_plain_sampling(name, solver):
    refinement = run(plan_of(torch.zeros(2, 4, 4, dtype=torch.long), name))
    start = refinement.z_render + SIGMAS[0] * refinement.eps
    denoiser = Wiener()
    plain = sample(lambda x, sigma: denoiser.denoise(x, sigma, torch.tensor(0.3)), start, SIGMAS, solver)
    assert torch.equal(refinement.latents, plain)


def test_no_cell_ever_active_keeps_the_render_without_a_call():
    denoiser = Wiener()
    refinement = run(plan_of(torch.full((2, 4, 4), S)), denoiser=denoiser)
    assert torch.equal(refinement.latents, refinement.z_render)
    assert denoiser.seen == []


def test_held_cells_are_the_renoised_render_at_every_step_and_the_render_at_the_end():
    start = torch.full((2, 4, 4), S)
    start[0, :2, :2], start[1, 3, 3] = 1, 3
    denoiser = Wiener()
    refinement = run(plan_of(start), denoiser=denoiser)
    for step, seen in enumerate(denoiser.seen, start=1):
        line = refinement.z_render + SIGMAS[step] * refinement.eps
        waiting = (start >= step)[:, None].expand_as(line)
        assert torch.equal(seen[waiting], line[waiting])
    held = (start == S)[:, None].expand_as(refinement.latents)
    assert torch.equal(refinement.latents[held], refinement.z_render[held])
    assert not torch.equal(refinement.latents[~held], refinement.z_render[~held])


def test_a_late_cell_starts_at_first_order():
    late = run(plan_of(torch.full((2, 4, 4), 2)))
    line = late.z_render + SIGMAS[2] * late.eps
    denoiser = Wiener()
    plain = sample(lambda x, s: denoiser.denoise(x, s, torch.tensor(0.3)), line, SIGMAS[2:], Multistep())
    assert torch.equal(late.latents, plain)


def test_interleaved_requests_give_what_each_gives_alone():
    plans = [plan_of(torch.zeros(2, 4, 4, dtype=torch.long)), plan_of(torch.full((2, 4, 4), 2))]
    alone = [run(plan, seed).latents for seed, plan in enumerate(plans)]
    denoiser, z_render = Wiener(), torch.linspace(-1, 1, 64).view(2, 2, 4, 4)
    both = [Refinement(denoiser, torch.tensor(0.3), z_render, plan, seed) for seed, plan in enumerate(plans)]
    while not all(r.done for r in both):
        for refinement in both:
            if not refinement.done:
                refinement.step()
    for refinement, expected in zip(both, alone, strict=True):
        assert torch.equal(refinement.latents, expected)


def test_reports_count_active_cells():
    start = torch.full((2, 4, 4), S)
    start[0, 0, 0], start[0, 0, 1] = 2, 4
    refinement = Refinement(Wiener(), torch.tensor(0.0), torch.zeros(2, 2, 4, 4), plan_of(start), 0)
    reports = []
    while not refinement.done:
        reports.append(refinement.step())
    assert [(r.step, r.active_cells, r.computed_cells) for r in reports] == [
        (2, 1, 32),
        (3, 1, 32),
        (4, 2, 32),
    ]


def test_a_plan_for_another_size_is_refused():
    with pytest.raises(InputError, match=r"^plan: it is for \(1, 4, 4\) .* make one for \(2, 4, 4\)$"):
        run(plan_of(torch.zeros(1, 4, 4, dtype=torch.long)))


def test_blending_keeps_held_pixels_and_takes_refined_ones():
    decoded, rendered = torch.ones(1, 3, 64, 64), torch.zeros(1, 3, 64, 64)
    active = torch.zeros(1, 8, 8, dtype=torch.bool)
    active[0, 3, 3] = True
    frame = blend_held(decoded, rendered, active)
    assert (frame[:, :, 24:32, 24:32] == 1).all()
    assert (frame[:, :, :8] == 0).all()
    assert torch.equal(blend_held(decoded, rendered, torch.ones_like(active)), decoded)
    assert torch.equal(blend_held(decoded, rendered, torch.zeros_like(active)), rendered)


def test_temperature_leads_from_the_first_estimate_to_the_sample():
    start = torch.full((2, 4, 4), S)
    start[0, :2], start[1, 1, 1] = 0, 2
    plans = {t: ComputePlan(start_step=start, sigmas=SIGMAS, temperature=t) for t in (0.0, 0.25, 1.0)}
    mean, mixed, sampled = (run(plan) for plan in plans.values())
    denoiser = Wiener()
    first = denoiser.denoise(sampled.z_render + SIGMAS[0] * sampled.eps, float(SIGMAS[0]), torch.tensor(0.3))
    torch.testing.assert_close(mean.latents[0, :, :2], first[0, :, :2])
    assert not torch.allclose(mean.latents[1, :, 1, 1], first[1, :, 1, 1])
    torch.testing.assert_close(mixed.latents, 0.75 * mean.latents + 0.25 * sampled.latents)
    held = (start == S)[:, None].expand_as(mixed.latents)
    assert torch.equal(mixed.latents[held], mixed.z_render[held])
