"""Step economy: compute that a plan saves beside its map, one switch per lever.

A plan is made on the denoiser's own grid of noise levels, every step dense. Levers turn it into a cheaper one: they
widen its solver steps, space dense calls out, and decide how it ends. Distances between noise levels are in nats,
ln(sigma_a / sigma_b): features go stale with the noise level, not with the number of steps.

Shapes: V target views, h w latent cells, S steps.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from sphinx_nvs.diffusion.sigmas import thinned
from sphinx_nvs.errors import InputError
from sphinx_nvs.plan.compute_plan import DECODINGS, ComputePlan, guidance_interval_steps


@dataclass(frozen=True, kw_only=True)
class Levers:
    """Switches; the defaults save nothing beside the map.

    Args:
        warm_start: cells start from the render at their start step; off, cells to refine start from noise at step 0.
        selective: refine uncertain cells; off, views that have any are refined whole.
        per_view_masks: each view has its own cells; off, all have the union (as in the released code).
        width_nats: greatest width that merged solver steps may have; None keeps the denoiser's own grid.
        end_sigma: no call below this noise level: the solver lands at 0 from the last one above it. None keeps the
            grid's end.
        refresh_nats: a dense call whenever the noise fell this far since the last; None makes every call dense unless
            another refresh is given.
        refresh_share: a dense call at every multiple of this share of the plan's grid (released code: 0.1).
        refresh_drift: a dense call whenever cached features drifted this far, see `FeatureCache.drift`.
        tail_share: share of the denoiser's grid, at its end, in which every call is dense and all cells join in
            (released code: 0.2).
        final_dense: how many calls at the end are dense.
        guidance_interval: noise levels (low, high) within which guidance is computed afresh; outside, the last
            difference between the branches is used on. For guided denoisers, as the next.
        unconditional_every: compute the unconditional branch every this many calls.
        dense_share: calls with a larger share of active cells are dense, since gathering would cost more.
        network: call the denoiser's network; off, active cells are decoded from the render's latents.
        decoding: one of `DECODINGS`.

    Raises:
        InputError: a number is out of range.
    """

    warm_start: bool = True
    selective: bool = True
    per_view_masks: bool = True
    width_nats: float | None = None
    end_sigma: float | None = None
    refresh_nats: float | None = None
    refresh_share: float | None = None
    refresh_drift: float | None = None
    tail_share: float = 0.0
    final_dense: int = 0
    guidance_interval: tuple[float, float] | None = None
    unconditional_every: int = 1
    dense_share: float = 0.65
    network: bool = True
    decoding: str = DECODINGS[-1]

    def __post_init__(self) -> None:
        for name in ("width_nats", "end_sigma", "refresh_nats", "refresh_drift"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise InputError(
                    f"Levers.{name}", f"it is {value:g}", "give a positive number, or None to switch it off"
                )
        if self.refresh_share is not None and not 0 < self.refresh_share <= 1:
            found = f"it is {self.refresh_share:g}"
            raise InputError("Levers.refresh_share", found, "give a number above 0 and up to 1, or None")
        for name in ("tail_share", "dense_share"):
            value = getattr(self, name)
            if not 0 <= value <= 1:
                raise InputError(f"Levers.{name}", f"it is {value:g}", "give a number in 0..1")
        if self.guidance_interval is not None and not 0 <= self.guidance_interval[0] < self.guidance_interval[1]:
            hint = "give 0 <= low < high, e.g. (0.5, 30.0)"
            raise InputError("Levers.guidance_interval", f"it is {self.guidance_interval}", hint)
        if self.unconditional_every < 1:
            raise InputError("Levers.unconditional_every", f"it is {self.unconditional_every}", "give 1 or more calls")
        if self.decoding not in DECODINGS:
            found = f"it is {self.decoding!r}"
            raise InputError("Levers.decoding", found, f"choose {' or '.join(DECODINGS)}")
        if self.final_dense < 0:
            raise InputError("Levers.final_dense", f"it is {self.final_dense}", "give 0 or more calls")

    @property
    def sparse(self) -> bool:
        """Whether any call may be sparse."""
        refreshes = self.refresh_nats, self.refresh_share, self.refresh_drift
        return any(refresh is not None for refresh in refreshes)


def economised(plan: ComputePlan, levers: Levers) -> ComputePlan:
    """The same plan with the savings of some levers.

    Args:
        plan: a plan on the denoiser's own grid.
        levers: the savings.
    """
    plan = replace(plan, network=levers.network, decoding=levers.decoding)
    start_step = _joined_map(plan.start_step, plan.num_steps, levers)
    if not levers.network:
        # A single step, which nothing computes: it only tells active cells from held ones.
        held = (start_step == plan.num_steps).long()
        return replace(plan, start_step=held, sigmas=plan.sigmas[[0, -1]], dense_steps=(), refresh_drift=None)
    # Counted on the denoiser's own grid. Levels are removed below, so the tail's border is remembered as a noise level.
    tail = round(plan.num_steps * (1 - levers.tail_share))
    if levers.tail_share and int(start_step.min()) < plan.num_steps:
        start_step = start_step.clamp_max(tail)
    plan = replace(plan, start_step=start_step)
    if plan.first_step == plan.num_steps:
        return replace(plan, dense_steps=())
    tail_sigma = float(plan.sigmas[tail]) if levers.tail_share else 0.0
    plan = plan if levers.width_nats is None else widened(plan, levers.width_nats)
    plan = plan if levers.end_sigma is None else shortened(plan, levers.end_sigma)
    return replace(
        plan,
        dense_steps=spread_out(
            plan.sigmas.tolist(),
            [float(plan.active(step).float().mean()) for step in range(plan.num_steps)],
            plan.first_step,
            levers,
            tail_sigma,
        ),
        refresh_drift=levers.refresh_drift,
        unconditional_steps=_unconditional_steps(plan, levers),
    )


def widened(plan: ComputePlan, width_nats: float) -> ComputePlan:
    """The plan on a coarser grid: levels go as long as no gap exceeds `width_nats`, from the first start on.

    A cell starts at the last kept level at or above its own, so never with less noise than planned.
    """
    return _on_grid(plan, thinned(plan.sigmas[plan.first_step :], width_nats))


def shortened(plan: ComputePlan, end_sigma: float) -> ComputePlan:
    """The plan without levels below `end_sigma`; the first start and 0 stay."""
    sigmas = plan.sigmas[plan.first_step :]
    stays = sigmas >= end_sigma
    stays[0] = stays[-1] = True
    return _on_grid(plan, sigmas[stays])


def _on_grid(plan: ComputePlan, sigmas: Float[Tensor, "L"]) -> ComputePlan:
    """The plan on a subset of its levels; see `widened`."""
    kept = torch.searchsorted(-plan.sigmas, -sigmas)
    # The last kept level at or above the cell's own: more noise than planned costs a step, less would skip a part of
    # its trajectory.
    coarser = torch.searchsorted(kept, plan.start_step.contiguous(), right=True) - 1
    coarser = torch.where(plan.start_step >= plan.num_steps, len(sigmas) - 1, coarser)
    return replace(plan, start_step=coarser, sigmas=sigmas)


def _joined_map(start_step: Int[Tensor, "V h w"], num_steps: int, levers: Levers) -> Int[Tensor, "V h w"]:
    """The start-step map after the switches for warm start and masks."""
    if not levers.selective:
        start_step = start_step.amin((1, 2), keepdim=True).expand_as(start_step).clone()
    if not levers.per_view_masks:
        starts = start_step.flatten(1).amin(1).view(-1, 1, 1)
        union = (start_step < num_steps).any(0)
        start_step = torch.where(union, starts.clamp_max(num_steps), num_steps)
    if not levers.warm_start:
        start_step = torch.where(start_step < num_steps, 0, num_steps)
    return start_step


def spread_out(
    sigmas: Sequence[float], shares: Sequence[float], first_step: int, levers: Levers, tail_sigma: float = 0.0
) -> tuple[int, ...]:
    """Which steps compute every token.

    Args:
        sigmas: the plan's grid, S+1 levels.
        shares: share of active cells at each of its S steps.
        first_step: the plan's first step.
        levers: the savings.
        tail_sigma: every call at or below this level is dense.
    """
    num_steps = len(shares)
    steps = range(first_step, num_steps)
    if not levers.sparse:
        return tuple(steps)
    every = None if levers.refresh_share is None else max(1, round(levers.refresh_share * num_steps))
    dense, last = [], math.inf
    for step in steps:
        sigma = sigmas[step]
        fallen = math.log(last / sigma) if math.isfinite(last) else math.inf
        if (
            # The tolerance keeps gaps that are equal but for rounding from being treated differently.
            (fallen == math.inf if levers.refresh_nats is None else fallen >= levers.refresh_nats - 1e-9)
            or (every is not None and step % every == 0)
            or sigma <= tail_sigma
            or step >= num_steps - levers.final_dense
            or shares[step] > levers.dense_share
        ):
            dense.append(step)
            last = sigma
    return tuple(dense)


def _unconditional_steps(plan: ComputePlan, levers: Levers) -> tuple[int, ...] | None:
    """Steps that compute guidance afresh; None is all of them."""
    if levers.guidance_interval is None and levers.unconditional_every == 1:
        return None
    inside = set(range(plan.num_steps))
    if levers.guidance_interval is not None:
        inside = set(guidance_interval_steps(plan.sigmas, levers.guidance_interval))
    return tuple(s for s in range(plan.first_step, plan.num_steps, levers.unconditional_every) if s in inside)


NO_SAVINGS = Levers()
"""Every call dense, on the denoiser's own grid: only the map saves compute."""

RESEARCH = Levers(per_view_masks=False, refresh_share=0.1, tail_share=0.2)
"""The released code's economy on our map: one mask for all views, a dense call at every fifth of 50 steps, and a dense
tail that diffuses everything again. The released code's solver is first order; its map is in `released_plan`."""

D4 = Levers(selective=False, width_nats=0.4)
"""Dense warm start on a coarse grid: the simplest baseline."""

RT = Levers(width_nats=0.4, refresh_nats=1.2, tail_share=0.2)
"""Coarse grid, sparse calls, and the released code's tail."""

R = Levers(width_nats=0.4, refresh_nats=1.2, final_dense=1)
"""Coarse grid, sparse calls, one dense call at the end."""

R_PLUS = Levers(width_nats=0.4, refresh_nats=2.4, unconditional_every=2)
"""As R with half as many refreshes, nothing dense at the end, and guidance afresh at every other call."""
