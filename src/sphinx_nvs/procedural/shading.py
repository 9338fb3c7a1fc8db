"""Colour of points on surfaces: filtered texture, light, shadow, soft occlusion, fog, film response.

    linear = albedo (ambient(n) AO + sum_l colour_l max(n.l, 0) shadow_l / (1 + (d_l / reach_l)^2)) + highlight
    film   = 1 - exp(-response ((1 - f) linear + f fog)),  f = 1 - exp(-density distance)

Albedo is the square of the texture's sRGB value (a gamma of 2); the caller takes the root after averaging.

Shapes: N points, V views. Vectors come first (`3 N`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

import torch
from jaxtyping import Float, Int32, Int64
from torch import Tensor

from sphinx_nvs.procedural.noise import TILE
from sphinx_nvs.procedural.ray_casting import Primitives
from sphinx_nvs.procedural.sampling import sample_anisotropic, sample_grey
from sphinx_nvs.procedural.scene_tensors import Faces, SceneTensors
from sphinx_nvs.procedural.surfaces import Points, dot, frames_of, locate

_CHUNK, _GPU_CHUNK = 1 << 15, 1 << 23
_GRAIN_RATIO = 0.37
_SHADOW_BIAS = 0.06


class Lamp(NamedTuple):
    """One lamp at each point; a single column applies to all points."""

    position: Float[Tensor, "3 _n"]
    colour: Float[Tensor, "3 _n"]
    reach: Float[Tensor, "*_n"]


class Setting(NamedTuple):
    """A world's properties besides its surfaces, at each point; a single column applies to all points.

    `grain` is the texture of fine grain; `shadow_start` is the offset of a point's shadow map in `shadow_depth`; a
    contact is the six numbers of `SceneTensors.contacts`. The other fields are those of `Light` and `Air`.
    """

    grain: Int32[Tensor, "_n"] | int
    above: Float[Tensor, "3 _n"]
    below: Float[Tensor, "3 _n"]
    lamps: list[Lamp]
    shadow_depth: Float[Tensor, "_texels"]
    shadow_side: int
    shadow_start: Int32[Tensor, "_n"] | int
    shadow_w2c: Float[Tensor, "4 4"] | Float[Tensor, "3 4 _n"]
    shadow_focal: Float[Tensor, "*_n"]
    contacts: Iterable[tuple[Tensor | float, ...]]
    fog: Float[Tensor, "3 _n"]
    fog_density: Float[Tensor, "*_n"]
    response: Float[Tensor, "3 _n"]


class Surfaces(NamedTuple):
    """Visible geometry: shapes, six materials of each, and their textures (see `SceneTensors`)."""

    primitives: Primitives
    faces: Faces
    textures: Int32[Tensor, "M texels"]


def setting_of(stage: SceneTensors) -> Setting:
    """The setting of a single world: the same for all points."""
    light, air = stage.light, stage.air
    lamps = zip(light.position, light.colour, light.reach, strict=True)
    return Setting(
        grain=0,
        above=light.above[:, None],
        below=light.below[:, None],
        lamps=[Lamp(position[:, None], colour[:, None], reach) for position, colour, reach in lamps],
        shadow_depth=light.shadow_depth.view(-1),
        shadow_side=light.shadow_depth.shape[0],
        shadow_start=0,
        shadow_w2c=light.shadow_w2c,
        shadow_focal=light.shadow_focal,
        contacts=[tuple(row) for row in stage.contacts.tolist()],
        fog=air.fog[:, None],
        fog_density=air.fog_density,
        response=air.response[:, None],
    )


def shade(
    surfaces: Surfaces,
    setting_at: Callable[[Int64[Tensor, "_n"]], Setting],
    c2w: Float[Tensor, "V 4 4"],
    K_inv: Float[Tensor, "V 3 3"],
    view: Int64[Tensor, "N"],
    uv: Float[Tensor, "2 N"],
    depth: Float[Tensor, "N"],
    surface: Int32[Tensor, "N"],
    footprint: float,
) -> Float[Tensor, "3 N"]:
    """Light recorded by the film at image positions, squared-sRGB scale, [0, 1].

    Args:
        surfaces: the visible geometry.
        setting_at: light and air for points of these views.
        c2w: poses of the views.
        K_inv: inverse intrinsics.
        view: view index of each position.
        uv: image positions in pixels.
        depth: z-depth there, world units.
        surface: surface code there (see `ray_casting.Hits`).
        footprint: side of a sample's area, in pixels.
    """
    frames = frames_of(surfaces.primitives)
    faces = surfaces.faces
    # One row per material property, one column per face: a single gather fetches all of a point's properties.
    rows = torch.stack(
        [faces.layer, *faces.scale.T, *faces.offset.T, *faces.gain.T, faces.detail, faces.gloss, faces.emission]
    )
    cameras = torch.cat([(c2w[:, :3, :3] @ K_inv).flatten(1), c2w[:, :3, 3], K_inv[:, 0, :1] * footprint], 1).T
    parts = []
    # Chunks of a size that stays in a CPU's cache between the many passes of the formula.
    chunk = max(min(len(view), _GPU_CHUNK), 1) if view.is_cuda else _CHUNK
    for start in range(0, len(view), chunk):
        part = slice(start, start + chunk)
        B = cameras.index_select(1, view[part])
        u, v = uv[:, part]
        # z-depth times the unnormalised ray: the point relative to the camera, in world axes.
        reach = (B[0:9:3] * u + B[1:9:3] * v + B[2:9:3]) * depth[part]
        points = locate(frames, B[9:12], reach, surface[part])
        setting = setting_at(view[part])
        parts.append(_film(surfaces.textures, setting, points, rows, surface[part], depth[part] * B[12]))
    return torch.cat(parts, 1) if parts else uv.new_zeros(3, 0)


def _film(textures: Tensor, setting: Setting, points: Points, rows: Tensor, surface: Tensor, width: Tensor) -> Tensor:
    """Film response at points whose footprint is `width` world units wide."""
    code = surface.clamp(min=0)
    # Column of a face: 6 primitive + 2 axis + (1 on the positive side).
    row = rows.index_select(1, (code >> 2) * 6 + (code & 3) * 2 + (points.local[2] > 0))
    irradiance, highlight = _lighting(setting, points)
    linear = _albedo(textures, setting.grain, points, row, width) * (irradiance + row[10]) + highlight * row[9]
    linear = torch.lerp(linear, setting.fog, _fog(setting, points))
    # A ray that hits nothing shows the fog.
    linear = torch.where(surface < 0, setting.fog, linear)
    return -torch.expm1(-linear * setting.response)


def _albedo(textures: Tensor, grain_layer: Tensor | int, points: Points, row: Tensor, width: Tensor) -> Tensor:
    """Linear colour of the surface, filtered over the footprint."""
    scale = row[1:3]
    short = width * (points.per_unit * scale.abs()).amax(0)
    long_axis = points.slide * scale * (width / points.cosine.clamp(min=0.05))
    uv = points.plane * scale + row[3:5]
    texel = sample_anisotropic(textures, row[0].int(), uv, long_axis, short)
    lod = torch.log2((torch.hypot(long_axis[0], long_axis[1]) + short) * (_GRAIN_RATIO * TILE) + 1e-6)
    grain = sample_grey(textures, grain_layer, uv * _GRAIN_RATIO, lod)
    return texel.square() * row[5:8] * (1 + row[8] * (grain - 0.5))


def _lighting(setting: Setting, points: Points) -> tuple[Tensor, Tensor]:
    """Irradiance, and the highlight of a glossy surface."""
    normal = points.normal
    facing_up = (normal[1] + 1) / 2
    irradiance = torch.lerp(setting.below, setting.above, facing_up) * _occlusion(setting, points)
    highlight = torch.zeros_like(irradiance)
    for index, lamp in enumerate(setting.lamps):
        towards = lamp.position - points.position
        squared = dot(towards, towards)
        towards = towards * squared.rsqrt()
        strength = 1 / (1 + squared / lamp.reach.square())
        if index == 0:
            strength = strength * _lit(setting, points)
        cosine = dot(normal, towards).clamp(min=0)
        irradiance = irradiance + lamp.colour * (strength * cosine)
        halfway = towards - points.ray
        glint = dot(halfway, normal).clamp(min=0) * dot(halfway, halfway).clamp(min=1e-6).rsqrt()
        # Five squarings: Blinn-Phong with exponent 32.
        for _ in range(5):
            glint = glint.square()
        highlight = highlight + lamp.colour * (strength * glint)
    return irradiance, highlight


def _lit(setting: Setting, points: Points) -> Tensor:
    """Share of lamp 0 that reaches each point: four shadow-map texels, mixed bilinearly (percentage closer)."""
    # Offset along the normal, and a depth bias below, so that surfaces do not shadow themselves.
    camera = _moved(setting.shadow_w2c, points.position + 0.02 * points.normal)
    side = setting.shadow_side
    pixel = camera[:2] / camera[2].clamp(min=0.1) * setting.shadow_focal + (side / 2 - 0.5)
    corner = pixel.floor().clamp(0, side - 2)
    share = (pixel - corner).clamp(0, 1)
    index = (corner[1] * side + corner[0]).int() + setting.shadow_start
    nearest = camera[2] - _SHADOW_BIAS
    seen = [(setting.shadow_depth.index_select(0, index + step) > nearest).float() for step in (0, 1, side, side + 1)]
    return torch.lerp(torch.lerp(seen[0], seen[1], share[0]), torch.lerp(seen[2], seen[3], share[0]), share[1])


def _moved(w2c: Float[Tensor, "4 4"] | Float[Tensor, "3 4 N"], points: Float[Tensor, "3 N"]) -> Float[Tensor, "3 N"]:
    """Transforms points by one pose, or each by its own."""
    if w2c.ndim == 2:
        return w2c[:3, :3] @ points + w2c[:3, 3:]
    return w2c[:, 0] * points[0] + w2c[:, 1] * points[1] + w2c[:, 2] * points[2] + w2c[:, 3]


def _occlusion(setting: Setting, points: Points) -> Tensor:
    """Soft ambient occlusion where walls meet, near the floor and around objects on it."""
    crease = 1 - 0.4 * torch.exp(-points.gap / 0.25)
    height, upright = points.position[1], 1 - points.normal[1].abs()
    low = 1 - 0.45 * torch.exp(-height.clamp(min=0) / 0.2) * upright
    shade = torch.where(points.in_room > 0, crease[0] * crease[1], torch.where(points.in_sky > 0, 1.0, low))
    on_floor = (height < 0.03) & (points.normal[1] > 0.5)
    return torch.where(on_floor, shade * _contact(setting, points.position), shade)


def _contact(setting: Setting, position: Tensor) -> Tensor:
    """Darkening of the floor near the footprints of objects."""
    shade = torch.ones_like(position[0])
    for x, z, cosine, sine, half_x, half_z in setting.contacts:
        dx, dz = position[0] - x, position[2] - z
        across = ((cosine * dx - sine * dz).abs() - half_x).clamp_(min=0)
        along = ((sine * dx + cosine * dz).abs() - half_z).clamp_(min=0)
        shade *= 1 - 0.5 * torch.exp((across + along) * -5)
    return shade


def _fog(setting: Setting, points: Points) -> Tensor:
    """Share of the fog's colour: by distance, and near the horizon of a dome."""
    haze = torch.exp(-8 * points.local[1].clamp(min=0))
    return torch.where(points.in_sky > 0, haze, -torch.expm1(-setting.fog_density * points.distance))
