"""Methods by name, each a compute plan: the methods that `sphinx-nvs eval` compares.

    regression            no denoising
    full-50               all cells, 50 first-order steps: the reference of speed-ups and losses
    full-N                all cells, N second-order steps, e.g. full-25, full-14
    skip-K                full-50 with every K-th noise level, e.g. skip-3
    warm                  dense warm start: the rules choose start steps and cells, every call is dense, 50-step grid
    d4                    dense warm start on a coarse grid: the plainest competitor
    research              the released code's savings: one mask for all views, a refresh every fifth step, a dense tail
    research-code         the same with the released code's own mask and scores, see `released_code.released_plan`
    rt, r, r-plus         coarse grid and sparse calls with fewer and fewer savings left out, see `plan.levers`
    ours-Q                the preset's own plan at quality Q, e.g. ours-0.95
    deadline-F            the best plan within the fraction F of full diffusion's predicted seconds, e.g. deadline-0.1

`warm` to `r-plus` take their mask from the paper's rules at quality 0.95; all share the preset's temperature. A method
of another kind is one more entry in `_FIXED` or `_PATTERNS`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from functools import partial

import torch

from sphinx_nvs.errors import InputError
from sphinx_nvs.pipeline.pipeline import Pipeline
from sphinx_nvs.pipeline.request import PlannedRequest, Prepared
from sphinx_nvs.plan import PAPER_PROFILE, ComputePlan, Levers, economised
from sphinx_nvs.plan.levers import D4, NO_SAVINGS, R_PLUS, RESEARCH, RT, R
from sphinx_nvs.sampling_params import SamplingParams

FULL = "full-50"
"""The reference of every speed-up and loss."""

WARM = "warm"
"""The dense warm start: the reference for measuring acceleration alone."""

DEADLINE = "deadline-"
"""Name prefix of deadline-driven methods."""

REGRESSION = "regression"
"""Keeps the render."""

MEASURED_QUALITY = 0.95
"""The quality passed to the rules by competitors whose name gives none."""

DEFAULT = (REGRESSION, FULL, "full-25", "full-14", WARM, "skip-3", "research", "ours-0.90", "ours-0.95", "ours-0.98")
"""Methods compared by default."""

Maker = Callable[[Pipeline, Prepared, int], PlannedRequest]
"""Computes a method's plan for a prepared request and a noise seed."""


@dataclass(frozen=True, kw_only=True)
class Method:
    """A way to compute frames.

    Args:
        name: name in options and results.
        about: description in one line.
        make: computes its plan.
        is_random: whether the seed matters.
    """

    name: str
    about: str
    make: Maker
    is_random: bool = True


def plan_with(
    pipeline: Pipeline,
    prepared: Prepared,
    *,
    method: str,
    levers: Levers = NO_SAVINGS,
    solver: str = "multistep",
    num_steps: int = 50,
    quality: float = MEASURED_QUALITY,
) -> ComputePlan:
    """The plan of one of `Pipeline.plan`'s methods on a grid of `num_steps` steps, with savings applied.

    Args:
        pipeline: the pair; its own levers and solver are not used.
        prepared: the request.
        method: `sphinx`, `diffusion` or `regression`.
        levers: the savings.
        solver: `euler` or `multistep`.
        num_steps: steps of the denoiser's own grid.
        quality: quality target of the rules.
    """
    config = replace(pipeline.plan_config, levers=NO_SAVINGS, solver=solver)
    plain = replace(pipeline, plan_config=config, num_steps=num_steps, profile=PAPER_PROFILE, planner="ours")
    return economised(plain.plan_prepared(prepared, SamplingParams(method=method, quality=quality)).plan, levers)


def research_code_plan(pipeline: Pipeline, prepared: Prepared) -> ComputePlan:
    """The plan of `sphinx-nvs render --plan research`, on the 50-step grid."""
    planner = replace(pipeline, planner="research", num_steps=50)
    return planner.plan_prepared(prepared, SamplingParams(quality=MEASURED_QUALITY)).plan


def every_kth_level(plan: ComputePlan, stride: int) -> ComputePlan:
    """Uniform skipping: full diffusion with every `stride`-th noise level of its grid, starting at the first."""
    # The last level is 0 and always stays: without it the frames would keep noise.
    sigmas = torch.cat([plan.sigmas[:-1:stride], plan.sigmas[-1:]])
    steps = len(sigmas) - 1
    return replace(plan, sigmas=sigmas, dense_steps=tuple(range(steps)), reason=f"every {stride}th noise level")


def _planned(make: Callable[[Pipeline, Prepared], ComputePlan]) -> Maker:
    """Wraps plans that do not depend on the noise."""
    return lambda pipeline, prepared, seed: PlannedRequest(
        prepared=prepared, plan=make(pipeline, prepared), params=SamplingParams(seed=seed)
    )


