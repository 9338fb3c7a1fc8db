"""Coordinates of a found scene: gravity downwards, a length that means something, the origin amid the cameras.

Structure from motion leaves rotation, scale and origin open. Here z points up, where up is the mean of the photos'
upward directions (people hold cameras upright, and photos are shown upright); the median depth of points, over all
photos that see them, is 1.

Shapes: V photos.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Float

from sphinx_nvs.posing.colmap_library import colmap

UNITS = "units: the median depth of the scene's points is 1; z points up, by the photos' mean upward direction"


def levelled(model: Any) -> None:
    """Moves a reconstruction into these coordinates."""
    poses = [image.cam_from_world().inverse().matrix() for image in model.images.values() if image.has_pose]
    rotation = level_rotation(np.stack([-pose[:, 1] for pose in poses]), np.stack([pose[:, 2] for pose in poses]))
    scale = 1 / median_depth(model)
    middle = np.mean([pose[:, 3] for pose in poses], axis=0)
    library = colmap()
    model.transform(library.Sim3d(scale, library.Rotation3d(rotation), -scale * rotation @ middle))


def level_rotation(ups: Float[np.ndarray, "V 3"], forwards: Float[np.ndarray, "V 3"]) -> Float[np.ndarray, "3 3"]:
    """Rotation from the old axes to new ones: z is the mean of `ups`, y the level part of the mean of `forwards`.

    Args:
        ups: upward directions of the photos, unit length.
        forwards: their viewing directions, unit length.
    """
    z = _unit(ups.mean(axis=0), np.array([0.0, 0.0, 1.0]))
    level = forwards.mean(axis=0) - (forwards.mean(axis=0) @ z) * z
    y = _unit(level, np.cross(z, np.eye(3)[np.abs(z).argmin()]))
    return np.stack([np.cross(y, z), y, z])


def _unit(vector: Float[np.ndarray, "3"], otherwise: Float[np.ndarray, "3"]) -> Float[np.ndarray, "3"]:
    """The vector at unit length; another one where it has no direction."""
    chosen = vector if np.linalg.norm(vector) > 1e-6 else otherwise
    return chosen / np.linalg.norm(chosen)


def median_depth(model: Any) -> float:
    """The median over all sightings of a point of its depth there."""
    return float(np.median(depths(model)))


def depths(model: Any) -> Float[np.ndarray, "N"]:
    """The depth of every point in every photo that sees it."""
    found = []
    for image in model.images.values():
        if image.has_pose:
            numbers = [point.point3D_id for point in image.points2D if point.has_point3D()]
            points = np.stack([model.points3D[number].xyz for number in numbers]) if numbers else np.zeros((0, 3))
            matrix = image.cam_from_world().matrix()
            found.append(points @ matrix[2, :3] + matrix[2, 3])
    return np.concatenate(found) if found else np.zeros(0)
