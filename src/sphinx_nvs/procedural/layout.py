"""Layout of rooms, corridors and plazas: objects, materials and lighting."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from sphinx_nvs.procedural import furniture, training_variety
from sphinx_nvs.procedural.builder import Builder, Material, Placement
from sphinx_nvs.procedural.camera_paths import look_at
from sphinx_nvs.procedural.ray_casting import Primitives, ShapeKind, cast
from sphinx_nvs.procedural.scene_tensors import Air, Light, SceneTensors
from sphinx_nvs.procedural.seeds import check_choice, choose, generator, uniform
from sphinx_nvs.procedural.texture_library import MIP_TEXELS
from sphinx_nvs.procedural.world import World

KINDS = ("room", "corridor", "plaza")
_MAX_PRIMITIVES = 38
_SHADOW_SIDE = 320


def make_world(seed: int, kind: str = "mixed", split: str = "train", *, textured: bool = True) -> World:
    """Creates the world of a seed; deterministic, and different for every (seed, split).

    Args:
        seed: any integer from 0.
        kind: `room`, `corridor`, `plaza`, or `mixed`: one of them, half of them rooms. In the splits `train` and `val`
            almost half of the mixed worlds are halls, streets and jumbles, and light and air vary more.
        split: `train`, `val` or `test`; their seeds, palettes and photographic textures are disjoint.
        textured: whether to load the textures; without them the world can be inspected (`tiles`) but not rendered.

    Raises:
        InputError: the kind or split is unknown, or the seed is negative.
    """
    check_choice("kind", kind, (*KINDS, "mixed"))
    rng = generator(split, "world", seed)
    # The test worlds are those of the published figures: nothing that is added for training may change them.
    is_varied = kind == "mixed" and split != "test"
    if kind == "mixed":
        kind = choose(rng, "room", "room", "corridor", "plaza", *(VARIED_KINDS if is_varied else ()))
    builder = Builder(split, rng)
    size = _LAYOUTS[kind](builder)
    primitives = builder.primitives()
    light, air = _light(rng, kind, size, primitives), _air(rng, kind)
    if is_varied:
        is_outdoors = kind in _OUTDOORS
        light, air = training_variety.relit(rng, light, is_outdoors), training_variety.varied_air(rng, air, is_outdoors)
    contacts = torch.tensor(builder.contacts, dtype=torch.float32).reshape(-1, 6)
    textures = builder.textures() if textured else torch.zeros(0, MIP_TEXELS, dtype=torch.int32)
    stage = SceneTensors(primitives, builder.faces(), textures, light, air, contacts)
    margin = np.array([0.35, 0.0, 0.35])
    low, high = (
        np.array([-size[0], 0.35, -size[2]]) + margin,
        np.array([size[0], size[1] - 0.35, size[2]]) - margin,
    )
    return World(
        name=f"{split}-{kind}-{seed}",
        kind=kind,
        split=split,
        seed=seed,
        stage=stage,
        subjects=torch.from_numpy(np.stack(builder.subjects)).float(),
        walkable=torch.from_numpy(np.stack([low, high])).float(),
        tiles=builder.tiles,
    )


def _room(b: Builder) -> np.ndarray:
    """A furnished room; returns half width, height, half depth."""
    size = np.array([uniform(b.rng, 1.8, 4.0), uniform(b.rng, 2.3, 3.4), uniform(b.rng, 1.8, 4.0)])
    _shell(b, size)
    free = _Floor(b, size)
    _hang_pictures(b, size, int(b.rng.integers(2, 6)))
    _pendant(b, size)
    if b.rng.uniform() < 0.35:
        free.put(furniture.column, size[1])
    for _ in range(int(b.rng.integers(1, 4))):
        free.put_by_wall(furniture.BY_WALL[int(b.rng.integers(len(furniture.BY_WALL)))])
    free.fill(furniture.IN_ROOM, int(b.rng.integers(3, 10)))
    if b.rng.uniform() < 0.6:
        rug = Placement(uniform(b.rng, -0.5, 0.5), uniform(b.rng, -0.5, 0.5), uniform(b.rng, -0.3, 0.3))
        half = uniform(b.rng, 0.6, 1.2), 0.008, uniform(b.rng, 0.5, 1.0)
        b.add(ShapeKind.BOX, rug, (0, 0.008, 0), half, b.material("cloth", (0.3, 0.8)))
    return size


def _corridor(b: Builder) -> np.ndarray:
    """A long hall with doors, arches and objects along its walls; returns half width, height, half depth."""
    size = np.array([uniform(b.rng, 1.3, 2.1), uniform(b.rng, 2.3, 3.2), uniform(b.rng, 4.5, 8.0)])
    _shell(b, size)
    _hang_pictures(b, size, int(b.rng.integers(5, 9)))
    for z in np.linspace(-0.6, 0.6, int(b.rng.integers(1, 4))) * size[2]:
        _gateway(b, size, float(z))
    _pendant(b, size)
    free = _Floor(b, size)
    for _ in range(int(b.rng.integers(1, 3))):
        free.put_by_wall(furniture.BY_WALL[int(b.rng.integers(2))])
    free.fill(furniture.IN_CORRIDOR, int(b.rng.integers(4, 9)))
    return size


def _plaza(b: Builder) -> np.ndarray:
    """An open plaza under a sky, surrounded by facades; returns half width, height, half depth."""
    radius = uniform(b.rng, 3.5, 6.0)
    sky = Material(b.layer("sky"), uniform(b.rng, 0.1, 0.25), detail=0.0, emission=1.0)
    b.add(ShapeKind.DOME, Placement(y=-1.0), (0, 0, 0), (60.0, 60.0, 60.0), sky)
    b.add(ShapeKind.BOX, Placement(), (0, -0.5, 0), (70.0, 0.5, 70.0), b.material("ground", (0.3, 0.8)))
    count = int(b.rng.integers(5, 10))
    for angle in (np.arange(count) + b.rng.uniform(0.1, 0.5, count)) * 2 * np.pi / count:
        _house(b, float(angle), radius)
    size = np.array([radius, 3.5, radius])
    free = _Floor(b, size)
    free.fill(furniture.OUTDOORS, int(b.rng.integers(8, 14)))
    return size


def _hall(b: Builder) -> np.ndarray:
    """A long high room with rows of columns and a flight of stairs."""
    size = np.array([uniform(b.rng, 2.2, 3.6), uniform(b.rng, 2.8, 4.2), uniform(b.rng, 3.5, 6.0)])
    _shell(b, size)
    training_variety.colonnade(b, size)
    _hang_pictures(b, size, int(b.rng.integers(2, 5)))
    steps, side = int(b.rng.integers(4, 8)), choose(b.rng, "left", "right")
    reach = float(size[0]) * (-0.75 if side == "left" else 0.75)
    training_variety.stairs(b, Placement(reach, uniform(b.rng, 0, 0.5) * float(size[2])), steps)
    free = _Floor(b, size * [0.6, 1, 1])
    free.fill((*furniture.IN_CORRIDOR, furniture.board, furniture.bench), int(b.rng.integers(3, 8)))
    return size


def _street(b: Builder) -> np.ndarray:
    """A street between two rows of facades, with objects along it."""
    size = np.array([uniform(b.rng, 2.4, 4.0), 3.5, uniform(b.rng, 4.0, 7.0)])
    training_variety.sky_over(b)
    training_variety.fronts(b, size)
    for side in (-1, 1):
        along = Placement(side * float(size[0]) * 0.85, uniform(b.rng, -0.5, 0.5) * float(size[2]), np.pi / 2)
        (training_variety.fence if b.rng.uniform() < 0.5 else training_variety.hedge)(
            b, along, uniform(b.rng, 1.5, 4.0)
        )
    for _ in range(int(b.rng.integers(1, 4))):
        place = uniform(b.rng, 0.45, 0.7) * float(size[0]) * (1 if b.rng.uniform() < 0.5 else -1)
        at = Placement(place, uniform(b.rng, -0.8, 0.8) * float(size[2]), np.pi / 2 + uniform(b.rng, -0.1, 0.1))
        training_variety.vehicle(b, at)
    free = _Floor(b, size * [0.5, 1, 1])
    free.fill((*furniture.OUTDOORS, furniture.street_lamp, furniture.crates), int(b.rng.integers(3, 7)))
    return size


def _jumble(b: Builder) -> np.ndarray:
    """A room full of shapes at arbitrary angles."""
    size = np.array([uniform(b.rng, 2.0, 3.6), uniform(b.rng, 2.3, 3.6), uniform(b.rng, 2.0, 3.6)])
    _shell(b, size)
    _hang_pictures(b, size, int(b.rng.integers(1, 4)))
    for _ in range(int(b.rng.integers(10, 26))):
        x, z = (float(value) for value in b.rng.uniform(-0.85, 0.85, 2) * size[[0, 2]])
        training_variety.debris(b, Placement(x, z, uniform(b.rng, 0, 2 * np.pi)))
    return size


def _house(b: Builder, angle: float, radius: float) -> None:
    """A building that faces the centre of the plaza."""
    half = uniform(b.rng, 1.5, 4.0), uniform(b.rng, 1.5, 5.0), uniform(b.rng, 1.0, 2.5)
    distance = radius * 1.15 + half[2] + uniform(b.rng, 0.3, 5.0)
    at = Placement(distance * np.sin(angle), distance * np.cos(angle), angle)
    front, roof = b.material("facade", (0.15, 0.35)), b.material("ceiling")
    b.add(ShapeKind.BOX, at, (0, half[1], 0), half, {-1: front, 3: roof})
    if b.rng.uniform() < 0.5:
        b.add(ShapeKind.BOX, at, (0, 2 * half[1] + 0.1, 0), (half[0] + 0.2, 0.12, half[2] + 0.2), roof)


def _shell(b: Builder, size: np.ndarray) -> None:
    """Floor, ceiling and walls; one wall may differ from the others."""
    wall, floor, ceiling = (
        b.material("wall", (0.3, 0.7)),
        b.material("floor", (0.3, 0.8)),
        b.material("ceiling"),
    )
    accent = b.material("wall", (0.3, 0.7)) if b.rng.uniform() < 0.5 else wall
    faces = {-1: wall, 2: floor, 3: ceiling, (0, 1, 4, 5)[int(b.rng.integers(4))]: accent}
    half = float(size[0]), float(size[1] / 2), float(size[2])
    b.add(ShapeKind.ROOM, Placement(y=float(size[1] / 2)), (0, 0, 0), half, faces)


def _wall_frame(size: np.ndarray, wall: int) -> tuple[Placement, float]:
    """A frame on the floor at the centre of a wall (z points into the room), and half the wall's length."""
    yaw = wall * np.pi / 2
    reach, length = (size[2], size[0]) if wall % 2 == 0 else (size[0], size[2])
    return Placement(-reach * np.sin(yaw), -reach * np.cos(yaw), yaw), float(length)


