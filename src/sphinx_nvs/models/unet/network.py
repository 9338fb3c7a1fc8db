"""One multi-view latent U-Net for every size, from a few million parameters to SEVA's 1.3 billion.

    F(x, t, d, y): rows of noisy latents x with further inputs stacked on their channels, a timestep t per
                   row, a dense map d per row (rays), context tokens y per row -> one output map per row

Encoder levels halve the map (odd sides are rounded up), decoder levels restore the size of their skip. Rows are
(request, frame), frames fastest; `num_frames` is free at run time, since the network has no position embedding of
frames.
Reference: Stable Virtual Camera (SEVA; Zhou et al., 2025), whose checkpoints' parameter names are kept.
Shapes: N = B T rows, B requests, T frames, C channels, D dense channels, M context tokens, h w latent cells.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Num
from torch import Tensor, nn

from sphinx_nvs.errors import InputError
from sphinx_nvs.nn.norms import group_norm
from sphinx_nvs.nn.resample import Downsample, Upsample, halved_sizes
from sphinx_nvs.nn.resblock import ResBlock
from sphinx_nvs.nn.timestep import sinusoid
from sphinx_nvs.nn.transformer import MultiviewTransformer


@dataclass(frozen=True, kw_only=True)
class UNetConfig:
    """Everything that determines the network's shape.

    Args:
        in_channels: channels of the input rows (latents and what is stacked on them).
        out_channels: channels of the output rows.
        model_channels: width of the finest level, a multiple of `norm_groups`.
        channel_mult: width of each level over `model_channels`, finest first.
        num_res_blocks: residual blocks per encoder level; decoder levels have one more.
        attention_resolutions: downsample factors (1, 2, 4, ...) with transformers; the middle always has one.
        num_head_channels: channels of one attention head; divides every width that has a transformer.
        transformer_depth: blocks per transformer, for all levels or for each (the middle is like the coarsest).
        context_dim: channels of the cross-attention context; None leaves cross-attention out.
        dense_in_channels: channels of the dense map.
        joint: transformers whose spatial attention spans all views: `"input_ds2"`, `"middle_ds8"`, ...
        ff_mult: inner width of feed-forwards over their outer width.
        time_mix: whether transformers also attend along the frames of each cell.
        norm_groups: groups of the group norms.

    Raises:
        InputError: a number is out of range, widths do not divide, or `joint` names no transformer.
    """

    in_channels: int
    out_channels: int
    model_channels: int
    channel_mult: tuple[int, ...] = (1, 2, 4, 4)
    num_res_blocks: int = 2
    attention_resolutions: tuple[int, ...] = (4, 2, 1)
    num_head_channels: int = 64
    transformer_depth: int | tuple[int, ...] = 1
    context_dim: int | None = None
    dense_in_channels: int = 6
    joint: tuple[str, ...] = ("middle_ds8", "output_ds4", "output_ds2")
    ff_mult: int = 4
    time_mix: bool = True
    norm_groups: int = 32

    def __post_init__(self) -> None:
        for name in (
            "in_channels",
            "out_channels",
            "model_channels",
            "num_res_blocks",
            "num_head_channels",
            "dense_in_channels",
            "ff_mult",
            "norm_groups",
        ):
            if getattr(self, name) < 1:
                raise InputError(f"UNetConfig.{name}", f"it is {getattr(self, name)}", "give at least 1")
        if not self.channel_mult or min(self.channel_mult) < 1:
            raise InputError("UNetConfig.channel_mult", f"it is {self.channel_mult}", "give multipliers from 1")
        if len(self.depths) != self.num_levels or min(self.depths) < 1:
            found = f"it is {self.transformer_depth} for {self.num_levels} levels"
            raise InputError("UNetConfig.transformer_depth", found, "give one depth of 1 or more, or one per level")
        if self.model_channels % self.norm_groups:
            found = f"{self.model_channels} does not divide by norm_groups {self.norm_groups}"
            raise InputError("UNetConfig.model_channels", found, "give a multiple of norm_groups")
        for factor, width in self._transformer_widths():
            if width % self.num_head_channels:
                found = f"{self.num_head_channels} does not divide the width {width} at downsample {factor}"
                raise InputError("UNetConfig.num_head_channels", found, "give a divisor of every width")
        unknown = sorted(set(self.joint) - set(self.transformer_places))
        if unknown:
            hint = f"choose from {', '.join(self.transformer_places)}"
            raise InputError("UNetConfig.joint", f"no transformer at {', '.join(unknown)}", hint)

    @property
    def num_levels(self) -> int:
        """The number of map sizes."""
        return len(self.channel_mult)

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels of each level, finest first."""
        return tuple(mult * self.model_channels for mult in self.channel_mult)

    @property
    def depths(self) -> tuple[int, ...]:
        """Blocks per transformer at each level, finest first."""
        depth = self.transformer_depth
        return (depth,) * self.num_levels if isinstance(depth, int) else depth

    @property
    def transformer_places(self) -> tuple[str, ...]:
        """Names of all transformers: `input_ds<factor>`, `output_ds<factor>`, and one `middle_ds<factor>`."""
        factors = [2**level for level in range(self.num_levels) if 2**level in self.attention_resolutions]
        sides = [f"{side}_ds{factor}" for side in ("input", "output") for factor in factors]
        return (*sides, f"middle_ds{2 ** (self.num_levels - 1)}")

    def _transformer_widths(self) -> list[tuple[int, int]]:
        levels = enumerate(self.widths)
        inner = [(2**level, width) for level, width in levels if 2**level in self.attention_resolutions]
        return [*inner, (2 ** (self.num_levels - 1), self.widths[-1])]


