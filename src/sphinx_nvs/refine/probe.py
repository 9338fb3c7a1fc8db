"""One look by the denoiser itself, before anything is planned: where would it change the render, and how much?

At the highest noise level the network's estimate D(z_render + sigma_0 eps; sigma_0) is the mean of all that it holds
possible. Decoded, and compared with the render in structure, it tells pixel by pixel what refinement is about to do: on
validation scenes its rank correlation with what full diffusion does change is 0.97 over cells and 0.99 over scenes;
what the render says of itself reaches 0.90 and 0.93 (docs/reports/planner.md). It costs one dense call, which a plan
that starts from noise has to make anyway: `claim` hands the call's outcome over, once.

Shapes: V target views, C latent channels, h w cells, H W pixels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from sphinx_nvs.assess.change import structural_change
from sphinx_nvs.models.base import Denoiser, Render, decode_frames
from sphinx_nvs.plan import ComputePlan
from sphinx_nvs.refine.refinement import FirstCall, Refinement


@dataclass(kw_only=True, eq=False)
class Probe:
    """What the first call showed, and all that it leaves for the refinement to come.

    Args:
        change: structural difference between the estimate's picture and the render, see `assess.change`.
        seed: of the noise.
        sigma: noise level of the call.
        z_render: latents of the renders.
        conditioning: of the denoiser.
        first: the call's outcome; None once it was claimed.
        estimate: latents that the call held possible.
        picture: those, decoded.
    """

    change: Float[Tensor, "V H W"]
    seed: int
    sigma: float
    z_render: Float[Tensor, "V C h w"]
    conditioning: Any
    first: FirstCall | None
    estimate: Float[Tensor, "V C h w"]
    picture: Float[Tensor, "V 3 H W"]

    def decoded(
        self,
        denoiser: Denoiser,
        latents: Float[Tensor, "V C h w"],
        views: Sequence[int],
        estimate: Float[Tensor, "V C h w"] | None,
    ) -> Float[Tensor, "v 3 H W"]:
        """Frames of refined latents: where a view ended at the first call's estimate, that is decoded already.

        `estimate` is the refinement's own, see `decode_frames`.
        """
        frames = {view: self.picture[view] for view in views if torch.equal(latents[view], self.estimate[view])}
        others = [view for view in views if view not in frames]
        if others:
            made = decode_frames(denoiser, latents, self.conditioning, others, estimate)
            frames |= dict(zip(others, made.to(self.picture.device), strict=True))
        return torch.stack([frames[view] for view in views])

    def claim(self, plan: ComputePlan, seed: int) -> FirstCall | None:
        """The call's outcome if it is the plan's own first call; to whoever asks first: its caches are in use then."""
        fits = plan.first_step == 0 and float(plan.sigmas[0]) == self.sigma and plan.arithmetic == "exact"
        if not fits or seed != self.seed:
            return None
        first, self.first = self.first, None
        return first


def probe(
    denoiser: Denoiser,
    conditioning: Any,
    z_render: Float[Tensor, "V C h w"],
    render: Render,
    sigmas: Float[Tensor, "L"],
    *,
    seed: int,
    cache_bytes: float | int = math.inf,
) -> Probe:
    """Makes the first call of a full diffusion and looks at it.

    Args:
        denoiser: the model.
        conditioning: what `denoiser.condition` returned.
        z_render: latents of the renders.
        render: stage 1.
        sigmas: the denoiser's grid.
        seed: of the request's noise.
        cache_bytes: see `Refinement`.
    """
    zeros = torch.zeros((len(z_render), *z_render.shape[-2:]), dtype=torch.long)
    plan = ComputePlan(start_step=zeros, sigmas=sigmas)
    first = Refinement(denoiser, conditioning, z_render, plan, seed, cache_bytes).first_call()
    picture = decode_frames(denoiser, first.denoised, conditioning).to(render.rgb.device)
    return Probe(
        change=structural_change(picture, render.rgb),
        seed=seed,
        sigma=float(sigmas[0]),
        z_render=z_render,
        conditioning=conditioning,
        first=first,
        estimate=first.denoised,
        picture=picture,
    )
