"""The planner's search: the ways to run a request that are worth their compute.

A request is a histogram per view: how many cells lie in each bin of score k and region signal b. A way is a lever set
L, the views U that it touches, and for each bin a start step s of a short list (the last one: never, the render is
kept). Loss and cost are sums:

    loss(L, s, U)    = sum over cells of U of loss_L[k, b, s_kb], and over all others of what keeping the render loses
    compute(L, s, U) = fixed + decoding_L * share of views in U
                       + sum over steps of 1 if dense, else sparse_base + sparse_slope * share of active cells
                       + 1 for the probe's call, where it was made and is not the plan's own first call

For one lever set, the ways worth considering minimise loss + price * steps for some price, the loss that one step of a
cell must save; the prices at which a bin changes sides give a short list, to which come those that start every cell at
the same step. Each is tried with all views, and where decoding costs something, with those alone that gain most by
it. The front keeps what is cheaper than everything better: along it, quality and compute ascend together,
so that a higher quality never computes less.

Shapes: K score bins, B signal bins, S start options, V views, h w cells, D descriptor length.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TypeVar

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from sphinx_nvs.plan.compute_plan import DECODINGS, ComputePlan
from sphinx_nvs.plan.levers import Levers, economised, spread_out

Share = TypeVar("Share", float, np.ndarray)

IDLE = 0.02
"""Share of a dense call's cost that grows with its active cells, so that cells are held where refining them gains
nothing, even if holding them saves no time."""


@dataclass(frozen=True, kw_only=True)
class Costs:
    """Costs of calls in units of a dense call.

    Args:
        fixed: cost of any refinement: encoding, conditioning, and decoding where that is not in `decoding`.
        sparse_base: cost of a sparse call without active cells.
        sparse_slope: cost of a sparse call per share of active cells.
        decoding: cost of decoding all views, for each of `DECODINGS`.
    """

    fixed: float
    sparse_base: float
    sparse_slope: float
    decoding: tuple[float, ...] = (0.0,) * len(DECODINGS)

    def full(self, num_steps: int) -> float:
        """Cost of full diffusion."""
        return self.fixed + self.decoding[-1] + num_steps


@dataclass(frozen=True, kw_only=True, eq=False)
class Cluster:
    """Loss tables of one kind of scene.

    Args:
        centre: its unit descriptor; None where there is but one.
        whole: one table per lever set, for requests without held cells.
        losses: the same with held cells: for refined ones where nearly all are held, which disturbs them; for held
            ones where half are, which gain by what is refined beside them. See `_weights`.
    """

    centre: Float[Tensor, "D"] | None
    whole: tuple[Float[np.ndarray, "K B S"], ...]
    losses: tuple[Float[np.ndarray, "K B S"], ...]

    def table(self, levers: int, held: float) -> Float[np.ndarray, "K B S"]:
        """Losses by lever set in requests of this share of held cells, 0..1."""
        whole, losses = self.whole[levers], self.losses[levers]
        refined, kept = _weights(held)
        mixed = whole + refined * (losses - whole)
        mixed[..., -1] = whole[..., -1] + kept * (losses[..., -1] - whole[..., -1])
        return mixed


@dataclass(frozen=True, kw_only=True, eq=False)
class Way:
    """A way to run a request.

    Args:
        levers: which of the profile's; None is full diffusion.
        choice: per bin, which start option.
        active: share of cells that are refined, 0..1.
        views: views that it touches; all others keep the render.
        quality: expected, at most 1.
        compute: compute in dense calls, the probe's included.
    """

    levers: int | None
    choice: Int[np.ndarray, "K B"]
    active: float
    views: Bool[np.ndarray, "V"]
    quality: float
    compute: float

    @property
    def refines(self) -> bool:
        """Whether any cell is refined."""
        return self.active > 0

    @property
    def holds(self) -> bool:
        """Whether any cell keeps the render."""
        return self.active < 1


def ways(
    counts: Int[np.ndarray, "V K B"],
    cluster: Cluster,
    levers: Sequence[Levers],
    starts: Sequence[int],
    sigmas: Float[Tensor, "L"],
    costs: Costs,
    *,
    opened: bool = False,
    called: bool = False,
) -> list[Way]:
    """The ways worth considering of each lever set; regression and full diffusion among them.

    Args:
        counts: cells of each view and bin.
        cluster: its tables and spreads; the last start option of a table is to keep the render.
        levers: the lever sets.
        starts: the start options on the denoiser's own grid, ascending, the last one its number of steps.
        sigmas: the denoiser's own grid.
        costs: costs of calls.
        opened: whether a probe was made, which has done what is fixed.
        called: whether the probe made the denoiser's first call, from noise, and decoded it.
    """
    shape = counts.shape[1:]
    kept, everywhere = np.full(shape, len(starts) - 1), np.ones(len(counts), dtype=bool)
    # The probe was made and is paid for. With a call: a dense one without active cells, see `_call_cost`, so that
    # keeping the render still costs less than any refinement.
    paid = (costs.fixed if opened or called else 0.0) + (costs.decoding[-1] + 1 - IDLE if called else 0.0)
    lost = (counts * cluster.whole[0][..., -1]).sum() / max(1, counts.sum())
    render = Way(
        levers=0,
        choice=kept,
        active=0.0,
        views=~everywhere,
        quality=float(1 - lost),
        compute=paid,
    )
    full = Way(
        levers=None,
        choice=np.zeros_like(kept),
        active=1.0,
        views=everywhere,
        quality=1.0,
        compute=costs.full(len(sigmas) - 1),
    )
    found = [render, full]
    for index, lever in enumerate(levers):
        choices = _choices(counts.sum(0), cluster.losses[index], lever, starts, sigmas, costs)
        found += _ways_of(counts, cluster, index, lever, choices, starts, sigmas, costs, called=called)
    return found


def _ways_of(
    counts: Int[np.ndarray, "V K B"],
    cluster: Cluster,
    index: int,
    lever: Levers,
    choices: Int[np.ndarray, "N K B"],
    starts: Sequence[int],
    sigmas: Float[Tensor, "L"],
    costs: Costs,
    *,
    called: bool,
) -> list[Way]:
    """The front of one lever set over choices, each with the views that gain most by it."""
    total, num_views = max(1, int(counts.sum())), len(counts)
    order, quality, held = _by_views(counts, cluster, index, choices)
    decoding = 0.0 if called else costs.decoding[DECODINGS.index(lever.decoding)]
    # Without a price on decoding, a view less saves nothing.
    numbers = np.arange(1, num_views + 1) if decoding else np.array([num_views])
    calls = np.empty(len(choices))
    for n, choice in enumerate(choices):
        shares = np.bincount(choice.ravel(), counts.sum(0).ravel(), len(starts)) / total
        calls[n] = calls_cost(lever, shares.tolist(), starts, sigmas, costs)
        if called and shares[0] == 1 and lever.network and _steps(lever, 0, sigmas) == 1:
            # The probe's own frames, which is cheaper than decoding again because some cells are held.
            calls[n] = 1 - IDLE * (1 - 1e-6)
        elif called and not (lever.network and shares[0]):
            # A plan without cells that start from noise cannot use the probe's call: that one comes on top.
            calls[n] += 1.0
    fixed = costs.fixed + (costs.decoding[-1] if called else 0.0)
    compute = fixed + calls[:, None] + decoding * numbers / num_views
    if not lever.network:
        compute = compute + IDLE * (1 - held[:, numbers - 1])
    kept = held[:, numbers - 1]
    made = []
    # What holds some cells is corrected otherwise than what holds none (`FittedProfile.corrected`): a front for each.
    for holds in (False, True):
        for n, u in _cheapest(compute, quality[:, numbers - 1], (kept > 0) == holds):
            views = np.zeros(num_views, dtype=bool)
            views[order[n, : numbers[u]]] = True
            way = Way(
                levers=index,
                choice=choices[n],
                active=1 - float(kept[n, u]),
                views=views,
                quality=float(quality[n, numbers[u] - 1]),
                compute=float(compute[n, u]),
            )
            made.append(way)
    return made


def _cheapest(
    compute: Float[np.ndarray, "N U"], quality: Float[np.ndarray, "N U"], mask: Bool[np.ndarray, "N U"]
) -> list[tuple[int, int]]:
    """Those of the masked than which none is both better and cheaper, by compute."""
    chosen = np.flatnonzero(mask)
    chosen = chosen[np.lexsort((-quality.flat[chosen], compute.flat[chosen]))]
    best = np.maximum.accumulate(np.append(-np.inf, quality.flat[chosen]))[:-1]
    return [divmod(int(flat), compute.shape[1]) for flat in chosen[quality.flat[chosen] > best]]


def _by_views(
    counts: Int[np.ndarray, "V K B"], cluster: Cluster, levers: int, choices: Int[np.ndarray, "N K B"]
) -> tuple[Int[np.ndarray, "N V"], Float[np.ndarray, "N V"], Float[np.ndarray, "N V"]]:
    """For each choice: views, those that gain most first; quality and held share with the first 1..V of them."""
    last = cluster.whole[levers].shape[-1] - 1
    holds = choices == last
    refined, kept, render = [], [], []
    for tables in (cluster.whole, cluster.losses):
        of_cell = np.take_along_axis(tables[levers][None], choices[..., None], -1)[..., 0]
        refined.append(np.einsum("vkb,nkb->nv", counts, of_cell * ~holds))
        kept.append(np.einsum("vkb,nkb->nv", counts, of_cell * holds))
        render.append((counts * tables[levers][..., last]).sum((1, 2)))
    order = np.argsort(refined[0] + kept[0] - render[0], axis=1, kind="stable")
    cells, nothing = counts.sum((1, 2)), np.zeros(len(counts))

    def first(own: np.ndarray, rest: np.ndarray) -> np.ndarray:
        """Sums over all views, with `own` of the first ones and `rest` of the others."""
        return rest.sum() + np.cumsum(np.take_along_axis(own - rest, order, 1), axis=1)

    total = max(1, int(counts.sum()))
    held = first(np.einsum("vkb,nkb->nv", counts, holds), cells) / total
    of_refined, of_kept = _weights(held)
    (whole, beside), (alone, among) = (
        [first(own, rest) for own, rest in zip(sums, rests, strict=True)]
        for sums, rests in ((refined, (nothing, nothing)), (kept, render))
    )
    loss = whole + of_refined * (beside - whole) + alone + of_kept * (among - alone)
    return order, 1 - loss / total, held


def _choices(
    counts: Int[np.ndarray, "K B"],
    table: Float[np.ndarray, "K B S"],
    lever: Levers,
    starts: Sequence[int],
    sigmas: Float[Tensor, "L"],
    costs: Costs,
) -> Int[np.ndarray, "N K B"]:
    """Start options by bin: the same one everywhere, and the best at every price; each once.

    Where a held cell saves nothing, those alone are held that lose by being refined.

    Prices are tried on all options, and on the first and the last alone: cells that start from noise go on from the
    first call, which was made already. Bins without cells are kept, so that choices with equal effect are equal.
    """
    last = len(starts) - 1
    # Without a network there are no steps: a cell is decoded or it is not.
    steps = np.array([_steps(lever, start, sigmas) if lever.network else 1 for start in starts], dtype=float)
    steps[last] = 0.0
    same = [np.full(table.shape[:2], option) for option in range(last if lever.network else 1)]
    # The prices at which a bin changes sides: what refining it from noise gains, per step. Tried just below and just
    # above, they give every distinct choice.
    spared = (table[..., last] - table[..., 0])[counts > 0].clip(min=0) / steps[0]
    prices = np.unique(np.concatenate([0.999 * spared, 1.001 * spared]))
    if not _holding_saves(lever, starts, sigmas, costs):
        prices = np.array([1e-9])
    # A Lagrangian: at a price per step, each bin takes its cheapest option by itself. So the search is linear in bins,
    # where all combinations would be exponential.
    priced = (table[None] + prices[:, None, None, None] * steps).argmin(-1) if lever.network else ()
    from_noise = np.where(table[None, ..., 0] + prices[:, None, None] * steps[0] < table[None, ..., last], 0, last)
    filled = (np.where(counts > 0, choice, last) for choice in (*same, *priced, *from_noise))
    unlike = {choice.tobytes(): choice for choice in filled if (choice < last).any()}
    return np.array(list(unlike.values())).reshape(-1, *counts.shape)


def _holding_saves(lever: Levers, starts: Sequence[int], sigmas: Float[Tensor, "L"], costs: Costs) -> bool:
    """Whether calls cost less for some cells than for all, beyond `IDLE`."""
    some, every = (
        calls_cost(lever, (share, *(0.0 for _ in starts[1:-1]), 1 - share), starts, sigmas, costs)
        for share in (0.2, 1.0)
    )
    return every - some > IDLE * max(1, _steps(lever, 0, sigmas))


def _weights(held: Share) -> tuple[Share, Share]:
    """How far losses of refined and of held cells lie between a cluster's two tables, by the share of held cells.

    Refined cells lose more the more are held beside them. Held ones gain most where as many are refined, and nothing
    where none is.
    """
    return held, 4 * held * (1 - held)


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
    touched = torch.from_numpy(way.views).to(signal_bins.device).view(-1, 1, 1)
    return torch.where(touched, options[score_bins, signal_bins], starts[-1])


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
    if not levers.network:
        return 0.0
    # Rounded, so that requests find each other's results: a search asks for hundreds of costs. Not to 0, since a single
    # cell takes a call, too.
    rounded = tuple(max(0.001, round(share, 3)) if share > 0 else 0.0 for share in shares)
    return _calls_cost(levers, rounded, tuple(starts), _key(sigmas), costs)


@lru_cache(maxsize=65536)
def _calls_cost(
    levers: Levers, shares: tuple[float, ...], starts: tuple[int, ...], sigmas: tuple[float, ...], costs: Costs
) -> float:
    taken = [(start, share) for start, share in zip(starts, shares, strict=True) if share > 0]
    grid, begun = _schedule(levers, tuple(start for start, _ in taken), sigmas)
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
