"""The U-Net's operations that mix tokens, in a dense and a sparse version.

`models.unet.selective` runs the layers; this module implements convolutions, group norms and attention, which need
neighbouring tokens: a dense call computes them all and stores them in the cache; a sparse call reads the inactive ones
from it.

Shapes: N frames of a request, T = N h w tokens of a level, n computed tokens (T in a dense call), C channels, Cv
varying input channels, D dense channels, H heads of d channels.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from sphinx_nvs.models.unet.network import UNet
from sphinx_nvs.nn.active_tokens import ActiveLevel, ActiveTokens
from sphinx_nvs.nn.attention import Attention
from sphinx_nvs.nn.cpu_features import has_amx
from sphinx_nvs.nn.feature_cache import FeatureCache, NormSums
from sphinx_nvs.nn.gather_conv import conv_weight_rows, gather_conv, gathered
from sphinx_nvs.nn.packed_linear import PackedLinear
from sphinx_nvs.nn.token_ops import TokenOps
from sphinx_nvs.nn.transformer import MultiviewTransformer

Layer = Any
"""A submodule of known kind; torch's own annotations type every submodule as `Module`."""


@dataclass(frozen=True, eq=False)
class RequestConstants:
    """Values shared by one request's calls.

    Args:
        num_frames: N.
        sizes: height and width of each level, finest first.
        first: the first convolution of the constant channels, with its bias.
        dense: rows of the dense map at each level.
        film: (1 + scale, shift) of each residual block; None if memory is short, then they are recomputed in each call.
        crosses: the term that one-token cross-attention adds, by block: a row per frame.
    """

    num_frames: int
    sizes: tuple[tuple[int, int], ...]
    first: Float[Tensor, "T C"]
    dense: tuple[Tensor, ...]
    film: dict[str, tuple[Tensor, Tensor]] | None
    crosses: dict[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True, eq=False, kw_only=True)
class NetworkCall:
    """One request's part in a network call.

    Args:
        x: the varying input channels of all cells, active or not.
        timestep: the network's noise index.
        constants: precomputed values of the request.
        cache: filled by a dense call, read and updated by a sparse one; optional for a dense call.
        active: tokens to compute; None computes all.
        sigma: the noise level, which a dense call records in the cache.
    """

    x: Float[Tensor, "N Cv h w"]
    timestep: float
    constants: RequestConstants
    cache: FeatureCache | None = None
    active: ActiveTokens | None = None
    sigma: float = 0.0


class NetworkWeights:
    """A U-Net's weights in the layouts that dense and sparse calls need.

    Args:
        unet: the network; its weights must not change afterwards. Computation uses their dtype.
        varying: number of leading input channels that change from step to step.
        compiled: whether the operations between matrix products are fused by a compiler; see `nn.token_ops`.
        joint_in_bfloat16: whether attention over all views may multiply in bfloat16, see `attended`.
    """

    def __init__(self, unet: UNet, varying: int, *, compiled: bool = False, joint_in_bfloat16: bool = False) -> None:
        self.unet: Layer = unet
        self.varying = varying
        self.joint_in_bfloat16 = joint_in_bfloat16
        self.token_ops = TokenOps(compiled=compiled)
        # By module: caches and constants are keyed by the layer's name, which a layer does not know itself.
        self.names = {module: name for name, module in unet.named_modules()}
        first: Layer = unet.get_submodule("input_blocks.0.0")
        self.first_weight = first.weight[:, :varying].detach().contiguous(memory_format=torch.channels_last)
        convs: list[nn.Conv2d] = [m for m in unet.modules() if isinstance(m, nn.Conv2d) and m.kernel_size == (3, 3)]
        self.dense_weights = {m: m.weight.detach().contiguous(memory_format=torch.channels_last) for m in convs}
        # On a CPU a gathered convolution is a matrix product; a channels-last weight, flattened, is that product's
        # matrix.
        weights = {**self.dense_weights, first: self.first_weight}
        self.tap_products = {m: PackedLinear(_tap_columns(w)) for m, w in weights.items() if not w.is_cuda}
        linears = [m for m in unet.modules() if isinstance(m, nn.Linear) or _is_pointwise(m)]
        self.linears = {m: PackedLinear.of(m) for m in linears}
        # Keys and values in one product: they have the same input, and sparse calls cache them side by side.
        self.keys_values = {
            m: PackedLinear(torch.cat([m.to_k.weight, m.to_v.weight]))
            for m, name in self.names.items()
            if isinstance(m, Attention) and name.endswith("attn1")
        }
        self.watched = self._first_joint()  # the attention whose drift is measured

    @functools.cached_property
    def tap_weights(self) -> dict[nn.Module, Float[Tensor, "K C_out"]]:
        """Weights for gathered taps of modules without a packed product; copied at the first sparse call."""
        first = self.unet.input_blocks[0][0]
        weights = {m: conv_weight_rows(m) for m in self.dense_weights if m is not first}
        return {**weights, first: _tap_columns(self.first_weight).T.contiguous()}

    def _first_joint(self) -> str | None:
        """The first attention across views: its keys and values measure how far features have drifted."""
        for module, name in self.names.items():
            if isinstance(module, MultiviewTransformer) and module.joint:
                return f"{name}.transformer_blocks.0.attn1"
        return None


