"""Closed-loop correction: the planner selects the plans that look best, so its predictions are biased for just those.

    the planner plans every scene with a profile that was fitted without it; these plans are run;
    ln (delivered / corrected loss) = a + b ln corrected + c_L        L lever set, c small: ridge
    exp(c_L) corrected loss -> E[delivered loss | exp(c_L) corrected loss], over all scenes and qualities, monotone

The planner selects a lever set where it looks best among the others, so each set has a bias of its own: its tables are
scaled by exp(c_L). Plans that hold some cells and plans that hold none are corrected separately, as in the profile's
own correction.

Shapes: V target views, H W pixels, h w cells.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from sphinx_nvs import media
from sphinx_nvs.evaluation.datasets import Case
from sphinx_nvs.pipeline.pipeline import Pipeline
from sphinx_nvs.pipeline.request import PlannedRequest
from sphinx_nvs.plan.profile import UNCERTAINTY, Correction, FittedProfile
from sphinx_nvs.plan.search import Cluster
from sphinx_nvs.profiling.fitting import correction_from, folds_of, refitted
from sphinx_nvs.profiling.measuring import ProfileConfig, Record, delivered_distance
from sphinx_nvs.sampling_params import SamplingParams

ASKED = (0.6, 0.7, 0.8, 0.85, 0.9, 0.93, 0.95, 0.97, 0.98, 0.99)
"""Qualities planned for every scene."""

LEAST = 0.003
"""Smaller losses are ignored in the comparison of lever sets."""

PULL = 3.0
"""Number of outcomes at which a lever set's estimated factor gets half of its weight."""

PLANNING = "planning"
"""Name of this stage in a scene's progress."""

Progress = Callable[[str, str, int, int], None]


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """A plan that was run.

    Args:
        asked: requested quality.
        levers: index of the profile's lever set; None is full diffusion.
        partly: whether some cells are held and others refined.
        predicted: loss predicted by the corrected profile.
        delivered: measured loss.
    """

    asked: float
    levers: int | None
    partly: bool
    predicted: float
    delivered: float


def closed_loop_corrected(
    profile: FittedProfile,
    records: Sequence[Record],
    cases: Sequence[Case],
    pipeline: Pipeline,
    config: ProfileConfig,
    folder: Path,
    progress: Progress,
) -> FittedProfile:
    """Corrects the profile's correction by the outcomes of plans for held-out scenes.

    Args:
        profile: a profile with a correction.
        records: the records it was fitted to.
        cases: the same scenes.
        pipeline: the pair, every lever off.
        config: how the records were measured.
        folder: the profile's folder; outcomes stored there are not measured again.
        progress: called on every run.
    """
    by_name = {case.name: case for case in cases}
    outcomes: list[Outcome] = []
    for fitting, held_out in folds_of(records):
        fold = refitted(profile, fitting, config)
        fold = replace(fold, correction=profile.correction, correction_held=profile.correction_held)
        for record in held_out:
            path = outcomes_path(folder, record.name)
            if not path.is_file():
                rows = outcomes_of(
                    replace(pipeline, profile=fold), by_name[record.name], config, profile.scale, progress
                )
                media.write_bytes(path, (json.dumps([asdict(row) for row in rows]) + "\n").encode())
            outcomes += [Outcome(**row) for row in json.loads(path.read_text())]
    factors = lever_factors(outcomes, len(profile.levers))
    outcomes = [o if o.levers is None else replace(o, predicted=o.predicted * factors[o.levers]) for o in outcomes]
    return replace(
        profile,
        clusters=tuple(_scaled(cluster, factors) for cluster in profile.clusters),
        correction=_composed(profile.correction, [o for o in outcomes if not o.partly]),
        correction_held=_composed(profile.correction_held, [o for o in outcomes if o.partly]),
        evidence={**profile.evidence, "planned": len(outcomes)},
    )