def _with_levers(levers: Levers, solver: str = "multistep") -> Maker:
    return _planned(partial(plan_with, method="sphinx", levers=levers, solver=solver))


def _full(steps: int) -> Maker:
    # The reference is the paper's: 50 first-order steps. Fewer steps get the better solver, so as to be strong
    # competitors.
    solver = "euler" if steps == 50 else "multistep"
    return _planned(partial(plan_with, method="diffusion", solver=solver, num_steps=steps))


def _skip(stride: int) -> Maker:
    full = partial(plan_with, method="diffusion", solver="euler")
    return _planned(lambda pipeline, prepared: every_kth_level(full(pipeline, prepared), stride))


def _ours(quality: float) -> Maker:
    return lambda pipeline, prepared, seed: pipeline.plan_prepared(prepared, SamplingParams(quality=quality, seed=seed))


def _deadline(fraction: float) -> Maker:
    """The best plan within a fraction of full diffusion's time on this machine, including planning."""

    def make(pipeline: Pipeline, prepared: Prepared, seed: int) -> PlannedRequest:
        if pipeline.cost_model is None:
            hint = "give the pipeline a cost_model, see profiling.calibrated"
            raise InputError("method", "deadlines need this machine's speed, which was not measured", hint)
        full = pipeline.cost_model.full_seconds(
            num_context=len(prepared.scene.images),
            views=len(prepared.targets),
            height=prepared.targets.height,
            width=prepared.targets.width,
            num_steps=50,
        )
        return pipeline.plan_prepared(prepared, SamplingParams(deadline_s=fraction * full.median, seed=seed))

    return make


_FIXED = {
    m.name: m
    for m in (
        Method(
            name=REGRESSION,
            about="the render, unchanged",
            make=_planned(partial(plan_with, method="regression")),
            is_random=False,
        ),
        Method(name=WARM, about="dense warm start, 50-step grid", make=_with_levers(NO_SAVINGS)),
        Method(name="d4", about="dense warm start, coarse grid", make=_with_levers(D4)),
        Method(name="research", about="the released code's savings", make=_with_levers(RESEARCH, "euler")),
        Method(name="research-code", about="the released code's plan", make=_planned(research_code_plan)),
        Method(name="rt", about="coarse grid, sparse calls, dense tail", make=_with_levers(RT)),
        Method(name="r", about="coarse grid, sparse calls, one dense call at the end", make=_with_levers(R)),
        Method(name="r-plus", about="as r, with half as many refreshes", make=_with_levers(R_PLUS)),
    )
}


def _numbered_full(number: str) -> Method:
    steps = int(number)
    order = "first-order" if steps == 50 else "second-order"
    return Method(name=f"full-{steps}", about=f"full diffusion, {steps} {order} steps", make=_full(steps))


def _numbered_skip(number: str) -> Method:
    return Method(name=f"skip-{int(number)}", about=f"full diffusion, every {number}th step", make=_skip(int(number)))


def _numbered_ours(number: str) -> Method:
    return Method(name=f"ours-{number}", about=f"the preset's plan at quality {number}", make=_ours(float(number)))


def _numbered_deadline(number: str) -> Method:
    fraction = float(number)
    about = f"the best plan within {fraction:.0%} of full diffusion's predicted seconds"
    return Method(name=f"{DEADLINE}{number}", about=about, make=_deadline(fraction))


_PATTERNS: dict[str, Callable[[str], Method]] = {
    r"full-([1-9]\d*)": _numbered_full,
    r"skip-([1-9]\d*)": _numbered_skip,
    rf"{DEADLINE}(0\.\d+|1(?:\.0+)?)": _numbered_deadline,
    r"ours-(0(?:\.\d+)?|1(?:\.0+)?)": _numbered_ours,
}


def method_named(name: str) -> Method:
    """The method with a name.

    Raises:
        InputError: the name is unknown.
    """
    if name in _FIXED:
        return _FIXED[name]
    for pattern, make in _PATTERNS.items():
        if match := re.fullmatch(pattern, name):
            return make(match[1])
    known = ", ".join(("full-N", "skip-K", "ours-Q", "deadline-F", *_FIXED))
    raise InputError("method", f"there is no {name!r}", f"choose one of {known}")


def methods_named(names: Collection[str]) -> list[Method]:
    """Methods by name, the reference first; it is added if missing.

    Raises:
        InputError: a name is unknown, or given twice.
    """
    chosen = [method_named(name) for name in names]
    doubled = next((m.name for i, m in enumerate(chosen) if m.name in [n.name for n in chosen[:i]]), None)
    if doubled is not None:
        raise InputError("methods", f"{doubled} is named twice", "name every method once")
    return [method_named(FULL), *(m for m in chosen if m.name != FULL)]
