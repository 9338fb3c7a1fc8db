"""How a device carries out commands. Knows models, scenes and files; neither queue nor transport.

    Regress   photos -> reconstruction -> render of every target -> PNGs
    Begin     render, assess, plan, encode                     } as `long_paths.run` does for the same unit: the
    Step      one solver step of each unit, packed             } same seed, the same frames, bit for bit, whichever
    Finish    decode -> PNGs, and floats for later units       } other units run
    Drop      free the units' memory

A command that cannot be carried out is answered by `Refused`, and its units are freed. When memory runs out, caches
are emptied and the command is tried a second time; a unit whose step broke off begins again and repeats its steps,
since its caches may be in any state.

Steps of several units are packed into one network call where the denoiser knows sparse calls, see
`refine.step_together`: on a CPU in float32 without any effect on the frames.

Shapes: V target views of a unit, H W pixels.
"""

from __future__ import annotations

import gc
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from sphinx_nvs.engine.artifacts import ArtifactStore
from sphinx_nvs.engine.device.context_cache import with_context_cache
from sphinx_nvs.engine.device.failures import NO_MEMORY, is_out_of_memory, is_users_fault, sentence_of
from sphinx_nvs.engine.device.frame_files import Files
from sphinx_nvs.engine.device.lru import Memory
from sphinx_nvs.engine.device.scene_cache import CachedScene, SceneCache
from sphinx_nvs.engine.types.job_validation import cameras_of
from sphinx_nvs.engine.types.jobs import JobSpec
from sphinx_nvs.engine.types.messages import (
    Begin,
    Begun,
    Command,
    Drop,
    Dropped,
    Finish,
    Finished,
    Refused,
    Regress,
    Regressed,
    Report,
    Step,
    Stepped,
    UnitKey,
)
from sphinx_nvs.geometry.cameras import Cameras
from sphinx_nvs.geometry.padding import cropped_frames, padded_cameras
from sphinx_nvs.json_types import JSONObject
from sphinx_nvs.long_paths.long_path import prepare_unit, unit_seed
from sphinx_nvs.long_paths.units import Unit
from sphinx_nvs.pipeline.pipeline import Pipeline
from sphinx_nvs.pipeline.request import PlannedRequest, Prepared, Result, Running
from sphinx_nvs.plan.compute_plan import Prediction
from sphinx_nvs.presets import WATERMARK, WatermarkedPipeline
from sphinx_nvs.refine import Refinement, StepReport, step_together
from sphinx_nvs.sampling_params import NO_TIME_S, SamplingParams
from sphinx_nvs.watermark import watermarked

FAILURES = {
    Regress: "the preview could not be made",
    Begin: "the frames could not be planned",
    Step: "the frames could not be refined",
    Finish: "the frames could not be decoded",
    Drop: "units could not be dropped",
}
"""Sentences for users about internal failures; the log has the trace."""

PREVIEW_PIXELS = 16_000_000
"""Rendered at once for a preview, about 0.5 GB."""

_log = logging.getLogger(__name__)


@dataclass(kw_only=True)
class _Held:
    """A unit between `Begin` and `Finish`.

    Args:
        command: the command that began it.
        running: its plan and its loop.
        done: steps that were taken and reported.
    """

    command: Begin
    running: Running
    done: int = 0


