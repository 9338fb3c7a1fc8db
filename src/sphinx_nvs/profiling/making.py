"""From scenes to a profile file: measure every scene, fit, check on scenes left out, plan for them, write.

The folder of a profile holds `settings.json`, one file per scene, and at the end `profile.json`; killed at any moment
and started again with the same settings it loses at most one scene's work and ends in the same profile.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from sphinx_nvs import __version__, media
from sphinx_nvs.errors import InputError, OutputError
from sphinx_nvs.evaluation.datasets import Case
from sphinx_nvs.pipeline.pipeline import Pipeline
from sphinx_nvs.plan.compute_plan import ComputePlan
from sphinx_nvs.plan.cost_model import CostModel
from sphinx_nvs.plan.fitted import Options, Signals
from sphinx_nvs.plan.profile import FittedProfile
from sphinx_nvs.plan.search import Costs
from sphinx_nvs.profiling.closing import closed
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

SETTINGS, PROFILE = "settings.json", "profile.json"
QUALITIES = (0.0, 0.5, 0.7, 0.8, 0.85, 0.9, 0.92, 0.94, 0.95, 0.96, 0.97, 0.98, 0.99, 1.0)
"""Where the typical front is tabulated."""

COSTED = (6, 32, 32)
"""Views and latent cells of a usual request: 256 x 256 pixels for the embedded pair."""

Progress = Callable[[str, str, int, int], None]
"""Called with the scene, what is being done, how many of its runs are done, and how many there are."""


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
        config: what is measured.
        folder: of the profile; may hold an earlier, unfinished one with the same settings.
        name: of the profile.
        cost_model: of this machine: tells what calls cost in dense calls.
        progress: told of runs.

    Raises:
        InputError: too few scenes, or one that cannot be read.
        OutputError: the folder holds something else.
    """
    open_folder(folder, config, cases)
    report = progress or (lambda scene, what, done, total: None)
    records = [measured_case(pipeline, case, config, folder, partial(report, case.name)) for case in cases]
    costs = costs_from(cost_model)
    profile, choices = fit_profile(records, config, costs, name)
    profile = checked(profile, records, config, [case.source for case in cases])
    profile = closed(profile, records, cases, pipeline, config, folder, report)
    sigmas = pipeline.denoiser.sigmas(config.num_steps)
    profile = replace(profile, typical=typical_front(profile, records, config, sigmas))
    media.write_bytes(folder / PROFILE, (json.dumps(profile.to_json(), indent=1) + "\n").encode())
    return profile, choices, records


def open_folder(folder: Path, config: ProfileConfig, cases: Sequence[Case]) -> None:
    """Makes the folder of a profile, or finds one that was begun with the same settings.

    Raises:
        OutputError: it holds something else, or a profile with other settings.
    """
    wanted = json.loads(json.dumps({**config.fingerprint(), "cases": [case.name for case in cases]}))
    path = folder / SETTINGS
    if path.is_file():
        found = json.loads(path.read_text())
        other = sorted(key for key in {*wanted, *found} if wanted.get(key) != found.get(key))
        if other:
            hint = "give the same settings to go on with it, or another folder"
            raise OutputError(f"output {folder}", f"it was begun with other {', '.join(other)}", hint)
        return
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise OutputError(f"output {folder}", "it holds something else than a profile", "choose another name")
    media.write_bytes(path, (json.dumps(wanted, indent=1) + "\n").encode())


def costs_from(cost_model: CostModel) -> Costs:
    """What calls cost in dense calls, in a request of `COSTED` latent cells; smaller ones gain less by sparse calls."""
    views, height, width = COSTED
    num_context = 2
    grid = torch.linspace(1, 0, 3)

    def seconds(share: float, dense: tuple[int, ...]) -> float:
        cells = torch.full((views, height * width), 2)
        cells[:, : round(share * height * width)] = 0
        plan = ComputePlan(start_step=cells.view(views, height, width), sigmas=grid, dense_steps=dense)
        return cost_model.plan_seconds(plan, num_context=num_context).median

    both, one = seconds(1.0, (0, 1)), seconds(1.0, (0,))
    single = ComputePlan(
        start_step=torch.zeros(views, height, width, dtype=torch.long), sigmas=grid[[0, 2]], dense_steps=(0,)
    )
    first = cost_model.plan_seconds(single, num_context=num_context).median
    dense = both - first
    fixed = first - dense
    little, half = seconds(0.05, (0,)) - first, seconds(0.5, (0,)) - first
    if min(dense, little, half, both - one + dense) <= 0:
        raise InputError("cost model", "a call costs nothing by it", "calibrate this machine again")
    slope = max(0.0, (half - little) / 0.45)
    return Costs(
        fixed=round(fixed / dense, 4),
        sparse_base=round(max(0.0, little - 0.05 * slope) / dense, 4),
        sparse_slope=round(slope / dense, 4),
    )


def checked(
    profile: FittedProfile,
    records: Sequence[Record],
    config: ProfileConfig,
    sources: Sequence[str],
) -> FittedProfile:
    """The profile with its correction, and what predictions are worth on scenes left out."""
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


def _errors(profile: FittedProfile, predicted: np.ndarray, delivered: np.ndarray, partly: np.ndarray) -> dict[str, Any]:
    """Delivered minus predicted quality of runs whose predicted quality is in `CHECKED`."""
    pairs = zip(predicted, partly, strict=True)
    quality = np.array([1 - profile.corrected(float(loss), partly=bool(held)) for loss, held in pairs])
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
    """What the planner would see of a scene."""
    return Signals(
        region=record.signals[profile.signal], scores=record.score(profile.score), descriptor=record.descriptor
    )


def typical_front(
    profile: FittedProfile, records: Sequence[Record], config: ProfileConfig, sigmas: Float[Tensor, "L"]
) -> tuple[tuple[float, float, float], ...]:
    """Per quality asked for, the mean and the 95th percentile over scenes of the share of full diffusion's compute."""
    fronts = [
        Options.of(profile, signals_of(record, profile), sigmas, solver="multistep", temperature=1.0)
        for record in records
    ]
    full = profile.costs.fixed + config.num_steps
    rows: list[tuple[float, float]] = []
    for quality in QUALITIES:
        shares = [front.front[front.choose(SamplingParams(quality=quality))[0]].compute / full for front in fronts]
        mean = float(np.mean(shares))
        rows.append((round(mean, 5), round(max(mean, float(np.quantile(shares, 0.95))), 5)))
    # Compute ascends with quality and is seldom far above its mean, but quantiles over few scenes need not know.
    return tuple(zip(QUALITIES, *np.maximum.accumulate(rows).T.tolist(), strict=True))
