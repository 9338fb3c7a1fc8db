"""Colour of points on surfaces: filtered texture, light, shadow, soft occlusion, fog, film.

    linear = albedo (ambient(n) AO + sum_l colour_l max(n.l, 0) / (1 + (d_l / reach_l)^2) shadow_l) + highlight
    film   = 1 - exp(-response ((1 - f) linear + f fog)),  f = 1 - exp(-density distance)

Albedo is the square of the texture's sRGB value (a gamma of 2); the caller takes the root after averaging.

Shapes: N points, V views.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float, Int32, Int64
from torch import Tensor

from sphinx_nvs.scene.procedural.casting import ShapeKind
from sphinx_nvs.scene.procedural.noise import TILE
from sphinx_nvs.scene.procedural.sampling import sample_anisotropic, sample_nearest_level
from sphinx_nvs.scene.procedural.stage import Stage

_CHUNK = 1 << 15
_GRAIN_RATIO = 0.37
_SHADOW_BIAS = 0.06


class _Points(NamedTuple):
    """Points on surfaces: world position, unit-shape position, normal, view ray (unit), distance, and which."""

    position: Tensor
    unit: Tensor
    normal: Tensor
    ray: Tensor
    distance: Tensor
    primitive: Tensor
    axis: Tensor
    kind: Tensor


def shade(
    stage: Stage,
    c2w: Float[Tensor, "V 4 4"],
    K_inv: Float[Tensor, "V 3 3"],
    view: Int64[Tensor, "N"],
    u: Float[Tensor, "N"],
    v: Float[Tensor, "N"],
    hits: tuple[Float[Tensor, "N"], Int32[Tensor, "N"]],
    footprint: float,
) -> Float[Tensor, "N 3"]:
    """Light that reaches the film at image positions (u, v), squared-sRGB scale, [0, 1].

    Args:
        stage: what is seen.
        c2w: poses of the views.
        K_inv: inverse intrinsics.
        view: which view each position belongs to.
        u: pixels from the left.
        v: pixels from the top.
        hits: z-depth and surface code (see `casting.Hits`) there.
        footprint: side of the area a sample stands for, in pixels.
    """
    chunk = len(view) if view.is_cuda else _CHUNK
    parts = []
    for start in range(0, len(view), max(chunk, 1)):
        part = slice(start, start + chunk)
        parts.append(
            _shade(stage, c2w, K_inv, view[part], u[part], v[part], hits[0][part], hits[1][part], footprint)
        )
    return torch.cat(parts) if parts else u.new_zeros(0, 3)


def _shade(
    stage: Stage,
    c2w: Tensor,
    K_inv: Tensor,
    view: Tensor,
    u: Tensor,
    v: Tensor,
    depth: Tensor,
    surface: Tensor,
    footprint: float,
) -> Tensor:
    points = _locate(stage, c2w, K_inv, view, u, v, depth, surface)
    face = points.primitive * 6 + points.axis * 2 + (_along(points.unit, points.axis) > 0)
    albedo = _albedo(stage, points, face, depth * K_inv[view, 0, 0] * footprint)
    irradiance, highlight = _lighting(stage, points)
    linear = albedo * (irradiance + stage.faces.emission[face, None])
    linear = linear + highlight * stage.faces.gloss[face, None]
    linear = torch.lerp(linear, stage.air.fog.expand_as(linear), _fog(stage, points)[:, None])
    linear = torch.where((surface < 0)[:, None], stage.air.fog, linear)
    return -torch.expm1(-linear * stage.air.response)


def _locate(
    stage: Stage,
    c2w: Tensor,
    K_inv: Tensor,
    view: Tensor,
    u: Tensor,
    v: Tensor,
    depth: Tensor,
    surface: Tensor,
) -> _Points:
    """The points where the rays end."""
    shapes = stage.primitives
    code = surface.clamp(min=0).long()
    primitive, axis = code // 4, code % 4
    camera = c2w[:, :3, :3] @ K_inv
    B = camera[view]
    reach = (B[..., 0] * u[:, None] + B[..., 1] * v[:, None] + B[..., 2]) * depth[:, None]
    position = c2w[view, :3, 3] + reach
    distance = reach.norm(dim=1)
    unit = _apply(shapes.unit_from_world[primitive], position - shapes.centre[primitive])
    kind = shapes.kind[primitive]
    curved = (
        (kind == ShapeKind.SPHERE) | (kind == ShapeKind.DOME) | ((kind == ShapeKind.CYLINDER) & (axis == 0))
    )
    flat = torch.nn.functional.one_hot(axis, 3) * _along(unit, axis).sign()[:, None]
    steep = unit * torch.where((kind == ShapeKind.CYLINDER)[:, None], unit.new_tensor([1.0, 0.0, 1.0]), 1.0)
    outward = torch.where(curved[:, None], steep / shapes.half[primitive], flat)
    outward = torch.nn.functional.normalize(_apply(shapes.rotation[primitive], outward), dim=1)
    inward = (kind >= ShapeKind.ROOM)[:, None]
    normal = torch.where(inward, -outward, outward)
    return _Points(position, unit, normal, reach / distance[:, None], distance, primitive, axis, kind)


def _apply(matrix: Tensor, vector: Tensor) -> Tensor:
    """One matrix-vector product a row; three multiply-adds beat a batched product of tiny matrices."""
    return matrix[..., 0] * vector[:, :1] + matrix[..., 1] * vector[:, 1:2] + matrix[..., 2] * vector[:, 2:]


def _along(vector: Tensor, axis: Tensor) -> Tensor:
    """The component of each row along its axis."""
    return vector.gather(1, axis[:, None])[:, 0]


def _albedo(stage: Stage, points: _Points, face: Tensor, width: Tensor) -> Tensor:
    """Linear colour of the surface, filtered over a footprint `width` world units wide."""
    faces = stage.faces
    scale, layer = faces.scale[face], faces.layer[face].long()
    first, second = _texture_axes(points.axis)
    position, along, per_unit = _texture_plane(stage, points, first, second)
    cosine = (points.ray * points.normal).sum(1).abs().clamp(min=0.05)
    short = width * (per_unit * scale.abs()).amax(1)
    long_axis = along * scale * (width / cosine)[:, None]
    uv = position * scale + faces.offset[face]
    texel = sample_anisotropic(stage.textures, layer, uv, long_axis, short)
    spread = torch.maximum(short, long_axis.norm(dim=1))
    lod = torch.log2((spread * _GRAIN_RATIO * TILE).clamp(min=1e-6))
    grain = sample_nearest_level(stage.textures, torch.zeros_like(layer), uv * _GRAIN_RATIO, lod)[:, :1]
    return texel.square() * faces.gain[face] * (1 + faces.detail[face, None] * (grain - 0.5))


def _texture_axes(axis: Tensor) -> tuple[Tensor, Tensor]:
    """Unit-shape axes that run across and down a face: (z, y), (x, z) or (x, y)."""
    return torch.where(axis == 0, 2, 0), torch.where(axis == 1, 2, 1)


def _texture_plane(
    stage: Stage, points: _Points, first: Tensor, second: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Unscaled texture coordinates, the view ray's unit direction in them, and their change per world unit."""
    shapes, unit = stage.primitives, points.unit
    matrix = shapes.unit_from_world[points.primitive]
    slide = points.ray - (points.ray * points.normal).sum(1, keepdim=True) * points.normal
    slide = _apply(matrix, torch.nn.functional.normalize(slide, dim=1))
    flat = torch.stack([_along(unit, first), _along(unit, second)], 1)
    along = torch.stack([_along(slide, first), _along(slide, second)], 1)
    half = shapes.half[points.primitive]
    per_unit = torch.stack([1 / _along(half, first), 1 / _along(half, second)], 1)
    longitude = torch.atan2(unit[:, 2], unit[:, 0]) / torch.pi
    latitude = torch.asin(unit[:, 1].clamp(-1, 1)) / (torch.pi / 2)
    sphere = points.kind == ShapeKind.SPHERE
    side = (points.kind == ShapeKind.CYLINDER) & (points.axis == 0)
    wrapped = torch.stack([longitude, torch.where(sphere, latitude, unit[:, 1])], 1)
    ceiling = unit[:, ::2] / (unit[:, 1:2].clamp(min=0) + 0.2)
    is_round, is_dome = (sphere | side)[:, None], (points.kind == ShapeKind.DOME)[:, None]
    position = torch.where(is_round, wrapped, torch.where(is_dome, ceiling, flat))
    return position, along.masked_fill(is_round | is_dome, 0), per_unit


