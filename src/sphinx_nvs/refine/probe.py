"""Probes: where, and how much, refinement would change the render, measured before planning.

**Redraw**, of a denoiser that decodes beside the photos (`ReferenceDecoding`): it draws the targets anew from surfaces
that it finds in the photos, without a call of its network. Where that differs in structure from the render, decoding
changes most: on validation scenes its rank correlation with the change that full diffusion makes is 0.89 over cells and
0.98 over views. Every decoding needs these surfaces, so the probe costs nothing that a plan does not.

**First step**, of any denoiser.
At the highest noise level the network's estimate D(z_render + sigma_0 eps; sigma_0) is the mean of all
frames that it holds possible. Decoded, and compared with the render in structure, it predicts what refinement does: on
validation scenes its rank correlation with the change that full diffusion makes is 0.97 over cells and 0.99
over scenes; that of the render's own uncertainty is 0.90 and 0.93 (docs/explanation/planner.md). It costs one dense
call, which a plan that starts from noise makes anyway: `claim` hands the call's outcome over, once.

Shapes: V target views, C latent channels, h w cells, H W pixels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from sphinx_nvs.assess.change import structural_change
from sphinx_nvs.models.base import Conditioning, Denoiser, ReferenceDecoding, Render, decode_frames
from sphinx_nvs.plan import ComputePlan
from sphinx_nvs.refine.refinement import FirstCall, Refinement


@dataclass(kw_only=True, eq=False)
class Probe:
    """Outcome of a probe, with everything that the refinement reuses.

    Args:
        change: structural difference between the probe's picture and the render, see `assess.change`.
        seed: seed of the noise.
        z_render: latents of the renders.
        conditioning: the denoiser's conditioning.
        picture: the estimate, decoded; or the targets, redrawn.
        sigma: noise level of the call; 0 without one.
        first: the call's outcome; None once it was claimed, and without a call.
        estimate: the call's estimate of the clean latents; None without a call.
    """

    change: Float[Tensor, "V H W"]
    seed: int
    z_render: Float[Tensor, "V C h w"]
    conditioning: Conditioning
    picture: Float[Tensor, "V 3 H W"]
    sigma: float = 0.0
    first: FirstCall | None = None
    estimate: Float[Tensor, "V C h w"] | None = None

    @property
    def called(self) -> bool:
        """Whether the network's first call was made."""
        return self.estimate is not None

    def decoded(
        self,
        denoiser: Denoiser,
        latents: Float[Tensor, "V C h w"],
        views: Sequence[int],
        estimate: Float[Tensor, "V C h w"] | None,
        decoding: str,
    ) -> Float[Tensor, "v 3 H W"]:
        """Frames of refined latents; a view that ended at the first call's estimate is decoded already.

        `estimate` is the refinement's own; see `decode_frames`.
        """
        known = self.estimate if decoding == "search" else None
        # Bit for bit: a plan of one step, and a temperature of 0, end there exactly.
        frames = {
            view: self.picture[view] for view in views if known is not None and torch.equal(latents[view], known[view])
        }
        others = [view for view in views if view not in frames]
        if others:
            made = decode_frames(denoiser, latents, self.conditioning, others, estimate, decoding)
            frames |= dict(zip(others, made.to(self.picture.device), strict=True))
        return torch.stack([frames[view] for view in views])

    def claim(self, plan: ComputePlan, seed: int) -> FirstCall | None:
        """The call's outcome if it is the plan's own first call; once, since its caches are in use from then on."""
        # Only exact arithmetic makes this very call, and a plan that starts later makes none at this noise level.
        fits = plan.first_step == 0 and float(plan.sigmas[0]) == self.sigma and plan.arithmetic == "exact"
        if not fits or seed != self.seed:
            return None
        first, self.first = self.first, None
        return first


def redraw_probe(
    denoiser: ReferenceDecoding,
    conditioning: Conditioning,
    z_render: Float[Tensor, "V C h w"],
    render: Render,
    *,
    seed: int,
) -> Probe:
    """Compares the targets as the denoiser draws them from the photos' surfaces with the render.

    Args:
        denoiser: the model.
        conditioning: what `denoiser.condition` returned.
        z_render: latents of the renders.
        render: the renders, stage 2.
        seed: seed of the request's noise.
    """
    picture = denoiser.redrawn(conditioning).to(render.rgb.device)
    return Probe(
        change=structural_change(picture, render.rgb),
        seed=seed,
        z_render=z_render,
        conditioning=conditioning,
        picture=picture,
    )


def probe(
    denoiser: Denoiser,
    conditioning: Conditioning,
    z_render: Float[Tensor, "V C h w"],
    render: Render,
    sigmas: Float[Tensor, "L"],
    *,
    seed: int,
    cache_bytes: float | int = math.inf,
) -> Probe:
    """Makes the first call of full diffusion and compares its picture with the render.

    Args:
        denoiser: the model.
        conditioning: what `denoiser.condition` returned.
        z_render: latents of the renders.
        render: the renders, stage 2.
        sigmas: the denoiser's grid.
        seed: seed of the request's noise.
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
