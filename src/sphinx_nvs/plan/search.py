"""The planner's search: the ways to run a request that are worth their compute.

A request is a histogram: how many cells lie in each bin of score k and region signal b. A way is a lever set L
and, for each bin, a start step s of a short list (the last one: never, the render is kept). Loss and cost are sums:

    loss(L, s)    = sum_kb n_kb  loss_L[k, b, s_kb] / sum n
    compute(L, s) = fixed + sum over steps of 1 if dense, else sparse_base + sparse_slope * share of active cells
                    + 1 for the probe's call, where it was made and is not the plan's own first call

For one lever set, the ways worth considering minimise loss + price * steps for some price, the loss that one step of a
cell must save; the prices at which a bin changes sides give a short list, to which come those that start every cell at
the same step. The front keeps what is cheaper than everything better: along it, quality and compute ascend together,
so that a higher quality never computes less.

Shapes: K score bins, B signal bins, S start options, V views, h w cells, D descriptor length.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from sphinx_nvs.plan.compute_plan import ComputePlan
from sphinx_nvs.plan.levers import Levers, economised, spread_out

IDLE = 0.02
"""Share of a dense call's cost that grows with its active cells, so that cells are held where refining them gains
nothing, even if holding them saves no time."""


@dataclass(frozen=True, kw_only=True)
class Costs:
    """Costs of calls in units of a dense call.

    Args:
        fixed: cost of any refinement: encoding, conditioning, decoding.
        sparse_base: cost of a sparse call without active cells.
        sparse_slope: cost of a sparse call per share of active cells.
    """

    fixed: float
    sparse_base: float
    sparse_slope: float


@dataclass(frozen=True, kw_only=True, eq=False)
class Cluster:
    """Loss tables of one kind of scene.

    Args:
        centre: its unit descriptor; None where there is but one.
        whole: one table per lever set, for requests without held cells.
        losses: the same where nearly all cells are held, which disturb refined ones; between the two, losses
            grow with the share of held cells.
    """

    centre: Float[Tensor, "D"] | None
    whole: tuple[Float[np.ndarray, "K B S"], ...]
    losses: tuple[Float[np.ndarray, "K B S"], ...]

    def table(self, levers: int, held: float) -> Float[np.ndarray, "K B S"]:
        """Losses by lever set in requests of this share of held cells, 0..1."""
        return _between(self.whole[levers], self.losses[levers], np.array(held, dtype=float))


@dataclass(frozen=True, kw_only=True, eq=False)
class Way:
    """A way to run a request.

    Args:
        levers: which of the profile's; None is full diffusion.
        choice: per bin, which start option.
        refines: whether any cell is denoised.
        holds: whether any cell keeps the render.
        quality: expected, at most 1.
        compute: compute in dense calls, the probe's included.
    """

    levers: int | None
    choice: Int[np.ndarray, "K B"]
    refines: bool
    holds: bool
    quality: float
    compute: float


def ways(
    counts: Int[np.ndarray, "K B"],
    cluster: Cluster,
    levers: Sequence[Levers],
    starts: Sequence[int],
    sigmas: Float[Tensor, "L"],
    costs: Costs,
    *,
    probed: bool,
) -> list[Way]:
    """Every way that is the best at some price, for each lever set; regression and full diffusion among them.

    Args:
        counts: cells of each bin.
        cluster: its tables and spreads; the last start option of a table is to keep the render.
        levers: the lever sets.
        starts: the start options on the denoiser's own grid, ascending, the last one its number of steps.
        sigmas: the denoiser's own grid.
        costs: costs of calls.
        probed: whether the denoiser's first call, from noise, was made already.
    """
    kept = np.full(counts.shape, len(starts) - 1)
    found = [
        Way(
            levers=0,
            choice=kept,
            refines=False,
            holds=True,
            quality=float(_qualities(counts, cluster, kept[None], levers=0)[0]),
            # The probe was made and is paid for: a dense call without active cells, see `_call_cost`, so that keeping
            # the render still costs less than any refinement.
            compute=costs.fixed + 1 - IDLE if probed else 0.0,
        ),
        Way(
            levers=None,
            choice=np.zeros_like(kept),
            refines=True,
            holds=False,
            quality=1.0,
            compute=costs.fixed + len(sigmas) - 1,
        ),
    ]
    for index, lever in enumerate(levers):
        choices = _choices(counts, cluster.losses[index], lever, starts, sigmas)
        qualities = _qualities(counts, cluster, choices, levers=index)
        for choice, quality in zip(choices, qualities, strict=True):
            shares = np.bincount(choice.ravel(), counts.ravel(), len(starts)) / max(1, counts.sum())
            # A plan without cells that start from noise cannot use the probe's call: that one comes on top.
            extra = 1.0 if probed and not shares[0] else 0.0
            calls = calls_cost(lever, shares.tolist(), starts, sigmas, costs)
            if probed and shares[0] == 1 and _steps(lever, 0, sigmas) == 1:
                # The probe's own frames, which is cheaper than decoding again because some cells are held.
                calls = 1 - IDLE * (1 - 1e-6)
            way = Way(
                levers=index,
                choice=choice,
                refines=True,
                holds=bool(shares[-1] > 0),
                quality=float(quality),
                compute=costs.fixed + extra + calls,
            )
            found.append(way)
    return found


def _choices(
    counts: Int[np.ndarray, "K B"],
    table: Float[np.ndarray, "K B S"],
    lever: Levers,
    starts: Sequence[int],
    sigmas: Float[Tensor, "L"],
) -> Int[np.ndarray, "N K B"]:
    """Start options by bin: the same one everywhere, and the best at every price; each once.

    Prices are tried on all options, and on the first and the last alone: cells that start from noise go on from the
    first call, which was made already. Bins without cells are kept, so that choices with equal effect are equal.
    """
    steps = np.array([_steps(lever, start, sigmas) for start in starts], dtype=float)
    last = len(starts) - 1
    same = [np.full(table.shape[:2], option) for option in range(last)]
    # The prices at which a bin changes sides: what refining it from noise gains, per step. Tried just below and just
    # above, they give every distinct choice.
    spared = (table[..., last] - table[..., 0])[counts > 0].clip(min=0) / steps[0]
    prices = np.unique(np.concatenate([0.999 * spared, 1.001 * spared]))
    # A Lagrangian: at a price per step, each bin takes its cheapest option by itself. So the search is linear in bins,
    # where all combinations would be exponential.
    priced = (table[None] + prices[:, None, None, None] * steps).argmin(-1)
    from_noise = np.where(table[None, ..., 0] + prices[:, None, None] * steps[0] < table[None, ..., last], 0, last)
    filled = (np.where(counts > 0, choice, last) for choice in (*same, *priced, *from_noise))
    unlike = {choice.tobytes(): choice for choice in filled if (choice < last).any()}
    return np.array(list(unlike.values())).reshape(-1, *counts.shape)


def _qualities(
    counts: Int[np.ndarray, "K B"], cluster: Cluster, choices: Int[np.ndarray, "N K B"], *, levers: int
) -> Float[np.ndarray, "N"]:
    """Expected quality of each choice."""
    whole, losses = (
        np.take_along_axis(table[levers][None], choices[..., None], -1)[..., 0]
        for table in (cluster.whole, cluster.losses)
    )
    total = max(1, counts.sum())
    held = (counts * (choices == cluster.whole[levers].shape[-1] - 1)).sum((1, 2), keepdims=True) / total
    return 1 - (counts * _between(whole, losses, held)).sum((1, 2)) / total


def _between(
    whole: Float[np.ndarray, "..."], losses: Float[np.ndarray, "..."], held: Float[np.ndarray, "..."]
) -> Float[np.ndarray, "..."]:
    """A cluster's losses by the share of held cells; where all are held, there is no refined one to disturb."""
    return np.where(held == 1, whole, (1 - held) * whole + held * losses)


