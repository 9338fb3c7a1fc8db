"""Rigid motions: rotation about an axis, exponential and logarithm, angles, interpolation.

A twist xi = (omega, v) moves a point by the rigid motion

    exp(xi) = [exp([omega]x)  J v; 0 1],   a = |omega|,
    J = I + (1 - cos a)/a^2 [omega]x + (a - sin a)/a^3 [omega]x^2

(Murray, Li, Sastry, "A Mathematical Introduction to Robotic Manipulation", 1994, equations 2.14 and 2.36).
Everything is float64 and batched over leading axes.

Shapes: any leading axes *B; *#B are broadcast.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

_SMALL = 1e-7
"""Below this angle (radians) the series of a coefficient is exact in float64 to its second term."""


def skew(v: Float[Tensor, "*B 3"]) -> Float[Tensor, "*B 3 3"]:
    """The matrix [v]x with [v]x w = v x w."""
    zero = torch.zeros_like(v[..., 0])
    x, y, z = v.unbind(-1)
    return torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], dim=-1).unflatten(-1, (3, 3))


def rotation_about(axis: Float[Tensor, "*B 3"], angle: Float[Tensor, "*B"]) -> Float[Tensor, "*B 3 3"]:
    """Rotation by `angle` radians about `axis` (normalised here), right-handed (Rodrigues)."""
    k = skew(axis / axis.norm(dim=-1, keepdim=True))
    angle = angle[..., None, None]
    return torch.eye(3, dtype=axis.dtype) + angle.sin() * k + (1 - angle.cos()) * (k @ k)


def so3_exp(omega: Float[Tensor, "*B 3"]) -> Float[Tensor, "*B 3 3"]:
    """Rotation by |omega| radians about omega."""
    a = omega.norm(dim=-1)[..., None, None]
    k = skew(omega)
    # `torch.where` evaluates both sides: the clamp keeps the unused one finite.
    first = torch.where(a < _SMALL, 1 - a**2 / 6, a.sin() / a.clamp_min(_SMALL))
    return torch.eye(3, dtype=omega.dtype) + first * k + _one_minus_cos_by_square(a) * (k @ k)


def so3_log(R: Float[Tensor, "*B 3 3"]) -> Float[Tensor, "*B 3"]:
    """The rotation vector of R, |omega| in [0, pi]; the inverse of `so3_exp`.

    Goes through the unit quaternion, which is well conditioned at every angle, half turns included.
    """
    quaternion = quaternion_from_rotation(R)
    w, v = quaternion[..., :1], quaternion[..., 1:]
    sine = v.norm(dim=-1, keepdim=True)
    angle = 2 * torch.atan2(sine, w)
    return v * torch.where(sine < _SMALL, 2 / w, angle / sine.clamp_min(_SMALL))


def quaternion_from_rotation(R: Float[Tensor, "*B 3 3"]) -> Float[Tensor, "*B 4"]:
    """The unit quaternion (w, x, y, z) with w >= 0.

    The four rows below are 4 w q, 4 x q, 4 y q, 4 z q; the longest one is the best conditioned.
    """
    m = R.flatten(-2).unbind(-1)
    xx, xy, xz, yx, yy, yz, zx, zy, zz = m
    rows = torch.stack(
        [
            torch.stack([1 + xx + yy + zz, zy - yz, xz - zx, yx - xy], dim=-1),
            torch.stack([zy - yz, 1 + xx - yy - zz, xy + yx, xz + zx], dim=-1),
            torch.stack([xz - zx, xy + yx, 1 - xx + yy - zz, yz + zy], dim=-1),
            torch.stack([yx - xy, xz + zx, yz + zy, 1 - xx - yy + zz], dim=-1),
        ],
        dim=-2,
    )
    # Any row is the quaternion up to scale, but near a half turn w is nearly 0, and a row divided by it is mostly
    # rounding.
    best = rows.diagonal(dim1=-2, dim2=-1).argmax(dim=-1)
    q = rows.gather(-2, best[..., None, None].expand(*best.shape, 1, 4)).squeeze(-2)
    q = q / q.norm(dim=-1, keepdim=True)
    return torch.where(q[..., :1] < 0, -q, q)


def rotation_from_quaternion(q: Float[Tensor, "*B 4"]) -> Float[Tensor, "*B 3 3"]:
    """The rotation of a quaternion (w, x, y, z), normalised here."""
    q = q / q.norm(dim=-1, keepdim=True)
    w, v = q[..., 0, None, None], q[..., 1:]
    k = skew(v)
    return torch.eye(3, dtype=q.dtype, device=q.device) + 2 * w * k + 2 * (k @ k)


def exp(xi: Float[Tensor, "*B 6"]) -> Float[Tensor, "*B 4 4"]:
    """The rigid motion of a twist (omega, v)."""
    omega, v = xi[..., :3], xi[..., 3:]
    return pose_from(so3_exp(omega), (_left_jacobian(omega) @ v[..., None])[..., 0])


def log(T: Float[Tensor, "*B 4 4"]) -> Float[Tensor, "*B 6"]:
    """The twist (omega, v) of a rigid motion, |omega| in [0, pi]; the inverse of `exp`."""
    omega = so3_log(T[..., :3, :3])
    v = torch.linalg.solve(_left_jacobian(omega), T[..., :3, 3])
    return torch.cat([omega, v], dim=-1)


def _left_jacobian(omega: Float[Tensor, "*B 3"]) -> Float[Tensor, "*B 3 3"]:
    """J of the module docstring."""
    a = omega.norm(dim=-1)[..., None, None]
    k = skew(omega)
    # The difference loses about 2 log10(1/a) digits, so the series takes over much earlier than for the other
    # coefficients.
    cubic = torch.where(a < 1e-3, 1 / 6 - a**2 / 120, (a - a.sin()) / a.clamp_min(1e-3) ** 3)
    return torch.eye(3, dtype=omega.dtype) + _one_minus_cos_by_square(a) * k + cubic * (k @ k)


def _one_minus_cos_by_square(a: Float[Tensor, "*B"]) -> Float[Tensor, "*B"]:
    """(1 - cos a) / a^2 without cancellation."""
    half = a / 2
    # 1 - cos a = 2 sin^2(a/2): the square of a sine has no cancellation.
    sinc = torch.where(half < _SMALL, torch.ones_like(half), half.sin() / half.clamp_min(_SMALL))
    return sinc**2 / 2


def pose_from(R: Float[Tensor, "*B 3 3"], o: Float[Tensor, "*B 3"]) -> Float[Tensor, "*B 4 4"]:
    """[R o; 0 1]."""
    top = torch.cat([R, o[..., None]], dim=-1)
    bottom = top.new_tensor([0.0, 0.0, 0.0, 1.0]).expand(*top.shape[:-2], 1, 4)
    return torch.cat([top, bottom], dim=-2)


def inverse(T: Float[Tensor, "*B 4 4"]) -> Float[Tensor, "*B 4 4"]:
    """The inverse of a rigid motion, by its transpose."""
    Rt = T[..., :3, :3].mT
    return pose_from(Rt, -(Rt @ T[..., :3, 3:])[..., 0])


def rotation_angle(a: Float[Tensor, "*#B 4 4"], b: Float[Tensor, "*#B 4 4"]) -> Float[Tensor, "*#B"]:
    """Angle in radians, [0, pi], of the rotation between two poses."""
    return so3_log(a[..., :3, :3].mT @ b[..., :3, :3]).norm(dim=-1)


def slerp(a: Float[Tensor, "*B 3 3"], b: Float[Tensor, "*B 3 3"], s: Float[Tensor, "*B"]) -> Float[Tensor, "*B 3 3"]:
    """The rotation a fraction `s` of the way from `a` to `b`, along the shortest arc."""
    return a @ so3_exp(s[..., None] * so3_log(a.mT @ b))


def look_at(
    positions: Float[Tensor, "*#B 3"], target: Float[Tensor, "*#B 3"], up: Float[Tensor, "*#B 3"]
) -> Float[Tensor, "*#B 4 4"]:
    """Camera-to-world poses (OpenCV axes) at `positions` that look at `target`, image top towards `up`.

    The result is not finite where a position is its target or looks along `up`.
    """
    # With eps 0 a zero vector becomes NaN, which can be noticed; with the default it would be a silently wrong pose.
    forward = torch.nn.functional.normalize(target - positions, dim=-1, eps=0)
    right = torch.nn.functional.normalize(torch.linalg.cross(forward, up.expand_as(forward)), dim=-1, eps=0)
    down = torch.linalg.cross(forward, right)
    return pose_from(torch.stack([right, down, forward], dim=-1), positions)
