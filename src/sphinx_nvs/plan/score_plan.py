"""Plans by score rules, as in the paper, and the two plans that need no rules.

Cells whose uncertainty passes a threshold start where their view's score says; all others keep the render. A view that
is almost wholly uncertain is denoised whole, since the little that would be held only leaves seams. A quality below 1
never costs more than quality 1.

Shapes: V views, H W pixels, h w latent cells, L noise levels (one more than steps).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from sphinx_nvs.assess import Assessment
from sphinx_nvs.plan.compute_plan import ComputePlan
from sphinx_nvs.plan.levers import NO_SAVINGS, Levers, economised
from sphinx_nvs.plan.profile import PAPER_PROFILE
from sphinx_nvs.plan.rules import Profile


@dataclass(frozen=True, kw_only=True)
class PlanConfig:
    """How assessments become plans.

    Args:
        threshold: uncertainty above which a pixel is uncertain, [0, 1].
        cell_share: share of a cell's pixels that must be uncertain, (0, 1]; the paper's pair takes any pixel.
        whole_view_share: share of a view's cells above which the whole view is denoised (paper: 0.85).
        solver: see `ComputePlan`.
        temperature: see `ComputePlan`.
        levers: step economy of the plans that score rules make.
    """

    threshold: float = 0.65
    cell_share: float = 0.25
    whole_view_share: float = 0.85
    solver: str = "multistep"
    temperature: float = 1.0
    levers: Levers = NO_SAVINGS


def score_plan(
    assessment: Assessment,
    sigmas: Float[Tensor, "L"],
    factor: int,
    *,
    quality: float = 0.95,
    profile: Profile = PAPER_PROFILE,
    config: PlanConfig | None = None,
) -> ComputePlan:
    """Plans every target view by a profile's score rules.

    Args:
        assessment: assessment of the renders.
        sigmas: the denoiser's grid.
        factor: pixels per latent cell.
        quality: fraction of full diffusion's quality to keep, 0..1.
        profile: score rules of this pair of models.
        config: thresholds and levers.

    Raises:
        InputError: quality outside 0..1.
    """
    config = config or PlanConfig()
    mask = uncertain_cells(assessment.uncertainty, factor, config)
    start_step, reason = _by_rules(assessment, mask, len(sigmas) - 1, quality, profile)
    return economised(_plan(start_step, sigmas, quality, reason, profile.name, config), config.levers)


def uniform_plan(
    shape: tuple[int, int, int],
    sigmas: Float[Tensor, "L"],
    start_step: int,
    *,
    reason: str,
    profile: str = PAPER_PROFILE.name,
    config: PlanConfig | None = None,
    device: torch.device | str = "cpu",
) -> ComputePlan:
    """Every cell starts at the same step: 0 is full diffusion, the number of steps keeps the render.

    Args:
        shape: views, rows and columns of latent cells.
        sigmas: the denoiser's grid.
        start_step: step at which all cells start, 0..S.
        reason: why, for people.
        profile: name of the pair's profile.
        config: solver and temperature.
        device: where the map lies.
    """
    cells = torch.full(shape, start_step, dtype=torch.long, device=device)
    quality = 1 - start_step / (len(sigmas) - 1)
    return _plan(cells, sigmas, quality, reason, profile, config or PlanConfig())


def _plan(
    start_step: Tensor, sigmas: Tensor, quality: float, reason: str, profile: str, config: PlanConfig
) -> ComputePlan:
    """A plan on the denoiser's own grid, every step dense."""
    return ComputePlan(
        start_step=start_step,
        sigmas=sigmas,
        solver=config.solver,
        temperature=config.temperature,
        dense_steps=tuple(range(int(start_step.min()), len(sigmas) - 1)),
        reason=reason,
        profile=profile,
        quality=quality,
    )


def uncertain_cells(uncertainty: Float[Tensor, "V H W"], factor: int, config: PlanConfig) -> Bool[Tensor, "V h w"]:
    """Cells to refine: uncertain ones, and all of views that are nearly wholly uncertain."""
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
