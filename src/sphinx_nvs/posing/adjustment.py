"""The last bundle adjustment: which intrinsics the photos determine.

Models of the camera are compared by how far they bring the reprojection error down: one with more parameters is taken
where it gains clearly. Where it gains little, it fits noise, and the focal length goes astray with it.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from sphinx_nvs.posing.colmap_library import colmap

CLEAR_GAIN = 0.1
"""Share of the reprojection error that a camera with more parameters must take away."""

_MOST_BEND = 0.5
LEAST_PHOTOS_FOR_CENTRE = 12


@dataclass(frozen=True, kw_only=True)
class Intrinsics:
    """Which intrinsics an adjustment may change."""

    focal: bool = True
    lens: bool = False
    centre: bool = False


def adjust(model: Any, *, fixed_focal: bool) -> Any:
    """A copy of the model, adjusted with the simplest camera that explains it.

    Args:
        model: a reconstruction.
        fixed_focal: whether the focal length stays as it is, as with two photos.
    """
    best = adjusted(model, Intrinsics(focal=not fixed_focal))
    if fixed_focal:
        return best
    for more in _larger(model.num_reg_images()):
        other = adjusted(best, more)
        if error_px(other) < (1 - CLEAR_GAIN) * error_px(best) and _plausible(other):
            best = other
    return best


def _larger(num_photos: int) -> list[Intrinsics]:
    """Cameras with more parameters than the focal length, simplest first."""
    many = num_photos >= LEAST_PHOTOS_FOR_CENTRE
    return [Intrinsics(lens=True), *([Intrinsics(lens=True, centre=True)] if many else [])]


def _plausible(model: Any) -> bool:
    """Whether lenses are lenses and centres lie in the middle third of the photo."""
    for camera in model.cameras.values():
        _, cx, cy, bend = camera.params
        off = max(abs(cx / camera.width - 0.5), abs(cy / camera.height - 0.5))
        if abs(bend) > _MOST_BEND or off > 1 / 6:
            return False
    return True


def adjusted(model: Any, what: Intrinsics) -> Any:
    """A copy of the model, adjusted and without points that no longer fit."""
    result = copy.deepcopy(model)
    colmap().bundle_adjustment(result, adjustment_options(what))
    result.update_point_3d_errors()
    return result


def adjustment_options(what: Intrinsics) -> Any:
    """COLMAP's options of an adjustment."""
    library = colmap()
    options = library.BundleAdjustmentOptions()
    options.print_summary = False
    options.refine_focal_length = what.focal
    options.refine_extra_params, options.refine_principal_point = what.lens, what.centre
    options.ceres.loss_function_type, options.ceres.loss_function_scale = library.LossFunctionType.HUBER, 1.0
    solver = options.ceres.solver_options
    # One thread: sums in the order of threads differ in their last bits from run to run.
    solver.num_threads, solver.function_tolerance, solver.max_num_iterations = 1, 1e-7, 200
    return options


def with_focal(model: Any, focal: Mapping[int, float]) -> Any:
    """A copy of the model with given focal lengths and no distortion, adjusted to them.

    Args:
        model: a reconstruction.
        focal: pixels, by number of the camera.
    """
    changed = copy.deepcopy(model)
    for number, camera in changed.cameras.items():
        camera.params = [focal[number], camera.width / 2, camera.height / 2, 0.0]
    return adjusted(changed, Intrinsics(focal=False))


def error_px(model: Any) -> float:
    """Mean reprojection error, over points, in pixels."""
    errors = [point.error for point in model.points3D.values()]
    return float(np.mean(errors)) if errors else float("inf")


def squares(model: Any) -> float:
    """Sum of the squared reprojection errors, each point's observations by its mean error; pixels squared."""
    return float(sum(point.track.length() * point.error**2 for point in model.points3D.values()))
