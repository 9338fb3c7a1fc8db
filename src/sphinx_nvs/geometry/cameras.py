"""Pinhole cameras in the one convention used inside the package.

A camera is a camera-to-world pose `c2w` (OpenCV axes: +x right, +y down, +z forward) and intrinsics `K` in
pixels, where the centre of the first pixel is at (0.5, 0.5):

    X_world = R X_cam + o,   c2w = [R o; 0 1],   (u, v, 1) ~ K X_cam

Shapes: V views, H W pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from sphinx_nvs.errors import InputError


@dataclass(frozen=True)
class Cameras:
    """V pinhole cameras that share one image size.

    Args:
        c2w: camera-to-world poses, OpenCV axes, world units, float64.
        K: intrinsics in pixels of an image of `height` x `width`, float64.
        height: image height in pixels.
        width: image width in pixels.

    Raises:
        InputError: a pose or an intrinsic matrix is not finite, a rotation is singular or mirrored, a focal
            length is not positive, or the size is not positive.
    """

    c2w: Float[Tensor, "V 4 4"]
    K: Float[Tensor, "V 3 3"]
    height: int
    width: int

    def __post_init__(self) -> None:
        object.__setattr__(self, "c2w", self.c2w.double())
        object.__setattr__(self, "K", self.K.double())
        if self.height < 1 or self.width < 1:
            raise InputError("image size", f"{self.width}x{self.height}", "give at least 1x1 pixels")
        if len(self.c2w) != len(self.K):
            raise InputError("cameras", f"{len(self.c2w)} poses but {len(self.K)} intrinsics", "give one K per pose")
        for view in range(len(self.c2w)):
            check_pose(self.c2w[view], f"view {view}")
            check_intrinsics(self.K[view], f"view {view}")

    def __len__(self) -> int:
        return len(self.c2w)

    def __getitem__(self, index: int | slice | Sequence[int] | Tensor) -> Cameras:
        """The cameras at `index`; an int keeps the view axis."""
        if isinstance(index, int):
            index = [index]
        # They were checked when these cameras were made: a request takes hundreds of parts.
        part = object.__new__(Cameras)
        for name, value in (("c2w", self.c2w[index]), ("K", self.K[index])):
            object.__setattr__(part, name, value)
        object.__setattr__(part, "height", self.height)
        object.__setattr__(part, "width", self.width)
        return part

    @property
    def w2c(self) -> Float[Tensor, "V 4 4"]:
        """World-to-camera: the inverse of `c2w`."""
        return torch.linalg.inv(self.c2w)

    @property
    def K_norm(self) -> Float[Tensor, "V 3 3"]:  # noqa: N802 (the field's name)
        """Intrinsics divided by width (first row) and height (second row)."""
        return self.K / self.K.new_tensor([self.width, self.height, 1.0]).view(3, 1)

    @property
    def centres(self) -> Float[Tensor, "V 3"]:
        """Optical centres in world units."""
        return self.c2w[:, :3, 3]

    def resized(self, height: int, width: int) -> Cameras:
        """The same cameras behind an image stretched to `height` x `width` pixels."""
        scale = self.K.new_tensor([width / self.width, height / self.height, 1.0]).view(3, 1)
        return Cameras(self.c2w, self.K * scale, height, width)

    def cropped(self, top: int, left: int, height: int, width: int) -> Cameras:
        """The same cameras seen through a window of their image; offsets in pixels."""
        K = self.K.clone()
        K[:, 0, 2] -= left
        K[:, 1, 2] -= top
        return Cameras(self.c2w, K, height, width)

    @staticmethod
    def cat(parts: Sequence[Cameras]) -> Cameras:
        """All views of `parts`, in order; they must share one image size."""
        sizes = {(p.height, p.width) for p in parts}
        if len(sizes) != 1:
            raise InputError("cameras", f"image sizes {sorted(sizes)}", "bring all views to one size first")
        return Cameras(torch.cat([p.c2w for p in parts]), torch.cat([p.K for p in parts]), *sizes.pop())


def check_pose(c2w: Float[Tensor, "4 4"], where: str) -> None:
    """Raises InputError unless `c2w` is a finite rigid pose (rotation orthonormal to 1 %)."""
    if not torch.isfinite(c2w).all():
        raise InputError(f"pose of {where}", "a value is NaN or infinite", "give a finite 4x4 camera-to-world matrix")
    R = c2w[:3, :3]
    det = float(torch.linalg.det(R))
    if abs(det) < 1e-6:
        raise InputError(f"pose of {where}", f"its rotation is singular (determinant {det:.2g})", "give a rotation")
    if det < 0:
        raise InputError(f"pose of {where}", f"its rotation mirrors (determinant {det:.2g})", "give a proper rotation")
    last = c2w[3].tolist()
    if max(abs(value - wanted) for value, wanted in zip(last, (0, 0, 0, 1), strict=True)) > 1e-6:
        row = " ".join(f"{value:g}" for value in last)
        raise InputError(f"pose of {where}", f"its last row is {row}", "give 0 0 0 1 there")
    error = float((R @ R.T - torch.eye(3, dtype=R.dtype)).abs().max())
    if error > 0.01:
        scale = det ** (1 / 3)
        is_scaled = float((R @ R.T / scale**2 - torch.eye(3, dtype=R.dtype)).abs().max()) <= 0.01
        raise InputError(
            f"pose of {where}",
            f"R R^T differs from identity by {error:.2g}" + (f": it scales by {scale:.4g}" if is_scaled else ""),
            "give a rotation without scale or shear",
        )


def check_intrinsics(K: Float[Tensor, "3 3"], where: str) -> None:
    """Raises InputError unless `K` is finite with positive focal lengths."""
    if not torch.isfinite(K).all():
        raise InputError(f"K of {where}", "a value is NaN or infinite", "give finite intrinsics")
    for name, value in (("fx", float(K[0, 0])), ("fy", float(K[1, 1]))):
        if value <= 0:
            raise InputError(f"K of {where}", f"{name} is {value:g}", "give a focal length above 0 pixels")
