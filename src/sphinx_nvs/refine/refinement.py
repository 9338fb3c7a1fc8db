"""The denoising loop, pulled one step at a time: the reference that every faster executor must equal.

Noise eps is drawn once (and scaled by the plan's temperature). At step i, with noise level sigma_i, a cell that has not
started yet *is*

    x = z_render + sigma_i eps                                                     (consistent re-noising)

so active cells always see a plausible neighbourhood at the right noise level; a cell leaves that line at its start step
and follows the solver from there. Held cells end as z_render exactly, since the last sigma is 0. Here every call
computes every token; nothing is cached and nothing is approximated.

Shapes: V target views, C latent channels, h w cells, H W pixels, S steps.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from sphinx_nvs.diffusion.solvers import Euler, History, Multistep
from sphinx_nvs.errors import InputError
from sphinx_nvs.models.base import Denoiser
from sphinx_nvs.plan import ComputePlan


@dataclass(frozen=True, kw_only=True)
class StepReport:
    """What one step did.

    Args:
        step: index into the plan's sigmas.
        sigma: noise level before the step.
        active_cells: cells that followed the solver.
        computed_cells: cells the network computed (all of them: this executor is dense).
    """

    step: int
    sigma: float
    active_cells: int
    computed_cells: int


class Refinement:
    """One request's refinement; holds all its state, shares the denoiser with others.

    Args:
        denoiser: the model.
        conditioning: what `denoiser.condition` returned for this request.
        z_render: latents of the renders.
        plan: what to compute.
        seed: of the request's noise; the same seed gives the same latents, whatever else is running.

    Raises:
        InputError: the plan is for other view counts or sizes.
    """

    def __init__(
        self,
        denoiser: Denoiser,
        conditioning: Any,
        z_render: Float[Tensor, "V C h w"],
        plan: ComputePlan,
        seed: int,
    ) -> None:
        if plan.start_step.shape != (len(z_render), *z_render.shape[-2:]):
            raise InputError(
                "plan",
                f"it is for {tuple(plan.start_step.shape)} (views, rows, columns) of cells",
                f"make one for {(len(z_render), *z_render.shape[-2:])}",
            )
        generator = torch.Generator().manual_seed(seed)
        self.eps = plan.temperature * torch.randn(z_render.shape, generator=generator).to(z_render)
        self.denoiser, self.conditioning, self.z_render, self.plan = denoiser, conditioning, z_render, plan
        self.solver = Euler() if plan.solver == "euler" else Multistep()
        self.next_step = plan.first_step
        self.latents = self._held(self.next_step)
        self._history: History | None = None

    @property
    def done(self) -> bool:
        """Whether the last step has been taken."""
        return self.next_step >= self.plan.num_steps

    def step(self) -> StepReport:
        """Takes one solver step."""
        i = self.next_step
        sigma, sigma_next = float(self.plan.sigmas[i]), float(self.plan.sigmas[i + 1])
        active = self.plan.active(i)[:, None].to(self.z_render.device)
        denoised = self.denoiser.denoise(self.latents, sigma, self.conditioning)
        moved, history = self.solver.step(self.latents, denoised, sigma, sigma_next, self._history)
        self._history = history.within(active)
        self.latents = torch.where(active, moved, self._held(i + 1))
        self.next_step += 1
        return StepReport(
            step=i, sigma=sigma, active_cells=int(active.sum()), computed_cells=self.plan.start_step.numel()
        )

    def _held(self, step: int) -> Float[Tensor, "V C h w"]:
        """The render at the noise level of `step`."""
        sigma = self.plan.sigmas[step].to(self.z_render)
        return self.z_render + sigma * self.eps


def blend_held(
    decoded: Float[Tensor, "V 3 H W"], rendered: Float[Tensor, "V 3 H W"], ever_active: Bool[Tensor, "V h w"]
) -> Float[Tensor, "V 3 H W"]:
    """The render where cells were held, the decoded picture where any was refined, with a ramp one cell wide between.

    Held regions thus keep the render's own pixels instead of their round trip through the autoencoder.
    """
    factor = decoded.shape[-1] // ever_active.shape[-1]
    grown = F.max_pool2d(ever_active[:, None].float(), 3, 1, 1)
    weight = F.interpolate(grown, scale_factor=float(factor))
    ramp = factor + 1 - factor % 2
    weight = F.avg_pool2d(weight, ramp, 1, ramp // 2, count_include_pad=False)
    return torch.lerp(rendered, decoded, weight)
