"""Rendering of many worlds in one tensor program: an accelerator renders while the CPU lays out the next worlds.

Worlds of a batch share their number of slots per kind of shape; an unused slot holds a shape that is out of view. Every
step of `ray_casting.cast` then runs for all worlds at once, and shading looks up each point's world instead of the
single scene. The result is that of `World.render`, up to rounding.

Shapes: B worlds, P slots, V views of each world, H W pixels, M textures, L lamps, C contacts, S shadow map side.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from functools import cache

import torch
from jaxtyping import Float, Int32, Int64
from torch import Tensor

from sphinx_nvs.procedural.ray_casting import FAR, MEET, Hits, Primitives, ShapeKind
from sphinx_nvs.procedural.scene_tensors import Faces
from sphinx_nvs.procedural.shading import Lamp, Setting, Surfaces, shade
from sphinx_nvs.procedural.texture_library import catalogue
from sphinx_nvs.procedural.world import World, indices, refine_edges

# Unused slots lie beyond `FAR`: a hit there is never the nearest.
_OUT_OF_SIGHT = -1e6


@dataclass(frozen=True, kw_only=True)
class WorldBatch:
    """B worlds, packed; see `pack_worlds`.

    Args:
        kinds: `ShapeKind` of each slot, the same for all worlds.
        centre: centre of each shape, world units.
        rotation: world from local axes.
        half: half extents.
        faces: rows of `Faces` (layer, scale, offset, gain, detail, gloss, emission), six per slot; layers index
            `texture_library.all_tiles`.
        grain: texture of fine grain.
        lamps: position, colour, reach; unused ones are black.
        ambient: light on surfaces that face up, and down.
        shadow_depth: see `Light`.
        shadow_w2c: see `Light`.
        shadow_focal: see `Light`.
        air: fog, its density, response (see `Air`).
        contacts: see `SceneTensors`; unused ones are far away.
    """

    kinds: tuple[int, ...]
    centre: Float[Tensor, "B P 3"]
    rotation: Float[Tensor, "B P 3 3"]
    half: Float[Tensor, "B P 3"]
    faces: Float[Tensor, "B P 6 11"]
    grain: Int32[Tensor, "B"]
    lamps: Float[Tensor, "B L 7"]
    ambient: Float[Tensor, "B 6"]
    shadow_depth: Float[Tensor, "B S S"]
    shadow_w2c: Float[Tensor, "B 3 4"]
    shadow_focal: Float[Tensor, "B"]
    air: Float[Tensor, "B 7"]
    contacts: Float[Tensor, "B C 6"]

    def __len__(self) -> int:
        return len(self.centre)

    def __getitem__(self, part: slice) -> WorldBatch:
        """A subset of the worlds."""
        return WorldBatch(kinds=self.kinds, **{name: tensor[part] for name, tensor in self.tensors().items()})

    def tensors(self) -> dict[str, Tensor]:
        """The tensor fields by name."""
        return {f.name: getattr(self, f.name) for f in fields(self) if f.name != "kinds"}

    def to(self, device: torch.device | str) -> WorldBatch:
        """The same worlds on another device."""
        return WorldBatch(kinds=self.kinds, **{name: tensor.to(device) for name, tensor in self.tensors().items()})


def pack_worlds(worlds: Sequence[World]) -> WorldBatch:
    """Packs worlds (made with or without textures) into one batch on the CPU."""
    counts = [torch.bincount(world.stage.primitives.kind.long(), minlength=len(ShapeKind)) for world in worlds]
    slots = torch.stack(counts).amax(0)
    kinds = torch.repeat_interleave(torch.arange(len(ShapeKind)), slots).tolist()
    first = torch.cat([slots.new_zeros(1), slots.cumsum(0)[:-1]])
    rows = [_slots_of(world, first, len(kinds)) for world in worlds]
    centre, rotation, half, faces = (torch.stack(part) for part in zip(*rows, strict=True))
    lights, airs = [w.stage.light for w in worlds], [w.stage.air for w in worlds]
    return WorldBatch(
        kinds=tuple(kinds),
        centre=centre,
        rotation=rotation,
        half=half,
        faces=faces,
        grain=torch.tensor([catalogue()[world.tiles[0]] for world in worlds], dtype=torch.int32),
        lamps=_padded([torch.cat([g.position, g.colour, g.reach[:, None]], 1) for g in lights], [0.0] * 6 + [1.0]),
        ambient=torch.stack([torch.cat([g.above, g.below]) for g in lights]),
        shadow_depth=torch.stack([g.shadow_depth for g in lights]),
        shadow_w2c=torch.stack([g.shadow_w2c[:3] for g in lights]),
        shadow_focal=torch.stack([g.shadow_focal for g in lights]),
        air=torch.stack([torch.cat([a.fog, a.fog_density.view(1), a.response]) for a in airs]),
        contacts=_padded([w.stage.contacts for w in worlds], [1e6, 1e6, 1.0, 0.0, 0.0, 0.0]),
    )


def _slots_of(world: World, first: Int64[Tensor, "K"], count: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """A world's shapes and materials, each in its slot."""
    shapes, faces = world.stage.primitives, world.stage.faces
    order = shapes.kind.argsort(stable=True)
    kinds = shapes.kind[order].long()
    # The number of a shape among those of its kind: its place in the order, less the place of the first of its kind.
    rank = torch.arange(len(order)) - torch.searchsorted(kinds, kinds)
    slot = first[kinds] + rank
    layers = torch.tensor([catalogue()[key] for key in world.tiles], dtype=torch.float32)[faces.layer.long()]
    columns = [layers[:, None], faces.scale, faces.offset, faces.gain]
    columns += [part[:, None] for part in (faces.detail, faces.gloss, faces.emission)]
    table = torch.cat(columns, 1).view(-1, 6, 11)
    centre = torch.full((count, 3), _OUT_OF_SIGHT)
    rotation, half = torch.eye(3).repeat(count, 1, 1), torch.ones(count, 3)
    packed = torch.zeros(count, 6, 11)
    for whole, part in ((centre, shapes.centre), (rotation, shapes.rotation), (half, shapes.half), (packed, table)):
        whole[slot] = part[order]
    return centre, rotation, half, packed


