"""Front-to-back compositing of projected Gaussians, in plain torch.

In pixel p a Gaussian of opacity o and offset d from its mean has alpha = min(o exp(-d^T S'^-1 d / 2),
max_alpha); those below `min_alpha` are skipped. Over the Gaussians of a pixel, nearest first,

    weight_i = alpha_i T_i,   T_{i+1} = T_i (1 - alpha_i),   until T_{i+1} would fall below `min_transmittance`.

All (Gaussian, pixel) fragments are listed, sorted by pixel with the depth order kept, and T is a segmented
running sum of log(1 - alpha). Bands of rows bound the memory.

Shapes: N Gaussians nearest first, C channels, P fragments, H W pixels.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

FRAGMENTS_AT_ONCE = 4_000_000


@dataclass(frozen=True)
class Splats:
    """The visible Gaussians as a compositor takes them, nearest first.

    Args:
        means2d: (u, v) in pixels.
        conic: (xx, xy, yy) of the inverse screen covariance.
        opacities: [0, 1].
        boxes: (x0, x1, y0, y1), first and last pixel that each Gaussian can reach; none is empty.
        values: the channels to composite.
    """

    means2d: Float[Tensor, "N 2"]
    conic: Float[Tensor, "N 3"]
    opacities: Float[Tensor, " N"]
    boxes: Int[Tensor, "N 4"]
    values: Float[Tensor, "N C"]


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Cut-off constants of 3D Gaussian splatting: see the module docstring."""

    max_alpha: float
    min_alpha: float
    min_transmittance: float


def composite_torch(
    splats: Splats, height: int, width: int, limits: Limits
) -> tuple[Float[Tensor, "C H W"], Float[Tensor, "H W"]]:
    """Composites channels over black; returns them and alpha, the sum of weights."""
    channels = splats.values.shape[1]
    out = splats.values.new_zeros(height * width, channels + 1)
    for top, bottom in _bands(splats.boxes, height):
        pixel, index = _fragments(splats.boxes, top, bottom, width)
        pixel, index, weight = _weights(splats, pixel, index, width, limits)
        values = torch.cat([splats.values, torch.ones_like(splats.values[:, :1])], 1)
        out.index_add_(0, pixel, weight[:, None] * values[index])
    out = out.view(height, width, -1).permute(2, 0, 1)
    return out[:channels], out[channels].clamp(0, 1)


def _bands(boxes: Int[Tensor, "N 4"], height: int) -> list[tuple[int, int]]:
    """Row ranges [top, bottom) with about `FRAGMENTS_AT_ONCE` fragments each, at least one row."""
    # Fragments per row as a running sum of differences: a box adds its width at its first row and removes it after
    # its last one.
    per_row = boxes.new_zeros(height + 1)
    widths = boxes[:, 1] - boxes[:, 0] + 1
    per_row.index_add_(0, boxes[:, 2], widths)
    per_row.index_add_(0, boxes[:, 3] + 1, -widths)
    bands, top, load = [], 0, 0
    for row, count in enumerate(per_row.cumsum(0)[:height].tolist()):
        if load + count > FRAGMENTS_AT_ONCE and row > top:
            bands.append((top, row))
            top, load = row, 0
        load += count
    return [*bands, (top, height)]


def _fragments(
    boxes: Int[Tensor, "N 4"], top: int, bottom: int, width: int
) -> tuple[Int[Tensor, " P"], Int[Tensor, " P"]]:
    """Pixel and Gaussian of every fragment in a band, ordered by Gaussian."""
    x0, y0 = boxes[:, 0], boxes[:, 2].clamp_min(top)
    columns = boxes[:, 1] - x0 + 1
    rows = (boxes[:, 3].clamp_max(bottom - 1) - y0 + 1).clamp_min(0)
    count = columns * rows
    index = torch.repeat_interleave(torch.arange(len(boxes), device=boxes.device), count)
    # Position of each fragment inside its Gaussian's box, row by row.
    place = torch.arange(len(index), device=boxes.device) - (count.cumsum(0) - count)[index]
    row = torch.div(place, columns[index], rounding_mode="floor")
    return (y0[index] + row) * width + x0[index] + place - row * columns[index], index


def _weights(
    splats: Splats, pixel: Int[Tensor, " P"], index: Int[Tensor, " P"], width: int, limits: Limits
) -> tuple[Int[Tensor, " Q"], Int[Tensor, " Q"], Float[Tensor, " Q"]]:
    """Pixel, Gaussian and weight of the contributing fragments, sorted by pixel."""
    row = torch.div(pixel, width, rounding_mode="floor")
    dx = pixel - row * width + 0.5 - splats.means2d[index, 0]
    dy = row + 0.5 - splats.means2d[index, 1]
    xx, xy, yy = splats.conic[index].unbind(-1)
    alpha = splats.opacities[index] * torch.exp(-0.5 * (xx * dx * dx + yy * dy * dy) - xy * dx * dy)
    kept = (alpha >= limits.min_alpha).nonzero()[:, 0]
    # A stable sort keeps the depth order inside each pixel.
    pixel, order = torch.sort(pixel[kept], stable=True)
    kept = kept[order]
    alpha = alpha[kept].clamp_max(limits.max_alpha)
    transmittance = _transmittance(alpha, pixel)
    # As in 3DGS: the Gaussian that would make a pixel opaque is left out itself.
    counts = transmittance * (1 - alpha) >= limits.min_transmittance
    return pixel, index[kept], torch.where(counts, alpha * transmittance, 0)


def _transmittance(alpha: Float[Tensor, " Q"], pixel: Int[Tensor, " Q"]) -> Float[Tensor, " Q"]:
    """Product of (1 - alpha) over the fragments before each one in its pixel."""
    log_pass = torch.log1p(-alpha.double())
    # In float64: subtracting the sum at the segment's start cancels digits that float32 does not have.
    before = log_pass.cumsum(0) - log_pass
    is_first = torch.ones_like(pixel, dtype=torch.bool)
    is_first[1:] = pixel[1:] != pixel[:-1]
    segment = is_first.cumsum(0) - 1
    return torch.exp(before - before[is_first.nonzero()[:, 0]][segment]).to(alpha)
