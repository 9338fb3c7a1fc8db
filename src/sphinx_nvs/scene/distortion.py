"""Lens distortion: the OpenCV polynomial, and the pinhole camera that an undistorted photo has.

With x, y the pinhole coordinates (X/Z, Y/Z) and r^2 = x^2 + y^2, the photo shows the point at

    x_d = x (1 + k1 r^2 + k2 r^4 + k3 r^6 + k4 r^8) + 2 p1 x y + p2 (r^2 + 2 x^2)
    y_d = y (1 + k1 r^2 + k2 r^4 + k3 r^6 + k4 r^8) + p1 (r^2 + 2 y^2) + 2 p2 x y

and at the pixel K (x_d, y_d, 1). (OpenCV, "Camera calibration and 3D reconstruction"; COLMAP's SIMPLE_RADIAL,
RADIAL and OPENCV are the cases with fewer terms.) COLMAP's other models (`Lens`) are computed by pycolmap.

Shapes: H W pixels, N points.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from sphinx_nvs.errors import InputError

_LARGEST_ZOOM = 4.0


@runtime_checkable
class Bend(Protocol):
    """Where a lens puts what a pinhole would show elsewhere."""

    def __hash__(self) -> int: ...

    def apply(self, points: Float[Tensor, "*n 2"]) -> Float[Tensor, "*n 2"]:
        """Pinhole coordinates (X/Z, Y/Z) to where the lens puts them, same units."""
        ...


@dataclass(frozen=True, kw_only=True)
class Distortion:
    """Coefficients of the OpenCV polynomial; all zero is a pinhole camera."""

    k1: float | int = 0.0
    k2: float | int = 0.0
    k3: float | int = 0.0
    k4: float | int = 0.0
    p1: float | int = 0.0
    p2: float | int = 0.0

    def __bool__(self) -> bool:
        """True if there is any distortion at all."""
        return any((self.k1, self.k2, self.k3, self.k4, self.p1, self.p2))

    def apply(self, points: Float[Tensor, "*n 2"]) -> Float[Tensor, "*n 2"]:
        """Pinhole coordinates (X/Z, Y/Z) to where the lens puts them, same units."""
        x, y = points.unbind(-1)
        r2 = x * x + y * y
        radial = 1 + r2 * (self.k1 + r2 * (self.k2 + r2 * (self.k3 + r2 * self.k4)))
        x_d = x * radial + 2 * self.p1 * x * y + self.p2 * (r2 + 2 * x * x)
        y_d = y * radial + self.p1 * (r2 + 2 * y * y) + 2 * self.p2 * x * y
        return torch.stack([x_d, y_d], dim=-1)


@dataclass(frozen=True, kw_only=True)
class Lens:
    """A lens of one of COLMAP's models.

    Args:
        model: COLMAP's name, e.g. `OPENCV_FISHEYE`.
        numbers: its parameters behind focal lengths and principal point, in COLMAP's order.
        focals: how many focal lengths the model has, 1 or 2.
    """

    model: str
    numbers: tuple[float, ...]
    focals: int = 2

    def apply(self, points: Float[Tensor, "*n 2"]) -> Float[Tensor, "*n 2"]:
        """Pinhole coordinates (X/Z, Y/Z) to where the lens puts them, same units; NaN where it shows none."""
        import pycolmap

        ideal = [1.0] * self.focals + [0.0, 0.0]
        camera = pycolmap.Camera(model=self.model, width=1, height=1, params=[*ideal, *self.numbers])
        flat = points.detach().double().cpu().reshape(-1, 2)
        ahead = torch.cat([flat, torch.ones_like(flat[:, :1])], dim=1)
        return torch.from_numpy(camera.img_from_cam(ahead.numpy())).to(points).view(points.shape)


def undistorted_intrinsics(
    K: Float[Tensor, "3 3"], distortion: Bend, height: int, width: int, where: str
) -> Float[Tensor, "3 3"]:
    """Intrinsics of the undistorted photo: `K`, zoomed in just enough that no pixel looks beyond the photo.

    Args:
        K: the photo's intrinsics in pixels, float64.
        distortion: the photo's.
        height: height of the photo, pixels.
        width: width of the photo, pixels.
        where: names the photo in the error.

    Raises:
        InputError: no zoom up to 4x removes the blank border: the coefficients are not of this polynomial.
    """
    numbers = tuple(float(v) for v in (K[0, 0], K[1, 1], K[0, 2], K[1, 2]))
    zoom = _smallest_zoom(numbers, distortion, height, width)
    if math.isinf(zoom):
        raise InputError(
            f"distortion of {where}",
            f"{distortion} bends the image border over itself",
            "check the coefficients, or undistort the photos with the tool that calibrated them",
        )
    out = K.clone()
    out[0, 0] *= zoom
    out[1, 1] *= zoom
    return out


@lru_cache(maxsize=256)
def _smallest_zoom(numbers: tuple[float, ...], distortion: Bend, height: int, width: int) -> float:
    """Bisection on the focal length; inf if even the largest zoom leaves a blank border."""
    if not _border_is_inside(_LARGEST_ZOOM, numbers, distortion, height, width):
        return math.inf
    low, high = 1.0, _LARGEST_ZOOM
    if _border_is_inside(low, numbers, distortion, height, width):
        return low
    for _ in range(40):
        middle = (low + high) / 2
        inside = _border_is_inside(middle, numbers, distortion, height, width)
        low, high = (low, middle) if inside else (middle, high)
    return high


def _border_is_inside(zoom: float, numbers: tuple[float, ...], distortion: Bend, height: int, width: int) -> bool:
    """Whether every border pixel of the zoomed pinhole image is found inside the photo, without folds."""
    fx, fy, cx, cy = numbers
    s = torch.linspace(0, 1, 65, dtype=torch.float64)
    zero, one = torch.zeros_like(s), torch.ones_like(s)
    u = torch.cat([s, s, zero, one]) * width
    v = torch.cat([zero, one, s, s]) * height
    rays = torch.stack([(u - cx) / (zoom * fx), (v - cy) / (zoom * fy)], dim=-1)
    bent = distortion.apply(rays)
    outwards = (bent - distortion.apply(rays * 0.99)) * rays
    x, y = bent[:, 0] * fx + cx, bent[:, 1] * fy + cy
    slack = 0.5
    inside = (x >= -slack) & (x <= width + slack) & (y >= -slack) & (y <= height + slack)
    return bool((inside & (outwards.sum(-1) > 0)).all())


def undistort(
    image: Float[Tensor, "3 H W"],
    K: Float[Tensor, "3 3"],
    distortion: Bend,
    K_out: Float[Tensor, "3 3"],
) -> Float[Tensor, "3 H W"]:
    """The photo as a pinhole camera with `K_out` would have taken it (bilinear, border repeated).

    Args:
        image: the photo, sRGB in [0, 1].
        K: its intrinsics in pixels.
        distortion: its lens.
        K_out: intrinsics of the result in pixels, see `undistorted_intrinsics`.
    """
    height, width = image.shape[-2:]
    grid = _sampling_grid(_numbers(K), distortion, _numbers(K_out), height, width, image.dtype)
    return F.grid_sample(image[None], grid[None], mode="bilinear", padding_mode="border", align_corners=False)[0]


def _numbers(K: Float[Tensor, "3 3"]) -> tuple[float, ...]:
    """Focal lengths and principal point."""
    return tuple(float(value) for value in (K[0, 0], K[1, 1], K[0, 2], K[1, 2]))


# Photos of one camera share the grid, which takes longer than all that is done with it.
@lru_cache(maxsize=1)
def _sampling_grid(
    K: tuple[float, ...], distortion: Bend, K_out: tuple[float, ...], height: int, width: int, dtype: torch.dtype
) -> Float[Tensor, "H W 2"]:
    """Where each pixel of the pinhole image is found in the photo, in `grid_sample`'s coordinates (-1..1)."""
    fx, fy, cx, cy = K_out
    v, u = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
    rays = torch.stack([(u - cx) / fx, (v - cy) / fy], dim=-1)
    bent = distortion.apply(rays)
    grid_x = 2 * (bent[..., 0] * K[0] + K[2]) / width - 1
    grid_y = 2 * (bent[..., 1] * K[1] + K[3]) / height - 1
    return torch.stack([grid_x, grid_y], dim=-1).to(dtype)
