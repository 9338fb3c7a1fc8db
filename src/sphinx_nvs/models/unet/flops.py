"""FLOPs of a call of the multi-view U-Net by part and level, from its configuration and the tokens it computes.

    linear map or convolution: 2 FLOPs per weight and position;    attention core: 4 L M C

One multiply-add is 2 FLOPs. Norms, activations and sums are left out; convolutions cost 9 taps at borders too. In a
*selective* call only active tokens are computed: their queries, keys, values, projections, feed-forwards and
convolution outputs. Every active query still attends to all cells of its view (of all views in joint attention, to all
frames of its cell in time mixing), whose keys and values are cached from an earlier call.

So a configuration determines a price list: FLOPs per unit (a token, a row, a pair of tokens, ...) of each part at each
level. A call's cost is the sum of prices times the number of units, and a plan's cost is the sum of its calls.

Shapes: N rows, one per frame; L queries, M keys or context tokens, C channels, h w latent cells.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from math import prod
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool
from torch import Tensor, nn

from sphinx_nvs.errors import InputError
from sphinx_nvs.models.unet.network import Stage, UNet, UNetConfig
from sphinx_nvs.nn.resample import Downsample, Upsample, halved_sizes
from sphinx_nvs.nn.resblock import ResBlock
from sphinx_nvs.nn.transformer import MultiviewTransformer, SpatialBlock, TimeMixBlock

RES_CONV = "res conv 3x3"
RES_SKIP = "res skip"
FILM = "FiLM"
EMBEDDING = "embedding"
OTHER_CONV = "convolutions in/out/down/up"
PROJ = "proj in/out"
SELF_PROJECTIONS = "self-attention projections"
JOINT_CORE = "attention core (joint)"
VIEW_CORE = "attention core (per view)"
CROSS = "cross-attention"
FEED_FORWARD = "feed-forward"
TIME_FEED_FORWARD_IN = "time-mix feed-forward in"
TIME_ATTENTION = "time-mix attention"
TIME_FEED_FORWARD = "time-mix feed-forward"

TOKEN = "active token"
COARSER_TOKEN = "active token of the next coarser level"
CELL = "cell of each frame, in one branch"
ROW = "row of each branch"
REQUEST = "branch"
ROW_CONTEXT = "context token of each row"
REQUEST_CONTEXT = "context token of each branch's first row"
VIEW_PAIR = "active token and cell of its view"
JOINT_PAIR = "active token and cell of any view"
TIME_PAIR = "active token and frame of its cell"
CONTEXT_PAIR = "active token and context token"


@dataclass(frozen=True, kw_only=True)
class CallShape:
    """The size of one network call.

    Args:
        size: height and width of the finest latent grid, cells.
        num_frames: rows of the request, context views included.
        active: number of active tokens of each frame, for each level, finest first (see `active_counts`); None means
            all of them, a dense call.
        branches: guidance branches, each a run of all rows.
        context_tokens: cross-attention tokens of each row; 0 exactly when the configuration has no `context_dim`.
        folded: whether values that are constant over a request are precomputed (`folding_flops`) and not counted here:
            the modulation by the dense map, and cross-attention if its context is one token.

    Raises:
        InputError: a number is out of range, or `active` does not fit `num_frames` and `size`.
    """

    size: tuple[int, int]
    num_frames: int
    active: tuple[tuple[int, ...], ...] | None = None
    branches: int = 1
    context_tokens: int = 0
    folded: bool = False

    def __post_init__(self) -> None:
        lowest = {"size": min(self.size), "num_frames": self.num_frames, "branches": self.branches}
        for name, value in lowest.items():
            if value < 1:
                raise InputError(f"CallShape.{name}", f"it is {getattr(self, name)}", "give at least 1")
        if self.context_tokens < 0:
            raise InputError("CallShape.context_tokens", f"it is {self.context_tokens}", "give at least 0")
        for level, counts in enumerate(self.active or ()):
            self._check_active(f"CallShape.active[{level}]", counts, self.sizes(level + 1)[-1])

    def _check_active(self, where: str, counts: tuple[int, ...], size: tuple[int, int]) -> None:
        if len(counts) != self.num_frames:
            raise InputError(where, f"it has {len(counts)} frames", f"give one count for each of {self.num_frames}")
        if min(counts) < 0 or max(counts) > prod(size):
            found = f"its counts span {min(counts)}..{max(counts)}"
            raise InputError(where, found, f"give 0..{prod(size)}, as the map has {size[0]}x{size[1]} cells")

    def sizes(self, num_levels: int) -> list[tuple[int, int]]:
        """Height and width of the maps, finest first."""
        return halved_sizes(*self.size, num_levels)

    def tokens(self, num_levels: int) -> list[int]:
        """Number of tokens computed at each level, over all frames and branches."""
        if self.active is None:
            return [prod(size) * self.num_frames * self.branches for size in self.sizes(num_levels)]
        return [sum(counts) * self.branches for counts in self.active]


def call_flops(config: UNetConfig, shape: CallShape) -> dict[tuple[str, int], int]:
    """FLOPs of one network call.

    A change of size counts at the finer of its two levels. The embedding of the noise level and the context's keys
    and values count for every row, whether or not it has active tokens.

    Returns:
        FLOPs by (part, level), level 0 the finest; a part that a level lacks is absent or 0.

    Raises:
        InputError: the number of levels differs from `config`'s, or `shape` has context tokens and `config` takes none,
            or the reverse.
    """
    given = _foldable_parts(shape) if shape.folded else set()
    return _bill(config, shape, (price for price in _call_prices(config) if price.part not in given))


def folding_flops(config: UNetConfig, shape: CallShape) -> dict[tuple[str, int], int]:
    """FLOPs, once per request, of the values that calls with `folded` set do not count.

    They are the modulation by the dense map, at all cells and for one branch, since guidance does not change the map;
    and, if the context is one token, the term that cross-attention adds to every query: one vector per row and branch.

    Returns:
        FLOPs by (part, level), as `call_flops`; `shape.active` and `shape.folded` make no difference.

    Raises:
        InputError: as `call_flops`.
    """
    given = _foldable_parts(shape)
    return _bill(config, shape, (price for price in _folding_prices(config) if price.part in given))


def total(flops: Mapping[tuple[str, int], int]) -> int:
    """FLOPs of all parts and levels together."""
    return sum(flops.values())


def active_counts(mask: Bool[Tensor, "N h w"], num_levels: int) -> tuple[tuple[int, ...], ...]:
    """Active tokens of each frame at each level, finest first: a coarser cell is active if any cell it covers is.

    Args:
        mask: True where a cell of the finest grid is computed.
        num_levels: levels of the network; sides halve from one to the next, odd ones are rounded up.
    """
    maps = [mask[:, None].float()]
    for _ in range(num_levels - 1):
        maps.append(F.max_pool2d(maps[-1], 2, ceil_mode=True))
    return tuple(tuple(level.count_nonzero((1, 2, 3)).tolist()) for level in maps)


def _foldable_parts(shape: CallShape) -> set[str]:
    """Parts that are constant over a request; attention to a single token returns its value for any query."""
    return {FILM, CROSS} if shape.context_tokens == 1 else {FILM}


class _Price(NamedTuple):
    """FLOPs of a part at a level for each unit of a kind."""

    part: str
    level: int
    unit: str
    flops: int


def _bill(config: UNetConfig, shape: CallShape, prices: Iterable[_Price]) -> dict[tuple[str, int], int]:
    """Sums prices times quantities by part and level."""
    quantities = _quantities(config, shape)
    flops = Counter[tuple[str, int]]()
    for price in prices:
        flops[price.part, price.level] += price.flops * quantities[price.level][price.unit]
    return dict(flops)


def _quantities(config: UNetConfig, shape: CallShape) -> list[dict[str, int]]:
    """Number of units of each kind in a call, per level."""
    levels = config.num_levels
    if shape.active is not None and len(shape.active) != levels:
        raise InputError("CallShape.active", f"it has {len(shape.active)} levels", f"give {levels}, as the network has")
    if (shape.context_tokens > 0) != (config.context_dim is not None):
        found = f"it is {shape.context_tokens} for context_dim {config.context_dim}"
        raise InputError("CallShape.context_tokens", found, "give 0 exactly when context_dim is None")
    frames, rows, context = shape.num_frames, shape.num_frames * shape.branches, shape.context_tokens
    tokens = shape.tokens(levels)
    return [
        {
            TOKEN: tokens[level],
            # A slice, so that the coarsest level has 0 and no index is out of range.
            COARSER_TOKEN: sum(tokens[level + 1 : level + 2]),
            CELL: frames * prod(size),
            ROW: rows,
            REQUEST: shape.branches,
            ROW_CONTEXT: rows * context,
            REQUEST_CONTEXT: shape.branches * context,
            VIEW_PAIR: tokens[level] * prod(size),
            JOINT_PAIR: tokens[level] * prod(size) * frames,
            TIME_PAIR: tokens[level] * frames,
            CONTEXT_PAIR: tokens[level] * context,
        }
        for level, size in enumerate(shape.sizes(levels))
    ]


@lru_cache(maxsize=16)
def _call_prices(config: UNetConfig) -> tuple[_Price, ...]:
    """The price list of calls, derived from the network's own layers."""
    unet = _unet_without_weights(config)
    prices = [_Price(EMBEDDING, 0, ROW, _weight_flops(unet.time_embed))]
    for level, layer in _layers(unet):
        prices += [_Price(part, level, unit, flops) for part, unit, flops in _layer_prices(layer)]
    return (*prices, _Price(OTHER_CONV, 0, TOKEN, _weight_flops(unet.out)))


