"""How far matches lie from the epipolar geometry of two found cameras.

Shapes: N matches.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Float


def epipolar_px(
    model: Any, first: Any, second: Any, here: Float[np.ndarray, "N 2"], there: Float[np.ndarray, "N 2"]
) -> Float[np.ndarray, "N"]:
    """Sampson distances of matches from two photos' epipolar geometry, in pixels."""
    cameras = [model.cameras[image.camera_id] for image in (first, second)]
    if len(here) == 0:
        return np.zeros(0)
    x1, x2 = (
        np.concatenate([np.asarray(camera.cam_from_img(at)), np.ones((len(at), 1))], axis=1)
        for camera, at in zip(cameras, (here, there), strict=True)
    )
    relative = (second.cam_from_world() * first.cam_from_world().inverse()).matrix()
    R, t = relative[:, :3], relative[:, 3]
    E = np.array([[0, -t[2], t[1]], [t[2], 0, -t[0]], [-t[1], t[0], 0]]) @ R
    forward, backward = x1 @ E.T, x2 @ E
    slopes = (forward[:, :2] ** 2).sum(1) + (backward[:, :2] ** 2).sum(1)
    focal = np.mean([camera.params[0] for camera in cameras])
    return focal * np.abs((x2 * forward).sum(1)) / np.sqrt(np.maximum(slopes, 1e-20))
