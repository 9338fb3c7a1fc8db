"""Different photos with exactly one pose, and one photo with different poses.

The former is of a tracker that froze, or of photos that were never registered: tools that find no pose for a photo
often write the identity, and estimated poses are never exactly equal.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from sphinx_nvs.geometry import se3

_APART, _TURNED_DEG = 0.01, 1.0
"""Of poses that differ clearly: distance as a share of the scene's extent, and angle."""

_ROUNDED = 1e-9
"""Of the cameras' distances from the origin."""


def equal_poses(c2w: Sequence[Float[Tensor, "4 4"]], photos: Sequence[Path | Tensor | None]) -> list[list[int]]:
    """Numbers of different photos that share a pose, in groups of two and more; none if all share one.

    Args:
        c2w: poses, one a photo.
        photos: the photos; copies of one may have one pose.
    """
    groups: dict[bytes, list[int]] = {}
    for index, pose in enumerate(c2w):
        groups.setdefault((pose + 0.0).numpy().tobytes(), []).append(index)
    shared = [group for group in groups.values() if len(group) > 1] if len(groups) > 1 else []
    different = [list({_content(photos[index]): index for index in reversed(group)}.values())[::-1] for group in shared]
    return [group for group in different if len(group) > 1]


def equal_photos(c2w: Sequence[Float[Tensor, "4 4"]], photos: Sequence[Path | Tensor | None]) -> list[list[int]]:
    """Numbers of files with the same content and clearly different poses, in groups of two and more.

    Args:
        c2w: poses, one a photo.
        photos: the photos; only files are compared, those of one size by their content.
    """
    sizes: dict[int, list[int]] = {}
    for index, photo in enumerate(photos):
        if isinstance(photo, Path):
            sizes.setdefault(photo.stat().st_size, []).append(index)
    groups: dict[bytes, list[int]] = {}
    for index in (index for alike in sizes.values() if len(alike) > 1 for index in alike):
        groups.setdefault(_content(photos[index]), []).append(index)
    poses = torch.stack(list(c2w))
    extent = float((poses[:, :3, 3] - poses[0, :3, 3]).norm(dim=1).max())
    return sorted(group for group in groups.values() if _differ(poses[group], extent))


def _differ(poses: Float[Tensor, "N 4 4"], extent: float) -> bool:
    """Whether some poses are clearly apart; frames of a video that repeats them have nearly one."""
    apart = float((poses[:, :3, 3] - poses[0, :3, 3]).norm(dim=1).max())
    return apart > _APART * extent or float(se3.rotation_angle(poses, poses[:1]).max()) > math.radians(_TURNED_DEG)


def _content(photo: Path | Tensor | None) -> bytes:
    """What tells photos apart."""
    if isinstance(photo, Path):
        with photo.open("rb") as file:
            return hashlib.file_digest(file, "sha256").digest()
    return b"" if photo is None else photo.numpy().tobytes()


def is_identity(pose: Float[Tensor, "4 4"], extent: float) -> bool:
    """Whether a file's pose is the identity, with OpenCV's or OpenGL's camera axes.

    Args:
        pose: camera-to-world in the file's world, OpenCV axes.
        extent: largest coordinate of any camera.
    """
    diagonal = pose.new_tensor([1.0, 1.0, 1.0, 1.0])
    turned = pose.new_tensor([1.0, -1.0, -1.0, 1.0])
    return any(float((pose - torch.diag(d)).abs().max()) <= _ROUNDED * max(1.0, extent) for d in (diagonal, turned))