@lru_cache(maxsize=16)
def _folding_prices(config: UNetConfig) -> tuple[_Price, ...]:
    """The price list of precomputed values."""
    prices = []
    for level, layer in _layers(_unet_without_weights(config)):
        if isinstance(layer, ResBlock):
            prices.append(_Price(FILM, level, CELL, _weight_flops(layer.dense_emb_layers)))
        elif isinstance(layer, MultiviewTransformer) and config.context_dim is not None:
            for block in _blocks(layer):
                unit = REQUEST if _first_row_only(layer, block) else ROW
                prices.append(_Price(CROSS, level, unit, _weight_flops(block.attn2.to_v, block.attn2.to_out)))
    return tuple(prices)


def _unet_without_weights(config: UNetConfig) -> UNet:
    with torch.device("meta"):
        return UNet(config)


def _layers(unet: UNet) -> Iterator[tuple[int, nn.Module]]:
    """The layers of all stages, each with the level at which its cost is counted."""
    for stage in unet.modules():
        if isinstance(stage, Stage):
            for layer in stage:
                # An upsampling convolution runs at the size that it makes.
                yield stage.level - isinstance(layer, Upsample), layer


def _blocks(transformer: MultiviewTransformer) -> Iterator[SpatialBlock]:
    return (block for block in transformer.modules() if isinstance(block, SpatialBlock))


