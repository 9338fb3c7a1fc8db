"""FLOPs of a plan, step by step, and their lower bound.

    W_ideal = W_dense + sum over later steps of W(active cells of the step)           (one call to fill the caches)
    eta_alg = W_ideal / W_plan

One multiply-add is two FLOPs; autoencoder and regressor are not counted. Source: the project's acceleration notes,
section 5 (FLOP bound), with halos and the exact attention to all keys.

Shapes: V target views, h w latent cells.
"""

from __future__ import annotations

from collections.abc import Collection

import torch

from sphinx_nvs.models.unet.flops import CallShape, active_counts, call_flops, total
from sphinx_nvs.models.unet.network import UNetConfig
from sphinx_nvs.plan.compute_plan import ComputePlan


def plan_flops(
    plan: ComputePlan,
    config: UNetConfig,
    num_context: int,
    *,
    dense_steps: Collection[int] | None = None,
    branches: int = 1,
) -> list[int]:
    """FLOPs of each network call, from the plan's first step on.

    Args:
        plan: the plan.
        config: configuration of the denoiser's network.
        num_context: context views, which dense calls compute as well.
        dense_steps: the steps that were dense at run time, where the plan leaves that to measured drift; None takes the
            plan's own.
        branches: guidance branches of a call.
    """
    if not plan.network:
        return []
    dense = set(plan.dense_steps if dense_steps is None else dense_steps) | {plan.first_step}
    costs: dict[int, int] = {}
    flops = []
    for step in range(plan.first_step, plan.num_steps):
        # Start steps only add cells, so calls with as many active cells have the same ones, and cost the same.
        cells = -1 if step in dense else int(plan.active(step).sum())
        if cells not in costs:
            costs[cells] = _call_flops(plan, config, num_context, None if cells < 0 else step, branches)
        flops.append(costs[cells])
    return flops


def ideal_flops(plan: ComputePlan, config: UNetConfig, num_context: int, *, branches: int = 1) -> int:
    """The least that these steps with these active cells can cost: one dense call, then active cells only."""
    return sum(plan_flops(plan, config, num_context, dense_steps=(), branches=branches))


def _call_flops(plan: ComputePlan, config: UNetConfig, num_context: int, step: int | None, branches: int) -> int:
    """FLOPs of a sparse call at `step`, or of a dense one."""
    views, height, width = plan.start_step.shape
    active = None
    if step is not None:
        context = torch.zeros(num_context, height, width, dtype=torch.bool)
        active = active_counts(torch.cat([context, plan.active(step).cpu()]), config.num_levels)
    shape = CallShape(
        size=(height, width),
        num_frames=num_context + views,
        active=active,
        branches=branches,
        context_tokens=int(config.context_dim is not None),
        folded=True,
    )
    return total(call_flops(config, shape))
