"""Frames of a video that serve as photos: sharp ones, from places that differ.

A few frames a second are compared at a small size. A window ends where features have moved by a share of the frame
since the last chosen one, so that a camera that rests adds nothing, and one that moves fast adds more; of each window
the sharpest of its last frames is taken. Frames are turned upright by the file's rotation.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image

from sphinx_nvs import media
from sphinx_nvs.errors import InputError
from sphinx_nvs.posing.colmap_library import colmap
from sphinx_nvs.posing.posing_progress import PosingCancelledError, Report

MOTION = 0.05
"""Share of a frame's long side that features move within a window."""

MOST_FRAMES = 60
_PER_SECOND = 8
_SIDE = 320
_LEAST_MATCHES = 20
_RATIO = 0.8
_LAST_SHARE = 0.5
_NUMBERS = 128
"""Of a descriptor."""


Features = tuple[Float[np.ndarray, "_ 4"], Float[np.ndarray, "_ _"]]
"""Keypoints (x, y, scale, angle) of a frame, and their descriptors of unit length."""


@dataclass(frozen=True, kw_only=True)
class Chosen:
    """Frames of a video as files, and a sentence about how they were chosen."""

    files: list[Path]
    note: str


@dataclass(frozen=True, kw_only=True)
class Sample:
    """A frame that was examined.

    Args:
        index: of the frame in the video.
        sharpness: variance of its Laplacian.
        motion: since the sample before, as a share of the long side; infinite where nothing is found again.
    """

    index: int
    sharpness: float
    motion: float


def choose_frames(
    video: Path, folder: Path, *, cancelled: Callable[[], bool] | None = None, progress: Report | None = None
) -> Chosen:
    """Writes the chosen frames into a folder, unless they are there.

    Raises:
        InputError: the video cannot be decoded, or its camera does not move.
    """
    done = folder / "chosen.txt"
    if not done.is_file():
        samples = list(_samples(video, cancelled, progress))
        if not samples:
            raise InputError(
                f"video {video}", "its frames show nothing that could be found again", "film in more light"
            )
        indices = chosen_indices(samples)
        if len(indices) < 2:
            raise InputError(f"video {video}", "its camera does not move", "walk around the scene while filming")
        _write(video, folder, set(indices))
        media.write_bytes(done, f"{len(samples)}".encode())
    files = sorted(folder.glob("frame_*.png"))
    return Chosen(files=files, note=f"{len(files)} frames of the video: the sharpest of each {MOTION:.0%} of motion")


def chosen_indices(samples: Sequence[Sample], most: int = MOST_FRAMES) -> list[int]:
    """Indices of the frames to take.

    Args:
        samples: in order.
        most: no more than this many; windows grow until it holds.
    """
    moving = [min(sample.motion, 1.0) for sample in samples]
    motion = max(MOTION, sum(moving) / max(1, most - 1))
    while len(chosen := _windows(samples, motion)) > most:
        motion *= 1.2
    return chosen


def _windows(samples: Sequence[Sample], motion: float) -> list[int]:
    """The first frame, then of each window the sharpest among its last half."""
    if not samples:
        return []
    chosen, moved, window = [samples[0].index], 0.0, list[tuple[float, Sample]]()
    for sample in samples[1:]:
        moved += sample.motion
        window.append((moved, sample))
        if moved >= motion:
            late = [each for at, each in window if at >= _LAST_SHARE * motion]
            best = max(late, key=lambda each: each.sharpness)
            chosen.append(best.index)
            moved, window = 0.0, []
    return chosen


def _samples(video: Path, cancelled: Callable[[], bool] | None, progress: Report | None) -> Iterator[Sample]:
    """Every so many frames, with what is measured of them; none that shows next to nothing, as before a fade-in."""
    sift, before = _sift(), None
    for index, grey in _small_frames(video):
        if cancelled is not None and cancelled():
            raise PosingCancelledError
        if progress is not None:
            progress("choosing frames", 0.0, float("nan"))
        here = _features(sift, grey)
        if len(here[0]) < _LEAST_MATCHES:
            continue
        motion = 0.0 if before is None else median_motion(before, here) / max(grey.shape)
        before = here
        yield Sample(index=index, sharpness=sharpness(grey), motion=motion)


