"""The plan that the paper's released code would make, as a `ComputePlan` like any other.

Every view gets a start step by its score, and one mask serves all of them, so views without an uncertain cell of their
own are refined where others are uncertain. What the mask leaves out joins at the tail, from which on every step is
dense and everything is diffused again; before, every fifth of 50 steps is. The mask's share of pixels decides on more:

    0           nothing starts before the tail, whatever the scores
    below 10 %  residual blocks go by tiles (`released_code.released_network`; exact sparse calls have no tiles)
    10..85 %    the mask as it is
    above 85 %  no mask: views are refined whole

Reference: Sphinx (arXiv 2511.18672); rules by the project's notes on its released code, checked on recorded decisions.

Shapes: V target views, H W pixels, h w latent cells, L noise levels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from sphinx_nvs.errors import InputError
from sphinx_nvs.plan.compute_plan import ComputePlan
from sphinx_nvs.plan.levers import RESEARCH, economised
from sphinx_nvs.plan.profile import PAPER_PROFILE
from sphinx_nvs.plan.rules import GOOD_START, PAPER_STEPS, Profile
from sphinx_nvs.released_code.masks import MUSIQ, ResearchAssessment, area_share
from sphinx_nvs.released_code.released_network import TILE

QUALITIES = (0.95, 0.98)
"""The quality targets that the released code has rules for."""

TILED_BELOW, WHOLE_ABOVE = 0.10, 0.85

LEVERS = replace(RESEARCH, dense_share=1.0)
"""The released code's economy; it never makes a step dense because it is crowded."""


def research_plan(
    assessment: ResearchAssessment,
    sigmas: Float[Tensor, "L"],
    factor: int,
    *,
    quality: float = 0.95,
    profile: Profile = PAPER_PROFILE,
    arithmetic: str = "exact",
    temperature: float | int = 1.0,
) -> ComputePlan:
    """Plans as the released code would.

    Args:
        assessment: assessment by the released code's rules.
        sigmas: the denoiser's grid.
        factor: pixels per latent cell.
        quality: one of `QUALITIES`.
        profile: rules by score; without centres the scene is of cluster 0.
        arithmetic: `exact`, or `research`: then with tiles where the released code has them.
        temperature: see `ComputePlan`; the released code's is 1.

    Raises:
        InputError: another quality, or an unknown arithmetic.
    """
    if quality not in QUALITIES:
        known = " or ".join(f"{q:g}" for q in QUALITIES)
        raise InputError("quality", f"it is {quality:g}", f"the research plan has rules for {known} only")
    num_steps = len(sigmas) - 1
    cluster = profile.cluster(assessment.descriptor)
    mask = assessment.mask(cluster)
    area = area_share(mask)
    starts = start_steps(assessment.scores.tolist(), area, quality, profile, cluster)
    # The rules are for 50 steps; other grids start at the same share of the way.
    on_grid = torch.tensor([round(start * num_steps / PAPER_STEPS) for start in starts])
    cells = refined_cells(mask, area, factor).cpu()
    plan = ComputePlan(
        start_step=torch.where(cells, on_grid[:, None, None], num_steps),
        sigmas=sigmas,
        solver="euler",
        temperature=float(temperature),
        arithmetic=_arithmetic(arithmetic, area, cells),
        reason=_reason(assessment, quality, profile, cluster, area, starts),
        profile=profile.name,
        quality=quality,
    )
    return economised(plan, LEVERS)


def start_steps(scores: Sequence[float], area: float, quality: float, profile: Profile, cluster: int) -> list[int]:
    """The start step of each view of 50, by the rules; without anything to refine, the tail for all."""
    if area == 0:
        return [GOOD_START] * len(scores)
    rule = profile.clusters[cluster][quality]
    return [rule.start_step(score) for score in scores]


def refined_cells(mask: Bool[Tensor, "H W"], area: float, factor: int) -> Bool[Tensor, "h w"]:
    """Cells with any masked pixel; all of them where the released code uses no mask."""
    cells = F.max_pool2d(mask[None].float(), factor, ceil_mode=True)[0] > 0
    return torch.ones_like(cells) if area == 0 or area > WHOLE_ABOVE else cells


def _arithmetic(arithmetic: str, area: float, cells: Bool[Tensor, "h w"]) -> str:
    """With tiles where the mask is small and the map divides into them; the released code would stop if it does not."""
    divides = not (cells.shape[0] % TILE or cells.shape[1] % TILE)
    tiled = arithmetic == "research" and 0 < area < TILED_BELOW and divides
    return "research-tiled" if tiled else arithmetic


def _reason(
    assessment: ResearchAssessment,
    quality: float,
    profile: Profile,
    cluster: int,
    area: float,
    starts: list[int],
) -> str:
    stand_in = "" if assessment.score_name == MUSIQ else f" in the place of {MUSIQ}"
    return (
        f"research code's plan for quality {quality:g} by {profile.name}, cluster {cluster}"
        f"{' for want of cluster centres' if profile.centres is None else ''}: views scored by {assessment.score_name}"
        f"{stand_in} start at steps {min(starts)}..{max(starts)} of {PAPER_STEPS}, one mask of {area:.1%} of pixels"
    )
