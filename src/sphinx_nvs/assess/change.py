"""How much one picture differs from another in structure, pixel by pixel: 1 - SSIM, on any device.

    SSIM = (2 m_a m_b + c1) (2 s_ab + c2) / ((m_a^2 + m_b^2 + c1) (s_a^2 + s_b^2 + c2)),    c = (0.01^2, 0.03^2)
    contrast = 2 s_a^2 / (2 s_a^2 + c2)

with means m and (co)variances s under a Gaussian window of 11 pixels, sigma 1.5, mirrored at the border, averaged over
colours. Contrast says how little a change of given size shows: where it is low, SSIM falls by the smallest. Used as a
signal of plans; figures of evaluations come from scikit-image, whose map it equals to 3e-5 (a test).

Reference: Image quality assessment: from error visibility to structural similarity (Wang et al., 2004).

Shapes: V views, H W pixels, h w cells.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

RADIUS, SIGMA = 5, 1.5
C1, C2 = 0.01**2, 0.03**2


def structural_change(a: Float[Tensor, "V 3 H W"], b: Float[Tensor, "V 3 H W"]) -> Float[Tensor, "V H W"]:
    """1 - SSIM of two sets of pictures in [0, 1]: 0 where they are the same, at most 2; in float32."""
    # A view at a time: what is blurred, ten times a view's size, stays in the cache.
    return torch.cat([_change(x.float(), y.float()) for x, y in zip(a.split(1), b.split(1), strict=True)])


def _change(a: Float[Tensor, "1 3 H W"], b: Float[Tensor, "1 3 H W"]) -> Float[Tensor, "1 H W"]:
    moments = _blurred(torch.cat([a, b, a * a, b * b, a * b]))
    mean_a, mean_b, square_a, square_b, product = moments.chunk(5)
    var_a, var_b = square_a - mean_a.square(), square_b - mean_b.square()
    covariance = product - mean_a * mean_b
    top = (2 * mean_a * mean_b + C1) * (2 * covariance + C2)
    bottom = (mean_a.square() + mean_b.square() + C1) * (var_a + var_b + C2)
    return 1 - (top / bottom).mean(1)


def contrast(images: Float[Tensor, "V 3 H W"]) -> Float[Tensor, "V H W"]:
    """How structured pictures in [0, 1] are, 0..1: 0 where they are flat; in float32."""
    grey = images.float().mean(1, keepdim=True)
    mean, square = _blurred(torch.cat([grey, grey * grey])).chunk(2)
    variance = (square - mean.square()).clamp(min=0)
    return (2 * variance / (2 * variance + C2))[:, 0]


def cell_means(maps: Float[Tensor, "V H W"], factor: int) -> Float[Tensor, "V h w"]:
    """Means over cells of `factor` pixels a side."""
    return F.avg_pool2d(maps[:, None], factor)[:, 0]


def _blurred(images: Float[Tensor, "V C H W"]) -> Float[Tensor, "V C H W"]:
    """Under the Gaussian window; mirrored at the border, edges repeated."""
    return _along(_along(images, 2), 3)


def _along(images: Tensor, dim: int) -> Tensor:
    """The window along one dimension; shifted sums are some fifteen times faster than a grouped convolution here."""
    weights = [math.exp(-0.5 * (x / SIGMA) ** 2) for x in range(-RADIUS, RADIUS + 1)]
    padded, size = _mirrored(images, dim), images.shape[dim]
    total = torch.zeros_like(images)
    for shift, weight in enumerate(weights):
        total.add_(padded.narrow(dim, shift, size), alpha=weight / sum(weights))
    return total


def _mirrored(images: Tensor, dim: int) -> Tensor:
    """Padded by the window's radius as scipy's `reflect` does: d c b a | a b c d | d c b a."""
    size = images.shape[dim]
    period = 2 * size
    index = torch.arange(-RADIUS, size + RADIUS, device=images.device) % period
    return images.index_select(dim, torch.where(index < size, index, period - 1 - index))