def _first_row_only(transformer: MultiviewTransformer, block: SpatialBlock) -> bool:
    """Whether a block's queries come from all frames at once, so that only the first row's context is used."""
    return transformer.joint or isinstance(block, TimeMixBlock)


def _weight_flops(*modules: nn.Module) -> int:
    """FLOPs per position of consecutive linear layers and convolutions; gains and biases cost nothing."""
    # A weight is used once per position; with one multiplication and one addition each.
    return sum(2 * weight.numel() for module in modules for weight in module.parameters() if weight.dim() > 1)


def _layer_prices(layer: nn.Module) -> Iterator[tuple[str, str, int]]:
    if isinstance(layer, ResBlock):
        yield RES_CONV, TOKEN, _weight_flops(layer.in_layers, layer.out_layers)
        yield RES_SKIP, TOKEN, _weight_flops(layer.skip_connection)
        yield FILM, TOKEN, _weight_flops(layer.dense_emb_layers)
        yield EMBEDDING, ROW, _weight_flops(layer.emb_layers)
    elif isinstance(layer, MultiviewTransformer):
        yield PROJ, TOKEN, _weight_flops(layer.proj_in, layer.proj_out)
        for block in _blocks(layer):
            yield from _time_prices(block) if isinstance(block, TimeMixBlock) else _spatial_prices(block, layer.joint)
            if hasattr(block, "attn2"):
                yield from _cross_prices(block, _first_row_only(layer, block))
    else:
        yield OTHER_CONV, COARSER_TOKEN if isinstance(layer, Downsample) else TOKEN, _weight_flops(layer)


def _spatial_prices(block: SpatialBlock, joint: bool) -> Iterator[tuple[str, str, int]]:
    part, unit = (JOINT_CORE, JOINT_PAIR) if joint else (VIEW_CORE, VIEW_PAIR)
    yield SELF_PROJECTIONS, TOKEN, _weight_flops(block.attn1)
    # Four per pair and channel: a multiplication and an addition for q k^T, and again for the weighted sum of v.
    yield part, unit, 4 * block.attn1.to_q.out_features
    yield FEED_FORWARD, TOKEN, _weight_flops(block.ff)


def _time_prices(block: TimeMixBlock) -> Iterator[tuple[str, str, int]]:
    yield TIME_FEED_FORWARD_IN, TOKEN, _weight_flops(block.ff_in)
    yield TIME_ATTENTION, TOKEN, _weight_flops(block.attn1)
    yield TIME_ATTENTION, TIME_PAIR, 4 * block.attn1.to_q.out_features
    yield TIME_FEED_FORWARD, TOKEN, _weight_flops(block.ff)


def _cross_prices(block: SpatialBlock, first_row_only: bool) -> Iterator[tuple[str, str, int]]:
    attn = block.attn2
    yield CROSS, TOKEN, _weight_flops(attn.to_q, attn.to_out)
    yield CROSS, REQUEST_CONTEXT if first_row_only else ROW_CONTEXT, _weight_flops(attn.to_k, attn.to_v)
    yield CROSS, CONTEXT_PAIR, 4 * attn.to_q.out_features
