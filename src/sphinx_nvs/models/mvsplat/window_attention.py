"""Attention inside 2x2 windows of a feature map, shifted by half a window in every other block.

    A(q, k, v) = softmax(q k^T / sqrt(C) + M) v      inside each window, one head

A shift rolls the map, so that windows wrap around the border; M = -100 separates cells in them that are not neighbours
(Swin transformer; Liu et al., 2021, section 3.2). Positions are encoded inside each window (DETR; Carion et al.,
2020, appendix): with n rows in a window and coordinate p = 2 pi (1 .. n) / n,

    code_2i = sin(p / 10000^(4 i / C)),  code_2i+1 = cos(p / 10000^(4 i / C)),   half the channels for y, half for x.

With three views or more a view's keys are those of all others. The original code lays them pixel after pixel (the same
pixel of every view side by side) and M view after view, so that M fits only pairs of views. Here both lie view after
view: this is the only difference from the original for three views and more, and without a shift there is none.

Shapes: V views, C channels, h w cells, N = h w, W = 4 windows of n = h w / 4 cells, M keys.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

SPLIT = 2
APART = -100.0


def split_windows(x: Float[Tensor, "V h w C"]) -> Float[Tensor, "V W n C"]:
    """Groups cells by window, row by row in both."""
    V, h, w, C = x.shape
    parts = x.view(V, SPLIT, h // SPLIT, SPLIT, w // SPLIT, C).transpose(2, 3)
    return parts.reshape(V, SPLIT * SPLIT, -1, C)


def merge_windows(x: Float[Tensor, "V W n C"], h: int, w: int) -> Float[Tensor, "V h w C"]:
    """The inverse of `split_windows`."""
    V, C = len(x), x.shape[-1]
    parts = x.view(V, SPLIT, SPLIT, h // SPLIT, w // SPLIT, C).transpose(2, 3)
    return parts.reshape(V, h, w, C)


def position_code(channels: int, h: int, w: int) -> Float[Tensor, "C h w"]:
    """The position code of every cell: the same in each window."""
    rows, columns = (_waves(n // SPLIT, channels // 2).repeat(SPLIT, 1) for n in (h, w))
    y = rows.T[:, :, None].expand(-1, h, w)
    x = columns.T[:, None, :].expand(-1, h, w)
    return torch.cat([y, x])


def _waves(length: int, channels: int) -> Float[Tensor, "n c"]:
    """Sines and cosines, interleaved, of the coordinates 1 .. length."""
    coordinate = 2 * math.pi * torch.arange(1, length + 1, dtype=torch.float32) / (length + 1e-6)
    index = torch.arange(channels)
    phase = coordinate[:, None] / 10000.0 ** (2 * (index // 2) / channels)
    return torch.where(index % 2 == 0, phase.sin(), phase.cos())


@dataclass(frozen=True)
class Windows:
    """The windows of one block on an h x w map.

    Args:
        height: h, even.
        width: w, even.
        is_shifted: whether windows are shifted by half a window.
    """

    height: int
    width: int
    is_shifted: bool

    @property
    def shift(self) -> tuple[int, int]:
        """Rows and columns by which the map is rolled up and left."""
        size = (self.height // SPLIT, self.width // SPLIT)
        return (size[0] // 2, size[1] // 2) if self.is_shifted else (0, 0)

    def cut(self, x: Float[Tensor, "V N C"]) -> Float[Tensor, "V W n C"]:
        """Groups cells by window."""
        grid = x.unflatten(1, (self.height, self.width))
        rows, columns = self.shift
        return split_windows(grid.roll((-rows, -columns), (1, 2)) if self.is_shifted else grid)

    def join(self, x: Float[Tensor, "V W n C"]) -> Float[Tensor, "V N C"]:
        """The inverse of `cut`."""
        grid = merge_windows(x, self.height, self.width)
        return (grid.roll(self.shift, (1, 2)) if self.is_shifted else grid).flatten(1, 2)

    def mask(self, x: Float[Tensor, "*_"]) -> Float[Tensor, "W n n"] | None:
        """The term added to the scores, in the dtype and on the device of `x`; None if windows are not shifted."""
        if not self.is_shifted:
            return None
        rows, columns = self.shift
        region = 3 * _bands(self.height, rows)[:, None] + _bands(self.width, columns)[None, :]
        by_window = split_windows(region[None, :, :, None].to(x))[0, :, :, 0]
        return torch.where(by_window[:, :, None] == by_window[:, None, :], 0.0, APART).to(x)


def _bands(length: int, shift: int) -> Tensor:
    """0 before the last window, 1 in it, 2 where it wraps around."""
    band = torch.zeros(length)
    band[-(length // SPLIT) :] = 1
    band[length - shift :] = 2
    return band


def windowed_attention(
    q: Float[Tensor, "V W n C"],
    k: Float[Tensor, "V W M C"],
    v: Float[Tensor, "V W M C"],
    mask: Float[Tensor, "W n n"] | None,
) -> Float[Tensor, "V W n C"]:
    """A(q, k, v); with keys of several views, M is a multiple of n and the mask is repeated for each view."""
    if mask is not None:
        mask = mask.repeat(1, 1, k.shape[2] // mask.shape[-1])[None]  # fast kernels need four axes
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
