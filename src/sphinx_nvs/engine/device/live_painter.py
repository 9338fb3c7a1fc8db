"""Frames of live sessions: one camera at a time, the regressor's frame at once, a refined still on request.

A painter has a cache of its own: a job on the same device may read and change the device's at the same time.
"""

from __future__ import annotations

import io
import logging
import time
from collections.abc import Callable

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from sphinx_nvs.engine.device.failures import is_out_of_memory, is_users_fault, sentence_of
from sphinx_nvs.engine.device.lru import Memory
from sphinx_nvs.engine.device.scene_cache import CachedScene, SceneCache
from sphinx_nvs.engine.types.live import Draw, Drawn, LiveCamera, LiveReport, NotDrawn
from sphinx_nvs.geometry.cameras import Cameras
from sphinx_nvs.geometry.padding import cropped_frames, padded_cameras
from sphinx_nvs.media import uint8_from_float
from sphinx_nvs.pipeline.pipeline import Pipeline
from sphinx_nvs.presets import WATERMARK, WatermarkedPipeline
from sphinx_nvs.sampling_params import SamplingParams
from sphinx_nvs.watermark import watermarked

JPEG_QUALITY = 88
"""Of frames, as Pillow counts it."""

FAILURE = "the frame could not be drawn"

_log = logging.getLogger(__name__)


class _StaleError(Exception):
    """Another frame waits."""


class LivePainter:
    """Draws frames, one after another.

    Args:
        pipeline: the models.
        memory_bytes: size of the cache for scenes and reconstructions.
        clock: seconds, for reports.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        *,
        memory_bytes: float | int = 1e9,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.pipeline, self._clock = pipeline, clock
        self.memory = Memory(limit_bytes=float(memory_bytes))
        self._scenes = SceneCache(regressor=pipeline.regressor, memory=self.memory)

    def draw(self, command: Draw, is_stale: Callable[[], bool]) -> LiveReport:
        """Draws a frame; raises nothing.

        Args:
            command: what to draw.
            is_stale: whether another frame waits; a still is then given up between two stages.
        """
        started, sentence = self._clock(), ""
        try:
            frame, active_share = self._frame(command, is_stale)
            jpeg, seconds = _jpeg(frame), self._clock() - started
            return Drawn(
                session=command.session, turn=command.turn, jpeg=jpeg, active_share=active_share, seconds=seconds
            )
        except _StaleError:
            pass
        except Exception as error:
            sentence = sentence_of(error, FAILURE)
            if is_out_of_memory(error):
                self.memory.clear()
            elif not is_users_fault(error):
                _log.error("frame not drawn", exc_info=error, extra={"session": command.session})
        return NotDrawn(session=command.session, turn=command.turn, sentence=sentence, seconds=self._clock() - started)

    def _frame(self, command: Draw, is_stale: Callable[[], bool]) -> tuple[Float[Tensor, "3 H W"], float]:
        """The frame, and the share of its cells that were refined."""
        camera = command.camera
        target = padded_cameras(_camera(camera), self.pipeline.denoiser.size_multiple)
        with torch.inference_mode():
            known = self._scenes.scene(command.scene_path, target.height, target.width)
            if not command.is_still:
                frames = cropped_frames(known.inner.render(target).rgb, camera.height, camera.width)
                is_marked = isinstance(self.pipeline, WatermarkedPipeline)
                return (watermarked(frames, WATERMARK) if is_marked else frames)[0], 0.0
        return self._still(known, target, camera, is_stale)

    def _still(
        self, known: CachedScene, target: Cameras, camera: LiveCamera, is_stale: Callable[[], bool]
    ) -> tuple[Float[Tensor, "3 H W"], float]:
        """All stages of one view, unless another frame waits."""
        _check(is_stale)
        prepared = self.pipeline.prepare(known.scene, target, reconstruction=known.inner)
        _check(is_stale)
        planned = self.pipeline.plan_prepared(prepared, SamplingParams(quality=camera.quality))
        running = self.pipeline.begin(planned.prepared, planned.plan)
        while running.steps_left:
            _check(is_stale)
            running.step()
        _check(is_stale)
        result = self.pipeline.finish(running)
        return cropped_frames(result.frames, camera.height, camera.width)[0], result.active_share


def _check(is_stale: Callable[[], bool]) -> None:
    """Raises _StaleError if another frame waits."""
    if is_stale():
        raise _StaleError


def _camera(camera: LiveCamera) -> Cameras:
    """One camera as tensors."""
    c2w, K = torch.tensor([camera.c2w], dtype=torch.float64), torch.tensor([camera.K], dtype=torch.float64)
    return Cameras(c2w, K, camera.height, camera.width)


def _jpeg(frame: Float[Tensor, "3 H W"]) -> bytes:
    """A frame as a file."""
    made = io.BytesIO()
    Image.fromarray(uint8_from_float(frame.float().cpu()).permute(1, 2, 0).numpy()).save(
        made, "JPEG", quality=JPEG_QUALITY
    )
    return made.getvalue()
