"""Points where pixel rays end: position, normal and texture coordinates on primitives.

A surface code (4 * primitive + axis of the face) has a frame whose rows are the unit-shape axes that run
across the face, down it, and out of it: (z, y, x), (x, z, y) or (x, y, z). With M the rows of R^T / h in that
order, local = M (x - c) and the normal is M^T w, where w is (0, 0, sign) on flat faces and the local
coordinates themselves on curved ones.

Shapes: P primitives, S = 4 P codes, N points. Vectors come first (`3 N`).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float, Int32
from torch import Tensor

from sphinx_nvs.procedural.ray_casting import Primitives, ShapeKind

_ORDER = ((2, 1, 0), (0, 2, 1), (0, 1, 2), (0, 1, 2))


class Frames(NamedTuple):
    """Data for `locate`, one column per surface code.

    Rows: M (9), -M c (3), weights of the local coordinates in the normal (2), 1 on flat faces, -1 on enclosures,
    texture units per world unit (2), half extents across and down (2), 1 on balls, 1 on curved sides,
    1 on rooms, 1 on domes.
    """

    table: Float[Tensor, "22 S"]


class Points(NamedTuple):
    """Points on surfaces.

    `position`, `normal` and `ray` (unit, away from the camera) are in the world; `local` are unit-shape
    coordinates across, down and out of the face; `plane` are texture coordinates before scaling, `per_unit` their
    change per world unit and `slide` their change along the view ray's shadow on the face, per world unit;
    `cosine` is |ray . normal|; `gap` is the distance to the face's borders; `in_room`, `in_sky` are 0 or 1.
    """

    position: Float[Tensor, "3 N"]
    normal: Float[Tensor, "3 N"]
    ray: Float[Tensor, "3 N"]
    distance: Float[Tensor, "N"]
    local: Float[Tensor, "3 N"]
    plane: Float[Tensor, "2 N"]
    per_unit: Float[Tensor, "2 N"]
    slide: Float[Tensor, "2 N"]
    cosine: Float[Tensor, "N"]
    gap: Float[Tensor, "2 N"]
    in_room: Float[Tensor, "N"]
    in_sky: Float[Tensor, "N"]


def frames_of(primitives: Primitives) -> Frames:
    """The frames of every surface code."""
    count = len(primitives.kind)
    order = torch.tensor(_ORDER, device=primitives.kind.device).repeat(count, 1)
    owner = torch.arange(count, device=order.device).repeat_interleave(4)
    axis = torch.arange(4, device=order.device).repeat(count)
    kind = primitives.kind[owner]
    M = primitives.unit_from_world[owner[:, None], order]
    offset = -(M @ primitives.centre[owner, :, None])[..., 0]
    half = primitives.half[owner[:, None], order]
    ball = (kind == ShapeKind.SPHERE) | (kind == ShapeKind.DOME)
    side = (kind == ShapeKind.CYLINDER) & (axis == 0)
    outward = torch.where(kind >= ShapeKind.ROOM, -1.0, 1.0)
    # Length of a texture axis in world units: half a circumference around curved faces, half an extent on flat ones.
    wrapped = torch.where((ball | side)[:, None], torch.pi * half[:, :2], half[:, :2])
    wrapped[:, 1] = torch.where(side, half[:, 1], torch.where(ball, wrapped[:, 1] / 2, half[:, 1]))
    columns = [*M.flatten(1).T, *offset.T, ball | side, ball, ~(ball | side), outward, *(1 / wrapped).T, *half[:, :2].T]
    columns += [kind == ShapeKind.SPHERE, side, kind == ShapeKind.ROOM, kind == ShapeKind.DOME]
    return Frames(torch.stack([column.to(half) for column in columns]))


def locate(
    frames: Frames,
    origin: Float[Tensor, "3 N"],
    reach: Float[Tensor, "3 N"],
    surface: Int32[Tensor, "N"],
) -> Points:
    """The points at `origin + reach`, which lie on these surface codes."""
    rows = frames.table.index_select(1, surface.clamp(min=0))
    M, offset = rows[:9].view(3, 3, -1), rows[9:12]
    curved_across, curved_down, is_flat, outward = rows[12:16]
    is_ball, is_side, in_room, in_sky = rows[18 + 2 :]
    position = origin + reach
    distance = _length(reach)
    ray = reach / distance
    local = _apply(M, position) + offset
    out = torch.where(is_flat > 0, local[2].sign(), local[2])
    normal = M[0] * (local[0] * curved_across) + M[1] * (local[1] * curved_down) + M[2] * out
    normal = normal * (outward / _length(normal))
    cosine = dot(ray, normal).abs()
    slide = _apply(M[:2], ray) * (is_flat / (1 - cosine.square()).clamp(min=1e-4).sqrt())
    plane = _plane(local, is_ball, is_side, in_sky)
    gap = (1 - local[:2].abs()) * rows[18:20]
    return Points(position, normal, ray, distance, local, plane, rows[16:18], slide, cosine, gap, in_room, in_sky)


def dot(first: Float[Tensor, "3 N"], second: Float[Tensor, "3 N"]) -> Float[Tensor, "N"]:
    """Scalar products."""
    return first[0] * second[0] + first[1] * second[1] + first[2] * second[2]


def _length(vector: Tensor) -> Tensor:
    return dot(vector, vector).sqrt_()


def _apply(matrix: Tensor, vector: Tensor) -> Tensor:
    """Matrix-vector products, one per point: `k 3 N` times `3 N`."""
    return matrix[:, 0] * vector[0] + matrix[:, 1] * vector[1] + matrix[:, 2] * vector[2]


def _plane(local: Tensor, is_ball: Tensor, is_side: Tensor, in_sky: Tensor) -> Tensor:
    """Texture coordinates before scaling: flat, around a ball or a side, or a cloud layer overhead."""
    across, down, out = local
    is_round = is_ball + is_side > 0
    longitude = torch.atan2(across, out) / torch.pi
    latitude = torch.asin(down.clamp(-1, 1)) / (torch.pi / 2)
    # Projects the dome onto a horizontal layer; 0.2 keeps the horizon finite.
    overhead = 1 / (down.clamp(min=0) + 0.2)
    first = torch.where(is_round, longitude, torch.where(in_sky > 0, out * overhead, across))
    second = torch.where(is_ball > 0, latitude, torch.where(in_sky > 0, across * overhead, down))
    return torch.stack([first, second])