def _padded(rows: list[Tensor], filler: list[float]) -> Tensor:
    """Tables of the same width, padded to the same length and stacked."""
    longest = max(1, *(len(part) for part in rows)) if len(rows) > 1 else max(1, len(rows[0]))
    fill = torch.tensor(filler)
    return torch.stack([torch.cat([part, fill.expand(longest - len(part), -1)]) for part in rows])


@torch.no_grad()
def render_worlds(
    worlds: WorldBatch,
    textures: Int32[Tensor, "M texels"],
    c2w: Float[Tensor, "B V 4 4"],
    K: Float[Tensor, "B V 3 3"],
    height: int,
    width: int,
    supersample: int = 2,
) -> tuple[Float[Tensor, "B V 3 H W"], Float[Tensor, "B V H W"]]:
    """Images (sRGB in [0, 1]) and z-depth at pixel centres, all on the worlds' device.

    Args:
        worlds: the worlds to render.
        textures: `texture_library.all_tiles` of the worlds' split, on the same device.
        c2w: camera-to-world poses.
        K: intrinsics in pixels.
        height: pixels.
        width: pixels.
        supersample: samples per pixel side at edges; 1 is fastest.
    """
    num_worlds, num_views = c2w.shape[:2]
    c2w, K_inv = c2w.float(), torch.linalg.inv(K.float())
    centre = _cast(worlds, c2w, K_inv, height, width, 1)
    shape = (num_worlds * num_views, height, width)
    view, row, column = (index.reshape(-1) for index in indices(*shape, c2w.device))
    uv = torch.stack([column, row]) + 0.5
    shader = _Shader(worlds, textures, c2w.flatten(0, 1), K_inv.flatten(0, 1))
    colour = shader(view, uv, centre.depth.view(-1), centre.surface.view(-1), 1.0)
    if supersample > 1:
        fine = _cast(worlds, c2w, K_inv, height, width, supersample)
        refine_edges(shader, colour, centre, fine, supersample)
    rgb = colour.clamp_(0, 1).sqrt_().view(3, *shape).transpose(0, 1)
    return rgb.reshape(num_worlds, num_views, 3, height, width), centre.depth.view(num_worlds, num_views, height, width)


