"""Normalisations whose statistics are computed in float32 at any precision.

    GN(x) = gamma (x - mean_g) / sqrt(var_g + eps) + beta,   statistics over a group's channels and all cells

PyTorch's kernels accumulate in float32 for half-precision inputs, and autocast on CUDA promotes them to float32.
Reference: Group Normalization (Wu and He, 2018).
"""

from torch import nn


def group_norm(channels: int, groups: int, eps: float = 1e-5) -> nn.GroupNorm:
    """A group norm with a gain and a bias per channel; `groups` must divide `channels`."""
    return nn.GroupNorm(groups, channels, eps=eps)
