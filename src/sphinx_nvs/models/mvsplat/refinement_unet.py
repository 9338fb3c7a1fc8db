"""The U-Net that refines cost volumes and depths: latent diffusion's, without time, and normalised after each layer.

    res(x) = skip(x) + silu(GN(conv(silu(GN(conv(x)))))),      attention(x) = x + GN(W A(q, k, v))

Tokens of all views attend to each other; norms are computed per view. There is one residual block per encoder level,
and two per decoder level.
Reference: MVSplat (Chen et al., 2024), section 3.2; Latent diffusion (Rombach et al., 2022), whose parameter names
are kept. Shapes: V views, C channels, h w cells.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from sphinx_nvs.models.mvsplat.encoder_config import HEAD_CHANNELS, UNetShape


def grouped_norm(channels: int) -> nn.GroupNorm:
    """Eight groups if they divide the channels, else four."""
    return nn.GroupNorm(8 if channels % 8 == 0 else 4, channels)


def conv3(channels: int, out_channels: int) -> nn.Conv2d:
    """A 3x3 convolution that keeps the size."""
    return nn.Conv2d(channels, out_channels, 3, padding=1)


class ResBlock(nn.Module):
    """The residual block res(x)."""

    def __init__(self, channels: int, out_channels: int) -> None:
        super().__init__()
        self.in_layers = _conv_norm_act(channels, out_channels)
        self.out_layers = _conv_norm_act(out_channels, out_channels)
        is_same = channels == out_channels
        self.skip_connection: nn.Module = nn.Identity() if is_same else nn.Conv2d(channels, out_channels, 1)

    def forward(self, x: Float[Tensor, "V C h w"]) -> Float[Tensor, "V C2 h w"]:
        """Applies the residual block."""
        return self.skip_connection(x) + self.out_layers(self.in_layers(x))


class CrossViewAttention(nn.Module):
    """The residual attention(x) over all cells of all views."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.qkv = nn.Conv1d(channels, 3 * channels, 1)
        self.proj_out = nn.Conv1d(channels, channels, 1)
        self.norm = grouped_norm(channels)

    def forward(self, x: Float[Tensor, "V C h w"]) -> Float[Tensor, "V C h w"]:
        """Applies the residual attention; parameters do not depend on V."""
        V, C, h, w = x.shape
        tokens = x.flatten(2).transpose(0, 1).reshape(1, C, V * h * w)
        # The output's channels are ordered by head, with q, k, v inside each head.
        q, k, v = self.qkv(tokens).view(-1, 3 * HEAD_CHANNELS, V * h * w).transpose(1, 2).chunk(3, -1)
        attended = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(1, C, V * h * w)
        change = self.proj_out(attended).view(C, V, h, w).transpose(0, 1)
        return x + self.norm(change)


class Downsample(nn.Module):
    """Halves the size by a strided convolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.op = nn.Conv2d(channels, channels, 3, stride=2, padding=1)

    def forward(self, x: Float[Tensor, "V C h w"]) -> Float[Tensor, "V C h2 w2"]:
        """Halves the size."""
        return self.op(x)


class Upsample(nn.Module):
    """Doubles the size by nearest-neighbour upsampling and a convolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = conv3(channels, channels)

    def forward(self, x: Float[Tensor, "V C h w"]) -> Float[Tensor, "V C h2 w2"]:
        """Doubles the size."""
        return self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))


class UNet(nn.Module):
    """Maps features of any size that is a multiple of `shape.divisor` to features of the same size and width."""

    def __init__(self, shape: UNetShape) -> None:
        super().__init__()
        stages, skips = _encoder(shape)
        self.input_blocks = nn.ModuleList(stages)
        coarsest = shape.widths[-1]
        self.middle_block = nn.Sequential(ResBlock(coarsest, coarsest), nn.Identity(), ResBlock(coarsest, coarsest))
        self.output_blocks = nn.ModuleList(_decoder(shape, skips))
        self.out = _conv_norm_act(shape.widths[0], shape.width)

    def forward(self, x: Float[Tensor, "V C h w"]) -> Float[Tensor, "V C h w"]:
        """Runs encoder, middle, and decoder with skips."""
        skips = []
        for stage in self.input_blocks:
            x = stage(x)
            skips.append(x)
        x = self.middle_block(x)
        for stage in self.output_blocks:
            x = stage(torch.cat([x, skips.pop()], 1))
        return self.out(x)


def _conv_norm_act(channels: int, out_channels: int) -> nn.Sequential:
    """silu(GN(conv(x)))."""
    return nn.Sequential(conv3(channels, out_channels), grouped_norm(out_channels), nn.SiLU())


def _block(shape: UNetShape, level: int, channels: int) -> list[nn.Module]:
    """A residual block to the level's width, with attention if the level has it."""
    width = shape.widths[level]
    attention = [CrossViewAttention(width)] if 2**level in shape.attention_at else []
    return [ResBlock(channels, width), *attention]


def _encoder(shape: UNetShape) -> tuple[list[nn.Module], list[int]]:
    """The encoder's stages, and the channels that each passes to the decoder."""
    channels = shape.width
    stages: list[nn.Module] = [nn.Sequential(conv3(channels, channels))]
    skips = [channels]
    for level, width in enumerate(shape.widths):
        stages.append(nn.Sequential(*_block(shape, level, channels)))
        channels = width
        skips.append(channels)
        if level < len(shape.widths) - 1:
            stages.append(nn.Sequential(Downsample(channels)))
            skips.append(channels)
    return stages, skips


def _decoder(shape: UNetShape, skips: list[int]) -> list[nn.Module]:
    """The decoder's stages, coarsest first; each takes the current features concatenated with one skip."""
    channels, waiting = shape.widths[-1], list(skips)
    stages: list[nn.Module] = []
    for level in reversed(range(len(shape.widths))):
        for is_last in (False, True):
            layers = _block(shape, level, channels + waiting.pop())
            channels = shape.widths[level]
            if is_last and level:
                layers.append(Upsample(channels))
            stages.append(nn.Sequential(*layers))
    return stages
