"""Long paths: units of work, run one after another, in parallel, or from where an earlier run stopped.

The regressor's scene stays the real photos: generated frames never become geometry. The denoiser of a unit is
conditioned on the photos and the finished frames that the unit names, as context views:

    render = regressor(photos),    frames of a unit = denoiser(render; photos, finished frames)

A unit's frames depend on its own noise, seeded by (seed, unit), and on its context frames; not on the order in which
units run. Memory is bounded by the window and by the frames that later units still need.

Shapes: V target views of a unit, H W pixels.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

import torch
from jaxtyping import Float
from torch import Tensor

from sphinx_nvs.errors import InputError
from sphinx_nvs.geometry.cameras import Cameras
from sphinx_nvs.long_paths.units import DEFAULT_WINDOW, Unit, plan_units
from sphinx_nvs.models.base import Reconstruction, Render
from sphinx_nvs.pipeline.pipeline import Pipeline
from sphinx_nvs.pipeline.regression import reconstruct
from sphinx_nvs.pipeline.request import Prepared, Progress, Result
from sphinx_nvs.plan import ComputePlan
from sphinx_nvs.sampling_params import SamplingParams
from sphinx_nvs.scene.scene import Scene

__all__ = ["DEFAULT_WINDOW", "FinishedUnit", "LongPath", "Unit", "plan_units", "prepare_unit", "run_path", "unit_seed"]


@dataclass(frozen=True, kw_only=True)
class FinishedUnit:
    """A unit with its result; `result.frames` are in the order of `unit.targets`."""

    unit: Unit
    result: Result

    @property
    def frames(self) -> Float[Tensor, "V 3 H W"]:
        """One per target of the unit, sRGB in [0, 1]: the value to store, and to pass back as `done`."""
        return self.result.frames


def unit_seed(seed: int, index: int) -> int:
    """Seed of a unit's noise, below 2^63; the first unit has the request's own.

    A path of one unit is thus the same as the pipeline's, and no two units share their noise.
    """
    if index == 0:
        return seed
    return int.from_bytes(hashlib.blake2b(f"{seed}/{index}".encode(), digest_size=8).digest()) >> 1


@dataclass(frozen=True, kw_only=True)
class LongPath:
    """A path cut into units, of which any can be run.

    Args:
        pipeline: the models.
        scene: the photos.
        reconstruction: the photos' reconstruction by the pipeline's regressor.
        targets: the whole path.
        units: see `plan_units`.
        params: quality and seed of every unit, see `unit_seed`.
    """

    pipeline: Pipeline
    scene: Scene
    reconstruction: Reconstruction
    targets: Cameras
    units: tuple[Unit, ...]
    params: SamplingParams = field(default_factory=SamplingParams)

    @staticmethod
    @torch.inference_mode()
    def of(
        pipeline: Pipeline,
        scene: Scene,
        targets: Cameras,
        params: SamplingParams | None = None,
        *,
        window: int = DEFAULT_WINDOW,
        strategy: str = "interp",
        num_anchors: int | None = None,
    ) -> LongPath:
        """Cuts the path into units and reconstructs the photos; the arguments are those of `run_path`.

        Raises:
            InputError: see `plan_units`, or too few photos.
        """
        return LongPath(
            pipeline=pipeline,
            scene=scene,
            targets=targets,
            units=tuple(plan_units(scene.cameras, targets, window=window, strategy=strategy, num_anchors=num_anchors)),
            reconstruction=reconstruct(pipeline.regressor, scene),
            params=params or SamplingParams(),
        )

    def run(
        self,
        unit: Unit,
        finished: Mapping[int, Float[Tensor, "3 H W"]],
        progress: Progress | None = None,
        deadline_s: float | None = None,
        plan: ComputePlan | None = None,
    ) -> FinishedUnit:
        """Runs one unit.

        Args:
            unit: one of `units`.
            finished: at least the frames that condition the unit, by target number.
            progress: see `Pipeline`.
            deadline_s: seconds that the unit may take; None is no limit.
            plan: the plan to run; None makes one.

        Raises:
            InputError: a frame that the unit needs is missing, or see `Pipeline.prepare`.
        """
        started = time.perf_counter()
        prepared = prepare_unit(
            self.pipeline,
            self.scene,
            self.targets,
            unit,
            finished,
            reconstruction=self.reconstruction,
            alone=len(self.units) == 1,
            progress=progress,
        )
        params = self.unit_params(unit)
        if plan is not None:
            result = self.pipeline.run_plan(prepared, plan, seed=params.seed, progress=progress)
            return FinishedUnit(unit=unit, result=result)
        if deadline_s is not None:
            params = params.due_in(deadline_s - (time.perf_counter() - started))
        planned = self.pipeline.plan_prepared(prepared, params)
        return FinishedUnit(unit=unit, result=self.pipeline.run(planned, progress=progress))

    def unit_params(self, unit: Unit) -> SamplingParams:
        """The path's parameters with the unit's own seed."""
        return replace(self.params, seed=unit_seed(self.params.seed, unit.index))


def prepare_unit(
    pipeline: Pipeline,
    scene: Scene,
    targets: Cameras,
    unit: Unit,
    finished: Mapping[int, Float[Tensor, "3 H W"]],
    *,
    reconstruction: Reconstruction,
    alone: bool,
    progress: Progress | None = None,
) -> Prepared:
    """Stages 1 to 3 of one unit of a path.

    Args:
        pipeline: the models.
        scene: the photos.
        targets: the whole path.
        unit: the unit to prepare.
        finished: at least the frames that condition the unit, by target number.
        reconstruction: the photos' reconstruction.
        alone: whether the path is this one unit, with all photos: then the outcome is `Pipeline.prepare`'s.
        progress: see `Pipeline`.

    Raises:
        InputError: a frame that the unit needs is missing, or see `Pipeline.prepare`.
    """
    prepared = pipeline.prepare(scene, targets[list(unit.targets)], progress, reconstruction)
    if alone:
        return prepared
    everyone = Cameras.cat([scene.cameras, targets])
    return replace(
        prepared,
        known=_known(scene, targets, unit, finished),
        render=_beside_known(prepared.render, unit),
        reference=everyone,
    )


def _beside_known(render: Render, unit: Unit) -> Render:
    """The render of a unit's targets with the depth of its known views, 0 for finished frames, which have none."""

    def of_known(maps: Tensor | None) -> Tensor | None:
        if maps is None:
            return None
        return torch.cat([maps[list(unit.photos)], maps.new_zeros(len(unit.frames), *maps.shape[1:])])

    return replace(
        render,
        context_inverse_depth=of_known(render.context_inverse_depth),
        context_confidence=of_known(render.context_confidence),
    )