def _sift() -> Any:
    library = colmap()
    options = library.FeatureExtractionOptions()
    options.use_gpu, options.sift.max_num_features, options.sift.first_octave = False, 400, 0
    return library.FeatureExtractor.create(options, library.Device.cpu)


def _features(sift: Any, grey: Float[np.ndarray, "H W"]) -> Features:
    """Places and unit descriptors."""
    keypoints, descriptors = sift.extract_from_float32_array(grey)
    found = np.asarray(descriptors.to_float().data, dtype=np.float32).reshape(len(keypoints), _NUMBERS)
    lengths = np.linalg.norm(found, axis=1, keepdims=True)
    return colmap().keypoints_to_matrix(keypoints), found / np.maximum(lengths, 1e-6)


def sharpness(grey: Float[np.ndarray, "H W"]) -> float:
    """Variance of the Laplacian."""
    inner = grey[1:-1, 1:-1]
    return float((4 * inner - grey[:-2, 1:-1] - grey[2:, 1:-1] - grey[1:-1, :-2] - grey[1:-1, 2:]).var())


def median_motion(before: Features, here: Features) -> float:
    """How far features move between two frames, pixels; infinite where too few are found again."""
    if min(len(before[0]), len(here[0])) < _LEAST_MATCHES:
        return float("inf")
    near = before[1] @ here[1].T
    best = near.argmax(axis=1)
    mutual = near.argmax(axis=0)[best] == np.arange(len(best))
    top = np.sort(near, axis=1)[:, -2:]
    clear = np.arccos(np.clip(top[:, 1], -1, 1)) < _RATIO * np.arccos(np.clip(top[:, 0], -1, 1))
    kept = mutual & clear
    if kept.sum() < _LEAST_MATCHES:
        return float("inf")
    return float(np.median(np.linalg.norm(before[0][kept, :2] - here[0][best[kept], :2], axis=1)))


def _small_frames(video: Path) -> Iterator[tuple[int, Float[np.ndarray, "H W"]]]:
    """Index and small grey picture of some frames."""
    with _opened(video) as container:
        rate = float(container.streams.video[0].average_rate or 30)
        every = max(1, round(rate / _PER_SECOND))
        for index, frame in enumerate(container.decode(video=0)):
            if index % every == 0:
                scale = min(1.0, _SIDE / max(frame.width, frame.height))
                small = frame.reformat(
                    max(16, round(frame.width * scale)), max(16, round(frame.height * scale)), "gray"
                )
                yield index, np.ascontiguousarray(small.to_ndarray(), dtype=np.float32) / 255


def _write(video: Path, folder: Path, indices: set[int]) -> None:
    """Writes frames upright."""
    with _opened(video) as container:
        for index, frame in enumerate(container.decode(video=0)):
            if index in indices:
                image = Image.fromarray(np.ascontiguousarray(upright(frame.to_ndarray(format="rgb24"), frame.rotation)))
                with media.written_beside(folder / f"frame_{index:06d}.png") as part:
                    image.save(part, format="PNG", compress_level=1)


def upright(pixels: UInt8[np.ndarray, "H W 3"], rotation: float | int) -> UInt8[np.ndarray, "h w 3"]:
    """A frame's pixels as a player shows them.

    Args:
        pixels: as they are stored.
        rotation: FFmpeg's, degrees counter-clockwise. A damaged display matrix gives a number that is no angle: the
            frame stays as it is.
    """
    if not abs(rotation) <= 360:
        return pixels
    return np.rot90(pixels, round(rotation / 90) % 4)


class _opened:  # noqa: N801
    """A video; what FFmpeg raises becomes a sentence."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> Any:
        try:
            self._container = av.open(str(self._path))
            if not self._container.streams.video:
                raise self._damaged("it has no pictures")
        except (av.FFmpegError, OSError) as error:
            raise self._damaged(error) from error
        return self._container

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        self._container.close()
        if isinstance(error, av.FFmpegError):
            raise self._damaged(error) from error

    def _damaged(self, why: object) -> InputError:
        return InputError(f"video {self._path}", f"it cannot be decoded ({why})", "give an intact video file")
