"""Smooth paths through given cameras: a natural spline in space and on the rotations.

`interpolate_path` passes through every camera: positions by a natural cubic spline, rotations by one with
continuous angular acceleration (`scipy.spatial.transform.RotationSpline`), focal lengths geometrically. Its
parameter is the length of the chord, distance / scale + angle, so that the speed is even. Two cameras are
joined by a straight line and the shortest arc.

Shapes: V given cameras, N frames of the path.
"""

from __future__ import annotations

import numpy as np
import scipy  # Its parts come with their first use, for which a path through two cameras need not wait.
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
    """Positions on the natural cubic spline through the centres.

    With m the second derivatives at the knots, 0 at both ends, and h the knots' distances, its slopes are continuous if

        h_(i-1) m_(i-1) + 2 (h_(i-1) + h_i) m_i + h_i m_(i+1) = 6 (d_i - d_(i-1)),   d_i = (y_(i+1) - y_i) / h_i
    """
    y, h = cameras.centres, knots.diff()
    d = y.diff(dim=0) / h[:, None]
    bend = torch.zeros_like(y)
    matrix = torch.diag(2 * (h[:-1] + h[1:])) + torch.diag(h[1:-1], 1) + torch.diag(h[1:-1], -1)
    bend[1:-1] = torch.linalg.solve(matrix, 6 * d.diff(dim=0))
    i = (torch.searchsorted(knots, at, right=True) - 1).clamp(0, len(h) - 1)
    t, h = (at - knots[i])[:, None], h[i, None]
    slope = d[i] - h * (2 * bend[i] + bend[i + 1]) / 6
    return y[i] + t * (slope + t * (bend[i] / 2 + t * (bend[i + 1] - bend[i]) / (6 * h)))


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
