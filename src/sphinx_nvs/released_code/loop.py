"""The denoising loop of the paper's released code, fault for fault, to compare `Refinement` with.

The state holds all rows, context views too: x = z + sigma eps at the plan's first step. Each step first nudges the
noise level, s = sigma_i + 1e-6, and adds fresh noise to match; then Euler's rule goes from s to sigma_{i+1}:

    x <- x + sqrt(s^2 - sigma_i^2) eps_i,      x <- x + (sigma_{i+1} - s) (x - D(x; s)) / s

At the plan's dense steps that holds for every cell of every row, held ones too. At the others the views that have
started run, one mask for all of them; then *everything* is set to z + sigma_{i+1} eps, but for the mask's cells of
running views. So what dense steps did to all other cells is thrown away by the next sparse step, which only sees that
of running views.

Reference: Sphinx (arXiv 2511.18672); rules by the project's notes on its released code, checked on recorded tensors.

Shapes: N = Vc + V rows (context first), V targets, C latent channels, h w latent cells.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from sphinx_nvs.errors import InputError
from sphinx_nvs.models.base import Conditioning, Denoiser
from sphinx_nvs.models.seva.seva_denoiser import Seva, SevaConditioning
from sphinx_nvs.plan import ComputePlan
from sphinx_nvs.refine.refinement import FirstCall, Refinement, StepReport
from sphinx_nvs.released_code.released_network import Part, ResearchDenoiser, ResearchRequest

NUDGE = 1e-6
"""Added to every noise level by the released code's sampler."""


@dataclass(frozen=True, eq=False)
class ResearchNoise:
    """The noise of one run.

    Args:
        start: eps of the target views; the context views' is in the conditioning.
        fresh: eps_i of all rows at step i.
    """

    start: Float[Tensor, "V C h w"]
    fresh: Callable[[int], Tensor]

    @staticmethod
    def seeded(seed: int, conditioning: SevaConditioning, z_render: Float[Tensor, "V C h w"]) -> ResearchNoise:
        """Start noise as `Refinement` draws it, so that the two compare, and fresh noise from the same generator."""
        generator = torch.Generator().manual_seed(seed)
        start = torch.randn(z_render.shape, generator=generator).to(z_render)
        shape = (conditioning.num_rows, *z_render.shape[1:])
        return ResearchNoise(start, lambda step: torch.randn(shape, generator=generator).to(z_render))


