"""Different photos with exactly one pose: a tracker that froze, or photos that were never registered.

Tools that find no pose for a photo often write the identity; estimated poses are never exactly equal.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

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
