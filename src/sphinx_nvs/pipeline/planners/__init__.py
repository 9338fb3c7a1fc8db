"""Stage 4: planners, one class per way to make a request's plan, behind one protocol.

    fitted.py          a fitted profile: the first-step probe, tables, a search along the front
    score_rules.py     the paper's rules: a start step per view by its quality score
    released_code.py   the rules of the paper's released code, for comparison
    uniform.py         full diffusion and the render alone, which leave nothing to choose

A pipeline chooses its planners once, when it is constructed: `planners_for`.
"""

from __future__ import annotations

from collections.abc import Mapping

from sphinx_nvs.errors import InputError
from sphinx_nvs.pipeline.planners.fitted import FittedPlanner
from sphinx_nvs.pipeline.planners.planner import Planner, PlanningContext
from sphinx_nvs.pipeline.planners.released_code import ReleasedCodePlanner
from sphinx_nvs.pipeline.planners.score_rules import ScoreRulesPlanner
from sphinx_nvs.pipeline.planners.uniform import FullDiffusionPlanner, RenderPlanner
from sphinx_nvs.plan.profile import FittedProfile

__all__ = ["PLANNERS", "Planner", "PlanningContext", "planners_for"]

PLANNERS = ("ours", "research")
"""`ours` plans by the pair's profile, `research` by the rules of the paper's released code."""


def planners_for(name: str, context: PlanningContext) -> Mapping[str, Planner]:
    """The planner of each method of `SamplingParams`.

    Args:
        name: planner of method `sphinx`, one of `PLANNERS`.
        context: what plans are made from.

    Raises:
        InputError: an unknown name.
    """
    return {
        "sphinx": _selective(name, context),
        "diffusion": FullDiffusionPlanner(context),
        "regression": RenderPlanner(context),
    }


def _selective(name: str, context: PlanningContext) -> Planner:
    if name not in PLANNERS:
        raise InputError("planner", f"'{name}' is unknown", f"choose {' or '.join(PLANNERS)}")
    if name == "research":
        return ReleasedCodePlanner(context)
    if isinstance(context.profile, FittedProfile):
        return FittedPlanner(context, context.profile)
    return ScoreRulesPlanner(context, context.profile)
