"""From an assessment and a wish to a plan.

Cells whose uncertainty passes a threshold start where their view's score says; all others keep the render. A view that
is almost wholly uncertain is denoised whole: what little is held would only leave seams. Asking for less than quality 1
never asks for more computation.

Shapes: V views, H W pixels, h w latent cells, L noise levels (one more than steps).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from sphinx_nvs.assess import Assessment
from sphinx_nvs.errors import InputError
from sphinx_nvs.plan.compute_plan import ComputePlan
from sphinx_nvs.plan.levers import NO_SAVINGS, Levers, economised
from sphinx_nvs.plan.profile import PAPER_PROFILE
from sphinx_nvs.plan.rules import Profile

METHODS = ("sphinx", "diffusion", "regression")


@dataclass(frozen=True, kw_only=True)
class PlanConfig:
    """How assessments become plans.

    Args:
        threshold: a pixel is uncertain above this; a cell is, if enough of its pixels are.
        cell_share: share of a cell's pixels that must be uncertain, (0, 1]; the paper's pair takes any pixel.
        whole_view_share: share of a view's cells above which the whole view is denoised (paper: 0.85).
        solver: see `ComputePlan`.
        temperature: see `ComputePlan`.
        levers: what plans of method `sphinx` save beside their map.
    """

    threshold: float = 0.65
    cell_share: float = 0.25
    whole_view_share: float = 0.85
    solver: str = "multistep"
    temperature: float = 1.0
    levers: Levers = NO_SAVINGS


def make_plan(
    assessment: Assessment,
    sigmas: Float[Tensor, "L"],
    factor: int,
    *,
    method: str = "sphinx",
    quality: float = 0.95,
    profile: Profile = PAPER_PROFILE,
    config: PlanConfig | None = None,
) -> ComputePlan:
    """Plans the denoising of every target view.

    Args:
        assessment: of the renders.
        sigmas: the denoiser's grid.
        factor: pixels per latent cell.
        method: `diffusion` starts every cell at step 0, `regression` none, `sphinx` by the profile's rules.
        quality: fraction of full diffusion's quality to keep, 0..1; `sphinx` only.
        profile: rules of this pair of models.
        config: thresholds.

    Raises:
        InputError: quality outside 0..1, or an unknown method.
    """
    config = config or PlanConfig()
    num_steps = len(sigmas) - 1
    mask = uncertain_cells(assessment.uncertainty, factor, config)
    if method == "diffusion":
        start_step, reason = torch.zeros_like(mask, dtype=torch.long), "full diffusion was asked for"
    elif method == "regression":
        start_step, reason = torch.full_like(mask, num_steps, dtype=torch.long), "regression was asked for"
    elif method == "sphinx":
        start_step, reason = _by_rules(assessment, mask, num_steps, quality, profile)
    else:
        raise InputError("method", f"'{method}' is unknown", f"choose one of {', '.join(METHODS)}")
    plan = ComputePlan(
        start_step=start_step,
        sigmas=sigmas,
        solver=config.solver,
        temperature=config.temperature,
        dense_steps=tuple(range(int(start_step.min()), num_steps)),
        reason=reason,
        profile=profile.name,
        quality={"diffusion": 1.0, "regression": 0.0}.get(method, quality),
    )
    return economised(plan, config.levers) if method == "sphinx" else plan


def uncertain_cells(
    uncertainty: Float[Tensor, "V H W"], factor: int, config: PlanConfig
) -> Int[Tensor, "V h w"] | Tensor:
    """Bool `V h w`: cells to refine."""
    pixels = (uncertainty > config.threshold).float()
    cells = F.avg_pool2d(pixels[:, None], factor)[:, 0] >= config.cell_share
    whole = cells.flatten(1).float().mean(1) > config.whole_view_share
    return cells | whole.view(-1, 1, 1)


def _by_rules(
    assessment: Assessment, mask: Tensor, num_steps: int, quality: float, profile: Profile
) -> tuple[Tensor, str]:
    """The start-step map of the profile's rules, and the reason in words."""
    cluster = profile.cluster(assessment.descriptor)
    starts = [profile.start_step(float(score), quality, cluster, num_steps) for score in assessment.quality]
    per_view = torch.tensor(starts, device=mask.device).view(-1, 1, 1)
    start_step = torch.where(mask, per_view, num_steps)
    if quality == 1:
        start_step = torch.zeros_like(start_step)
    reason = (
        f"quality {quality:g} by {profile.name}, cluster {cluster}: views start at steps {min(starts)}..{max(starts)}, "
        f"{float(mask.float().mean()):.0%} of cells are uncertain"
    )
    return start_step, reason
