"""The network call of the paper's released code, fault for fault, so that its results can be compared with ours.

A call computes some cells of some frames. Each transformer keeps three maps of all frames: tokens before its spatial
block (1), after it (2), and after its last layer (3). Only cells in the mask pass through a transformer: as keys and
values they see map 1 of their frame, or of all frames, and map 2 of their own cell in all frames; what they compute is
put into 1 and 2, never into 3, from which the other cells take their answer. All else (convolutions, norms) runs over
whole frames. Keys and values are projected afresh from map 1 at every call.

With tiles, residual blocks of the finest level compute the residual of 6x6 cells (4x4 and a halo) at a time, and of
listed tiles only: a group norm sees one tile, the rays of the *whole* image are squeezed into each, the second
convolution sees zeros around 4x4 cells, and all other tiles have a residual of 0. That is no approximation of the
dense block, even with every tile listed; docs/how-to/compare-with-the-released-code.md has figures.

The exact counterpart, which computes the same for everything and less for every part, is `models.unet.selective`.
Reference: Sphinx (arXiv 2511.18672); rules by the project's notes on its released code, checked on recorded tensors.

Shapes: B guidance branches, T frames, R running frames, n = B R rows, P cells of a level, m of them in the mask,
C channels, D dense channels, X channels of the context token.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from sphinx_nvs.diffusion.guidance import guide
from sphinx_nvs.diffusion.preconditioning import denoise, insert_known
from sphinx_nvs.errors import InputError
from sphinx_nvs.models.seva.seva_denoiser import Seva, SevaConditioning
from sphinx_nvs.models.unet.network import Stage, UNet, resized
from sphinx_nvs.nn.resample import Downsample, Upsample, halved_sizes
from sphinx_nvs.nn.resblock import ResBlock
from sphinx_nvs.nn.timestep import sinusoid
from sphinx_nvs.nn.transformer import MultiviewTransformer, map_from_tokens, tokens_from_map

TILE = 4
"""Cells along a side of a tile, without its halo."""

Layer = Any
"""A submodule of known kind; torch's own types call every one a `Module`."""


@dataclass(eq=False)
class TransformerMaps:
    """The maps that one transformer keeps of all frames of all branches.

    Args:
        before: tokens before the spatial block (1); calls update it in place.
        after: tokens after the spatial block (2); calls update it in place.
        out: what the transformer adds to its input (3), as the last call with every cell left it.
    """

    before: Float[Tensor, "B T P C"]
    after: Float[Tensor, "B T P C"]
    out: Float[Tensor, "B T P C"]


@dataclass(frozen=True, eq=False)
class Part:
    """The cells that a call computes, the same for every running frame.

    Args:
        frames: running frames, ascending.
        cells: per level, finest first, the cells in the mask; a coarser one is if any cell below it is.
        tiles: which tiles of the finest level have a residual; None computes residual blocks as they are.
    """

    frames: Int[Tensor, "R"]
    cells: tuple[Tensor, ...]
    tiles: Bool[Tensor, "th tw"] | None = None

    @staticmethod
    def of(frames: Int[Tensor, "R"], mask: Bool[Tensor, "h w"], num_levels: int, *, tiled: bool = False) -> Part:
        """From the mask of the finest level.

        Raises:
            InputError: `tiled`, and the mask's sides do not divide by `TILE`.
        """
        levels = [mask]
        for _ in range(num_levels - 1):
            levels.append(_pooled(levels[-1], 2))
        cells = tuple(level.flatten().nonzero().squeeze(1) for level in levels)
        if tiled and (mask.shape[0] % TILE or mask.shape[1] % TILE):
            found = f"{mask.shape[0]}x{mask.shape[1]} latent cells do not divide into tiles of {TILE}x{TILE}"
            raise InputError("size", found, "give another size, or run the plan with arithmetic 'exact'")
        return Part(frames, cells, _pooled(mask, TILE) if tiled else None)


@dataclass(frozen=True, eq=False, kw_only=True)
class ResearchCall:
    """A network call.

    Args:
        x: input rows of running frames, branch by branch.
        timestep: the network's noise index.
        rays: dense map of running frames, the same for all branches.
        context: one token per branch.
        num_frames: T.
        part: what to compute; None is everything, and starts the maps anew.
        maps: maps of each transformer; read, updated, or filled.
    """

    x: Float[Tensor, "n C h w"]
    timestep: float
    rays: Float[Tensor, "R D h w"]
    context: Float[Tensor, "B 1 X"]
    num_frames: int
    part: Part | None
    maps: dict[Layer, TransformerMaps] = field(default_factory=dict)


