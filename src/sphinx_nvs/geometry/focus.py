"""What a set of cameras looks at, and how long a step in their world is.

The look-at point minimises the squared distance to all optical axes (o_i, d_i):

    p = (sum_i P_i)^-1 sum_i P_i o_i,   P_i = I - d_i d_i^T

Shapes: V views.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from sphinx_nvs.geometry.cameras import Cameras

FOCUS_UNITS = 10.0
"""SEVA's presets are made for a target this many units in front of the camera."""

_DEPTH_PER_GAP = 5.0
_LEAST_CONVERGENCE_RAD = math.radians(3)


def look_at_point(cameras: Cameras) -> Float[Tensor, "3"]:
    """The point nearest to all optical axes in the least-squares sense; minimum norm for parallel axes."""
    projectors = _projectors(cameras)
    right = (projectors @ cameras.centres[..., None]).sum(dim=0)
    return (torch.linalg.pinv(projectors.sum(dim=0), hermitian=True) @ right)[:, 0]


def _projectors(cameras: Cameras) -> Float[Tensor, "V 3 3"]:
    """P_i of the module docstring."""
    d = cameras.c2w[:, :3, 2]
    d = d / d.norm(dim=-1, keepdim=True)
    return torch.eye(3, dtype=d.dtype) - d[:, :, None] * d[:, None, :]


def is_converging(cameras: Cameras) -> bool:
    """Whether the axes meet in front of every camera, more than 3 degrees apart (rms).

    Else their least-squares point says nothing about where the scene is.
    """
    if len(cameras) < 2:
        return False
    # The smallest eigenvalue of the mean projector is the mean squared sine between the axes and their common
    # direction.
    weakest = float(torch.linalg.eigvalsh(_projectors(cameras).mean(dim=0))[0])
    ahead = ((look_at_point(cameras) - cameras.centres) * cameras.c2w[:, :3, 2]).sum(dim=-1)
    return weakest > math.sin(_LEAST_CONVERGENCE_RAD) ** 2 and bool((ahead > 0).all())


def focus_distance(cameras: Cameras, *, median_depth: float | int | None = None) -> float:
    """How far away the scene is, in world units, by the best evidence there is.

    In this order: `median_depth` (e.g. of a regressor's depth maps); the median distance to the look-at
    point, if the cameras converge; five times the mean gap between cameras along their largest baseline, but
    not less than that; 10 for a lone camera, whose units are unknown.

    Args:
        cameras: the context views.
        median_depth: median depth of the scene, world units, if it is known.
    """
    if median_depth is not None:
        return float(median_depth)
    if is_converging(cameras):
        return float((cameras.centres - look_at_point(cameras)).norm(dim=-1).median())
    baseline = float(torch.cdist(cameras.centres, cameras.centres).max())
    return baseline * max(_DEPTH_PER_GAP / (len(cameras) - 1), 1.0) if baseline > 0 else FOCUS_UNITS