def _lighting(stage: Stage, points: _Points) -> tuple[Tensor, Tensor]:
    """Irradiance and the highlight of a shiny surface."""
    light = stage.light
    facing_up = (points.normal[:, 1:2] + 1) / 2
    irradiance = torch.lerp(light.below, light.above, facing_up) * _occlusion(stage, points)[:, None]
    highlight = torch.zeros_like(irradiance)
    for lamp in range(len(light.position)):
        towards = light.position[lamp] - points.position
        distance = towards.norm(dim=1, keepdim=True)
        towards = towards / distance
        strength = 1 / (1 + (distance / light.reach[lamp]).square())
        if lamp == 0:
            strength = strength * _lit(stage, points)[:, None]
        cosine = (points.normal * towards).sum(1, keepdim=True).clamp(min=0)
        irradiance = irradiance + light.colour[lamp] * strength * cosine
        halfway = torch.nn.functional.normalize(towards - points.ray, dim=1)
        glint = (halfway * points.normal).sum(1, keepdim=True).clamp(min=0) ** 40
        highlight = highlight + light.colour[lamp] * strength * glint
    return irradiance, highlight


def _lit(stage: Stage, points: _Points) -> Tensor:
    """Share of lamp 0 that reaches each point: four shadow-map texels, mixed bilinearly (percentage closer)."""
    light = stage.light
    lifted = points.position + 0.02 * points.normal
    camera = lifted @ light.shadow_w2c[:3, :3].T + light.shadow_w2c[:3, 3]
    side = light.shadow_depth.shape[0]
    pixel = camera[:, :2] / camera[:, 2:].clamp(min=0.1) * light.shadow_K[0, 0] + side / 2 - 0.5
    corner = pixel.floor().clamp(0, side - 2)
    share = (pixel - corner).clamp(0, 1)
    index = corner[:, 1].long() * side + corner[:, 0].long()
    depth = light.shadow_depth.view(-1)
    seen = [(depth[index + step] > camera[:, 2] - _SHADOW_BIAS).float() for step in (0, 1, side, side + 1)]
    return torch.lerp(
        torch.lerp(seen[0], seen[1], share[:, 0]), torch.lerp(seen[2], seen[3], share[:, 0]), share[:, 1]
    )


