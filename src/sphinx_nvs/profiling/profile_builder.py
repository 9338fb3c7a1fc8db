"""Builds a profile file from scenes: measures every scene, fits, checks on held-out scenes, runs plans, writes.

A profile's folder holds `settings.json`, one file per scene, and finally `profile.json`. A run that is killed and
restarted with the same settings loses at most one scene's work and ends in the same profile.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from sphinx_nvs import __version__, media
from sphinx_nvs.errors import InputError
from sphinx_nvs.evaluation.datasets import Case
from sphinx_nvs.evaluation.harness import open_folder
from sphinx_nvs.json_types import JSONObject
from sphinx_nvs.pipeline.pipeline import Pipeline
from sphinx_nvs.plan.compute_plan import DECODINGS, ComputePlan
from sphinx_nvs.plan.cost_model import CostModel
from sphinx_nvs.plan.profile import FittedProfile
from sphinx_nvs.plan.profile_plan import Options, Signals
from sphinx_nvs.plan.search import Costs
from sphinx_nvs.profiling.closed_loop import closed_loop_corrected
from sphinx_nvs.profiling.fitting import (
    CHECKED,
    Choice,
    correction_from,
    fit_profile,
    held_out_losses,
    partly_held,
)
from sphinx_nvs.profiling.measuring import ProfileConfig, Record, measured_case
from sphinx_nvs.sampling_params import SamplingParams

PROFILE = "profile.json"
QUALITIES = (0.0, 0.5, 0.7, 0.8, 0.85, 0.9, 0.92, 0.94, 0.95, 0.96, 0.97, 0.98, 0.99, 1.0)
"""Qualities at which the typical front is tabulated."""

COSTED = (6, 32, 32)
"""Views and latent cells of a typical request: 256 x 256 pixels for the embedded pair."""

Progress = Callable[[str, str, int, int], None]
"""Called with the scene, the current activity, the number of its finished runs, and their total."""


def make_profile(
    pipeline: Pipeline,
    cases: Sequence[Case],
    config: ProfileConfig,
    folder: Path,
    name: str,
    cost_model: CostModel,
    progress: Progress | None = None,
) -> tuple[FittedProfile, list[Choice], list[Record]]:
    """Measures, fits and writes `profile.json`.

    Args:
        pipeline: the pair, every lever off.
        cases: scenes with held-out photos.
        config: settings of the measurement.
        folder: the profile's folder; may contain an unfinished run with the same settings.
        name: name of the profile.
        cost_model: this machine's; gives the cost of calls relative to dense ones.
        progress: called on every run.

    Raises:
        InputError: there are too few scenes, or one cannot be read.
        OutputError: the folder has other contents.
    """
    open_folder(folder, {**config.fingerprint(), "cases": [case.name for case in cases]}, "a profile")
    report = progress or (lambda scene, what, done, total: None)
    records = [measured_case(pipeline, case, config, folder, partial(report, case.name)) for case in cases]
    costs = costs_from(cost_model)
    profile, choices = fit_profile(records, config, costs, name)
    profile = with_evidence(profile, records, config, [case.source for case in cases])
    profile = closed_loop_corrected(profile, records, cases, pipeline, config, folder, report)
    sigmas = pipeline.denoiser.sigmas(config.num_steps)
    profile = replace(profile, typical=typical_front(profile, records, config, sigmas))
    media.write_bytes(folder / PROFILE, (json.dumps(profile.to_json(), indent=1) + "\n").encode())
    return profile, choices, records


def costs_from(cost_model: CostModel) -> Costs:
    """Costs of calls relative to dense ones, for a request of `COSTED` latent cells.

    Smaller requests gain less from sparse calls.
    """
    views, height, width = COSTED
    num_context = 2
    grid = torch.linspace(1, 0, 3)

    def seconds(share: float, dense: tuple[int, ...]) -> float:
        cells = torch.full((views, height * width), 2)
        cells[:, : round(share * height * width)] = 0
        plan = ComputePlan(start_step=cells.view(views, height, width), sigmas=grid, dense_steps=dense)
        return cost_model.plan_seconds(plan, num_context=num_context).median

    def priced(decoding: str, *, opened: bool) -> float:
        plan = replace(single, network=False, decoding=decoding)
        return cost_model.plan_seconds(plan, num_context=num_context, opened=opened).median

    both, one = seconds(1.0, (0, 1)), seconds(1.0, (0,))
    single = ComputePlan(
        start_step=torch.zeros(views, height, width, dtype=torch.long), sigmas=grid[[0, 2]], dense_steps=(0,)
    )
    first = cost_model.plan_seconds(single, num_context=num_context).median
    dense = both - first
    decoding = tuple(priced(name, opened=True) for name in DECODINGS)
    fixed = priced(DECODINGS[0], opened=False) - decoding[0]
    little, half = seconds(0.05, (0,)) - first, seconds(0.5, (0,)) - first
    if min(dense, little, half, both - one + dense) <= 0:
        raise InputError("cost model", "it predicts that a call takes no time", "calibrate this machine again")
    slope = max(0.0, (half - little) / 0.45)
    return Costs(
        fixed=round(fixed / dense, 4),
        sparse_base=round(max(0.0, little - 0.05 * slope) / dense, 4),
        sparse_slope=round(slope / dense, 4),
        decoding=tuple(round(each / dense, 4) for each in decoding),
    )


def with_evidence(
    profile: FittedProfile,
    records: Sequence[Record],
    config: ProfileConfig,
    sources: Sequence[str],
) -> FittedProfile:
    """Adds the correction to a profile, and the errors of its predictions on held-out scenes."""
    pairs = held_out_losses(profile, records, config)
    predicted, delivered = np.concatenate([p for p, _ in pairs]), np.concatenate([d for _, d in pairs])
    partly = np.concatenate([partly_held(record, config) for record in records])
    corrected = replace(
        profile,
        correction=correction_from(predicted[~partly], delivered[~partly]),
        correction_held=correction_from(predicted[partly], delivered[partly]),
    )
    errors = _errors(corrected, predicted, delivered, partly)
    evidence = {
        "scenes": len(records),
        "sources": sorted(set(sources)),
        "size": list(records[0].kept.shape),
        "runs": len(predicted),
        "held_out": errors,
        "version": __version__,
    }
    return replace(corrected, evidence=evidence)


def _errors(profile: FittedProfile, predicted: np.ndarray, delivered: np.ndarray, partly: np.ndarray) -> JSONObject:
    """Delivered minus predicted quality of runs whose predicted quality is in `CHECKED`."""
    pairs = zip(predicted, partly, strict=True)
    quality = np.array([1 - profile.corrected(float(loss), active=0.5 if held else 1.0) for loss, held in pairs])
    inside = (quality >= CHECKED[0]) & (quality <= CHECKED[1])
    gap = (1 - delivered - quality)[inside]
    if not len(gap):
        return {"runs": 0}
    return {
        "runs": len(gap),
        "mean": round(float(gap.mean()), 5),
        "mean_absolute": round(float(np.abs(gap).mean()), 5),
        "p05": round(float(np.quantile(gap, 0.05)), 5),
        "share_below_by_0.03": round(float((gap < -0.03).mean()), 5),
    }


def signals_of(record: Record, profile: FittedProfile) -> Signals:
    """The planner's input signals for a recorded scene."""
    return Signals(
        region=record.signals[profile.signal], scores=record.score(profile.score), descriptor=record.descriptor
    )


def typical_front(
    profile: FittedProfile, records: Sequence[Record], config: ProfileConfig, sigmas: Float[Tensor, "L"]
) -> tuple[tuple[float, float, float], ...]:
    """For each quality, the mean and the 95th percentile over scenes of the compute relative to full diffusion's."""
    fronts = [
        Options.of(profile, signals_of(record, profile), sigmas, solver="multistep", temperature=1.0)
        for record in records
    ]
    full = profile.costs.full(config.num_steps)
    rows: list[tuple[float, float]] = []
    for quality in QUALITIES:
        shares = [front.front[front.choose(SamplingParams(quality=quality))[0]].compute / full for front in fronts]
        mean = float(np.mean(shares))
        rows.append((round(mean, 5), round(max(mean, float(np.quantile(shares, 0.95))), 5)))
    # Compute increases with quality and is rarely far above its mean, but quantiles over few scenes may not.
    return tuple(zip(QUALITIES, *np.maximum.accumulate(rows).T.tolist(), strict=True))
