"""The last bundle adjustment: which intrinsics the photos determine, and how well they determine the focal length.

Models of the camera are compared by how far they bring the reprojection error down: one with more parameters is taken
where it gains clearly. The focal length is determined if the error rises clearly once it is changed by `CHANGE`.
"""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from sphinx_nvs.posing.colmap_library import colmap, num_threads

CHANGE = 0.1
"""Of the focal length, for the test of whether it is determined."""

_CLEAR_GAIN = 0.03
_MOST_BEND = 0.5
_LEAST_PHOTOS_FOR_CENTRE = 12


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
        if error_px(other) < (1 - _CLEAR_GAIN) * error_px(best) and _plausible(other):
            best = other
    return best


def _larger(num_photos: int) -> list[Intrinsics]:
    """Cameras with more parameters than the focal length, simplest first."""
    many = num_photos >= _LEAST_PHOTOS_FOR_CENTRE
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
    library = colmap()
    result = copy.deepcopy(model)
    options = library.BundleAdjustmentOptions()
    options.print_summary = False
    options.refine_focal_length = what.focal
    options.refine_extra_params, options.refine_principal_point = what.lens, what.centre
    options.ceres.loss_function_type, options.ceres.loss_function_scale = library.LossFunctionType.HUBER, 1.0
    solver = options.ceres.solver_options
    solver.num_threads, solver.function_tolerance, solver.max_num_iterations = num_threads(), 1e-5, 50
    library.bundle_adjustment(result, options)
    result.update_point_3d_errors()
    return result


def error_px(model: Any) -> float:
    """Mean reprojection error, over points, in pixels."""
    errors = [point.error for point in model.points3D.values()]
    return float(np.mean(errors)) if errors else float("inf")


def focal_uncertainty(model: Any) -> float:
    """Standard deviation of the focal length as a share of it, as the reprojection errors let it be known.

    With N measured coordinates and a sum of squares that grows by the factor g when the focal length is off by the
    share c, N log g is c^2 / sigma^2; the smaller growth of longer and shorter ones is taken.
    """
    own = squares(model)
    if own == 0:
        return math.inf
    count = 2 * sum(point.track.length() for point in model.points3D.values())
    free = max(1, count - 3 * model.num_points3D() - 6 * model.num_reg_images())
    growth = min(squares(_with_focal(model, factor)) / own for factor in (1 - CHANGE, 1 + CHANGE))
    return CHANGE / math.sqrt(free * math.log(growth)) if growth > 1 else math.inf


def squares(model: Any) -> float:
    """Sum of the squared reprojection errors, each point's observations by its mean error; pixels squared."""
    return float(sum(point.track.length() * point.error**2 for point in model.points3D.values()))


def _with_focal(model: Any, factor: float) -> Any:
    """The model once its focal lengths are changed, and everything that may make up for it is adjusted."""
    changed = copy.deepcopy(model)
    for camera in changed.cameras.values():
        params = np.array(camera.params)
        params[0] *= factor
        camera.params = params
    return adjusted(changed, Intrinsics(focal=False, lens=True, centre=_is_off_centre(model)))


def _is_off_centre(model: Any) -> bool:
    """Whether the principal point was adjusted."""
    return any(abs(camera.params[1] - camera.width / 2) > 1e-6 for camera in model.cameras.values())
