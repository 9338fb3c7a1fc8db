"""Full-reference metrics as the field reports them: per image, then averaged.

    PSNR = -10 log10 mean (a - b)^2        images in [0, 1]
    SSIM: Gaussian windows of 11 pixels (sigma 1.5), data range 1, mean over colours

These are the settings of pixelSplat and MVSplat (scikit-image's `structural_similarity` with `gaussian_weights`).

Shapes: V views, H W pixels.
"""

from __future__ import annotations

from dataclasses import dataclass

import skimage  # Its parts come with their first use, which a start need not wait for.
import torch
from jaxtyping import Float
from torch import Tensor

from sphinx_nvs.errors import InputError

BEST_PSNR_DB = 100.0
"""PSNR of equal images: the logarithm would be infinite, which JSON cannot represent."""

SSIM_WINDOW = 11
"""Side of SSIM's window in pixels; smaller images have no SSIM."""


@dataclass(frozen=True, kw_only=True)
class ViewMetrics:
    """Similarity of an image to the truth.

    Args:
        psnr_db: peak signal-to-noise ratio, at most `BEST_PSNR_DB`.
        ssim: structural similarity, at most 1.
    """

    psnr_db: float
    ssim: float


def psnr(images: Float[Tensor, "V 3 H W"], truth: Float[Tensor, "V 3 H W"]) -> Float[Tensor, "V"]:
    """PSNR of each image in decibels; see the module docstring."""
    error = (images.double().clamp(0, 1) - truth.double()).square().flatten(1).mean(1)
    return (-10 * torch.log10(error)).clamp_max(BEST_PSNR_DB)


def ssim(images: Float[Tensor, "V 3 H W"], truth: Float[Tensor, "V 3 H W"]) -> Float[Tensor, "V"]:
    """SSIM of each image; see the module docstring.

    Raises:
        InputError: images are smaller than `SSIM_WINDOW`.
    """
    return ssim_with_map(images, truth)[0]


def ssim_with_map(
    images: Float[Tensor, "V 3 H W"], truth: Float[Tensor, "V 3 H W"]
) -> tuple[Float[Tensor, "V"], Float[Tensor, "V H W"]]:
    """SSIM of each image, and its map: the mean over colours around each pixel.

    The value is the map's mean without a border of half a window.

    Raises:
        InputError: images are smaller than `SSIM_WINDOW`.
    """
    if min(images.shape[-2:]) < SSIM_WINDOW:
        size = f"{images.shape[-1]}x{images.shape[-2]}"
        raise InputError("images", f"they are {size} pixels", f"give at least {SSIM_WINDOW} a side for SSIM")
    results = [
        # scikit-image computes in the dtype of its inputs; float64 avoids cancellation in its variances.
        skimage.metrics.structural_similarity(
            t.cpu().double().numpy(),
            i.cpu().double().clamp(0, 1).numpy(),
            win_size=SSIM_WINDOW,
            gaussian_weights=True,
            data_range=1.0,
            channel_axis=0,
            full=True,
        )
        for i, t in zip(images, truth, strict=True)
    ]
    values = torch.tensor([value for value, _ in results], dtype=torch.float64)
    return values, torch.stack([torch.from_numpy(full).mean(0) for _, full in results])


def measure(images: Float[Tensor, "V 3 H W"], truth: Float[Tensor, "V 3 H W"]) -> list[ViewMetrics]:
    """All metrics of every view."""
    return [
        ViewMetrics(psnr_db=float(p), ssim=float(s))
        for p, s in zip(psnr(images, truth), ssim(images, truth), strict=True)
    ]


def mean_metrics(views: list[ViewMetrics]) -> ViewMetrics:
    """The mean over views of each metric."""
    return ViewMetrics(psnr_db=sum(v.psnr_db for v in views) / len(views), ssim=sum(v.ssim for v in views) / len(views))