def _hang_pictures(b: Builder, size: np.ndarray, count: int) -> None:
    """Pictures, windows and doors on the walls, without overlap."""
    taken: list[tuple[int, float, float]] = []
    for _ in range(count):
        wall = int(b.rng.integers(4))
        at, length = _wall_frame(size, wall)
        half_x = min(uniform(b.rng, 0.25, 0.7), length * 0.7)
        x = uniform(b.rng, half_x - length, length - half_x) * 0.9
        if any(w == wall and abs(x - other) < half_x + reach + 0.1 for w, other, reach in taken):
            continue
        taken.append((wall, x, half_x))
        _panel(b, at, x, half_x, float(size[1]))


def _panel(b: Builder, at: Placement, x: float, half_x: float, height: float) -> None:
    """One picture, bright window or door in a frame at `x` along a wall."""
    rim = b.material("wood", (0.8, 1.5))
    what = choose(b.rng, "picture", "picture", "picture", "window", "door")
    if what == "door":
        half_x, half_y, y = 0.42, min(1.0, height / 2 - 0.15), min(1.0, height / 2 - 0.15)
        front = b.material("wood", (0.4, 0.9))
    elif what == "window":
        half_y, y = min(half_x * uniform(b.rng, 0.8, 1.4), 0.6), min(1.4, height - 0.8)
        front = b.material(choose(b.rng, "facade", "sky"), (0, 0), emission=uniform(b.rng, 0.4, 1.1))
    else:
        half_y, y = min(half_x * uniform(b.rng, 0.7, 1.4), 0.65), min(uniform(b.rng, 1.2, 1.6), height - 0.8)
        front = b.material("picture", (0, 0), gloss=uniform(b.rng, 0, 0.2))
    b.add(ShapeKind.BOX, at, (x, y, 0.02), (half_x + 0.04, half_y + 0.04, 0.02), rim)
    b.add(ShapeKind.BOX, at, (x, y, 0.03), (half_x, half_y, 0.025), {-1: rim, 5: front})
    b.subjects.append(at.point((x, y, 0.05)))


