"""Smooth paths through given cameras: a natural spline in space and on the rotations.

`interpolate_path` passes through every camera: positions by a natural cubic spline, rotations by one with
continuous angular acceleration (`scipy.spatial.transform.RotationSpline`), focal lengths geometrically. Its
parameter is the length of the chord, distance / scale + angle, so that the speed is even. Two cameras are
joined by a straight line and the shortest arc.

Shapes: V given cameras, N frames of the path.
"""

from __future__ import annotations

import numpy as np
import scipy  # Its parts come with their first use: half a second that devices need not wait for.
import torch
from jaxtyping import Float
from torch import Tensor

from sphinx_nvs.errors import InputError
from sphinx_nvs.geometry import se3
from sphinx_nvs.geometry.cameras import Cameras
from sphinx_nvs.geometry.views import path_lengths


def interpolate_path(cameras: Cameras, num_frames: int) -> Cameras:
    """A smooth path through all `cameras` in order, at even speed; the first and last are its ends.

    Args:
        cameras: at least two.
        num_frames: length of the path, at least 2.

    Raises:
        InputError: too few cameras or frames.
    """
    if len(cameras) < 2:
        raise InputError(
            "path interpolate", f"it has {len(cameras)} context view", "give at least 2, or choose a preset"
        )
    if num_frames < 2:
        raise InputError("path interpolate", f"{num_frames} frames are requested", "request at least 2")
    knots = path_lengths(cameras)
    at = torch.linspace(0, float(knots[-1]), num_frames, dtype=torch.float64)
    c2w = se3.pose_from(_rotations(cameras, knots, at), _positions(cameras, knots, at))
    return Cameras(c2w, _intrinsics(cameras, knots, at), cameras.height, cameras.width)


def _positions(cameras: Cameras, knots: Float[Tensor, "V"], at: Float[Tensor, "N"]) -> Float[Tensor, "N 3"]:
    spline = scipy.interpolate.CubicSpline(knots.numpy(), cameras.centres.numpy(), bc_type="natural")
    return torch.from_numpy(spline(at.numpy()))


def _rotations(cameras: Cameras, knots: Float[Tensor, "V"], at: Float[Tensor, "N"]) -> Float[Tensor, "N 3 3"]:
    if len(cameras) == 2:
        R, s = cameras.c2w[:, :3, :3], at / knots[-1]
        return se3.slerp(R[:1].expand(len(at), 3, 3), R[1:].expand(len(at), 3, 3), s)
    rotations = scipy.spatial.transform.Rotation.from_matrix(cameras.c2w[:, :3, :3].numpy())
    spline = scipy.spatial.transform.RotationSpline(knots.numpy(), rotations)
    return torch.from_numpy(spline(at.numpy()).as_matrix())


def _intrinsics(cameras: Cameras, knots: Float[Tensor, "V"], at: Float[Tensor, "N"]) -> Float[Tensor, "N 3 3"]:
    K = cameras.K[:1].repeat(len(at), 1, 1)
    for i, j, there, back in (
        (0, 0, np.log, np.exp),
        (1, 1, np.log, np.exp),
        (0, 2, _same, _same),
        (1, 2, _same, _same),
    ):
        values = back(np.interp(at.numpy(), knots.numpy(), there(cameras.K[:, i, j].numpy())))
        K[:, i, j] = torch.from_numpy(values)
    return K


def _same(x: np.ndarray) -> np.ndarray:
    return x
