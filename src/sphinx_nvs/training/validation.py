"""What a denoiser is worth while it trains: error against truth in unseen and seen regions, beside the render's own.

Shapes: V target views, C latent channels, H W pixels, h w cells.
"""

from __future__ import annotations

import math
from functools import partial

import torch
from torch import Tensor

from sphinx_nvs.diffusion.solvers import Multistep, sample
from sphinx_nvs.evaluation.regions import unseen_mask
from sphinx_nvs.models.embedded.denoiser import Nano
from sphinx_nvs.training.batches import batch_from_samples
from sphinx_nvs.training.samples import Sample, stack_samples


@torch.inference_mode()
def validate(nano: Nano, samples: list[Sample], num_steps: int = 25, seed: int = 0) -> dict[str, float]:
    """Samples every target from noise and compares with the render, in dB PSNR over all pixels of a region.

    Returns:
        `render_unseen_db`, `sample_unseen_db`, `one_step_unseen_db` (a single call at the highest noise level),
        `autoencoder_unseen_db` (the truth, encoded and decoded: no sample can be better), the same for `seen` and
        `whole`, and `sample_sharpness`, `one_step_sharpness`: mean absolute gradient in unseen regions over that of
        the decoded truth.
    """
    squares: dict[str, list[Tensor]] = {}
    slopes: dict[str, list[Tensor]] = {}
    for index, item in enumerate(samples):
        on_device = stack_samples([item]).to(nano.spread.device)
        conditioning = batch_from_samples(nano, on_device).conditioning(0)
        truth, render, signals = (
            part[0, on_device.num_context :].float() / 255
            for part in (on_device.rgb, on_device.render, on_device.signals)
        )
        unseen = unseen_mask(signals[:, 0], signals[:, 1])
        sigmas = nano.sigmas(num_steps)
        # Noise of its own for each sample and the same at every validation, so that figures differ by the weights
        # alone.
        noise = torch.randn(conditioning.z_render.shape, generator=torch.Generator().manual_seed(seed + index))
        noisy = conditioning.z_render + float(sigmas[0]) * noise.to(truth.device)
        pictures = {
            "render": render,
            "autoencoder": nano.decode(nano.encode(truth)),
            "sample": nano.decode(sample(partial(nano.denoise, conditioning=conditioning), noisy, sigmas, Multistep())),
            "one_step": nano.decode(nano.denoise(noisy, float(sigmas[0]), conditioning)),
        }
        for name, picture in pictures.items():
            square = (picture - truth).square().mean(1)
            for region, mask in (("unseen", unseen), ("seen", ~unseen), ("whole", torch.ones_like(unseen))):
                squares.setdefault(f"{name}_{region}_db", []).append(square[mask])
            slopes.setdefault(name, []).append(picture.diff(dim=-1).abs().mean(1)[unseen[..., 1:]])
    figures = {name: round(-10 * math.log10(_mean(parts)), 3) for name, parts in squares.items()}
    for name in ("sample", "one_step"):
        figures[f"{name}_sharpness"] = round(_mean(slopes[name]) / _mean(slopes["autoencoder"]), 3)
    return figures


def _mean(parts: list[Tensor]) -> float:
    return float(torch.cat(parts).mean())
