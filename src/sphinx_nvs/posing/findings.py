"""What is measured of found cameras, before they are believed.

Shapes: N matches or points.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from sphinx_nvs.posing.adjustment import error_px
from sphinx_nvs.posing.epipolar import epipolar_px
from sphinx_nvs.posing.focal_certainty import focal_within
from sphinx_nvs.posing.held_out import PairMatches
from sphinx_nvs.posing.levelling import depths
from sphinx_nvs.posing.photo_set import Photo


@dataclass(frozen=True, kw_only=True)
class Findings:
    """Measures of a model.

    Args:
        photos: of the set.
        registered: working copies that got a camera.
        points: number of points.
        reprojection_px: mean error, pixels of the working copies.
        angle_deg: median over points of the largest angle between two rays to it.
        focal_ratio: of every registered photo's focal length to its prior: the one furthest from 1.
        focal_within: within which share of itself the focal length is known; None where it was not estimated.
        focal_known: whether EXIF gave the focal length of every registered photo.
        in_front: share of sightings with positive depth.
        held_out: number of held-out matches between registered photos.
        held_out_fit: how many held-out matches fit the poses, as a share of how many should.
        still: share of verified matches that do not move between photos.
        flat: share of verified matches in pairs that one homography explains.
    """

    photos: int
    registered: tuple[str, ...]
    points: int
    reprojection_px: float
    angle_deg: float
    focal_ratio: float
    focal_within: float | None
    focal_known: bool
    in_front: float
    held_out: int
    held_out_fit: float
    still: float
    flat: float

    def to_json(self) -> dict[str, Any]:
        """As JSON values."""
        return {**asdict(self), "registered": len(self.registered)}


def findings_of(
    model: Any, photos: Sequence[Photo], pairs: Sequence[PairMatches], *, error: float, fixed_focal: bool
) -> Findings:
    """Measures a model.

    Args:
        model: the adjusted reconstruction.
        photos: of the set.
        pairs: verified pairs with their held-out matches.
        error: most pixels between a match and its epipolar line.
        fixed_focal: whether the focal length was kept at its prior.
    """
    images = {image.name: image for image in model.images.values() if image.has_pose}
    by_file = {photo.file: photo for photo in photos}
    ratios = [model.cameras[image.camera_id].params[0] / by_file[name].focal for name, image in images.items()]
    z = depths(model)
    fitting, expected, count = _held_out(model, images, pairs, error)
    return Findings(
        photos=len(photos),
        registered=tuple(sorted(images)),
        points=model.num_points3D(),
        reprojection_px=error_px(model),
        angle_deg=_median_angle(model),
        focal_ratio=float(max(ratios, key=lambda ratio: abs(np.log(ratio)))),
        focal_within=None if fixed_focal else focal_within(model),
        focal_known=all(by_file[name].prior.focal is not None for name in images),
        in_front=float((z > 0).mean()) if len(z) else 0.0,
        held_out=count,
        held_out_fit=fitting / expected if expected else 0.0,
        still=share_of_inliers(pairs, lambda pair: pair.still),
        flat=share_of_inliers(pairs, lambda pair: float(pair.panoramic)),
    )


def share_of_inliers(pairs: Sequence[PairMatches], share: Callable[[PairMatches], float]) -> float:
    """The mean of a share over all verified matches; 0 without any."""
    inliers = sum(pair.inliers for pair in pairs)
    return sum(share(pair) * pair.inliers for pair in pairs) / inliers if inliers else 0.0


def _median_angle(model: Any) -> float:
    """Median over points of the largest angle at which two photos see it, degrees."""
    centres = {number: image.projection_center() for number, image in model.images.items() if image.has_pose}
    return float(np.median([_angle(point, centres) for point in model.points3D.values()] or [0.0]))


def _angle(point: Any, centres: Mapping[int, Float[np.ndarray, "3"]]) -> float:
    rays = np.stack([centres[element.image_id] - point.xyz for element in point.track.elements])
    rays /= np.linalg.norm(rays, axis=1, keepdims=True)
    return float(np.degrees(np.arccos(np.clip((rays @ rays.T).min(), -1, 1))))


def _held_out(
    model: Any, images: Mapping[str, Any], pairs: Sequence[PairMatches], error: float
) -> tuple[float, float, int]:
    """Held-out matches that fit the poses, those that should by their pair's share of verified ones, and all."""
    fitting, expected, count = 0.0, 0.0, 0
    for pair in pairs:
        if all(name in images for name in pair.names):
            first, second = (images[name] for name in pair.names)
            lines = epipolar_px(model, first, second, pair.here, pair.there)
            fitting += float((lines < error).sum())
            expected += pair.share * len(lines)
            count += len(lines)
    return fitting, expected, count
