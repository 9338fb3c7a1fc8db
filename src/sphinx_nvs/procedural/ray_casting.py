"""Ray casting of analytic primitives: the surface that each pixel ray hits first, and its depth.

Every primitive is a unit shape under an affine map, x = R diag(h) p + c, so that a pixel ray
x(t) = o + t R_cam K^-1 (u, v, 1) becomes p(t) = p_0 + t B (u, v, 1) with the same t, which is the z-depth.
B (u, v, 1) splits into a term per column and a term per row. All shapes are convex: a ray is inside one on an
interval [enter, exit], found as the intersection of slabs; solids are hit at `enter`, enclosures (seen from
inside) at `exit`.

Shapes: P primitives, V views, H W pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import IntEnum
from typing import NamedTuple

import torch
from jaxtyping import Float, Int32
from torch import Tensor

FAR = 200.0
"""z-depth of a ray that hits nothing."""
_NEAR = 1e-3


class ShapeKind(IntEnum):
    """Unit shapes in [-1, 1]^3; the last two are enclosures, seen from inside."""

    BOX = 0
    SPHERE = 1
    CYLINDER = 2
    ROOM = 3
    DOME = 4


@dataclass(frozen=True)
class Primitives:
    """Shapes in the world.

    Args:
        kind: `ShapeKind` of each.
        centre: world units.
        rotation: world from local axes.
        half: half extents along local axes; a cylinder's axis is its local y.
    """

    kind: Int32[Tensor, "P"]
    centre: Float[Tensor, "P 3"]
    rotation: Float[Tensor, "P 3 3"]
    half: Float[Tensor, "P 3"]

    @property
    def unit_from_world(self) -> Float[Tensor, "P 3 3"]:
        """Linear part of the map from world offsets to unit-shape coordinates."""
        return self.rotation.transpose(1, 2) / self.half[:, :, None]

    def clearance(self, points: Float[Tensor, "N 3"]) -> Float[Tensor, "N"]:
        """Lower bound of the distance from each point to the nearest surface; negative inside matter."""
        local = torch.einsum("pji,npj->npi", self.rotation, points[:, None] - self.centre)
        beyond = local.abs() - self.half
        unit = local / self.half
        # A lower bound for ellipsoids: distances in the unit sphere shrink at most by the shortest half axis.
        ball = (unit.norm(dim=-1) - 1) * self.half.amin(-1)
        side = (unit[..., ::2].norm(dim=-1) - 1) * self.half[:, ::2].amin(-1)
        distances = {
            ShapeKind.BOX: _outside(beyond),
            ShapeKind.SPHERE: ball,
            ShapeKind.CYLINDER: _outside(torch.stack([side, beyond[..., 1]], -1)),
            ShapeKind.ROOM: -_outside(beyond),
            ShapeKind.DOME: -ball,
        }
        stacked = torch.stack([distances[kind] for kind in ShapeKind])
        return stacked.gather(0, self.kind.long().expand(1, len(points), -1))[0].amin(1)


def _outside(beyond: Float[Tensor, "N P k"]) -> Float[Tensor, "N P"]:
    """Distance to an intersection of slabs from the distances to each slab; negative inside."""
    return beyond.clamp(min=0).norm(dim=-1) + beyond.amax(-1).clamp(max=0)


class Hits(NamedTuple):
    """First hits; `surface` is 4 * primitive + local axis of the face that is hit, -1 if there is none."""

    depth: Float[Tensor, "V H W"]
    surface: Int32[Tensor, "V H W"]


def cast(
    primitives: Primitives,
    c2w: Float[Tensor, "V 4 4"],
    K_inv: Float[Tensor, "V 3 3"],
    u: Float[Tensor, "W"],
    v: Float[Tensor, "H"],
) -> Hits:
    """First hits of the rays through image positions `u` x `v` (pixels), for every view."""
    unit = primitives.unit_from_world
    start = torch.einsum("pij,vpj->pvi", unit, c2w[:, None, :3, 3] - primitives.centre)[..., None, None]
    B = torch.einsum("pij,vjk,vkl->pvil", unit, c2w[:, :3, :3], K_inv)
    # A ray's direction is linear in u and v: a term per column plus a term per row, added once per window below.
    columns = (B[..., 0, None] * u)[..., None, :]
    rows = (B[..., 1, None] * v + B[..., 2, None])[..., None]
    depth = u.new_full((len(c2w), len(v), len(u)), FAR)
    surface = torch.full(depth.shape, -1, dtype=torch.int32, device=u.device)
    kinds = primitives.kind.tolist()
    for index, views, down, across in _jobs(primitives, c2w, K_inv, u, v):
        window = (views, down, across)
        origin = start[index, views].unbind(1)
        direction = tuple((columns[index, views, :, :, across] + rows[index, views, :, down]).unbind(1))
        distance, axis = MEET[kinds[index]](origin, direction)
        nearest = depth[window]
        closer = distance < nearest
        # Strict comparison: of equal depths the first primitive wins, so results do not depend on windows.
        depth[window] = torch.where(closer, distance, nearest)
        surface[window] = torch.where(closer, axis + 4 * index, surface[window])
    return Hits(depth, surface)


_Job = tuple[int, slice, slice, slice]
_Triple = tuple[Tensor, ...]


def _jobs(primitives: Primitives, c2w: Tensor, K_inv: Tensor, u: Tensor, v: Tensor) -> Iterator[_Job]:
    """Pairs of primitives and rays to intersect: all rays on an accelerator, a bounding window on a CPU."""
    # A GPU has more to lose by thousands of small windows than by rays that miss.
    if u.is_cuda:
        whole = slice(None)
        yield from ((index, whole, whole, whole) for index in range(len(primitives.kind)))
        return
    for view, index, box in _windows(primitives, c2w, K_inv, u, v):
        left, right, top, bottom = box
        if left < right and top < bottom:
            yield index, slice(view, view + 1), slice(top, bottom), slice(left, right)


def _windows(
    primitives: Primitives, c2w: Tensor, K_inv: Tensor, u: Tensor, v: Tensor
) -> Iterator[tuple[int, int, list[int]]]:
    """Per view and primitive, the index window (left, right, top, bottom) of rays that may hit it."""
    signs = torch.cartesian_prod(*[u.new_tensor([-1.0, 1.0])] * 3)
    corners = primitives.centre[:, None] + torch.einsum("pij,kj,pj->pki", primitives.rotation, signs, primitives.half)
    w2c = torch.linalg.inv(c2w)
    camera = torch.einsum("vij,pkj->vpki", w2c[:, :3, :3], corners) + w2c[:, None, None, :3, 3]
    z = camera[..., 2]
    pixels = torch.einsum("vij,vpkj->vpki", torch.linalg.inv(K_inv), camera) / z[..., None].clamp(min=_NEAR)
    # The bounding window holds only if the whole box is in front of the camera; enclosures surround it.
    crossing = (z.amin(-1) < 0.02) | (primitives.kind >= ShapeKind.ROOM)
    behind = z.amax(-1) < 0.02
    bounds = []
    for axis, ticks in ((0, u), (1, v)):
        # A hundredth of a pixel of margin: rounding must not cut off a ray that grazes the box.
        low = torch.searchsorted(ticks, pixels[..., axis].amin(-1) - 0.01)
        high = torch.searchsorted(ticks, pixels[..., axis].amax(-1) + 0.01)
        bounds += [
            low.masked_fill(crossing, 0),
            high.masked_fill(crossing, len(ticks)).masked_fill(behind, 0),
        ]
    # One transfer of all windows; slices need Python integers.
    table = torch.stack(bounds, -1).tolist()
    for view in range(len(c2w)):
        for index in range(len(primitives.kind)):
            yield view, index, table[view][index]


def _slabs(start: _Triple, direction: _Triple) -> tuple[list[Tensor], list[Tensor]]:
    """Parameters at which a ray enters and leaves |p_i| <= 1, for each given axis."""
    enter, leave = [], []
    for p, d in zip(start, direction, strict=True):
        inverse = (d + 1e-12).reciprocal_()  # keeps rays parallel to a face finite
        middle, reach = inverse * -p, inverse.abs_()
        enter.append(middle - reach)
        leave.append(middle + reach)
    return enter, leave


def _where_met(distance: Tensor, met: Tensor) -> Tensor:
    """The distance; `FAR` where the ray misses or starts beyond it."""
    return torch.where(met & (distance > _NEAR), distance, FAR)


def _meet_box(start: _Triple, direction: _Triple) -> tuple[Tensor, Tensor]:
    (x, y, z), leave = _slabs(start, direction)
    xy = torch.maximum(x, y)
    enter = torch.maximum(xy, z)
    leave_first = torch.minimum(torch.minimum(leave[0], leave[1]), leave[2])
    # The slab that is entered last is the face that is hit.
    axis = torch.where(z > xy, 2, (y > x).int())
    return _where_met(enter, leave_first > enter), axis


def _meet_room(start: _Triple, direction: _Triple) -> tuple[Tensor, Tensor]:
    enter, (x, y, z) = _slabs(start, direction)
    xy = torch.minimum(x, y)
    leave = torch.minimum(xy, z)
    enter_last = torch.maximum(torch.maximum(enter[0], enter[1]), enter[2])
    # From inside, the slab that is left first.
    axis = torch.where(z < xy, 2, (y < x).int())
    return _where_met(leave, leave > enter_last), axis


def _ball(start: _Triple, direction: _Triple) -> tuple[Tensor, Tensor, Tensor]:
    """Centre and half length of the interval with |p| <= 1 over the given axes, and whether it exists."""
    a = sum((d * d for d in direction[1:]), direction[0] * direction[0])
    b = sum((p * d for p, d in zip(start[1:], direction[1:], strict=True)), start[0] * direction[0])
    c = sum((p * p for p in start[1:]), start[0] * start[0]) - 1
    inverse = a.clamp_(min=1e-12).reciprocal_()
    middle = -b * inverse
    square = middle * middle - c * inverse
    return middle, square.clamp(min=0).sqrt_(), square > 0


def _meet_sphere(start: _Triple, direction: _Triple) -> tuple[Tensor, Tensor]:
    middle, reach, has = _ball(start, direction)
    enter = middle - reach
    return _where_met(enter, has), torch.zeros_like(has, dtype=torch.int32)


def _meet_dome(start: _Triple, direction: _Triple) -> tuple[Tensor, Tensor]:
    middle, reach, has = _ball(start, direction)
    leave = middle + reach
    return _where_met(leave, has), torch.zeros_like(has, dtype=torch.int32)


def _meet_cylinder(start: _Triple, direction: _Triple) -> tuple[Tensor, Tensor]:
    middle, reach, has = _ball(start[::2], direction[::2])
    (cap_enter,), (cap_leave,) = _slabs(start[1:2], direction[1:2])
    enter = torch.maximum(middle - reach, cap_enter)
    leave = torch.minimum(middle + reach, cap_leave)
    return _where_met(enter, has & (leave > enter)), (cap_enter > middle - reach).int()


MEET: dict[int, Callable[[_Triple, _Triple], tuple[Tensor, Tensor]]] = {
    ShapeKind.BOX: _meet_box,
    ShapeKind.SPHERE: _meet_sphere,
    ShapeKind.CYLINDER: _meet_cylinder,
    ShapeKind.ROOM: _meet_room,
    ShapeKind.DOME: _meet_dome,
}