class Device:
    """Carries out commands, one after another.

    Args:
        pipeline: the models.
        artifacts: store for frames and plans, and of the frames that units depend on.
        memory_bytes: size of the cache for scenes, reconstructions, previews and encoded context views.
        clock: seconds, for reports.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        artifacts: ArtifactStore,
        *,
        memory_bytes: float | int = 1e9,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.memory = Memory(limit_bytes=float(memory_bytes))
        self.pipeline = replace(pipeline, denoiser=with_context_cache(pipeline.denoiser, self.memory))
        self._files, self._clock = Files(artifacts), clock
        self._scenes = SceneCache(regressor=pipeline.regressor, memory=self.memory)
        self._held: dict[UnitKey, _Held] = {}

    @property
    def held(self) -> tuple[UnitKey, ...]:
        """Units that have begun and are not finished."""
        return tuple(self._held)

    def do(self, command: Command) -> Report:
        """Carries out a command and returns its report; raises nothing."""
        try:
            return self._tried(command)
        except Exception as error:
            report = self._refused(command, error)
        # Only now, with the error, nothing refers any more to what was being computed.
        if report.sentence == NO_MEMORY:
            self._make_room()
        return report

    def _tried(self, command: Command) -> Report:
        """Carries out a command, twice if memory runs out."""
        try:
            return self._done(command)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
        _log.warning("out of memory: tried again", extra={"command": type(command).__name__})
        self._make_room()
        if isinstance(command, Step):
            self._take_again(command.units)
        return self._done(command)

    def _done(self, command: Command) -> Report:
        """Carries out a command, or raises."""
        match command:
            case Regress():
                return self._regress(command)
            case Begin():
                return self._begin(command)
            case Step():
                return self._step(command)
            case Finish():
                return self._finish(command)
            case Drop():
                self._forget(command.units)
                return Dropped(units=command.units)

    # Phases ---------------------------------------------------------------------------------------------------------

    def _regress(self, command: Regress) -> Regressed:
        """Renders every target view."""
        started, spec = self._clock(), command.spec
        digests: dict[int, str] = {}
        with torch.inference_mode():
            known, cameras = self._known(command.scene_path, spec)
            for targets, padded in _previews(known, cameras):
                frames = cropped_frames(padded, spec.height, spec.width)
                shown = watermarked(frames, WATERMARK) if isinstance(self.pipeline, WatermarkedPipeline) else frames
                digests |= self._files.pictures(targets, shown)
        return Regressed(
            unit=command.unit, frames=digests, num_contexts=len(known.scene.images), seconds=self._since(started)
        )

    def _begin(self, command: Begin) -> Begun:
        """Stages 1 to 5 of a unit."""
        started = self._clock()
        self._forget([command.unit])
        prepared = self._prepared(command)
        params = self._params(command, self._clock() - started)
        planned = self._planned(prepared, params, command.again)
        running = self.pipeline.begin(planned.prepared, planned.plan, seed=params.seed)
        self._held[command.unit] = _Held(command=command, running=running)
        expected = planned.plan.predicted
        quality = planned.plan.quality if expected is None else expected.quality
        return Begun(
            unit=command.unit,
            steps=running.steps_left,
            predicted_s=0.0 if expected is None else expected.seconds or 0.0,
            predicted_quality=min(1.0, max(0.0, float(quality))),
            plan=planned.plan.to_json(),
            plan_file=self._files.plan(planned.plan),
            share_of_full=planned.plan.active_share * planned.plan.num_steps / self.pipeline.num_steps,
            seconds=self._since(started),
        )

    def _step(self, command: Step) -> Stepped:
        """One solver step of each unit that has any left."""
        started = self._clock()
        held = [self._holding(unit) for unit in command.units]
        # A unit without steps left stays in the command: the scheduler pairs reports with units by their order.
        reports = self._stepped([each.running for each in held if each.running.steps_left])
        for each in held:
            each.done = len(each.running.steps)
        return Stepped(
            units=command.units,
            done=tuple(each.done for each in held),
            computed_cells=sum(report.computed_cells for report in reports),
            seconds=self._since(started),
        )

    def _finish(self, command: Finish) -> Finished:
        """Stages 7 and 8, and files."""
        started, held = self._clock(), self._holding(command.unit)
        if held.running.steps_left:
            raise RuntimeError(f"{held.running.steps_left} steps are left")
        result = self.pipeline.finish(held.running)
        targets, frames, spec = held.command.targets, result.frames.float().cpu(), held.command.spec
        report = Finished(
            unit=command.unit,
            frames=self._files.pictures(targets, cropped_frames(frames, spec.height, spec.width)),
            # Later units take these as context views: with their padding, as they were computed.
            lossless={} if held.command.alone else self._files.floats(targets, frames),
            figures=_figures(result),
            seconds=self._since(started),
        )
        self._forget([command.unit])
        return report

    # Parts ----------------------------------------------------------------------------------------------------------

    def _prepared(self, command: Begin) -> Prepared:
        """Stages 1 to 3."""
        spec = command.spec
        with torch.inference_mode():
            known, cameras = self._known(command.scene_path, spec)
        unit = Unit(
            index=command.unit[1] - 1,
            kind="chunk",
            photos=command.photos,
            frames=tuple(sorted(command.finished)),
            targets=command.targets,
            depends_on=(),
        )
        finished = {target: self._files.frame(digest) for target, digest in command.finished.items()}
        return prepare_unit(
            self.pipeline,
            known.scene,
            cameras,
            unit,
            finished,
            reconstruction=known,
            alone=command.alone,
        )

    def _planned(self, prepared: Prepared, params: SamplingParams, again: JSONObject | None) -> PlannedRequest:
        """Stage 4; a unit whose files are made again has the plan that it had."""
        if again is None:
            return self.pipeline.plan_prepared(prepared, params)
        said = again["summary"]
        # Planned all the same, for the first call that planning makes: the stored plan may continue it.
        planned = self.pipeline.plan_prepared(prepared, replace(params, quality=said["quality"], deadline_s=None))
        plan = self._files.stored_plan(again["file"])
        if plan is None:
            # The same photos and quality give the same cells; what was predicted depends on the speed at that time.
            predicted = None if said["predicted"] is None else Prediction(**said["predicted"])
            plan = replace(planned.plan, reason=said["reason"], predicted=predicted)
        return replace(planned, plan=plan)

    def _known(self, scene_path: str, spec: JobSpec) -> tuple[CachedScene, Cameras]:
        """The scene and the target cameras at the padded size."""
        cameras = padded_cameras(cameras_of(spec), self.pipeline.denoiser.size_multiple)
        return self._scenes.scene(scene_path, cameras.height, cameras.width), cameras

    def _params(self, command: Begin, spent_s: float) -> SamplingParams:
        """The unit's quality, deadline and seed; no deadline where this machine's speed is unknown."""
        limit_s = None if self.pipeline.cost_model is None else command.within_s
        return replace(
            command.spec.params,
            quality=command.quality,
            min_quality=command.min_quality,
            deadline_s=None if limit_s is None else max(limit_s - spent_s, NO_TIME_S),
            seed=_seed(command),
        )

    @torch.inference_mode()
    def _stepped(self, running: Sequence[Running]) -> list[StepReport]:
        """A step of each, in one call where that is possible."""
        packable = [isinstance(each.refinement, Refinement) for each in running]
        if sum(packable) < 2:
            return [each.step() for each in running]
        alone = [each.step() for each, packs in zip(running, packable, strict=True) if not packs]
        packed = [each for each, packs in zip(running, packable, strict=True) if packs]
        started = self._clock()
        reports = step_together([each.refinement for each in packed if isinstance(each.refinement, Refinement)])
        seconds = (self._clock() - started) / len(packed)
        for each, report in zip(packed, reports, strict=True):
            stages = each.clock.stages_s
            # A packed call's time is shared equally, as the scheduler shares it.
            stages["refine"] = stages.get("refine", 0.0) + seconds
            each.took(report)
        return alone + reports

    def _take_again(self, units: Sequence[UnitKey]) -> None:
        """Has units begin again and repeat the steps that they had taken."""
        held = [self._holding(unit) for unit in units]
        for each in held:
            each.running.refinement = each.running.conditioning = None
        for each in held:
            running = each.running
            each.running = self.pipeline.begin(running.prepared, running.plan, seed=running.seed)
            for _ in range(each.done):
                each.running.step()

    def _holding(self, unit: UnitKey) -> _Held:
        """A unit that has begun; raises LookupError if it is not here."""
        if unit not in self._held:
            raise LookupError(f"unit {unit[1]} of job {unit[0]} was never begun here")
        return self._held[unit]

    def _forget(self, units: Sequence[UnitKey]) -> None:
        """Frees the memory of units."""
        for unit in units:
            self._held.pop(unit, None)

    def _make_room(self) -> None:
        """Frees what can be computed again."""
        self.memory.clear()
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def _refused(self, command: Command, error: Exception) -> Refused:
        """The sentence for a command that failed; its units are freed."""
        units = command.units if isinstance(command, Step | Drop) else (command.unit,)
        self._forget(units)
        is_hopeless = is_users_fault(error)
        sentence = sentence_of(error, FAILURES[type(command)])
        if not is_hopeless:
            extra = {"command": type(command).__name__, "units": [list(unit) for unit in units]}
            _log.error("command failed", exc_info=error, extra=extra)
        return Refused(units=units, sentence=sentence, is_users_fault=is_hopeless)

    def _since(self, started: float) -> float:
        """Seconds that the device was busy."""
        if torch.cuda.is_available() and torch.cuda.is_initialized():
            torch.cuda.synchronize()
        return self._clock() - started


def _previews(known: CachedScene, cameras: Cameras) -> Iterator[tuple[range, Float[Tensor, "V 3 H W"]]]:
    """Renders of targets by number: all at once, or some after others where they are many.

    Only frames that were rendered at once are cached; a single unit of refinement starts with the same render.
    """
    pixels, count = cameras.height * cameras.width, len(cameras)
    if count * pixels <= PREVIEW_PIXELS:
        yield range(count), known.render(cameras).rgb
        return
    most = max(1, PREVIEW_PIXELS // pixels)
    for first in range(0, count, most):
        targets = range(first, min(first + most, count))
        yield targets, known.inner.render(cameras[list(targets)]).rgb


def _seed(command: Begin) -> int:
    """Seed of the unit's noise; the regression is the job's unit 0, the path's units follow."""
    return unit_seed(command.spec.seed, command.unit[1] - 1)


def _figures(result: Result) -> JSONObject:
    """Shares and seconds, as JSON values."""
    return {
        "active_share": result.active_share,
        "computed_share": result.computed_share,
        "dense_steps": sum(step.dense for step in result.steps),
        "steps": len(result.steps),
        "stages_s": {stage: round(seconds, 6) for stage, seconds in result.stages_s.items()},
    }