@runtime_checkable
class Operations(Protocol):
    """Operations that mix tokens; dense and sparse calls implement them differently."""

    def first_conv(self) -> Tensor:
        """The first convolution; returns rows."""
        ...

    def conv(self, name: str, conv: Layer, x: Tensor, level: int, biases: list[Layer], to: int | None = None) -> Tensor:
        """A 3x3 convolution from `level` to level `to` (the same if None), with one bias per request."""
        ...

    def norm(self, name: str, norm: nn.GroupNorm, x: Tensor, level: int) -> Tensor:
        """A group norm over each frame."""
        ...

    def norm_silu(self, name: str, norm: nn.GroupNorm, x: Tensor, level: int) -> Tensor:
        """A group norm over each frame, then SiLU."""
        ...

    def norm_silu_film(self, name: str, block: Layer, x: Tensor, level: int) -> Tensor:
        """A residual block's operations before its first convolution: norm, SiLU, modulation by the dense map."""
        ...

    def add_cross(self, name: str, tokens: Tensor, level: int, first_only: bool) -> Tensor:
        """Adds precomputed cross-attention: each frame's own, or the first frame's for all."""
        ...

    def attend_jointly(self, name: str, q: Tensor, kv: Tensor, level: int, head_dim: int) -> Tensor:
        """Attention to all tokens of all frames."""
        ...

    def attend_per_view(self, name: str, q: Tensor, kv: Tensor, level: int, head_dim: int) -> Tensor:
        """Attention to all tokens of the query's own frame."""
        ...

    def attend_along_frames(self, name: str, q: Tensor, kv: Tensor, level: int, head_dim: int) -> Tensor:
        """Attention to the query's cell in all frames."""
        ...


class DenseOperations:
    """Operations on all tokens of one request; they fill the cache if there is one."""

    def __init__(self, weights: NetworkWeights, call: NetworkCall) -> None:
        self.weights, self.call, self.constants, self.cache = weights, call, call.constants, call.cache
        if self.cache is not None:
            self.cache.sigma, self.cache.drift = call.sigma, 0.0

    def first_conv(self) -> Tensor:
        """Convolves the varying channels; adds the precomputed part of the constant ones."""
        # A convolution is linear in its input channels: the constant ones (rays, masks, known latents) were convolved
        # once per request.
        return rows_from_map(F.conv2d(self.call.x, self.weights.first_weight, padding=1)) + self.constants.first

    def conv(self, name: str, conv: Layer, x: Tensor, level: int, biases: list[Layer], to: int | None = None) -> Tensor:
        """Convolves the map; caches the input."""
        if self.cache is not None:
            # One extra zero row: taps beyond the image border index it.
            self.cache.rows[f"{name}.conv"] = F.pad(x, (0, 0, 0, 1))
        maps = map_from_rows(x, *self.constants.sizes[level])
        if to is not None and to < level:
            maps = F.interpolate(maps, size=self.constants.sizes[to], mode="nearest")
        weight = self.weights.dense_weights[conv]
        return rows_from_map(F.conv2d(maps, weight, biases[0], conv.stride, conv.padding))

    def norm(self, name: str, norm: nn.GroupNorm, x: Tensor, level: int) -> Tensor:
        """PyTorch's norm; caches its sums per token and per frame."""
        if self.cache is not None:
            tokens = self.weights.token_ops.group_sums(x, norm.num_groups)
            frames = tokens.view(self.constants.num_frames, -1, tokens.shape[1]).sum(1, dtype=torch.float64)
            self.cache.sums[name] = NormSums(tokens, frames)
        return rows_from_map(norm(map_from_rows(x, *self.constants.sizes[level])))

    def norm_silu(self, name: str, norm: nn.GroupNorm, x: Tensor, level: int) -> Tensor:
        """PyTorch's norm has a kernel of its own, so SiLU is a separate operation."""
        return F.silu(self.norm(name, norm, x, level))

    def norm_silu_film(self, name: str, block: Layer, x: Tensor, level: int) -> Tensor:
        """Uses the precomputed modulation, or computes it if memory was short."""
        film = self.constants.film
        scale, shift = modulation(block, self.constants.dense[level]) if film is None else film[name]
        normed = self.norm(f"{name}.in_layers.0", block.in_layers[0], x, level)
        return self.weights.token_ops.silu_film(normed, scale, shift)

    def add_cross(self, name: str, tokens: Tensor, level: int, first_only: bool) -> Tensor:
        """Broadcasts over cells."""
        if name not in self.constants.crosses:
            return tokens
        cross = self.constants.crosses[name]
        if first_only:
            return tokens + cross[0]
        return (tokens.view(len(cross), -1, tokens.shape[1]) + cross[:, None]).view_as(tokens)

    def attend_jointly(self, name: str, q: Tensor, kv: Tensor, level: int, head_dim: int) -> Tensor:
        """All tokens form one sequence."""
        self._remember(name, kv)
        return attended(q[None], kv[None], head_dim, in_bfloat16=self.weights.joint_in_bfloat16)[0]

    def attend_per_view(self, name: str, q: Tensor, kv: Tensor, level: int, head_dim: int) -> Tensor:
        """One sequence per frame."""
        self._remember(name, kv)
        frames = self.constants.num_frames
        return attended(q.unflatten(0, (frames, -1)), kv.unflatten(0, (frames, -1)), head_dim).flatten(0, 1)

    def attend_along_frames(self, name: str, q: Tensor, kv: Tensor, level: int, head_dim: int) -> Tensor:
        """One sequence per cell."""
        self._remember(name, kv)
        queries, others = (t.unflatten(0, (self.constants.num_frames, -1)).transpose(0, 1) for t in (q, kv))
        return attended(queries, others, head_dim).transpose(0, 1).flatten(0, 1)

    def _remember(self, name: str, rows: Tensor) -> None:
        if self.cache is not None:
            self.cache.rows[name] = rows