SEVA = UNetConfig(in_channels=11, out_channels=4, model_channels=320, context_dim=1024)
"""Stable Virtual Camera 1.0 and 1.1: 4 latent, 1 known-view mask and 6 Plücker channels; 21 frames."""


@dataclass(frozen=True)
class RowInputs:
    """The inputs of one forward pass that every layer can use besides the features.

    Args:
        emb: embedding of each row's noise level.
        dense: the dense map at the size of each level, finest first.
        context: cross-attention tokens of each row, or None.
        num_frames: rows per request.
        sizes: height and width of the maps at each level.
    """

    emb: Float[Tensor, "N E"]
    dense: list[Float[Tensor, "N D _h _w"]]
    context: Float[Tensor, "N M X"] | None
    num_frames: int
    sizes: list[tuple[int, int]]


class Stage(nn.ModuleList):
    """Consecutive layers at one level, 0 being the finest; a final `Upsample` changes to the next finer one."""

    def __init__(self, level: int, layers: list[nn.Module]) -> None:
        super().__init__(layers)
        self.level = level

    def forward(self, x: Float[Tensor, "N C _h _w"], inputs: RowInputs) -> Float[Tensor, "N C2 _h2 _w2"]:
        """Runs the layers in order, with the inputs that each takes."""
        for layer in self:
            if isinstance(layer, ResBlock):
                x = layer(x, inputs.emb, inputs.dense[self.level])
            elif isinstance(layer, MultiviewTransformer):
                x = layer(x, inputs.context, inputs.num_frames)
            elif isinstance(layer, Upsample):
                x = layer(x, inputs.sizes[self.level - 1])
            else:
                x = layer(x)
        return x


class UNet(nn.Module):
    """The network; holds parameters and its configuration, and no request state."""

    def __init__(self, config: UNetConfig) -> None:
        super().__init__()
        self.config = config
        emb_channels = 4 * config.model_channels
        self.time_embed = nn.Sequential(
            nn.Linear(config.model_channels, emb_channels), nn.SiLU(), nn.Linear(emb_channels, emb_channels)
        )
        input_stages, skip_channels = _encoder(config)
        self.input_blocks = nn.ModuleList(input_stages)
        self.middle_block = _middle(config)
        self.output_blocks = nn.ModuleList(_decoder(config, skip_channels))
        self.out = nn.Sequential(
            group_norm(config.widths[0], config.norm_groups),
            nn.SiLU(),
            nn.Conv2d(config.widths[0], config.out_channels, 3, padding=1),
        )

    def forward(
        self,
        x: Float[Tensor, "N C h w"],
        timesteps: Num[Tensor, "N"],
        dense: Float[Tensor, "N D h w"],
        context: Float[Tensor, "N M X"] | None,
        num_frames: int,
    ) -> Float[Tensor, "N C_out h w"]:
        """Computes every token of every row.

        Args:
            x: rows, ordered by request, then frame.
            timesteps: the noise index of each row, integer or fractional.
            dense: per-cell conditioning of each row, e.g. Plücker rays.
            context: cross-attention tokens of each row; None exactly when `config.context_dim` is.
            num_frames: rows per request; divides N.

        Raises:
            ValueError: N is not a multiple of `num_frames`, or context is missing or unexpected.
        """
        inputs = self.row_inputs(x, timesteps, dense, context, num_frames)
        skips = []
        for stage in self.input_blocks:
            x = stage(x, inputs)
            skips.append(x)
        x = self.middle_block(x, inputs)
        for stage in self.output_blocks:
            # Skips are taken in the reverse order of the encoder: the coarsest, pushed last, comes first.
            x = stage(torch.cat([x, skips.pop()], dim=1), inputs)
        return self.out(x)

    def row_inputs(
        self,
        x: Float[Tensor, "N C h w"],
        timesteps: Num[Tensor, "N"],
        dense: Float[Tensor, "N D h w"],
        context: Float[Tensor, "N M X"] | None,
        num_frames: int,
    ) -> RowInputs:
        """Computes inputs that layers share: embeds timesteps and resizes the dense map to every level."""
        if num_frames < 1 or len(x) % num_frames:
            raise ValueError(f"rows must be a multiple of num_frames={num_frames}, got {len(x)}")
        if (context is None) != (self.config.context_dim is None):
            given = "none" if context is None else "one"
            raise ValueError(f"context must match context_dim={self.config.context_dim}, got {given}")
        sizes = halved_sizes(x.shape[-2], x.shape[-1], self.config.num_levels)
        waves = sinusoid(timesteps, self.config.model_channels)
        # The waves are made in float32, as indices up to 1000 have no fractions in bfloat16; only their values are
        # cast.
        emb = self.time_embed(waves.to(next(self.parameters()).dtype))
        return RowInputs(emb, [resized(dense, size) for size in sizes], context, num_frames, sizes)