class ResearchUNet:
    """A U-Net run as the released code does; shares its weights, holds nothing of any request.

    Args:
        unet: with transformers of depth 1 that attend along frames, and a cross-attention context, as SEVA's are.

    Raises:
        InputError: the network is of another kind.
    """

    def __init__(self, unet: UNet) -> None:
        config = unet.config
        if set(config.depths) != {1} or not config.time_mix or config.context_dim is None:
            found = f"transformers of depths {config.depths}, time_mix={config.time_mix}, context {config.context_dim}"
            raise InputError("unet", found, "the released code's arithmetic needs depth 1, time_mix and a context")
        self.unet: Layer = unet

    def __call__(self, call: ResearchCall) -> Float[Tensor, "n C_out h w"]:
        """The network's answer for running frames; only cells in the mask are worth anything, if there is a mask."""
        unet = self.unet
        sizes = halved_sizes(call.x.shape[-2], call.x.shape[-1], unet.config.num_levels)
        rays = [resized(call.rays, size).repeat(len(call.context), 1, 1, 1) for size in sizes]
        waves = sinusoid(torch.tensor([call.timestep], device=call.x.device), unet.config.model_channels)
        emb = unet.time_embed(waves.to(call.x.dtype)).expand(len(call.x), -1)
        x, skips = call.x, []
        for stage in unet.input_blocks:
            x = self._stage(stage, x, emb, rays, sizes, call)
            skips.append(x)
        x = self._stage(unet.middle_block, x, emb, rays, sizes, call)
        for stage in unet.output_blocks:
            x = self._stage(stage, torch.cat([x, skips.pop()], 1), emb, rays, sizes, call)
        return unet.out(x)

    def _stage(
        self, stage: Stage, x: Tensor, emb: Tensor, rays: list[Tensor], sizes: list[tuple[int, int]], call: ResearchCall
    ) -> Float[Tensor, "n C2 h2 w2"]:
        tiles = call.part.tiles if call.part is not None and stage.level == 0 else None
        layer: Layer
        for layer in stage:
            if isinstance(layer, ResBlock):
                if tiles is None:
                    x = layer(x, emb, rays[stage.level])
                else:
                    x = tiled_res_block(layer, x, emb, rays[0], tiles)
            elif isinstance(layer, MultiviewTransformer):
                x = x + _transformed(layer, x, stage.level, call)
            elif isinstance(layer, Upsample):
                x = layer(x, sizes[stage.level - 1])
            else:
                assert isinstance(layer, Downsample | torch.nn.Conv2d)
                x = layer(x)
        return x


def _transformed(layer: Layer, x: Float[Tensor, "n C h w"], level: int, call: ResearchCall) -> Tensor:
    """The increment that a transformer adds to its input; updates its maps."""
    tokens = tokens_from_map(layer.norm(x)).unflatten(0, (len(call.context), -1))
    if call.part is None:
        frames = torch.arange(call.num_frames, device=x.device)
        cells = torch.arange(tokens.shape[2], device=x.device)
        call.maps[layer] = TransformerMaps(*(torch.empty_like(tokens) for _ in range(3)))
    else:
        frames, cells = call.part.frames, call.part.cells[level]
    maps = call.maps[layer]
    tokens = layer.proj_in(tokens[:, :, cells])
    maps.before[:, frames[:, None], cells] = tokens
    tokens = _across_cells(layer, tokens, maps.before, frames, call.context)
    maps.after[:, frames[:, None], cells] = tokens
    tokens = tokens + _along_frames(layer.time_mix_blocks[0], maps.after[:, :, cells], frames, call.context)
    out = maps.out if call.part is None else maps.out[:, frames]
    out[:, :, cells] = layer.proj_out(tokens)
    return map_from_tokens(out.flatten(0, 1), x.shape[-2], x.shape[-1])


def _across_cells(
    layer: Layer,
    tokens: Float[Tensor, "B R m C"],
    everyone: Float[Tensor, "B T P C"],
    frames: Int[Tensor, "R"],
    context: Float[Tensor, "B 1 X"],
) -> Float[Tensor, "B R m C"]:
    """The spatial block of cells in the mask, who see all cells of their frame, or of all frames."""
    block = layer.transformer_blocks[0]
    queries, others = block.norm1(tokens), block.norm1(everyone if layer.joint else everyone[:, frames])
    if layer.joint:
        mixed = block.attn1(queries.flatten(1, 2), others.flatten(1, 2)).view_as(tokens)
    else:
        mixed = block.attn1(queries, others)
    tokens = tokens + mixed
    tokens = tokens + block.attn2.one_token(context)[:, None]
    return tokens + block.ff(block.norm3(tokens))


def _along_frames(
    block: Layer, everyone: Float[Tensor, "B T m C"], frames: Int[Tensor, "R"], context: Float[Tensor, "B 1 X"]
) -> Float[Tensor, "B R m C"]:
    """The time-mix block's increment: running frames ask, all frames answer."""
    columns = everyone.transpose(1, 2)
    columns = columns + block.ff_in(block.norm_in(columns))
    asked = columns[:, :, frames]
    mixed = asked + block.attn1(block.norm1(asked), block.norm1(columns))
    mixed = mixed + block.attn2.one_token(context)[:, None]
    return block.ff(block.norm3(mixed)).transpose(1, 2)