def front(found: Sequence[Way]) -> list[Way]:
    """The render, and the ways than which none is both better and cheaper.

    Quality and compute ascend. The render is always there to fall back upon.
    """
    kept: list[Way] = [way for way in found if not way.refines][:1]
    # By compute, best first: whatever does not raise the best quality so far is beaten by something cheaper.
    for way in sorted(found, key=lambda w: (w.compute, -w.quality)):
        if not kept or way.quality > kept[-1].quality:
            kept.append(way)
    return kept


def start_map(
    way: Way,
    score_bins: Int[Tensor, "V h w"],
    signal_bins: Int[Tensor, "V h w"],
    starts: Sequence[int],
) -> Int[Tensor, "V h w"]:
    """The start steps of every cell, on the denoiser's own grid."""
    options = torch.tensor(starts, device=signal_bins.device)[torch.from_numpy(way.choice).to(signal_bins.device)]
    return options[score_bins, signal_bins]


def calls_cost(
    levers: Levers,
    shares: Sequence[float],
    starts: Sequence[int],
    sigmas: Float[Tensor, "L"],
    costs: Costs,
) -> float:
    """Cost of a plan's network calls, in dense calls.

    Args:
        levers: the plan's levers.
        shares: share of all cells at each start option.
        starts: the start options.
        sigmas: the denoiser's own grid.
        costs: costs of calls.
    """
    taken = [(start, share) for start, share in zip(starts, shares, strict=True) if share > 0]
    grid, begun = _schedule(levers, tuple(start for start, _ in taken), _key(sigmas))
    first = min(begun)
    active = [sum(share for b, (_, share) in zip(begun, taken, strict=True) if b <= s) for s in range(len(grid) - 1)]
    dense = set(spread_out(grid, active, first, levers))
    return sum(_call_cost(active[s], costs, dense=s in dense) for s in range(first, len(active)))


def _call_cost(share: float, costs: Costs, *, dense: bool) -> float:
    """In dense calls, of a call with this share of active cells."""
    whole = 1 - IDLE * (1 - share)
    return whole if dense else min(whole, costs.sparse_base + costs.sparse_slope * share)


@lru_cache(maxsize=4096)
def _schedule(
    levers: Levers, starts: tuple[int, ...], sigmas: tuple[float, ...]
) -> tuple[tuple[float, ...], tuple[int, ...]]:
    """The grid of a plan whose cells start at these steps of the denoiser's own, and where they start on it."""
    # One cell per start option is enough: the grid depends on which starts there are, not on how many cells have them.
    plan = ComputePlan(start_step=torch.tensor(starts).view(1, 1, -1), sigmas=torch.tensor(sigmas))
    plan = economised(plan, levers)
    return tuple(plan.sigmas.tolist()), tuple(plan.start_step.flatten().tolist())


def _steps(levers: Levers, start: int, sigmas: Float[Tensor, "L"]) -> int:
    """How many steps a cell that starts there takes."""
    if start >= len(sigmas) - 1:
        return 0
    grid, begun = _schedule(levers, (start,), _key(sigmas))
    return len(grid) - 1 - begun[0]


def _key(sigmas: Float[Tensor, "L"]) -> tuple[float, ...]:
    return tuple(sigmas.tolist())