class SparseOperations:
    """Operations on the active tokens of several requests, concatenated; they read and update caches in place."""

    def __init__(self, weights: NetworkWeights, calls: Sequence[NetworkCall]) -> None:
        self.weights = weights
        self.parts = [(call, call.active, call.cache) for call in calls if call.active and call.cache is not None]
        if len(self.parts) != len(calls):
            raise ValueError("a sparse call needs the cache that a dense call of the same request filled")

    def _split(self, x: Tensor, level: int) -> Sequence[Tensor]:
        if len(self.parts) == 1:
            return (x,)
        return x.split([len(active.levels[level].index) for _, active, _ in self.parts])

    def first_conv(self) -> Tensor:
        """Gathers taps from the fresh inputs."""
        conv = self.weights.unet.input_blocks[0][0]
        out = []
        for call, active, _ in self.parts:
            # The input is fresh at every cell, so even taps at inactive neighbours need no cache.
            rows = F.pad(rows_from_map(call.x), (0, 0, 0, 1))
            constant = call.constants.first.index_select(0, active.levels[0].index)
            zero = constant.new_zeros(constant.shape[1])
            out.append(self._gather_conv(conv, rows, active.same[0], zero) + constant)
        return _joined(out)

    def conv(self, name: str, conv: Layer, x: Tensor, level: int, biases: list[Layer], to: int | None = None) -> Tensor:
        """Writes fresh rows to the cache and gathers nine taps from it."""
        out = []
        for (_, active, cache), fresh, bias in zip(self.parts, self._split(x, level), biases, strict=True):
            rows = cache.rows[f"{name}.conv"]
            # In place, before the gather: active neighbours are read fresh, inactive ones as they were last computed.
            rows.index_copy_(0, active.levels[level].index, fresh)
            # Taps are indexed by the output's cells: same level, the next coarser one, or the finer level `to`.
            taps = active.same[level] if to is None else active.down[level] if to > level else active.up[to]
            out.append(self._gather_conv(conv, rows, taps, bias))
        return _joined(out)

    def _gather_conv(self, conv: Layer, rows: Tensor, taps: Tensor, bias: Tensor) -> Tensor:
        product = self.weights.tap_products.get(conv)
        if product is None:
            return gather_conv(rows, taps, self.weights.tap_weights[conv], bias)
        return product(gathered(rows, taps), bias)

    def norm(self, name: str, norm: nn.GroupNorm, x: Tensor, level: int) -> Tensor:
        """Normalises with each frame's cached sums, corrected by the change of the active tokens."""
        parts = self._with_affine(name, norm, x, level)
        apply = self.weights.token_ops.norm
        return _joined([apply(fresh, gain, bias, frame) for fresh, gain, bias, frame in parts])

    def norm_silu(self, name: str, norm: nn.GroupNorm, x: Tensor, level: int) -> Tensor:
        """The same, then SiLU."""
        parts = self._with_affine(name, norm, x, level)
        apply = self.weights.token_ops.norm_silu
        return _joined([apply(fresh, gain, bias, frame) for fresh, gain, bias, frame in parts])

    def norm_silu_film(self, name: str, block: Layer, x: Tensor, level: int) -> Tensor:
        """Selects the active tokens' modulation, or computes it if memory was short."""
        parts = self._with_affine(f"{name}.in_layers.0", block.in_layers[0], x, level)
        out = []
        for (call, active, _), (fresh, gain, bias, frame) in zip(self.parts, parts, strict=True):
            index, film = active.levels[level].index, call.constants.film
            if film is None:
                scale, shift = modulation(block, call.constants.dense[level].index_select(0, index))
            else:
                scale, shift = film[name]
            token = None if film is None else index
            out.append(self.weights.token_ops.norm_silu_film(fresh, gain, bias, frame, scale, shift, token))
        return _joined(out)

    def _with_affine(
        self, name: str, norm: nn.GroupNorm, x: Tensor, level: int
    ) -> list[tuple[Tensor, Tensor, Tensor, Tensor]]:
        """Per request: its tokens, each frame's updated gain and bias, and each token's frame."""
        parts = []
        for (_, active, cache), fresh in zip(self.parts, self._split(x, level), strict=True):
            here, sums = active.levels[level], cache.sums[name]
            tokens = self.weights.token_ops.group_sums(fresh, norm.num_groups)
            # A frame's sums change by the active tokens' new sums minus their old ones; float64 keeps the running
            # correction from accumulating rounding errors over many sparse calls.
            here.add_to_frames(sums.frames, (tokens - sums.tokens.index_select(0, here.index)).double())
            sums.tokens.index_copy_(0, here.index, tokens)
            count = here.size[0] * here.size[1] * (norm.num_channels // norm.num_groups)
            affine = self.weights.token_ops.norm_affine(sums.frames, count, norm.weight, norm.bias, norm.eps)
            parts.append((fresh, *affine, here.frame))
        return parts

    def add_cross(self, name: str, tokens: Tensor, level: int, first_only: bool) -> Tensor:
        """Selects by frame."""
        out = []
        for (call, active, _), part in zip(self.parts, self._split(tokens, level), strict=True):
            cross = call.constants.crosses.get(name)
            if cross is not None:
                part = part + (cross[0] if first_only else cross.index_select(0, active.levels[level].frame))
            out.append(part)
        return _joined(out)

    def attend_jointly(self, name: str, q: Tensor, kv: Tensor, level: int, head_dim: int) -> Tensor:
        """Attention of active queries to the keys and values of all tokens."""
        out = []
        for query, all_kv, _ in self._merged(name, q, kv, level):
            out.append(attended(query[None], all_kv[None], head_dim, in_bfloat16=self.weights.joint_in_bfloat16)[0])
        return _joined(out)

    def attend_per_view(self, name: str, q: Tensor, kv: Tensor, level: int, head_dim: int) -> Tensor:
        """Attention of active queries to the keys and values of their frame."""
        out = []
        for query, all_kv, active in self._merged(name, q, kv, level):
            here = active.levels[level]
            # On a CPU a kernel per frame avoids padding; on a GPU one padded launch is faster.
            per_frame = all_kv.unflatten(0, (here.num_frames, -1))
            attend = attended_by_frame if query.device.type == "cpu" else attended_in_table
            out.append(attend(query, per_frame, here, head_dim))
        return _joined(out)

    def attend_along_frames(self, name: str, q: Tensor, kv: Tensor, level: int, head_dim: int) -> Tensor:
        """Attends in whole columns of cells, then selects the active tokens' rows."""
        out = []
        for query, all_kv, active in self._merged(name, q, kv, level):
            cells, place = active.levels[level].columns
            frames = active.levels[level].num_frames
            columns = all_kv.unflatten(0, (frames, -1)).index_select(1, cells).transpose(0, 1)
            table = query.new_zeros(len(cells) * frames, query.shape[1]).index_copy_(0, place, query)
            mixed = attended(table.unflatten(0, (-1, frames)), columns, head_dim)
            out.append(mixed.flatten(0, 1).index_select(0, place))
        return _joined(out)

    def _merged(self, name: str, q: Tensor, kv: Tensor, level: int) -> list[tuple[Tensor, Tensor, ActiveTokens]]:
        """Per request: its queries, all keys and values with the fresh ones written in, and its active tokens."""
        merged = []
        queries, fresh = self._split(q, level), self._split(kv, level)
        for (_, active, cache), query, fresh_kv in zip(self.parts, queries, fresh, strict=True):
            index = active.levels[level].index
            # The relative change of the watched attention's keys and values accumulates as the cache's drift.
            if name == self.weights.watched:
                before = cache.rows[name].index_select(0, index)
                change = torch.linalg.vector_norm((fresh_kv - before).float())
                cache.drift += float(change / torch.linalg.vector_norm(before.float()).clamp_min(1e-12))
            cache.rows[name].index_copy_(0, index, fresh_kv)
            merged.append((query, cache.rows[name], active))
        return merged


def rows_from_map(x: Float[Tensor, "N C h w"]) -> Float[Tensor, "T C"]:
    """Cells of all frames in row-major order; a view if the map is channels-last."""
    return x.permute(0, 2, 3, 1).reshape(-1, x.shape[1])


def map_from_rows(rows: Float[Tensor, "T C"], height: int, width: int) -> Float[Tensor, "N C {height} {width}"]:
    """The inverse of `rows_from_map`: a channels-last view."""
    return rows.view(-1, height, width, rows.shape[1]).permute(0, 3, 1, 2)


def modulation(block: Layer, dense: Float[Tensor, "T D"]) -> tuple[Float[Tensor, "T C"], Float[Tensor, "T C"]]:
    """A residual block's 1 + scale and shift from the dense map."""
    conv = block.dense_emb_layers[0]
    scale, shift = F.linear(dense, conv.weight.flatten(1), conv.bias).chunk(2, dim=1)
    return (1 + scale).contiguous(), shift.contiguous()


def attended(
    q: Float[Tensor, "B L C"], kv: Float[Tensor, "B M C2"], head_dim: int, *, in_bfloat16: bool = False
) -> Float[Tensor, "B L C"]:
    """Softmax attention of queries to keys and values that are concatenated along channels.

    Args:
        q: queries.
        kv: keys, then values.
        head_dim: channels of one head.
        in_bfloat16: whether products are of bfloat16 on a CPU with AMX, which takes half the time of float32 there.
    """
    k, v = kv.chunk(2, dim=-1)
    heads = [part.unflatten(-1, (-1, head_dim)).transpose(1, 2) for part in (q, k, v)]
    if q.device.type == "cpu" and (in_bfloat16 or q.dtype == torch.bfloat16):
        # Without AMX, CPU kernels multiply two to three times faster in single precision than in bfloat16.
        heads = [part.to(torch.bfloat16 if has_amx() else torch.float32) for part in heads]
    return F.scaled_dot_product_attention(*heads).transpose(1, 2).flatten(2).to(q.dtype)


def attended_by_frame(
    q: Float[Tensor, "n C"], kv: Float[Tensor, "N P C2"], active: ActiveLevel, head_dim: int
) -> Float[Tensor, "n C"]:
    """Attention of active tokens to their own frame's keys and values: one kernel per frame, without padding."""
    # `counts` are Python integers: splitting by them needs no wait for the device.
    frames = zip(q.split(list(active.counts)), kv, strict=True)
    mixed = [attended(query[None], fresh_kv[None], head_dim)[0] for query, fresh_kv in frames if len(query)]
    return torch.cat(mixed) if mixed else q


def attended_in_table(
    q: Float[Tensor, "n C"], kv: Float[Tensor, "N P C2"], active: ActiveLevel, head_dim: int
) -> Float[Tensor, "n C"]:
    """The same in one kernel, with frames padded to the largest number of active tokens."""
    frames, place, longest = active.padded
    table = q.new_zeros(len(frames) * longest, q.shape[1]).index_copy_(0, place, q)
    mixed = attended(table.unflatten(0, (-1, longest)), kv.index_select(0, frames), head_dim)
    return mixed.flatten(0, 1).index_select(0, place)


def _joined(parts: list[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def _is_pointwise(module: nn.Module) -> bool:
    return isinstance(module, nn.Conv2d) and module.kernel_size == (1, 1)


def _tap_columns(weight: Float[Tensor, "C_out C_in 3 3"]) -> Float[Tensor, "C_out K"]:
    """A convolution's weight as a linear layer's over nine taps; a view if the weight is channels-last."""
    return weight.permute(0, 2, 3, 1).flatten(1)
