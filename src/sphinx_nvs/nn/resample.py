"""Halving and doubling of feature maps.

Down is a 3x3 convolution with stride 2 and padding 1, so a side of n becomes ceil(n / 2). Up repeats the
nearest cell and convolves 3x3; its caller gives the output size, so odd sides are restored exactly.
Shapes: N rows, C channels, h w cells.
"""

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn


class Downsample(nn.Module):
    """Strided convolution that halves the sides, rounded up."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.op = nn.Conv2d(channels, channels, 3, stride=2, padding=1)

    def forward(self, x: Float[Tensor, "N C h w"]) -> Float[Tensor, "N C h2 w2"]:
        """The smaller map."""
        return self.op(x)


class Upsample(nn.Module):
    """Nearest-neighbour upsampling followed by a convolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Float[Tensor, "N C h w"], size: tuple[int, int]) -> Float[Tensor, "N C h2 w2"]:
        """The larger map of `size` = (height, width): twice the side, or one less."""
        return self.conv(F.interpolate(x, size=size, mode="nearest"))


def halved_sizes(height: int, width: int, levels: int) -> list[tuple[int, int]]:
    """Map sizes from the finest level to the coarsest, as `Downsample` produces them."""
    sizes = [(height, width)]
    for _ in range(levels - 1):
        height, width = (height + 1) // 2, (width + 1) // 2
        sizes.append((height, width))
    return sizes