class ResearchRefinement:
    """One request's refinement by the released code's arithmetic; the counterpart of `Refinement`.

    Its reports count cells that pass transformers; convolutions run over all cells of running views.

    Args:
        denoiser: a SEVA.
        conditioning: what `denoiser.condition` returned for this request.
        z_render: latents of the renders.
        plan: what to compute, with arithmetic `research` or `research-tiled`.
        seed: seed of the noise.
        noise: noise to use in place of the seed's.

    Raises:
        InputError: the denoiser is no SEVA, the plan is for other view counts or sizes, or one that the released code
            could not run.
    """

    def __init__(
        self,
        denoiser: Denoiser,
        conditioning: SevaConditioning,
        z_render: Float[Tensor, "V C h w"],
        plan: ComputePlan,
        seed: int,
        noise: ResearchNoise | None = None,
    ) -> None:
        if not isinstance(denoiser, Seva):
            found = f"its arithmetic is '{plan.arithmetic}', and the denoiser is {denoiser.name}"
            raise InputError("plan", found, "run it with a SEVA-family denoiser, or with arithmetic 'exact'")
        _check(plan, (len(z_render), *z_render.shape[-2:]))
        self.plan = plan
        self.noise = noise or ResearchNoise.seeded(seed, conditioning, z_render)
        self.num_context = conditioning.num_context
        self.denoiser = ResearchDenoiser(denoiser)
        self._clean = torch.cat([conditioning.z_context, z_render])
        self._eps = torch.cat([conditioning.eps_context, self.noise.start])
        self._request = ResearchRequest(conditioning)
        self.estimate: Tensor | None = None
        self.next_step = plan.first_step
        self.rows = self._held(self.next_step)

    @property
    def done(self) -> bool:
        """Whether the last step has been taken."""
        return self.next_step >= self.plan.num_steps

    @property
    def latents(self) -> Float[Tensor, "V C h w"]:
        """Latents of the target views."""
        return self.rows[self.num_context :]

    @property
    def next_is_dense(self) -> bool:
        """Whether the next step computes every token."""
        return self.next_step in self.plan.dense_steps

    def step(self) -> StepReport:
        """Takes one step."""
        i = self.next_step
        active = self.plan.active(i).to(self.rows.device)
        dense = self.next_is_dense
        if dense:
            self.rows = self._moved(self.rows, None, slice(None))
        else:
            self.rows = self._partly_moved(active)
        self.next_step += 1
        return StepReport(
            step=i,
            sigma=float(self.plan.sigmas[i]),
            active_cells=active.numel() if dense else int(active.sum()),
            computed_cells=active.numel() if dense else int(active.sum()),
            dense=dense,
            drift=0.0,
        )

    def _partly_moved(self, active: Bool[Tensor, "V h w"]) -> Float[Tensor, "N C h w"]:
        """The state after a sparse step: the masked cells of running views moved, all others re-noised."""
        running = active.flatten(1).any(1).nonzero().squeeze(1)
        frames = running + self.num_context
        mask = active.any(0)
        tiled = self.plan.arithmetic == "research-tiled"
        part = self.denoiser.part(frames, mask, tiled=tiled)
        moved = self._moved(self.rows[frames], part, frames)
        # Everything is re-noised, also what an earlier dense step moved: that is how the released code does it.
        rows = self._held(self.next_step + 1)
        rows[frames] = torch.where(mask, moved, rows[frames])
        return rows

    def _moved(
        self, x: Float[Tensor, "R C h w"], part: Part | None, frames: slice | Int[Tensor, "R"]
    ) -> Float[Tensor, "R C h w"]:
        """Euler's step of some rows, from a nudged noise level."""
        sigma, after = self.plan.sigmas[self.next_step : self.next_step + 2].to(x)
        nudged = sigma + NUDGE
        x = x + self.noise.fresh(self.next_step)[frames].to(x) * (nudged**2 - sigma**2).sqrt()
        denoised = self.denoiser.estimate(self._request, x, float(nudged), part)
        return x + (after - nudged) * (x - denoised) / nudged

    def _held(self, step: int) -> Float[Tensor, "N C h w"]:
        """All rows on their line at the noise level of `step`."""
        return self._clean + self.plan.sigmas[step].to(self._clean) * self._eps


def _check(plan: ComputePlan, size: tuple[int, ...]) -> None:
    """Raises InputError unless the plan is for `size` (views, rows, columns) and the released code could run it."""
    if plan.start_step.shape != size:
        found = f"it is for {tuple(plan.start_step.shape)} (views, rows, columns) of cells"
        raise InputError("plan", found, f"make one for {size}")
    if plan.solver != "euler" or plan.temperature != 1:
        found = f"its solver is {plan.solver}, its temperature {plan.temperature:g}"
        raise InputError("plan", found, "the released code's arithmetic needs euler and temperature 1")
    if plan.first_step not in plan.dense_steps and plan.first_step < plan.num_steps:
        raise InputError("plan", f"its first step {plan.first_step} is not dense", "add it to dense_steps")
    sparse = sorted(set(range(plan.first_step, plan.num_steps)) - set(plan.dense_steps))
    for step in sparse:
        active = plan.active(step)
        running = active.flatten(1).any(1)
        if not torch.equal(active[running], active.any(0).expand_as(active[running])):
            raise InputError("plan", f"views differ in their masks at step {step}", "give all views one mask")
    if plan.first_step < plan.num_steps and int(plan.start_step.max()) == plan.num_steps:
        raise InputError("plan", "it keeps cells to the end", "give all cells a start step: no cell is ever held there")


def arithmetic_for(denoiser: Denoiser) -> str:
    """The arithmetic of a released code's plan: its own where the denoiser can be run so, else exact."""
    return "research" if isinstance(denoiser, Seva) else "exact"


def begin_refinement(
    denoiser: Denoiser,
    conditioning: Conditioning,
    z_render: Float[Tensor, "V C h w"],
    plan: ComputePlan,
    seed: int,
    cache_bytes: float | int = math.inf,
    first: FirstCall | None = None,
) -> Refinement | ResearchRefinement:
    """The refinement that the plan's arithmetic asks for; see `Refinement`.

    `cache_bytes` bounds the exact engine's caches only: the released code has no such bound.

    Raises:
        InputError: the plan is for other sizes, or for the released code's arithmetic and cannot be run by it.
    """
    if plan.arithmetic == "exact":
        return Refinement(denoiser, conditioning, z_render, plan, seed, cache_bytes, first)
    return ResearchRefinement(denoiser, conditioning, z_render, plan, seed)
