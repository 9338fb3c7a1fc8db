"""Stage 5: latents of the renders, what stays constant over the steps, and the probe made of them."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from sphinx_nvs.errors import InputError
from sphinx_nvs.models.base import Conditioning, Denoiser, ReferenceDecoding
from sphinx_nvs.pipeline.request import Clock, Prepared
from sphinx_nvs.plan.profile import REDRAW
from sphinx_nvs.refine import probe, redraw_probe


def encoded(denoiser: Denoiser, prepared: Prepared) -> tuple[Tensor, Conditioning]:
    """Latents `V C h w` of the renders, and the denoiser's conditioning; the probe's where there is one."""
    if prepared.probe is not None:
        return prepared.probe.z_render, prepared.probe.conditioning
    z_render = denoiser.encode(prepared.render.rgb)
    known = prepared.known or prepared.scene
    conditioning = denoiser.condition(known, prepared.targets, prepared.render, z_render, reference=prepared.reference)
    return z_render, conditioning


@torch.inference_mode()
def probed(
    denoiser: Denoiser, prepared: Prepared, *, signal: str, num_steps: int, seed: int, cache_bytes: float
) -> Prepared:
    """The request with its probe; unchanged if it has one.

    Args:
        denoiser: the model.
        prepared: stages 1 to 3.
        signal: `REDRAW`, for a denoiser that draws targets anew; with any other the first step is probed.
        num_steps: solver steps of full diffusion.
        seed: seed of the request's noise.
        cache_bytes: see `Refinement`.

    Raises:
        InputError: `REDRAW` for a denoiser that cannot.
    """
    if prepared.probe is not None:
        return prepared
    clock = Clock(None, prepared.stages_s)
    with clock("encode"):
        z_render, conditioning = encoded(denoiser, prepared)
    with clock("probe"):
        if signal == REDRAW:
            if not isinstance(denoiser, ReferenceDecoding):
                found = f"its signal is {REDRAW}, and {denoiser.name} decodes latents alone"
                raise InputError("profile", found, "make one with sphinx-nvs profile for this preset")
            made = redraw_probe(denoiser, conditioning, z_render, prepared.render, seed=seed)
        else:
            sigmas = denoiser.sigmas(num_steps)
            made = probe(denoiser, conditioning, z_render, prepared.render, sigmas, seed=seed, cache_bytes=cache_bytes)
    return replace(prepared, probe=made, stages_s=clock.stages_s)
