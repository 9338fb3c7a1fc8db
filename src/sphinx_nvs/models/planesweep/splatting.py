"""Soft z-buffered splatting of one context view's inverse depth into a target view.

A context pixel (x, y) with inverse depth w is at X = K^-1 (x, y, 1) / w. With relative pose (R, t) it projects into
the target, up to the positive factor w, at

    p = K' R K^-1 (x, y, 1) + w K' t,   (u, v) = p[:2] / p[2],   w' = w / p[2].

It reaches the 3x3 target pixels around (u, v) with a Gaussian of standard deviation `kernel_px` times
its on-screen size m = (f' / f) / p[2]. A first pass keeps, per pixel, the nearest inverse depth w_front
of all strong hits; the second averages the hits near that surface, with weight
exp(-r^2 / 2) exp(-(w_front / w' - 1)+ / depth_softness). Coverage is 1 - exp(-1.5 sum of weights).

Shapes: N context pixels, H W target pixels.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

STRONG_HIT = 2.1  # r^2 below which a hit may occlude what is behind it
REACH = 6.0  # r^2 beyond which a hit is ignored
COVERAGE_GAIN = 1.5
MIN_MAGNIFICATION, MAX_MAGNIFICATION = 0.7, 2.2
MAX_EXCESS = 10.0


@dataclass(frozen=True)
class Points:
    """Context pixels seen from a target camera; only those in front of it.

    Args:
        u, v: projected position, in target pixels (first pixel's centre at 0.5).
        inverse_depth: 1 / z-depth in the target camera, > 0.
        magnification: size of a context pixel in target pixels, clamped to the range of a splat.
        confidence: confidence of the context pixel, [0, 1].
    """

    u: Float[Tensor, " N"]
    v: Float[Tensor, " N"]
    inverse_depth: Float[Tensor, " N"]
    magnification: Float[Tensor, " N"]
    confidence: Float[Tensor, " N"]


@dataclass(frozen=True)
class Layer:
    """Surfaces as a target sees them; inverse depth and confidence are 0 where nothing landed."""

    inverse_depth: Float[Tensor, "... H W"]
    confidence: Float[Tensor, "... H W"]
    alpha: Float[Tensor, "... H W"]


def pixel_grid(like: Tensor, height: int, width: int) -> Float[Tensor, "3 N"]:
    """Homogeneous coordinates (x, y, 1) of all pixel centres, row by row, with the dtype and device of `like`."""
    y = torch.arange(height, dtype=like.dtype, device=like.device) + 0.5
    x = torch.arange(width, dtype=like.dtype, device=like.device) + 0.5
    yy, xx = torch.meshgrid(y, x, indexing="ij")
    return torch.stack([xx, yy, torch.ones_like(xx)]).reshape(3, -1)


def homography(
    K_from: Float[Tensor, "*from 3 3"],
    c2w_from: Float[Tensor, "*from 4 4"],
    K_to: Float[Tensor, "*to 3 3"],
    c2w_to: Float[Tensor, "*to 4 4"],
) -> tuple[Float[Tensor, "*both 3 3"], Float[Tensor, "*both 3"]]:
    """(A, b) such that a pixel q of inverse depth w projects to A q + w b, in the poses' own precision.

    Cameras on both sides, or one on one of them for all on the other.
    """
    relative = torch.linalg.inv(c2w_to) @ c2w_from
    return K_to @ relative[..., :3, :3] @ torch.linalg.inv(K_from), (K_to @ relative[..., :3, 3:])[..., 0]


def place_per_inverse_depth(
    place: Float[Tensor, "*B 2 N"], depth: Float[Tensor, "*B 1 N"], b: Float[Tensor, "*B 3 1"]
) -> Float[Tensor, "*B N"]:
    """Pixels that u = a_xy / a_z moves per inverse depth w, with a = A q + w b: |du/dw| = |b_xy - u b_z| / a_z."""
    return ((b[..., :2, :] - place * b[..., 2:, :]) / depth).norm(dim=-2)


def project(
    inverse_depth: Float[Tensor, "h w"],
    confidence: Float[Tensor, "h w"],
    transform: tuple[Float[Tensor, "3 3"], Float[Tensor, "3"]],
    zoom: float,
    size: tuple[int, int],
) -> Points:
    """Projects every context pixel into the target; drops those behind it or more than 2 pixels off its image.

    Args:
        inverse_depth: map of the context view, > 0.
        confidence: map of the context view, [0, 1].
        transform: `homography` from context to target.
        zoom: the target's focal length over the context's, both in pixels.
        size: (height, width) of the target.
    """
    A, b = (part.to(inverse_depth) for part in transform)
    w = inverse_depth.reshape(-1)
    p = A @ pixel_grid(inverse_depth, *inverse_depth.shape) + b[:, None] * w
    scale = p[2].clamp_min(1e-6)
    u, v = p[0] / scale, p[1] / scale
    # Two pixels of margin: a splat reaches the 3x3 pixels around its centre, which may lie just outside.
    seen = (p[2] > 1e-6) & (u > -2) & (u < size[1] + 2) & (v > -2) & (v < size[0] + 2)
    kept = seen.nonzero()[:, 0]
    scale = scale[kept]
    magnification = (zoom / scale).clamp(MIN_MAGNIFICATION, MAX_MAGNIFICATION)
    return Points(u[kept], v[kept], w[kept] / scale, magnification, confidence.reshape(-1)[kept])


def splat_torch(points: Points, size: tuple[int, int], kernel_px: float, depth_softness: float) -> Layer:
    """Splats in plain torch: nine shifted copies of all points, reduced by pixel.

    Args:
        points: the projected context pixels.
        size: (height, width) of the target.
        kernel_px: standard deviation of a splat per pixel of magnification.
        depth_softness: relative distance behind the front surface at which a hit's weight falls to 1/e.
    """
    height, width = size
    num_pixels = height * width
    shift = torch.tensor([-1.0, 0.0, 1.0], device=points.u.device)[:, None]
    x, y = points.u.floor() + shift, points.v.floor() + shift
    precision = 1 / (kernel_px * points.magnification).square()
    rx, ry = (x + 0.5 - points.u).square() * precision, (y + 0.5 - points.v).square() * precision
    # The kernel is separable: nine squared distances from three rows and three columns.
    r2 = (ry[:, None] + rx[None]).flatten()
    inside = (((y >= 0) & (y < height))[:, None] & ((x >= 0) & (x < width))[None]).flatten() & (r2 < REACH)
    pixel = (y[:, None] * width + x[None]).flatten()
    pixel = torch.where(inside, pixel, num_pixels).long()  # one spare pixel takes all misses
    w = points.inverse_depth.expand(9, -1).flatten()

    # Inverse depths are positive, so the maximum is the nearest surface, and 0 means that no strong hit landed.
    front = torch.zeros(num_pixels + 1, device=w.device)
    front.scatter_reduce_(0, pixel, torch.where(r2 < STRONG_HIT, w, 0), "amax")
    excess = (front.index_select(0, pixel) / w - 1).clamp(0, MAX_EXCESS)
    weight = torch.exp(-0.5 * r2 - excess / depth_softness)

    def total(values: Tensor) -> Tensor:
        return torch.bincount(pixel, values, minlength=num_pixels + 1)[:num_pixels].view(height, width)

    mass = total(weight)
    norm = mass.clamp_min(1e-6)
    confidence = total(weight * points.confidence.expand(9, -1).flatten()) / norm
    return Layer(total(weight * w) / norm, confidence, 1 - torch.exp(-COVERAGE_GAIN * mass))