def tiled_res_block(
    block: Layer,
    x: Float[Tensor, "n C h w"],
    emb: Float[Tensor, "n E"],
    rays: Float[Tensor, "n D h w"],
    tiles: Bool[Tensor, "th tw"],
) -> Float[Tensor, "n C2 h w"]:
    """A residual block whose residual is computed tile by tile, in the released code's way."""
    height, width = x.shape[-2:]
    listed = tiles.flatten().nonzero().squeeze(1)
    # One cell on each side, for the first of the two convolutions; the second pads with zeros, as the released code
    # does: an error at the borders of tiles that is reproduced here on purpose.
    halo = TILE + 2
    patches = F.unfold(x, halo, padding=1, stride=TILE)[:, :, listed]
    h = patches.transpose(1, 2).reshape(-1, x.shape[1], halo, halo)
    norm, activation, conv = block.in_layers
    # The whole image's rays, squeezed into every tile.
    squeezed = resized(rays, (halo, halo)).repeat_interleave(len(listed), 0)
    scale, shift = block.dense_emb_layers(squeezed).chunk(2, dim=1)
    h = F.conv2d(activation(norm(h)) * (1 + scale) + shift, conv.weight, conv.bias)
    h = h + block.emb_layers(emb).repeat_interleave(len(listed), 0)[:, :, None, None]
    h = block.out_layers(h)
    # Tiles outside the mask keep a residual of zero: there only the skip passes.
    residual = h.new_zeros(len(x), h.shape[1] * TILE**2, tiles.numel())
    residual[:, :, listed] = h.flatten(1).unflatten(0, (len(x), len(listed))).transpose(1, 2)
    return block.skip_connection(x) + F.fold(residual, (height, width), TILE, stride=TILE)


def _pooled(mask: Bool[Tensor, "h w"], factor: int) -> Bool[Tensor, "h2 w2"]:
    """True where any cell below is."""
    return F.max_pool2d(mask[None].float(), factor, ceil_mode=True)[0] > 0


@dataclass(eq=False)
class ResearchRequest:
    """A request while it is refined by `ResearchDenoiser`.

    Args:
        conditioning: what stays the same over its steps.
        maps: what transformers keep between calls.
    """

    conditioning: SevaConditioning
    maps: dict[Layer, TransformerMaps] = field(default_factory=dict)


class ResearchDenoiser:
    """SEVA's guided denoiser with the released code's network call; shares its weights.

    Args:
        seva: the denoiser.

    Raises:
        InputError: its network is of a kind that the released code cannot run.
    """

    def __init__(self, seva: Seva) -> None:
        self.seva = seva
        self.network = ResearchUNet(seva.unet)

    def part(self, frames: Int[Tensor, "R"], mask: Bool[Tensor, "h w"], *, tiled: bool) -> Part:
        """See `Part.of`."""
        return Part.of(frames, mask, self.seva.unet.config.num_levels, tiled=tiled)

    @torch.no_grad()
    def estimate(
        self, request: ResearchRequest, x: Float[Tensor, "R 4 h w"], sigma: float, part: Part | None
    ) -> Float[Tensor, "R 4 h w"]:
        """The clean latents' estimate of running rows; of all rows, context first, if `part` is None."""
        conditioning, kind = request.conditioning, self.seva.dtype
        frames = torch.arange(conditioning.num_rows, device=x.device) if part is None else part.frames
        clean = torch.cat([conditioning.z_context, x.new_zeros(len(conditioning.scale), *x.shape[1:])])
        branches = torch.cat([insert_known(x, clean[frames], conditioning.mask[frames]), x])
        features = torch.cat([branch[frames] for branch in conditioning.features()])
        context = torch.stack([branch[0] for branch in conditioning.contexts()])

        def network(scaled: Tensor, timestep: Tensor) -> Tensor:
            call = ResearchCall(
                x=torch.cat([scaled, features], 1).to(kind),
                timestep=float(timestep[0]),
                rays=conditioning.plucker[frames].to(kind),
                context=context.to(kind),
                num_frames=conditioning.num_rows,
                part=part,
                maps=request.maps,
            )
            return self.network(call).to(scaled.dtype)

        conditional, unconditional = denoise(self.seva.prediction, network, branches, sigma).chunk(2)
        return guide(unconditional, conditional, self._scale(conditioning)[frames])

    def _scale(self, conditioning: SevaConditioning) -> Float[Tensor, "N"]:
        """Guidance of all rows: a context view coincides with itself."""
        settings = self.seva.settings
        known = settings.guidance_scale if settings.guider == 0 else settings.guidance_scale_min
        return torch.cat([conditioning.scale.new_full((conditioning.num_context,), known), conditioning.scale])
