"""A spiral through the poses of a capture, which looks at what its cameras look at.

    o(th) = A [r_x cos th, r_y sin th, r_z sin(z th)],   looking at A [0, 0, f]

A is the mean pose, r how far the cameras stray from it, f the distance of the focus. In normalised device coordinates
a scene between depths n and g is focused at f = 1 / (0.25 / (0.9 n) + 0.75 / (5 g)).
Mildenhall et al., "Local Light Field Fusion", 2019; SEVA's path for forward-facing captures.

Shapes: N frames, C context views.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from sphinx_nvs.errors import InputError
from sphinx_nvs.geometry import se3
from sphinx_nvs.geometry.cameras import Cameras

_QUANTILE = 0.9


def mean_pose(cameras: Cameras) -> Float[Tensor, "4 4"]:
    """At the mean centre, along the mean view axis, upright as the cameras are on the mean."""
    centre = cameras.centres.mean(0)
    return se3.look_at(centre, centre + cameras.c2w[:, :3, 2].mean(0), -cameras.c2w[:, :3, 1].mean(0))


def spiral_through(
    cameras: Cameras,
    num_frames: int,
    *,
    focus: float | int,
    radii: Float[Tensor, "3"] | None = None,
    turns: float | int = 2,
    forward_rate: float | int = 0.5,
) -> Cameras:
    """A spiral about the mean pose; intrinsics are the first camera's.

    Args:
        cameras: cameras of the capture.
        num_frames: length of the path, a whole number of turns.
        focus: distance of the point that all frames look at from the mean camera, world units.
        radii: right, down, forward, world units; None for the 90 % quantile of the cameras' own offsets.
        turns: about the mean view axis.
        forward_rate: swings forward and back per turn.

    Raises:
        InputError: no frames, or a single camera and no radii.
    """
    if num_frames < 1:
        raise InputError("frames", f"{num_frames} are requested", "request at least 1")
    if len(cameras) < 2 and radii is None:
        found = f"it has {len(cameras)} context view"
        raise InputError("path spiral-through", found, "give at least 2, or choose spiral")
    pose = mean_pose(cameras)
    if radii is None:
        radii = ((cameras.centres - pose[:3, 3]) @ pose[:3, :3]).abs().quantile(_QUANTILE, dim=0)
    angle = torch.arange(num_frames, dtype=torch.float64) * (2 * math.pi * turns / num_frames)
    curve = torch.stack([angle.cos(), angle.sin(), (forward_rate * angle).sin()], dim=-1)
    positions = pose[:3, 3] + (radii.double() * curve) @ pose[:3, :3].T
    up = -cameras.c2w[:, :3, 1].mean(0)
    c2w = se3.look_at(positions, pose[:3, 3] + focus * pose[:3, 2], up)
    return Cameras(c2w, cameras.K[:1].expand(num_frames, 3, 3), cameras.height, cameras.width)
