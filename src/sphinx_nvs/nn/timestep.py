"""Sinusoidal embedding of a noise index.

    e(t) = [cos(t f_i) | sin(t f_i)],   f_i = max_period^(-i / (dim/2)),   i < dim/2

Reference: Attention Is All You Need (Vaswani et al., 2017, section 3.5), with cosines first.
Shapes: N rows, D channels.
"""

import math

import torch
from jaxtyping import Float, Num
from torch import Tensor


def sinusoid(timesteps: Num[Tensor, "N"], dim: int, max_period: float = 10_000.0) -> Float[Tensor, "N {dim}"]:
    """Embeds timesteps, integer or fractional, one row each.

    Args:
        timesteps: the network's noise index; any real number, resolved best if they span hundreds.
        dim: even number of channels.
        max_period: the longest wavelength over 2 pi, in timesteps.

    Returns:
        Values in [-1, 1], float32 (float64 for float64 timesteps).
    """
    if dim % 2:
        raise ValueError(f"dim must be even, got {dim}: a sinusoidal embedding pairs cosines with sines")
    # Never in half precision: products of large timesteps and high frequencies would lose the phase.
    dtype = torch.float64 if timesteps.dtype == torch.float64 else torch.float32
    index = torch.arange(dim // 2, dtype=dtype, device=timesteps.device)
    frequencies = torch.exp(index * (-math.log(max_period) / (dim // 2)))
    angles = timesteps.to(dtype)[:, None] * frequencies
    return torch.cat([angles.cos(), angles.sin()], dim=-1)