def _pendant(b: Builder, size: np.ndarray) -> None:
    """A lamp that hangs from the ceiling on a thin rod."""
    drop, radius = uniform(b.rng, 0.2, 0.5), uniform(b.rng, 0.12, 0.25)
    at = Placement(uniform(b.rng, -0.5, 0.5), uniform(b.rng, -0.5, 0.5))
    glow = b.material("ceiling", emission=uniform(b.rng, 1.0, 2.5))
    b.add(
        ShapeKind.CYLINDER,
        at,
        (0, float(size[1]) - drop / 2, 0),
        (0.012, drop / 2, 0.012),
        b.material("wood"),
    )
    kind = furniture.choose_kind(b, ShapeKind.SPHERE, ShapeKind.CYLINDER)
    b.add(kind, at, (0, float(size[1]) - drop, 0), (radius, radius * 0.6, radius), glow)


def _gateway(b: Builder, size: np.ndarray, z: float) -> None:
    """A wall across the corridor with an opening to walk through."""
    post = (size[0] - uniform(b.rng, 0.65, 0.9)) / 2
    opening, height = size[0] - 2 * post, float(size[1])
    lintel = (height - min(uniform(b.rng, 2.0, 2.4), height - 0.15)) / 2
    wall = b.material("wall", (0.3, 0.7))
    for side in (-1, 1):
        b.add(
            ShapeKind.BOX,
            Placement(z=z),
            (side * (opening + post), height / 2, 0),
            (post, height / 2, 0.12),
            wall,
        )
    b.add(ShapeKind.BOX, Placement(z=z), (0, height - lintel, 0), (opening, lintel, 0.12), wall)


