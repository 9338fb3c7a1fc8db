"""Angles of view and the intrinsics that go with them.

    f = L / (2 tan(fov / 2)),   L the longer side of the image, pixels square, principal point at the centre

(SEVA's rule: horizontal for wide images, vertical for tall ones.)

Shapes: V views.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from sphinx_nvs.errors import InputError
from sphinx_nvs.geometry.cameras import Cameras

DEFAULT_FOV_RAD = math.radians(54)
"""SEVA's angle of view for a photo without intrinsics."""


def intrinsics_from_fov(height: int, width: int, fov_rad: float | int = DEFAULT_FOV_RAD) -> Float[Tensor, "3 3"]:
    """Pixel intrinsics with the angle of view `fov_rad` along the longer side.

    Raises:
        InputError: `fov_rad` is not between 0 and pi.
    """
    if not 0 < fov_rad < math.pi:
        raise InputError("field of view", f"it is {fov_rad:g} rad", "give an angle between 0 and pi radians")
    focal = 0.5 * max(height, width) / math.tan(fov_rad / 2)
    return torch.tensor([[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1]], dtype=torch.float64)


def fov_long_side(cameras: Cameras) -> Float[Tensor, "V"]:
    """Angle of view in radians along the longer side, as if the principal point were central."""
    if cameras.width >= cameras.height:
        return 2 * torch.atan(0.5 * cameras.width / cameras.K[:, 0, 0])
    return 2 * torch.atan(0.5 * cameras.height / cameras.K[:, 1, 1])


def fov_between_borders(cameras: Cameras) -> Float[Tensor, "V 2"]:
    """Horizontal and vertical angle of view in radians, each from one image border to the other."""
    K = cameras.K
    left, right = K[:, 0, 2] / K[:, 0, 0], (cameras.width - K[:, 0, 2]) / K[:, 0, 0]
    top, bottom = K[:, 1, 2] / K[:, 1, 1], (cameras.height - K[:, 1, 2]) / K[:, 1, 1]
    return torch.stack([left.atan() + right.atan(), top.atan() + bottom.atan()], dim=-1)


def zoomed(cameras: Cameras, fov_rad: Float[Tensor, "V"]) -> Cameras:
    """The cameras with both focal lengths scaled by one factor so that the longer side spans `fov_rad`."""
    factor = torch.tan(fov_long_side(cameras) / 2) / torch.tan(fov_rad.double() / 2)
    K = cameras.K.clone()
    K[:, 0, 0] *= factor
    K[:, 1, 1] *= factor
    return Cameras(cameras.c2w, K, cameras.height, cameras.width)
