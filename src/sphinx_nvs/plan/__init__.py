"""Stage 4: decide from which step on each latent cell of each view is denoised."""

from sphinx_nvs.plan.compute_plan import ComputePlan
from sphinx_nvs.plan.levers import Levers, economised
from sphinx_nvs.plan.profile import PAPER_PROFILE
from sphinx_nvs.plan.rules import Profile, Rule
from sphinx_nvs.plan.score_plan import PlanConfig, score_plan, uniform_plan

__all__ = [
    "PAPER_PROFILE",
    "ComputePlan",
    "Levers",
    "PlanConfig",
    "Profile",
    "Rule",
    "economised",
    "score_plan",
    "uniform_plan",
]
