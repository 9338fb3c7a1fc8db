"""The planner's search: of all the ways that a profile knows, which are worth taking for this request?

A request is a histogram: how many cells lie in each bin of frame score k and region signal b. A way is a lever set L
and, for each bin, a start step s of a short list (the last one: never, the render is kept). Loss and cost are sums:

    loss(L, s)    = sum_kb n_kb  loss_L[k, b, s_kb] / sum n
    compute(L, s) = fixed + sum over steps of 1 if dense, else sparse_base + sparse_slope * share of active cells

For one lever set, the ways worth looking at minimise loss + price * steps for some price; sweeping the price gives a
short list. The front keeps what is cheaper than everything better: along it, quality and compute ascend together, so
that asking for more never computes less.

Shapes: K score bins, B signal bins, S start options, V views, h w cells.
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
from sphinx_nvs.plan.levers import Levers, economised

PRICES = tuple(float(price) for price in np.geomspace(3e-5, 3.0, 26))
"""Loss that a step of a cell must spare, from the finest plans to the coarsest."""

SHARES = 64
"""Shares of cells are counted in so many parts: plans that differ by less cost the same."""


@dataclass(frozen=True, kw_only=True)
class Costs:
    """What calls cost in units of a dense call.

    Args:
        fixed: of any refinement at all: encoding, conditioning, decoding.
        sparse_base: of a sparse call with no active cell.
        sparse_slope: of a sparse call, per share of active cells.
    """

    fixed: float
    sparse_base: float
    sparse_slope: float


@dataclass(frozen=True, kw_only=True, eq=False)
class Way:
    """A way to carry out a request.

    Args:
        levers: which of the profile's; None is full diffusion.
        choice: per bin, which start option.
        quality: predicted, at most 1.
        compute: in dense calls.
    """

    levers: int | None
    choice: Int[np.ndarray, "K B"]
    quality: float
    compute: float


def ways(
    counts: Int[np.ndarray, "K B"],
    losses: Sequence[Float[np.ndarray, "K B S"]],
    levers: Sequence[Levers],
    starts: Sequence[int],
    sigmas: Float[Tensor, "L"],
    costs: Costs,
) -> list[Way]:
    """Every way that is the best at some price, for each lever set; regression and full diffusion among them.

    `quality` of the ways is 1 - loss, not corrected yet.

    Args:
        counts: cells of each bin.
        losses: one table per lever set; its last start option is to keep the render.
        levers: the lever sets.
        starts: the start options on the denoiser's own grid, ascending, the last one its number of steps.
        sigmas: the denoiser's own grid.
        costs: of calls.
    """
    total = max(1, int(counts.sum()))
    held = np.full(counts.shape, len(starts) - 1)
    kept = Way(levers=0, choice=held, quality=1 - _loss(counts, losses[0], held), compute=0.0)
    whole = Way(levers=None, choice=np.zeros_like(held), quality=1.0, compute=costs.fixed + len(sigmas) - 1)
    found = [kept, whole]
    for index, (table, lever) in enumerate(zip(losses, levers, strict=True)):
        steps = np.array([_steps(lever, start, sigmas) for start in starts], dtype=float)
        seen: set[bytes] = set()
        for price in PRICES:
            choice = (table + price * steps).argmin(-1)
            if choice.tobytes() in seen or bool((choice == held).all()):
                continue
            seen.add(choice.tobytes())
            shares = _shares(counts, choice, len(starts), total)
            compute = costs.fixed + calls_cost(lever, shares, tuple(starts), _key(sigmas), costs)
            found.append(Way(levers=index, choice=choice, quality=1 - _loss(counts, table, choice), compute=compute))
    return found


def front(found: Sequence[Way]) -> list[Way]:
    """The ways than which none is both better and cheaper: ascending in quality and in compute."""
    kept: list[Way] = []
    for way in sorted(found, key=lambda w: (w.compute, -w.quality)):
        if not kept or way.quality > kept[-1].quality:
            kept.append(way)
    return kept


def start_map(
    way: Way,
    score_bins: Int[Tensor, "V"],
    signal_bins: Int[Tensor, "V h w"],
    starts: Sequence[int],
) -> Int[Tensor, "V h w"]:
    """The start steps of every cell, on the denoiser's own grid."""
    options = torch.tensor(starts, device=signal_bins.device)[torch.from_numpy(way.choice).to(signal_bins.device)]
    return options[score_bins.view(-1, 1, 1).expand_as(signal_bins), signal_bins]


def _loss(counts: np.ndarray, table: np.ndarray, choice: np.ndarray) -> float:
    chosen = np.take_along_axis(table, choice[..., None], -1)[..., 0]
    return float((counts * chosen).sum() / max(1, counts.sum()))


def _shares(counts: np.ndarray, choice: np.ndarray, num_starts: int, total: int) -> tuple[int, ...]:
    """Parts of `SHARES` of the cells at each start option; those at the last one are the rest."""
    sums = [int(counts[choice == option].sum()) for option in range(num_starts - 1)]
    return tuple(int(np.ceil(SHARES * part / total)) for part in sums)


@lru_cache(maxsize=65536)
def calls_cost(
    levers: Levers, shares: tuple[int, ...], starts: tuple[int, ...], sigmas: tuple[float, ...], costs: Costs
) -> float:
    """What a plan's network calls cost in dense calls.

    Args:
        levers: of the plan.
        shares: parts of `SHARES` of all cells at each start option but the last.
        starts: the start options.
        sigmas: the denoiser's own grid.
        costs: of calls.
    """
    cells = [start for start, part in zip(starts, shares, strict=False) for _ in range(part)]
    cells += [starts[-1]] * (SHARES - len(cells))
    plan = ComputePlan(start_step=torch.tensor(cells[:SHARES]).view(1, 1, -1), sigmas=torch.tensor(sigmas))
    plan = economised(plan, levers)
    dense = {plan.first_step, *plan.dense_steps}
    cost = 0.0
    for step in range(plan.first_step, plan.num_steps):
        share = float(plan.active(step).double().mean())
        cost += 1.0 if step in dense else min(1.0, costs.sparse_base + costs.sparse_slope * share)
    return cost


def _steps(levers: Levers, start: int, sigmas: Float[Tensor, "L"]) -> int:
    """How many steps a cell that starts there takes."""
    return _cached_steps(levers, start, _key(sigmas))


@lru_cache(maxsize=4096)
def _cached_steps(levers: Levers, start: int, sigmas: tuple[float, ...]) -> int:
    grid = torch.tensor(sigmas)
    if start >= len(grid) - 1:
        return 0
    plan = economised(ComputePlan(start_step=torch.full((1, 1, 1), start), sigmas=grid), levers)
    return plan.num_steps - plan.first_step


def _key(sigmas: Float[Tensor, "L"]) -> tuple[float, ...]:
    return tuple(float(sigma) for sigma in sigmas)