def _cast(
    worlds: WorldBatch,
    c2w: Float[Tensor, "B V 4 4"],
    K_inv: Float[Tensor, "B V 3 3"],
    height: int,
    width: int,
    density: int,
) -> Hits:
    """First hits on a grid of `density` x `density` rays per pixel; surface codes count slots over all worlds."""
    device = c2w.device
    u, v = ((torch.arange(n * density, device=device, dtype=torch.float32) + 0.5) / density for n in (width, height))
    unit = worlds.rotation.transpose(-1, -2) / worlds.half[..., None]
    start = torch.einsum("bpij,bvpj->bpvi", unit, c2w[:, :, None, :3, 3] - worlds.centre[:, None])
    B = torch.einsum("bpij,bvjk,bvkl->bpvil", unit, c2w[..., :3, :3], K_inv)
    columns, rows = B[..., 0, None] * u, B[..., 1, None] * v + B[..., 2, None]
    num_slots = len(worlds.kinds)
    depth = torch.full((len(c2w), c2w.shape[1], len(v), len(u)), FAR, device=device)
    surface = torch.full(depth.shape, -1, dtype=torch.int32, device=device)
    # A surface's code is 4 times its slot, plus the axis that was hit (0 to 2); each world has codes of its own.
    base = 4 * num_slots * torch.arange(len(c2w), device=device, dtype=torch.int32).view(-1, 1, 1, 1)
    for slot, kind in enumerate(worlds.kinds):
        nearer = _nearer(kind, device.type == "cuda")
        depth, surface = nearer(start[:, slot], columns[:, slot], rows[:, slot], depth, surface, base + 4 * slot)
    return Hits(depth.flatten(0, 1), surface.flatten(0, 1))


Nearer = Callable[[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]


@cache
def _nearer(kind: int, fused: bool) -> Nearer:
    """A function that intersects one slot of every world and keeps the nearer hit; one kernel if `fused`."""
    meet = MEET[kind]

    def nearer(
        start: Tensor, columns: Tensor, rows: Tensor, depth: Tensor, surface: Tensor, code: Tensor
    ) -> tuple[Tensor, Tensor]:
        origin = start[..., None, None].unbind(2)
        direction = (columns[..., None, :] + rows[..., :, None]).unbind(2)
        distance, axis = meet(origin, direction)
        closer = distance < depth
        return torch.where(closer, distance, depth), torch.where(closer, axis + code, surface)

    # Eagerly, each operation would read and write the whole picture; the kernel keeps a ray's values in registers.
    return torch.compile(nearer, dynamic=False) if fused else nearer


class _Shader:
    """Shades points of any of the worlds; `view` counts views over all worlds."""

    def __init__(self, worlds: WorldBatch, textures: Tensor, c2w: Tensor, K_inv: Tensor) -> None:
        self._worlds, self._c2w, self._K_inv = worlds, c2w, K_inv
        self._views = len(c2w) // len(worlds)
        shapes = [part.flatten(0, 1) for part in (worlds.centre, worlds.rotation, worlds.half)]
        layer, scale, offset, gain, rest = worlds.faces.view(-1, 11).split([1, 2, 2, 3, 3], 1)
        faces = Faces(layer[:, 0].int(), scale, offset, gain, *rest.unbind(1))
        kinds = torch.tensor(worlds.kinds, dtype=torch.int32, device=c2w.device).repeat(len(worlds))
        self._surfaces = Surfaces(Primitives(kinds, *shapes), faces, textures)

    def __call__(self, view: Tensor, uv: Tensor, depth: Tensor, surface: Tensor, footprint: float) -> Tensor:
        return shade(self._surfaces, self._setting, self._c2w, self._K_inv, view, uv, depth, surface, footprint)

    def _setting(self, view: Int64[Tensor, "N"]) -> Setting:
        """Light and air at each point."""
        worlds, owner = self._worlds, view // self._views

        def at(table: Tensor) -> Tensor:
            return table.T.contiguous().index_select(1, owner)

        ambient, air, side = at(worlds.ambient), at(worlds.air), worlds.shadow_depth.shape[-1]
        lamps = [at(worlds.lamps[:, index]) for index in range(worlds.lamps.shape[1])]
        return Setting(
            grain=worlds.grain.index_select(0, owner),
            above=ambient[:3],
            below=ambient[3:],
            lamps=[Lamp(lamp[:3], lamp[3:6], lamp[6]) for lamp in lamps],
            shadow_depth=worlds.shadow_depth.view(-1),
            shadow_side=side,
            shadow_start=(owner * (side * side)).int(),
            shadow_w2c=at(worlds.shadow_w2c.flatten(1)).view(3, 4, -1),
            shadow_focal=worlds.shadow_focal.index_select(0, owner),
            contacts=(tuple(at(worlds.contacts[:, index])) for index in range(worlds.contacts.shape[1])),
            fog=air[:3],
            fog_density=air[3],
            response=air[4:],
        )
