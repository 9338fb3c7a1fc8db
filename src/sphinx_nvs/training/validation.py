"""What a denoiser is worth while it trains: error against truth in unseen and seen regions, beside the render's own.

Shapes: V target views, C latent channels, H W pixels, h w cells.
"""

from __future__ import annotations

import math
from functools import partial

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from sphinx_nvs.diffusion.solvers import Multistep, sample
from sphinx_nvs.models.nano import Nano
from sphinx_nvs.training.batches import example_from_sample
from sphinx_nvs.training.samples import Sample

UNSEEN = 0.5
"""A pixel counts as unseen if the render's alpha times confidence is below this."""


def unseen_mask(alpha: Float[Tensor, "V H W"], confidence: Float[Tensor, "V H W"]) -> Bool[Tensor, "V H W"]:
    """Pixels that the regressor did not really see: alpha times confidence, averaged over 5x5, below `UNSEEN`."""
    return F.avg_pool2d((alpha * confidence)[:, None], 5, 1, 2)[:, 0] < UNSEEN


@torch.inference_mode()
def validate(nano: Nano, samples: list[Sample], num_steps: int = 25, seed: int = 0) -> dict[str, float]:
    """Samples every target from noise and compares with the render, in dB PSNR over all pixels of a region.

    Returns:
        `render_unseen_db`, `sample_unseen_db`, `one_step_unseen_db` (a single call at the highest noise level), and
        the same for `seen` and `whole`.
    """
    squares: dict[str, list[Tensor]] = {}
    for index, item in enumerate(samples):
        example = example_from_sample(nano, item, None)
        conditioning = example.conditioning
        truth = item.rgb[int(item.num_context) :].float() / 255
        render = item.render[int(item.num_context) :].float() / 255
        alpha, confidence, _ = (item.signals[int(item.num_context) :].float() / 255).unbind(1)
        unseen = unseen_mask(alpha, confidence)
        generator = torch.Generator().manual_seed(seed + index)
        sigmas = nano.sigmas(num_steps)
        noisy = conditioning.z_render + sigmas[0].float() * torch.randn(
            conditioning.z_render.shape, generator=generator
        )
        pictures = {
            "render": render,
            "sample": nano.decode(sample(partial(nano.denoise, conditioning=conditioning), noisy, sigmas, Multistep())),
            "one_step": nano.decode(nano.denoise(noisy, float(sigmas[0]), conditioning)),
        }
        for name, picture in pictures.items():
            square = (picture - truth).square().mean(1)
            for region, mask in (("unseen", unseen), ("seen", ~unseen), ("whole", torch.ones_like(unseen))):
                squares.setdefault(f"{name}_{region}_db", []).append(square[mask])
    return {name: round(-10 * math.log10(float(torch.cat(parts).mean())), 3) for name, parts in squares.items()}
