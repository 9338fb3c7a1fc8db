"""The U-Net's operations on single tokens between matrix products, as functions that a compiler can fuse.

    norm_silu_film   f32(x) gain[frame] + bias[frame], SiLU, then a scale[token] + shift[token]
    norm             the first of these alone, with or without SiLU
    group_sums       a token's sums and sums of squares over groups of channels
    norm_affine      gain and bias of a frame's group norm from such sums over all its tokens
    gated            value * GELU(gate), the two halves of a row

Uncompiled, every operation takes a pass over memory and a kernel launch: with few active tokens they dominate a sparse
call. With `TokenOps(compiled=True)`, `torch.compile` fuses each function into one kernel for *any* number of tokens and
channels (both symbolic), so that a new set of active cells never compiles anything. The price is some tens of seconds
once per machine (later processes find the kernels in PyTorch's cache), and results that differ from the plain ones in
the last bits.

Shapes: n tokens, N frames, T rows that `token` indexes, C channels, G groups.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

import torch
import torch.nn.functional as F
from jaxtyping import Float, Float64, Int
from torch import Tensor

from sphinx_nvs.errors import InputError

_T = TypeVar("_T")

SHORT_GROUP = 8
"""Group width up to which adding channels one by one is faster than a reduction over so short an axis."""


def norm_silu_film(
    x: Float[Tensor, "n C"],
    gain: Float[Tensor, "N C"],
    bias: Float[Tensor, "N C"],
    frame: Int[Tensor, "n"],
    scale: Float[Tensor, "T C"],
    shift: Float[Tensor, "T C"],
    token: Int[Tensor, "n"] | None,
) -> Float[Tensor, "n C"]:
    """Group norm with its frame's gain and bias, SiLU, and the dense map's modulation; `token` None means T = n."""
    h = F.silu(norm(x, gain, bias, frame))
    if token is not None:
        scale, shift = scale.index_select(0, token), shift.index_select(0, token)
    # One pass over memory instead of two: tokens are many and the arithmetic is nothing.
    return torch.addcmul(shift, h, scale)


def norm_silu(
    x: Float[Tensor, "n C"], gain: Float[Tensor, "N C"], bias: Float[Tensor, "N C"], frame: Int[Tensor, "n"]
) -> Float[Tensor, "n C"]:
    """Group norm with its frame's gain and bias, then SiLU."""
    return F.silu(norm(x, gain, bias, frame))


def norm(
    x: Float[Tensor, "n C"], gain: Float[Tensor, "N C"], bias: Float[Tensor, "N C"], frame: Int[Tensor, "n"]
) -> Float[Tensor, "n C"]:
    """Group norm with its frame's gain and bias, computed in their precision."""
    affine = torch.addcmul(bias.index_select(0, frame), x.to(gain.dtype), gain.index_select(0, frame))
    return affine.to(x.dtype)


def silu_film(
    x: Float[Tensor, "n C"], scale: Float[Tensor, "n C"], shift: Float[Tensor, "n C"]
) -> Float[Tensor, "n C"]:
    """SiLU, then the dense map's modulation."""
    return torch.addcmul(shift, F.silu(x), scale)


def group_sums(x: Float[Tensor, "n C"], num_groups: int) -> Float[Tensor, "n G2"]:
    """Each token's sum and sum of squares over the channels of every group, in float32 or float64."""
    grouped = (x if x.dtype == torch.float64 else x.float()).unflatten(1, (num_groups, -1))
    return torch.cat([grouped.sum(2), grouped.square().sum(2)], 1)


def group_sums_plain(x: Float[Tensor, "n C"], num_groups: int) -> Float[Tensor, "n G2"]:
    """`group_sums` for uncompiled use: short groups are added channel by channel."""
    if x.shape[1] // num_groups > SHORT_GROUP:
        return group_sums(x, num_groups)
    grouped = (x if x.dtype == torch.float64 else x.float()).unflatten(1, (num_groups, -1))
    return torch.cat([functools.reduce(torch.add, part.unbind(2)) for part in (grouped, grouped.square())], 1)


def norm_affine(
    sums: Float64[Tensor, "N G2"], count: int, weight: Float[Tensor, "C"], bias: Float[Tensor, "C"], eps: float
) -> tuple[Float[Tensor, "N C"], Float[Tensor, "N C"]]:
    # var = E[x^2] - E[x]^2 cancels when the mean is large, so the sums are float64 and the result is clamped at 0.
    """Gain and bias per frame and channel that apply a group norm, from sums over `count` numbers of a group."""
    mean, square = (sums / count).chunk(2, dim=1)
    rstd = (square - mean.square()).clamp_min(0).add(eps).rsqrt()
    repeat = weight.shape[0] // mean.shape[1]
    mean, rstd = (part[:, :, None].expand(-1, -1, repeat).flatten(1) for part in (mean, rstd))
    gain = rstd * weight
    # The norm is folded into one multiply-add per token: (x - mean) rstd w + b = x (rstd w) + (b - mean rstd w).
    kind = torch.promote_types(weight.dtype, torch.float32)
    return gain.to(kind), (bias - mean * gain).to(kind)


def gated(x: Float[Tensor, "n C2"]) -> Float[Tensor, "n C"]:
    """The first half of each row times GELU of the second."""
    value, gate = x.chunk(2, dim=-1)
    return value * F.gelu(gate)


@dataclass(frozen=True, kw_only=True)
class TokenOps:
    """The functions of this module, plain or compiled.

    Args:
        compiled: whether to fuse each function into one kernel.

    Raises:
        InputError: `compiled` is set and PyTorch finds no compiler.
    """

    compiled: bool = False
    norm_silu_film: Callable[..., Tensor] = field(init=False)
    norm_silu: Callable[..., Tensor] = field(init=False)
    norm: Callable[..., Tensor] = field(init=False)
    silu_film: Callable[..., Tensor] = field(init=False)
    norm_affine: Callable[..., tuple[Tensor, Tensor]] = field(init=False)
    group_sums: Callable[..., Tensor] = field(init=False)
    gated: Callable[..., Tensor] = field(init=False)

    def __post_init__(self) -> None:
        plain = (norm_silu_film, norm_silu, norm, norm_affine, silu_film, gated)
        chosen: dict[str, Callable[..., Tensor | tuple[Tensor, Tensor]]] = {
            function.__name__: function for function in plain
        }
        if self.compiled:
            chosen = {name: _compiled(function) for name, function in chosen.items()}
        chosen["group_sums"] = _compiled(group_sums) if self.compiled else group_sums_plain
        for name, function in chosen.items():
            object.__setattr__(self, name, function)  # the dataclass is frozen


@functools.cache
def _compiled(function: Callable[..., _T]) -> Callable[..., _T]:
    """One kernel for all shapes; shared by all networks of a process, because it holds no state."""
    check_compiler()
    return torch.compile(function, dynamic=True, fullgraph=True)


def check_compiler() -> None:
    """Checks that generated C++ can be compiled, before a request depends on it.

    Raises:
        InputError: PyTorch finds no compiler.
    """
    from torch._inductor.cpp_builder import get_cpp_compiler
    from torch._inductor.exc import InvalidCxxCompiler

    try:
        get_cpp_compiler()
    except InvalidCxxCompiler as error:
        hint = "install g++ or clang (on Windows: Visual Studio's C++ tools), or leave --compile out"
        raise InputError("compile", "this machine has no C++ compiler", hint) from error