def _occlusion(stage: Stage, points: _Points) -> Tensor:
    """Soft ambient occlusion where walls meet, near the floor and around what stands on it."""
    shapes = stage.primitives
    gap = (1 - points.unit.abs()) * shapes.half[points.primitive]
    gap = gap.scatter(1, points.axis[:, None], 10.0)
    corners = (1 - 0.4 * torch.exp(-gap / 0.25)).prod(1)
    in_room = points.kind == ShapeKind.ROOM
    low = 1 - 0.45 * torch.exp(-points.position[:, 1].clamp(min=0) / 0.2) * (1 - points.normal[:, 1].abs())
    shade = torch.where(in_room, corners, torch.where(points.kind == ShapeKind.DOME, 1.0, low))
    on_floor = (points.position[:, 1] < 0.03) & (points.normal[:, 1] > 0.5)
    return torch.where(on_floor, shade * _contact(stage, points.position), shade)


def _contact(stage: Stage, position: Tensor) -> Tensor:
    """Darkening of the floor near the footprints of what stands on it."""
    shade = torch.ones_like(position[:, 0])
    for x, z, cosine, sine, half_x, half_z in stage.contacts.unbind(0) if len(stage.contacts) else ():
        dx, dz = position[:, 0] - x, position[:, 2] - z
        across = ((cosine * dx - sine * dz).abs() - half_x).clamp_(min=0)
        along = ((sine * dx + cosine * dz).abs() - half_z).clamp_(min=0)
        shade *= 1 - 0.5 * torch.exp(torch.hypot(across, along) * -5)
    return shade


def _fog(stage: Stage, points: _Points) -> Tensor:
    """Share of the fog's colour: by distance, and near the horizon of a dome."""
    haze = torch.exp(-8 * points.unit[:, 1].clamp(min=0))
    return torch.where(
        points.kind == ShapeKind.DOME, haze, -torch.expm1(-stage.air.fog_density * points.distance)
    )