class _Floor:
    """Tracks free space on the floor."""

    def __init__(self, builder: Builder, size: np.ndarray) -> None:
        self._b, self._size = builder, size
        self._taken: list[tuple[float, float, float]] = []

    def put(self, maker: furniture.Maker, height: float | None = None) -> None:
        """Places an object at a random free position; does nothing if there is no space."""
        radius, rng = furniture.FOOTPRINT[maker], self._b.rng
        for _ in range(12):
            reach = self._size[[0, 2]] - radius - 0.05
            if reach.min() <= 0:
                return
            x, z = (float(value) for value in rng.uniform(-reach, reach))
            if self._claim(x, z, radius):
                at = Placement(x, z, uniform(rng, 0, 2 * np.pi))
                if height is None:
                    maker(self._b, at)
                else:
                    furniture.column(self._b, at, height)
                return

    def put_by_wall(self, maker: furniture.Maker) -> None:
        """Places an object with its back to a wall."""
        wall = int(self._b.rng.integers(4))
        frame, length = _wall_frame(self._size, wall)
        radius = furniture.FOOTPRINT[maker]
        if length < radius:
            return
        x, _, z = frame.point((uniform(self._b.rng, radius - length, length - radius), 0, 0.45))
        if self._claim(float(x), float(z), radius):
            maker(self._b, Placement(float(x), float(z), frame.yaw))

    def fill(self, makers: tuple[furniture.Maker, ...], count: int) -> None:
        """Places `count` random objects, fewer if primitives run out."""
        for _ in range(count):
            if len(self._b) < _MAX_PRIMITIVES:
                self.put(makers[int(self._b.rng.integers(len(makers)))])

    def _claim(self, x: float, z: float, radius: float) -> bool:
        """Reserves the disc if it is free."""
        if any(np.hypot(x - a, z - c) < radius + r for a, c, r in self._taken):
            return False
        self._taken.append((x, z, radius))
        return True


