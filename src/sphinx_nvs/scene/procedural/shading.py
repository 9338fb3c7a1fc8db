"""Colour of points on surfaces: filtered texture, light, shadow, soft occlusion, fog, film.

    linear = albedo (ambient(n) AO + sum_l colour_l max(n.l, 0) shadow_l / (1 + (d_l / reach_l)^2)) + highlight
    film   = 1 - exp(-response ((1 - f) linear + f fog)),  f = 1 - exp(-density distance)

Albedo is the square of the texture's sRGB value (a gamma of 2); the caller takes the root after averaging.

Shapes: N points, V views. Vectors come first (`3 N`).
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int32, Int64
from torch import Tensor

from sphinx_nvs.scene.procedural.noise import TILE
from sphinx_nvs.scene.procedural.sampling import sample_anisotropic, sample_grey
from sphinx_nvs.scene.procedural.stage import Stage
from sphinx_nvs.scene.procedural.surfaces import Points, dot, frames_of, locate

_CHUNK = 1 << 15
_GRAIN_RATIO = 0.37
_SHADOW_BIAS = 0.06


def shade(
    stage: Stage,
    c2w: Float[Tensor, "V 4 4"],
    K_inv: Float[Tensor, "V 3 3"],
    view: Int64[Tensor, "N"],
    uv: Float[Tensor, "2 N"],
    depth: Float[Tensor, "N"],
    surface: Int32[Tensor, "N"],
    footprint: float,
) -> Float[Tensor, "3 N"]:
    """Light that reaches the film at image positions, squared-sRGB scale, [0, 1].

    Args:
        stage: what is seen.
        c2w: poses of the views.
        K_inv: inverse intrinsics.
        view: which view each position belongs to.
        uv: image positions in pixels.
        depth: z-depth there, world units.
        surface: surface code there (see `casting.Hits`).
        footprint: side of the area a sample stands for, in pixels.
    """
    frames = frames_of(stage.primitives)
    faces = stage.faces
    looks = torch.stack(
        [faces.layer, *faces.scale.T, *faces.offset.T, *faces.gain.T, faces.detail, faces.gloss, faces.emission]
    )
    cameras = torch.cat([(c2w[:, :3, :3] @ K_inv).flatten(1), c2w[:, :3, 3], K_inv[:, 0, :1] * footprint], 1).T
    parts = []
    chunk = max(len(view), 1) if view.is_cuda else _CHUNK
    for start in range(0, len(view), chunk):
        part = slice(start, start + chunk)
        B = cameras.index_select(1, view[part])
        u, v = uv[:, part]
        reach = (B[0:9:3] * u + B[1:9:3] * v + B[2:9:3]) * depth[part]
        points = locate(frames, B[9:12], reach, surface[part])
        parts.append(_film(stage, points, looks, surface[part], depth[part] * B[12]))
    return torch.cat(parts, 1) if parts else uv.new_zeros(3, 0)


def _film(stage: Stage, points: Points, looks: Tensor, surface: Tensor, width: Tensor) -> Tensor:
    """What the film records of points whose footprint is `width` world units wide."""
    code = surface.clamp(min=0)
    look = looks.index_select(1, (code >> 2) * 6 + (code & 3) * 2 + (points.local[2] > 0))
    irradiance, highlight = _lighting(stage, points)
    linear = _albedo(stage, points, look, width) * (irradiance + look[10]) + highlight * look[9]
    linear = torch.lerp(linear, stage.air.fog[:, None], _fog(stage, points))
    linear = torch.where(surface < 0, stage.air.fog[:, None], linear)
    return -torch.expm1(-linear * stage.air.response[:, None])


def _albedo(stage: Stage, points: Points, look: Tensor, width: Tensor) -> Tensor:
    """Linear colour of the surface, filtered over the footprint."""
    scale = look[1:3]
    short = width * (points.per_unit * scale.abs()).amax(0)
    long_axis = points.slide * scale * (width / points.cosine.clamp(min=0.05))
    uv = points.plane * scale + look[3:5]
    texel = sample_anisotropic(stage.textures, look[0].int(), uv, long_axis, short)
    lod = torch.log2((torch.hypot(long_axis[0], long_axis[1]) + short) * (_GRAIN_RATIO * TILE) + 1e-6)
    grain = sample_grey(stage.textures, 0, uv * _GRAIN_RATIO, lod)
    return texel.square() * look[5:8] * (1 + look[8] * (grain - 0.5))


def _lighting(stage: Stage, points: Points) -> tuple[Tensor, Tensor]:
    """Irradiance and the highlight of a shiny surface."""
    light, normal = stage.light, points.normal
    facing_up = (normal[1] + 1) / 2
    irradiance = torch.lerp(light.below[:, None], light.above[:, None], facing_up) * _occlusion(stage, points)
    highlight = torch.zeros_like(irradiance)
    for lamp in range(len(light.position)):
        towards = light.position[lamp, :, None] - points.position
        squared = dot(towards, towards)
        towards = towards * squared.rsqrt()
        strength = 1 / (1 + squared / light.reach[lamp].square())
        if lamp == 0:
            strength = strength * _lit(stage, points)
        cosine = dot(normal, towards).clamp(min=0)
        irradiance = irradiance + light.colour[lamp, :, None] * (strength * cosine)
        halfway = towards - points.ray
        glint = dot(halfway, normal).clamp(min=0) * dot(halfway, halfway).clamp(min=1e-6).rsqrt()
        for _ in range(5):
            glint = glint.square()
        highlight = highlight + light.colour[lamp, :, None] * (strength * glint)
    return irradiance, highlight


def _lit(stage: Stage, points: Points) -> Tensor:
    """Share of lamp 0 that reaches each point: four shadow-map texels, mixed bilinearly (percentage closer)."""
    light = stage.light
    lifted = points.position + 0.02 * points.normal
    camera = light.shadow_w2c[:3, :3] @ lifted + light.shadow_w2c[:3, 3:]
    side = light.shadow_depth.shape[0]
    pixel = camera[:2] / camera[2].clamp(min=0.1) * light.shadow_focal + (side / 2 - 0.5)
    corner = pixel.floor().clamp(0, side - 2)
    share = (pixel - corner).clamp(0, 1)
    index = (corner[1] * side + corner[0]).int()
    depth = light.shadow_depth.view(-1)
    nearest = camera[2] - _SHADOW_BIAS
    seen = [(depth.index_select(0, index + step) > nearest).float() for step in (0, 1, side, side + 1)]
    return torch.lerp(torch.lerp(seen[0], seen[1], share[0]), torch.lerp(seen[2], seen[3], share[0]), share[1])


def _occlusion(stage: Stage, points: Points) -> Tensor:
    """Soft ambient occlusion where walls meet, near the floor and around what stands on it."""
    crease = 1 - 0.4 * torch.exp(-points.gap / 0.25)
    height, upright = points.position[1], 1 - points.normal[1].abs()
    low = 1 - 0.45 * torch.exp(-height.clamp(min=0) / 0.2) * upright
    shade = torch.where(points.in_room > 0, crease[0] * crease[1], torch.where(points.in_sky > 0, 1.0, low))
    on_floor = (height < 0.03) & (points.normal[1] > 0.5)
    return torch.where(on_floor, shade * _contact(stage, points.position), shade)


def _contact(stage: Stage, position: Tensor) -> Tensor:
    """Darkening of the floor near the footprints of what stands on it."""
    shade = torch.ones_like(position[0])
    for x, z, cosine, sine, half_x, half_z in stage.contacts.tolist():
        dx, dz = position[0] - x, position[2] - z
        across = ((cosine * dx - sine * dz).abs() - half_x).clamp_(min=0)
        along = ((sine * dx + cosine * dz).abs() - half_z).clamp_(min=0)
        shade *= 1 - 0.5 * torch.exp((across + along) * -5)
    return shade


def _fog(stage: Stage, points: Points) -> Tensor:
    """Share of the fog's colour: by distance, and near the horizon of a dome."""
    haze = torch.exp(-8 * points.local[1].clamp(min=0))
    return torch.where(points.in_sky > 0, haze, -torch.expm1(-stage.air.fog_density * points.distance))
