"""How well photos determine their focal length.

Its standard error is that of a delete-a-group jackknife over photos: errors of matches and lenses belong to whole
photos, and the formal error, from the covariance of the adjustment, is several times too small. With `_FEWEST` photos
it is `_FORMAL_TO_REAL` times the formal one.

    s^2 = (G - 1) / G . sum_g (f_g - mean f)^2        f_g without group g of G
    95% of the time f is off by less than t(G - 1) . s

Groups begin with longer and shorter lenses in turn: where the photos leave the focal length open, an adjustment ends
close to where it began, and the spread shows it. A second measure is how far the focal length moves once the lens may
be bent as well, and with many photos off-centre, as in crops: from places close together, these look alike.

Reference: B. Efron, "The Jackknife, the Bootstrap and Other Resampling Plans", 1982.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from sphinx_nvs.posing.adjustment import LEAST_PHOTOS_FOR_CENTRE, Intrinsics, adjusted, adjustment_options, squares
from sphinx_nvs.posing.colmap_library import colmap

_GROUPS = 8
_BEGINNINGS = (1.1, 1 / 1.1)
_FEWEST = 3
_FORMAL_TO_REAL = 3.0
_NORMAL, _SAFE = 2.0, 3.0
_STUDENT = (12.7, 4.30, 3.18, 2.78, 2.57, 2.45, 2.36)
"""97.5% quantiles of Student's t for 1 to `_GROUPS` - 1 degrees of freedom."""


def focal_within(model: Any) -> float:
    """Within which share of itself the focal length of an adjusted model is known; the worst camera counts."""
    what = _intrinsics_of(model)
    bent = adjusted(model, Intrinsics(lens=True, centre=what.centre))
    formal = _formal(bent, Intrinsics(lens=True, centre=what.centre))
    few = _NORMAL * _FORMAL_TO_REAL * formal
    interval = few if model.num_reg_images() <= _FEWEST else max(_SAFE * formal, _interval(model, what, few))
    if what.lens:
        return interval
    off_centre = Intrinsics(lens=True, centre=True)
    loose = adjusted(model, off_centre) if model.num_reg_images() >= LEAST_PHOTOS_FOR_CENTRE else bent
    return max(interval, _NORMAL * _drift(model, loose))


def _intrinsics_of(model: Any) -> Intrinsics:
    """Which intrinsics were adjusted."""
    cameras = list(model.cameras.values())
    off = any(abs(camera.params[1] - camera.width / 2) > 1e-6 for camera in cameras)
    return Intrinsics(lens=any(camera.params[3] != 0 for camera in cameras), centre=off)


def _focal(model: Any) -> dict[int, float]:
    """Focal lengths of the cameras of registered photos."""
    return {
        image.camera_id: float(model.cameras[image.camera_id].params[0])
        for image in model.images.values()
        if image.has_pose
    }


def _drift(model: Any, bent: Any) -> float:
    before, after = _focal(model), _focal(bent)
    return max((abs(after[number] / before[number] - 1) for number in before), default=0.0)


def _interval(model: Any, what: Intrinsics, few: float) -> float:
    """By the jackknife; `few` for a camera whose photos are all in one group."""
    images = [number for number, image in sorted(model.images.items()) if image.has_pose]
    groups = [images[start::_GROUPS] for start in range(min(_GROUPS, len(images)))]
    whole = _focal(model)
    found = [_focal_without(model, group, what, _BEGINNINGS[n % 2]) for n, group in enumerate(groups)]
    shares = {number: [part[number] / whole[number] for part in found if number in part] for number in whole}
    return max(few if _is_in_one(model, number, groups) else _half_width(shares[number]) for number in whole)


def _is_in_one(model: Any, camera: int, groups: list[list[int]]) -> bool:
    return sum(any(model.images[number].camera_id == camera for number in group) for group in groups) == 1


def _focal_without(model: Any, images: list[int], what: Intrinsics, beginning: float) -> Mapping[int, float]:
    """The focal lengths without some photos; the adjustment begins with a factor of those of all photos."""
    part = copy.deepcopy(model)
    for number in images:
        part.deregister_frame(part.images[number].frame_id)
    for camera in part.cameras.values():
        camera.params = [beginning * camera.params[0], *camera.params[1:]]
    return _focal(adjusted(adjusted(part, Intrinsics(focal=False)), what))


def _half_width(values: list[float]) -> float:
    """Of the interval; infinite where an adjustment came to nothing."""
    if len(values) < 2 or not np.isfinite(values).all():
        return math.inf
    return float(_STUDENT[len(values) - 2] * math.sqrt((len(values) - 1) * np.var(values)))


def _formal(model: Any, what: Intrinsics) -> float:
    """The largest standard error from the adjustment's covariance; infinite where it is singular."""
    library = colmap()
    changed = copy.deepcopy(model)
    changed.tear_down()  # The covariance cannot be computed beside photos without a camera.
    config = library.BundleAdjustmentConfig()
    for number, image in changed.images.items():
        if image.has_pose:
            config.add_image(number)
    config.fix_gauge(library.BundleAdjustmentGauge.TWO_CAMS_FROM_WORLD)
    adjuster = library.create_default_ceres_bundle_adjuster(adjustment_options(what), config, changed)
    adjuster.solve()
    options = library.BACovarianceOptions()
    options.params, options.damping = library.BACovarianceOptionsParams.ALL, 1e-8
    covariance = library.estimate_ba_covariance(options, changed, adjuster)
    if covariance is None:
        return math.inf
    variance = _variance(model)
    return max(_share(covariance, changed.cameras[number], variance) for number in _focal(model))


def _share(covariance: Any, camera: Any, variance: float) -> float:
    """A camera's standard error of the focal length, as a share of it."""
    found = covariance.get_other_params_cov(camera.params)
    if found is None or not np.isfinite(found).all() or found[0, 0] < 0:
        return math.inf
    return float(math.sqrt(found[0, 0] * variance) / camera.params[0])


def _variance(model: Any) -> float:
    """Of a measured coordinate, pixels squared."""
    count = 2 * sum(point.track.length() for point in model.points3D.values())
    free = count - 3 * model.num_points3D() - 6 * model.num_reg_images()
    return squares(model) / free if free > 0 else math.inf