def _light(rng: np.random.Generator, kind: str, size: np.ndarray, primitives: Primitives) -> Light:
    """A distant key light that casts shadows and, indoors, lamps near the ceiling."""
    outdoors = kind in _OUTDOORS
    elevation, azimuth = np.radians(uniform(rng, 30, 75)), uniform(rng, 0, 2 * np.pi)
    towards = [np.cos(elevation) * np.sin(azimuth), np.sin(elevation), np.cos(elevation) * np.cos(azimuth)]
    key = np.array(towards) * 60.0
    warm = np.array([1.0, uniform(rng, 0.8, 1.0), uniform(rng, 0.6, 1.0)])
    positions, colours, reaches = (
        [key],
        [warm * (uniform(rng, 0.8, 1.6) if outdoors else uniform(rng, 0.2, 0.9))],
        [1e6],
    )
    for _ in range(0 if outdoors else int(rng.integers(1, 3))):
        where = rng.uniform(-0.6, 0.6, 3) * size
        positions.append(np.array([where[0], size[1] - 0.4, where[2]]))
        colours.append(np.array([1.0, uniform(rng, 0.7, 1.0), uniform(rng, 0.5, 1.0)]) * uniform(rng, 0.4, 1.2))
        reaches.append(uniform(rng, 1.5, 4.0))
    ambient = uniform(rng, 0.25, 0.5) if outdoors else uniform(rng, 0.3, 0.6)
    above = ambient * np.array([uniform(rng, 0.8, 1.0), 0.95, uniform(rng, 0.95, 1.2)])
    below = above * np.array([1.0, uniform(rng, 0.85, 1.0), uniform(rng, 0.7, 0.95)]) * uniform(rng, 0.4, 0.8)
    position, colour, reach = (torch.from_numpy(np.stack(values)).float() for values in (positions, colours, reaches))
    depth, w2c, focal = _shadow_map(key, size, primitives)
    return Light(
        position=position,
        colour=colour,
        reach=reach,
        above=torch.from_numpy(above).float(),
        below=torch.from_numpy(below).float(),
        shadow_depth=depth,
        shadow_w2c=w2c,
        shadow_focal=focal,
    )


def _shadow_map(
    key: np.ndarray, size: np.ndarray, primitives: Primitives
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Depth of solids (without the enclosure) seen from the key light; that view's w2c and focal length."""
    target = np.array([0, size[1] / 2, 0])
    c2w = torch.from_numpy(look_at(key, target, 0.0)).float()[None]
    focal = _SHADOW_SIDE / 2 * np.linalg.norm(key - target) / (1.05 * np.linalg.norm(size))
    K = torch.tensor([[focal, 0, _SHADOW_SIDE / 2], [0, focal, _SHADOW_SIDE / 2], [0, 0, 1]], dtype=torch.float32)
    solids = Primitives(*(getattr(primitives, name)[1:] for name in ("kind", "centre", "rotation", "half")))
    ticks = torch.arange(_SHADOW_SIDE, dtype=torch.float32) + 0.5
    depth = cast(solids, c2w, torch.linalg.inv(K)[None], ticks, ticks).depth[0]
    return depth, torch.linalg.inv(c2w[0]), K[0, 0]


def _air(rng: np.random.Generator, kind: str) -> Air:
    """Fog outdoors; exposure and white balance everywhere."""
    balance = 2 ** rng.uniform(-0.15, 0.15, 3)
    exposure = 2 ** uniform(rng, -0.5, 0.7) * 1.5
    fog = np.array([0.62, 0.7, 0.8]) * rng.uniform(0.85, 1.05, 3)
    density = uniform(rng, 0.0, 0.02) if kind in _OUTDOORS and rng.uniform() < 0.5 else 0.0
    return Air(
        torch.from_numpy(fog).float(),
        torch.tensor(density, dtype=torch.float32),
        torch.from_numpy(exposure * balance).float(),
    )


_LAYOUTS: dict[str, Callable[[Builder], np.ndarray]] = {
    "room": _room,
    "corridor": _corridor,
    "plaza": _plaza,
    "hall": _hall,
    "street": _street,
    "jumble": _jumble,
}
VARIED_KINDS = ("hall", "street", "jumble")
"""Kinds that occur only in mixed worlds of the splits `train` and `val`."""
_OUTDOORS = ("plaza", "street")
