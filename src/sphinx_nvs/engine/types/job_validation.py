"""The limits of a request: every mistake becomes one sentence before a row is written."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from sphinx_nvs.engine.types.jobs import JobSpec
from sphinx_nvs.engine.types.prices import PriceTable
from sphinx_nvs.errors import InputError
from sphinx_nvs.geometry.cameras import Cameras


@dataclass(frozen=True, kw_only=True)
class Limits:
    """How large one job may be, and how long it may take.

    Args:
        max_views: target views of a job.
        max_pixels: largest number of pixels of all of a job's frames together.
        max_attempts: number of attempts at a unit.
        ttl_s: seconds after acceptance when a job's rows and files go.
    """

    max_views: int = 1000
    max_pixels: int = 300_000_000
    max_attempts: int = 3
    ttl_s: float = 86_400.0

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not value > 0:
                raise InputError(f"limits.{name}", f"it is {value:g}", "give a number above 0")


MOST_FRAME_PIXELS = 3840 * 2160
"""Most pixels of one frame."""


def cameras_of(spec: JobSpec) -> Cameras:
    """The target cameras of a job.

    Raises:
        InputError: one of them cannot be.
    """
    if len(spec.c2w) != len(spec.K):
        raise InputError("cameras", f"{len(spec.c2w)} poses but {len(spec.K)} intrinsics", "give one K per pose")
    try:
        c2w = torch.tensor(spec.c2w, dtype=torch.float64).reshape(len(spec.c2w), 4, 4)
        K = torch.tensor(spec.K, dtype=torch.float64).reshape(len(spec.K), 3, 3)
    except (ValueError, TypeError, RuntimeError) as error:
        raise InputError("cameras", "a matrix has another shape", "give 4x4 poses and 3x3 intrinsics") from error
    return Cameras(c2w, K, spec.height, spec.width)


def check_spec(spec: JobSpec, limits: Limits, size_multiple: int) -> None:
    """Raises InputError unless the preset can carry out this job.

    Args:
        spec: the request.
        limits: the server's limits.
        size_multiple: the least length of a side, pixels; other lengths are padded to multiples of it and cropped.
    """
    _check_size(spec, limits, size_multiple)
    _check_numbers(spec)
    cameras_of(spec)


def check_memory(spec: JobSpec, prices: PriceTable) -> None:
    """Raises InputError if a unit of a job cannot fit into the device's memory."""
    if prices.memory_bytes > prices.memory_limit:
        needed, there = prices.memory_bytes / 1e9, prices.memory_limit / 1e9
        found = (
            f"frames of {spec.width}x{spec.height} take {needed:.0f} GB of memory, and the device has {there:.0f} GB"
        )
        raise InputError("size", found, "request smaller frames, or use fewer photos")


def _check_size(spec: JobSpec, limits: Limits, multiple: int) -> None:
    """Number of views, sides, pixels."""
    if not 1 <= spec.num_views <= limits.max_views:
        raise InputError("cameras", f"there are {spec.num_views}", f"give 1 to {limits.max_views}")
    if spec.width * spec.height > MOST_FRAME_PIXELS:
        found = f"frames of {spec.width}x{spec.height} are {spec.width * spec.height} pixels"
        raise InputError("size", found, f"give at most {MOST_FRAME_PIXELS}, e.g. 3840x2160")
    pixels = spec.num_views * spec.width * spec.height
    if pixels > limits.max_pixels:
        found = f"{spec.num_views} frames of {spec.width}x{spec.height} are {pixels} pixels"
        raise InputError("size", found, f"request at most {limits.max_pixels}")
    for side, value in (("width", spec.width), ("height", spec.height)):
        if value < multiple:
            raise InputError(side, f"it is {value} pixels", f"give at least {multiple}")


def _check_numbers(spec: JobSpec) -> None:
    """Numbers in their ranges; NaN is in none."""
    _ = spec.params  # Checks its own numbers.
    for name, value, low, high in (("priority", spec.priority, -10, 10), ("fps", spec.fps, 1, 240)):
        if not low <= value <= high:
            raise InputError(name, f"it is {value:g}", f"give a number in {low:g}..{high:g}")