def outcomes_path(folder: Path, scene: str) -> Path:
    """The file of a scene's outcomes in a profile's folder."""
    return folder / "planned" / f"{scene}.json"


@torch.inference_mode()
def outcomes_of(
    pipeline: Pipeline, case: Case, config: ProfileConfig, scale: float, progress: Progress
) -> list[Outcome]:
    """Plans a scene for every quality of `ASKED`, and runs the plans."""
    profile = pipeline.profile
    assert isinstance(profile, FittedProfile)
    progress(case.name, PLANNING, 0, len(ASKED))
    loaded = case.load(config.size)
    prepared = pipeline.prepare(loaded.scene, loaded.targets)
    if config.signal != UNCERTAINTY:
        prepared = pipeline.probed(prepared, signal=config.signal)
        assert prepared.probe is not None
        # A run that reuses the probe's call would update its caches, and so affect the next run.
        prepared.probe.first = None
    full = pipeline.run(pipeline.plan_prepared(prepared, SamplingParams(method="diffusion"))).frames

    def loss(frames: Float[Tensor, "V 3 H W"]) -> float:
        if config.against == "full":
            return delivered_distance(config, frames, full) / scale
        grown = delivered_distance(config, frames, loaded.truth) - delivered_distance(config, full, loaded.truth)
        return grown / scale

    options = pipeline.options(prepared)
    assert options is not None
    delivered: dict[int, Outcome] = {}
    for done, asked in enumerate(ASKED, 1):
        params = SamplingParams(quality=asked)
        index, why = options.choose(params)
        if index not in delivered:
            way = options.front[index]
            planned = PlannedRequest(prepared=prepared, plan=options.plan(index, params, why))
            delivered[index] = Outcome(
                asked=asked,
                levers=way.levers,
                partly=way.holds and way.refines,
                predicted=(1 - way.quality) * profile.scale / scale,
                delivered=loss(pipeline.run(planned).frames),
            )
        progress(case.name, PLANNING, done, len(ASKED))
    return list(delivered.values())


def lever_factors(outcomes: Sequence[Outcome], num_levers: int) -> Float[np.ndarray, "L"]:
    """Factor exp(c_L) of each lever set's losses relative to the others; 1 where no outcome is known.

    Losses below `LEAST` are excluded, because noise dominates them.
    """
    rows = [(o.levers, o.predicted, o.delivered) for o in outcomes if o.levers is not None]
    known = [row for row in rows if min(row[1:]) > LEAST]
    if not known:
        return np.ones(num_levers)
    which = np.eye(num_levers)[[levers for levers, _, _ in known]]
    predicted, delivered = np.log([row[1:] for row in known]).T
    features = np.column_stack([np.ones(len(known)), predicted, which])
    small = np.diag([0.0, 0.0] + [PULL] * num_levers)
    weights, *_ = np.linalg.lstsq(features.T @ features + small, features.T @ (delivered - predicted), rcond=None)
    return np.exp(weights[2:])


def _scaled(cluster: Cluster, factors: Float[np.ndarray, "L"]) -> Cluster:
    """A cluster with each lever set's losses times its factor."""
    whole, losses = (
        tuple(table * factor for table, factor in zip(tables, factors, strict=True))
        for tables in (cluster.whole, cluster.losses)
    )
    return replace(cluster, whole=whole, losses=losses)


def _composed(first: Correction, outcomes: Sequence[Outcome]) -> Correction:
    """Composes a correction with the fitted bias of its results."""
    second = correction_from(np.array([o.predicted for o in outcomes]), np.array([o.delivered for o in outcomes]))
    (x, y), (u, v) = (np.array(knots).T for knots in (first, second))
    knots = np.array(sorted({*x, *np.interp(u, y, x).round(6)}))
    between = np.interp(knots, x, y)
    results = np.where(between > u[-1], between * v[-1] / u[-1], np.interp(between, u, v))
    return tuple(zip(knots.tolist(), np.maximum.accumulate(results).round(6).tolist(), strict=True))
