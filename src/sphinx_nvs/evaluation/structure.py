"""MS-SSIM and FLIP, by established libraries.

    MS-SSIM = prod_j cs_j^beta_j . ssim_S^beta_S        Wang et al., 2003; five scales, 11-pixel windows (torchmetrics)
    FLIP: difference perceived when alternating two images, at 67 pixels per degree     Andersson et al., 2020 (NVIDIA)

Five scales need sides above 160 pixels. Smaller images get as many as fit, with exponents scaled to the same sum; such
values are not comparable with five-scale ones, so reports state `scales_for`.

Both packages come with `pip install 'sphinx-nvs[eval]'`.

Shapes: V views, H W pixels.
"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from sphinx_nvs.errors import InputError
from sphinx_nvs.evaluation.image_metrics import SSIM_WINDOW

BETAS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
"""MS-SSIM's exponents, finest scale first."""


def scales_for(height: int, width: int) -> int:
    """How many of MS-SSIM's five scales fit into an image; 0 if none does."""
    side = min(height, width)
    fitting = [
        n
        for n in range(1, len(BETAS) + 1)
        # The second condition is torchmetrics' own, which for four scales is slightly stricter than necessary.
        if side // 2 ** (n - 1) >= SSIM_WINDOW and side // max(1, n - 1) ** 2 >= SSIM_WINDOW
    ]
    return max(fitting, default=0)


def ms_ssim(images: Float[Tensor, "V 3 H W"], truth: Float[Tensor, "V 3 H W"]) -> Float[Tensor, "V"]:
    """MS-SSIM of each image, with `scales_for` scales.

    Raises:
        InputError: images are smaller than one window.
        ImportError: torchmetrics is not installed.
    """
    from torchmetrics.functional.image import multiscale_structural_similarity_index_measure as measure

    scales = scales_for(*images.shape[-2:])
    if not scales:
        size = f"{images.shape[-1]}x{images.shape[-2]}"
        raise InputError("images", f"they are {size} pixels", f"give at least {SSIM_WINDOW} a side for MS-SSIM")
    betas = tuple(beta / sum(BETAS[:scales]) for beta in BETAS[:scales])
    # In single precision, the library's usual one: double is 15 times slower and agrees to 1e-6 on textured images, to
    # 3e-4 on completely flat ones.
    pairs = zip(images.float().clamp(0, 1).split(1), truth.float().split(1), strict=True)
    return torch.stack([measure(a.cpu(), b.cpu(), data_range=1.0, betas=betas).reshape(()) for a, b in pairs])


def flip(
    images: Float[Tensor, "V 3 H W"], truth: Float[Tensor, "V 3 H W"]
) -> tuple[Float[Tensor, "V"], Float[Tensor, "V H W"]]:
    """LDR-FLIP of each image, and its map.

    Raises:
        ImportError: flip-evaluator is not installed.
    """
    import flip_evaluator

    maps = []
    for image, reference in zip(images.float().clamp(0, 1), truth.float(), strict=True):
        a, b = (np.ascontiguousarray(x.permute(1, 2, 0).cpu().numpy()) for x in (reference, image))
        error, _, _ = flip_evaluator.evaluate(a, b, "LDR", applyMagma=False)
        maps.append(torch.from_numpy(np.asarray(error, np.float32).reshape(image.shape[-2:])))
    stacked = torch.stack(maps)
    return stacked.flatten(1).mean(1), stacked
