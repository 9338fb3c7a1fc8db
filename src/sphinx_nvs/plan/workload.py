"""A plan's work, as quantities in which seconds are roughly linear.

    dense call     branches;  GFLOP of layers, of attention;  cells whose features are kept
    sparse call    branches;  GFLOP of layers, of attention;  all cells, whose keys are read;  whether the set of active
                   cells is new, and how many are active if so: index lists and kernels are made once per set

FLOPs are those of `plan.cost`, found faster: those of a sparse call are linear in the number of active tokens of each
level, and those numbers come from one histogram per level, whatever the number of steps.

Shapes: V target views, h w latent cells, S steps, n calls, L levels.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from jaxtyping import Float64, Int, Int64

from sphinx_nvs.models.unet.flops import JOINT_CORE, VIEW_CORE, CallShape, call_flops
from sphinx_nvs.models.unet.network import UNetConfig
from sphinx_nvs.plan.compute_plan import ComputePlan

DENSE = ("branch", "layers_gflop", "attention_gflop", "kept_kcell")
"""Quantities of a dense call."""

SPARSE = ("branch", "layers_gflop", "attention_gflop", "kcell", "new_set", "new_set_kcell")
"""Quantities of a sparse call."""

_ATTENTION = (JOINT_CORE, VIEW_CORE)


@dataclass(frozen=True, kw_only=True)
class Network:
    """The properties of a denoiser that decide how much its calls compute.

    Args:
        config: configuration of its U-Net; None without one: FLOPs are then taken to be proportional to cells, and
            attention's to their square.
        factor: pixels per latent cell.
        branches: guidance branches, 1 or 2.
        selective: whether it supports sparse calls; if not, every call is dense.
    """

    config: UNetConfig | None
    factor: int
    branches: int = 1
    selective: bool = True


@dataclass(frozen=True, kw_only=True, eq=False)
class Calls:
    """A plan's network calls.

    Args:
        is_dense: whether each call is dense, in order.
        dense: quantities of the dense calls, columns as `DENSE`.
        sparse: quantities of the others, columns as `SPARSE`.
    """

    is_dense: np.ndarray
    dense: Float64[np.ndarray, "nd 4"]
    sparse: Float64[np.ndarray, "ns 6"]


def plan_calls(
    plan: ComputePlan, network: Network, num_context: int, *, dense_steps: Collection[int] | None = None
) -> Calls:
    """The network calls of a plan, from its first step on.

    Args:
        plan: the plan.
        network: the denoiser's network.
        num_context: known views that condition it.
        dense_steps: the steps that were dense at run time, where the plan leaves that to measured drift; None takes the
            plan's own.
    """
    first, end = plan.first_step if plan.network else plan.num_steps, plan.num_steps
    steps = np.arange(first, end)
    planned = set(plan.dense_steps if dense_steps is None else dense_steps) | {first}
    is_dense = np.array([not network.selective or step in planned for step in steps], dtype=bool)
    # A dense call fills the caches only if a sparse one follows, see `Refinement._keeps`: that costs time as well.
    keeps = is_dense & np.append(~is_dense[1:], False)[: len(steps)]
    fresh = np.array([plan.asks_unconditional(step) for step in steps.tolist()], dtype=bool) | keeps
    branches = np.where(fresh, network.branches, 1)
    views, height, width = plan.start_step.shape
    prices = _prices(network.config, (height, width), num_context + views)
    kcells = (num_context + views) * height * width / 1e3
    counts = active_counts_by_step(plan.start_step.cpu().numpy(), end, prices.num_levels)[first:]
    # Linear in active tokens per level, so a plan of any mask is priced by one small matrix product.
    gflop = np.where(is_dense[:, None], prices.dense, prices.base + counts @ prices.per_token) * branches[:, None]
    # Sets only grow: two sparse calls compute the same one if they compute as many cells.
    sparse_counts = counts[~is_dense, 0]
    is_new = np.diff(sparse_counts, prepend=0) > 0
    return Calls(
        is_dense=is_dense,
        dense=np.column_stack([branches, gflop, branches * keeps * kcells])[is_dense].astype(float),
        sparse=np.column_stack(
            [branches[~is_dense], gflop[~is_dense], branches[~is_dense] * kcells, is_new, is_new * sparse_counts / 1e3]
        ).astype(float),
    )


def full_calls(
    network: Network, *, num_context: int, views: int, height: int, width: int, num_steps: int
) -> Float64[np.ndarray, "S 4"]:
    """The dense calls of full diffusion: quantities as `DENSE`.

    Args:
        network: the denoiser's network.
        num_context: known views that condition it.
        views: target views.
        height: height of the frames in pixels.
        width: width of the frames in pixels.
        num_steps: solver steps.
    """
    size = height // network.factor, width // network.factor
    layers, attention = _prices(network.config, size, num_context + views).dense * network.branches
    return np.tile([float(network.branches), layers, attention, 0.0], (num_steps, 1))


def active_counts_by_step(
    start_step: Int[np.ndarray, "V h w"], num_steps: int, num_levels: int
) -> Int64[np.ndarray, "S L"]:
    """Active tokens at each step and level, finest first: a coarser cell starts with the first that it covers."""
    counts = np.empty((num_steps, num_levels), dtype=np.int64)
    for level in range(num_levels):
        if level:
            start_step = _halved(start_step, num_steps)
        counts[:, level] = np.bincount(start_step.ravel(), minlength=num_steps + 1)[:num_steps].cumsum()
    return counts


def _halved(start_step: np.ndarray, never: int) -> np.ndarray:
    """The earliest start in every 2 x 2 cells; odd sides are rounded up."""
    _, height, width = start_step.shape
    padded = np.pad(start_step, ((0, 0), (0, height % 2), (0, width % 2)), constant_values=never)
    rows = np.minimum(padded[:, ::2], padded[:, 1::2])
    return np.minimum(rows[:, :, ::2], rows[:, :, 1::2])


@dataclass(frozen=True, kw_only=True, eq=False)
class _Prices:
    """GFLOP of one branch's call on maps of one size, as (layers, attention).

    Args:
        dense: GFLOP of a dense call.
        base: GFLOP of a sparse call without active tokens.
        per_token: GFLOP that one active token of each level adds.
    """

    dense: Float64[np.ndarray, "2"]
    base: Float64[np.ndarray, "2"]
    per_token: Float64[np.ndarray, "L 2"]

    @property
    def num_levels(self) -> int:
        """L, the number of levels."""
        return len(self.per_token)


@lru_cache(maxsize=256)
def _prices(config: UNetConfig | None, size: tuple[int, int], num_frames: int) -> _Prices:
    if config is None:
        cells = num_frames * size[0] * size[1] / 1e3
        per_token = np.array([1e-3, 1e-3 * cells])
        return _Prices(dense=per_token * cells * 1e3, base=np.zeros(2), per_token=per_token[None])
    levels = config.num_levels
    base = _gflop(config, size, num_frames, [0] * levels)
    tokens = [_gflop(config, size, num_frames, [int(k == level) for k in range(levels)]) for level in range(levels)]
    return _Prices(dense=_gflop(config, size, num_frames, None), base=base, per_token=np.array(tokens) - base)


def _gflop(
    config: UNetConfig, size: tuple[int, int], num_frames: int, active: Sequence[int] | None
) -> Float64[np.ndarray, "2"]:
    """(layers, attention) of a call that computes so many tokens of each level, all in one frame; None: a dense one."""
    shape = CallShape(
        size=size,
        num_frames=num_frames,
        active=None if active is None else tuple((count, *[0] * (num_frames - 1)) for count in active),
        context_tokens=int(config.context_dim is not None),
        folded=True,
    )
    flops = call_flops(config, shape)
    attention = sum(count for (part, _), count in flops.items() if part in _ATTENTION)
    return np.array([sum(flops.values()) - attention, attention]) / 1e9