def _known(scene: Scene, targets: Cameras, unit: Unit, finished: Mapping[int, Float[Tensor, "3 H W"]]) -> Scene:
    """A unit's context views: its photos, then its finished frames."""
    missing = [frame for frame in unit.frames if frame not in finished]
    if missing:
        raise InputError(f"unit {unit.index}", f"frame {missing[0]} is not finished", "run its `depends_on` first")
    photos = list(unit.photos)
    cameras = Cameras.cat([scene.cameras[photos], targets[list(unit.frames)]])
    frames = [finished[frame].to(scene.images)[None] for frame in unit.frames]
    return Scene(name=scene.name, images=torch.cat([scene.images[photos], *frames]), cameras=cameras)


def run_path(
    pipeline: Pipeline,
    scene: Scene,
    targets: Cameras,
    params: SamplingParams | None = None,
    *,
    window: int = DEFAULT_WINDOW,
    strategy: str = "interp",
    num_anchors: int | None = None,
    done: Mapping[int, Float[Tensor, "V 3 H W"]] | None = None,
    plans: Mapping[int, ComputePlan] | None = None,
    progress: Progress | None = None,
) -> Iterator[FinishedUnit]:
    """Makes a path's frames, unit by unit; yields each unit once it is finished.

    Args:
        pipeline: the models.
        scene: the photos.
        targets: the path, in order, of any length.
        params: quality, deadline and seed; the deadline is for all frames, and each unit gets its views' share of what
            is left. None for the defaults.
        window: most views that the denoiser sees together, photos included.
        strategy: see `long_paths.chunks`.
        num_anchors: see `plan_units`.
        done: frames of units that an earlier run of the same request finished, by the unit's index; they are neither
            made again nor yielded.
        plans: plans of units, e.g. of an earlier run, by the unit's index; other units are planned.
        progress: receives the stages of each unit, and `unit` over all of them.

    Raises:
        InputError: see `plan_units` and `Pipeline.prepare`, or frames in `done` that are not this path's.
    """
    params = params or SamplingParams()
    report: Progress = progress or (lambda stage, done, total: None)
    report("reconstruct", 0, 1)
    started = time.perf_counter()
    path = LongPath.of(pipeline, scene, targets, params, window=window, strategy=strategy, num_anchors=num_anchors)
    before_s = {"reconstruct": time.perf_counter() - started}
    report("reconstruct", 1, 1)
    done = done or {}
    finished = _frames_of(path, done)
    todo = [unit for unit in path.units if unit.index not in done]
    for position, unit in enumerate(todo):
        _count(report, len(path.units) - len(todo) + position, len(path.units))
        # By views and anew for each unit: a unit that was faster than its share leaves the rest to the others.
        views_left = sum(len(later.targets) for later in todo[position:])
        deadline_s = None
        if params.deadline_s is not None:
            left_s = params.deadline_s - (time.perf_counter() - started)
            deadline_s = left_s * len(unit.targets) / views_left
        made = path.run(unit, finished, progress, deadline_s, (plans or {}).get(unit.index))
        finished |= dict(zip(unit.targets, made.frames, strict=True))
        # Frames that no later unit needs are dropped: hundreds of frames need not fit into memory together.
        awaited = {frame for later in todo[position + 1 :] for frame in later.frames}
        finished = {frame: image for frame, image in finished.items() if frame in awaited}
        # The reconstruction is done once for all units; its time counts with the first.
        yield replace(made, result=replace(made.result, stages_s=before_s | made.result.stages_s))
        before_s = {}
    _count(report, len(path.units), len(path.units))


def _count(report: Progress, done: int, total: int) -> None:
    """Reports how many units are finished, where there are several."""
    if total > 1:
        report("unit", done, total)


def _frames_of(path: LongPath, done: Mapping[int, Float[Tensor, "V 3 H W"]]) -> dict[int, Tensor]:
    """Finished frames by target number; raises InputError if they cannot be this path's."""
    units, targets = path.units, path.targets
    for index, frames in done.items():
        if not 0 <= index < len(units):
            raise InputError("done", f"it has unit {index} of a path of {len(units)} units", "give this path's frames")
        wanted = (len(units[index].targets), 3, targets.height, targets.width)
        if tuple(frames.shape) != wanted:
            raise InputError(
                "done", f"unit {index} has frames of shape {tuple(frames.shape)}", f"give frames of shape {wanted}"
            )
    return {
        target: frame
        for index, frames in done.items()
        for target, frame in zip(units[index].targets, frames, strict=True)
    }