def resized(x: Float[Tensor, "N C _h _w"], size: tuple[int, int]) -> Float[Tensor, "N C _h2 _w2"]:
    """Resizes bilinearly with corners aligned, as SEVA resizes the dense map for each level."""
    if tuple(x.shape[-2:]) == size:
        return x
    return F.interpolate(x, size=size, mode="bilinear", align_corners=True)


def zero_residual_outputs(unet: UNet) -> UNet:
    """Zeroes every residual branch's last layer and the output layer, in place, to start training from scratch.

    The network then returns 0 for any input, and each block passes its input on. Returns the same network.
    Reference: Accurate, Large Minibatch SGD (Goyal et al., 2017, section 5.1), for the residual branches.
    """
    layers: list[nn.Module] = [unet.out[2]]
    for module in unet.modules():
        if isinstance(module, ResBlock):
            layers.append(module.out_layers[3])
        elif isinstance(module, MultiviewTransformer):
            layers.append(module.proj_out)
    for layer in layers:
        for parameter in layer.parameters():
            nn.init.zeros_(parameter)
    return unet


def _res_block(config: UNetConfig, channels: int, out_channels: int) -> ResBlock:
    return ResBlock(
        channels,
        out_channels,
        emb_channels=4 * config.model_channels,
        dense_channels=config.dense_in_channels,
        groups=config.norm_groups,
    )


def _transformer(config: UNetConfig, level: int, side: str) -> MultiviewTransformer:
    return MultiviewTransformer(
        config.widths[level],
        head_dim=config.num_head_channels,
        depth=config.depths[level],
        context_dim=config.context_dim,
        ff_mult=config.ff_mult,
        groups=config.norm_groups,
        joint=f"{side}_ds{2**level}" in config.joint,
        time_mix=config.time_mix,
    )


def _block(config: UNetConfig, level: int, side: str, channels: int) -> list[nn.Module]:
    """A residual block to the level's width, with a transformer if the level has them."""
    layers: list[nn.Module] = [_res_block(config, channels, config.widths[level])]
    if 2**level in config.attention_resolutions:
        layers.append(_transformer(config, level, side))
    return layers


def _encoder(config: UNetConfig) -> tuple[list[Stage], list[int]]:
    """The encoder's stages, and the channels that each passes to the decoder."""
    channels = config.model_channels
    stages = [Stage(0, [nn.Conv2d(config.in_channels, channels, 3, padding=1)])]
    skip_channels = [channels]
    for level, width in enumerate(config.widths):
        for _ in range(config.num_res_blocks):
            stages.append(Stage(level, _block(config, level, "input", channels)))
            channels = width
            skip_channels.append(channels)
        if level < config.num_levels - 1:
            stages.append(Stage(level, [Downsample(channels)]))
            skip_channels.append(channels)
    return stages, skip_channels


def _middle(config: UNetConfig) -> Stage:
    """Residual block, transformer, residual block at the coarsest level."""
    level, width = config.num_levels - 1, config.widths[-1]
    first, last = (_res_block(config, width, width) for _ in range(2))
    return Stage(level, [first, _transformer(config, level, "middle"), last])


def _decoder(config: UNetConfig, skip_channels: list[int]) -> list[Stage]:
    """The decoder's stages, coarsest first; each takes the current features concatenated with one skip."""
    remaining = list(skip_channels)
    channels = config.widths[-1]
    stages = []
    for level in reversed(range(config.num_levels)):
        # One more than the encoder has: its last one takes the skip of the stage before the downsampling.
        for index in range(config.num_res_blocks + 1):
            layers = _block(config, level, "output", channels + remaining.pop())
            channels = config.widths[level]
            if level and index == config.num_res_blocks:
                layers.append(Upsample(channels))
            stages.append(Stage(level, layers))
    return stages
