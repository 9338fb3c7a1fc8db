"""Objects for rooms and plazas, built from boxes, cylinders and balls.

Each maker places one object at a placement; sizes and materials come from the builder's generator. `FOOTPRINT`
is the radius in world units that an object may need.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from sphinx_nvs.procedural.builder import Builder, Material, Placement
from sphinx_nvs.procedural.ray_casting import ShapeKind
from sphinx_nvs.procedural.seeds import choose, uniform

BOX, SPHERE, CYLINDER = ShapeKind.BOX, ShapeKind.SPHERE, ShapeKind.CYLINDER
_THIN = 0.03


def _about_z(angle: float) -> np.ndarray:
    """Rotation (3, 3) about the local z axis."""
    c, s = np.cos(angle), np.sin(angle)
    return np.array([[c, -s, 0], [s, c, 0], [0, 0, 1.0]])


def _triple(values: np.ndarray) -> tuple[float, float, float]:
    return float(values[0]), float(values[1]), float(values[2])


def _shiny(b: Builder, role: str = "object") -> Material:
    return b.material(role, gloss=uniform(b.rng, 0.0, 0.6))


def table(b: Builder, at: Placement) -> None:
    """A table with four legs and an object or two on it."""
    half_x, half_z, height = uniform(b.rng, 0.4, 0.8), uniform(b.rng, 0.3, 0.5), uniform(b.rng, 0.5, 0.85)
    top, leg = b.material("wood"), b.material("wood")
    b.add(BOX, at, (0, height, 0), (half_x, 0.03, half_z), top)
    for x in (-1, 1):
        for z in (-1, 1):
            b.add(BOX, at, (x * (half_x - 0.06), height / 2, z * (half_z - 0.06)), (0.03, height / 2, 0.03), leg)
    for side in (-0.5, 0.45)[: int(b.rng.integers(0, 3))]:
        trinket(b, at.moved((side * half_x, height + 0.03, 0)), 0.2)
    b.stands(at, half_x, half_z, height)


def round_table(b: Builder, at: Placement) -> None:
    """A round table top on one leg."""
    radius, height = uniform(b.rng, 0.35, 0.6), uniform(b.rng, 0.5, 0.9)
    b.add(CYLINDER, at, (0, height, 0), (radius, 0.025, radius), _shiny(b, "wood"))
    b.add(CYLINDER, at, (0, height / 2, 0), (0.05, height / 2, 0.05), b.material("wood"))
    b.add(CYLINDER, at, (0, 0.02, 0), (0.6 * radius, 0.02, 0.6 * radius), b.material("wood"))
    trinket(b, Placement(at.x, at.z, at.yaw, height + 0.025), 0.22)
    b.stands(at, 0.5 * radius, 0.5 * radius, height)


def chair(b: Builder, at: Placement) -> None:
    """A chair: seat, back, legs."""
    half, seat, back = uniform(b.rng, 0.2, 0.26), uniform(b.rng, 0.4, 0.5), uniform(b.rng, 0.4, 0.6)
    cloth, wood = b.material(choose(b.rng, "cloth", "wood")), b.material("wood")
    b.add(BOX, at, (0, seat, 0), (half, 0.03, half), cloth)
    b.add(BOX, at, (0, seat + back / 2, -half), (half, back / 2, 0.025), cloth)
    for x in (-1, 1):
        for z in (-1, 1):
            b.add(BOX, at, (x * (half - 0.03), seat / 2, z * (half - 0.03)), (0.02, seat / 2, 0.02), wood)
    b.stands(at, half, half, seat)


def shelf(b: Builder, at: Placement) -> None:
    """A book shelf, open at the front."""
    half_x, depth, height = uniform(b.rng, 0.4, 0.7), 0.16, uniform(b.rng, 1.0, 2.0)
    wood, spines = b.material("wood"), b.material("books", (0.9, 1.6))
    for x in (-1, 1):
        b.add(BOX, at, (x * half_x, height / 2, 0), (0.02, height / 2, depth), wood)
    boards = 3 if height < 1.4 else 4
    for board in range(boards + 1):
        y = 0.05 + board * (height - 0.07) / boards
        b.add(BOX, at, (0, y, 0), (half_x, 0.015, depth), wood)
        if board < boards:
            tall = (height - 0.07) / boards * uniform(b.rng, 0.6, 0.85)
            share = uniform(b.rng, 0.5, 0.95)
            books = {-1: wood, 5: Material(spines.layer, 0.5 / (half_x * share), spines.gain, 0.2)}
            b.add(
                BOX,
                at,
                ((share - 1) * half_x, y + tall / 2, 0.0),
                (half_x * share, tall / 2, depth * 0.8),
                books,
            )
    b.add(BOX, at, (0, height / 2, -depth), (half_x, height / 2, 0.01), wood)
    b.stands(at, half_x, depth, height)


def sofa(b: Builder, at: Placement) -> None:
    """An upholstered seat with arms and back."""
    half_x, seat, cloth = uniform(b.rng, 0.5, 0.95), uniform(b.rng, 0.18, 0.24), b.material("cloth", (0.5, 1.2))
    b.add(BOX, at, (0, seat, 0), (half_x, seat, 0.4), cloth)
    b.add(BOX, at, (0, 2 * seat + 0.2, -0.3), (half_x, 0.25, 0.1), cloth)
    for x in (-1, 1):
        b.add(BOX, at, (x * half_x, seat + 0.12, 0), (0.1, seat + 0.12, 0.4), cloth)
    cushion = b.material("object", (1.0, 2.0))
    b.add(
        BOX,
        at,
        (0.5 * half_x, 2 * seat + 0.17, -0.1),
        (0.18, 0.18, 0.06),
        cushion,
        _about_z(uniform(b.rng, -0.4, 0.4)),
    )
    b.stands(at, half_x + 0.1, 0.4, 0.8)


def cabinet(b: Builder, at: Placement) -> None:
    """A closed cupboard with doors and an object on top."""
    half_x, half_z, height = uniform(b.rng, 0.3, 0.7), uniform(b.rng, 0.2, 0.3), uniform(b.rng, 0.6, 1.7)
    body, door = b.material(choose(b.rng, "wood", "object")), b.material("wood")
    b.add(BOX, at, (0, height / 2, 0), (half_x, height / 2, half_z), body)
    for x in (-1, 1):
        b.add(BOX, at, (x * half_x / 2, height / 2, half_z), (half_x / 2 - 0.02, height / 2 - 0.05, 0.02), door)
    trinket(b, Placement(at.x, at.z, at.yaw, height), 0.2)
    b.stands(at, half_x, half_z, height)


def lamp(b: Builder, at: Placement) -> None:
    """A standing lamp: base, thin pole, glowing shade."""
    height, pole = uniform(b.rng, 1.2, 1.8), _shiny(b, "wood")
    b.add(CYLINDER, at, (0, 0.02, 0), (0.15, 0.02, 0.15), pole)
    b.add(CYLINDER, at, (0, height / 2, 0), (0.02, height / 2, 0.02), pole)
    shade = b.material("cloth", emission=uniform(b.rng, 0.5, 1.5))
    radius = uniform(b.rng, 0.14, 0.24)
    kind = SPHERE if b.rng.uniform() < 0.4 else CYLINDER
    b.add(kind, at, (0, height, 0), (radius, radius * 0.8, radius), shade)
    b.stands(at, 0.15, 0.15, height)


def plant(b: Builder, at: Placement) -> None:
    """A pot with a bush."""
    pot, radius = uniform(b.rng, 0.25, 0.5), uniform(b.rng, 0.15, 0.25)
    leaves = b.material("foliage", (0.8, 1.6))
    b.add(CYLINDER, at, (0, pot / 2, 0), (radius, pot / 2, radius), _shiny(b))
    for _ in range(int(b.rng.integers(1, 4))):
        size = b.rng.uniform(0.15, 0.32, 3)
        local = uniform(b.rng, -0.12, 0.12), pot + uniform(b.rng, 0.1, 0.45), uniform(b.rng, -0.12, 0.12)
        b.add(SPHERE, at, local, _triple(size), leaves)
    b.stands(at, radius, radius, pot + 0.5)


def crates(b: Builder, at: Placement) -> None:
    """One to three stacked boxes, each slightly rotated."""
    y, yaw = 0.0, at.yaw
    half = b.rng.uniform(0.22, 0.4, 3)
    first = half.copy()
    for _ in range(int(b.rng.integers(1, 4))):
        frame = Placement(at.x, at.z, yaw, at.y)
        b.add(BOX, frame, (0, y + half[1], 0), _triple(half), b.material("object", (0.6, 1.6)))
        y, yaw, half = y + 2 * half[1], yaw + uniform(b.rng, -0.5, 0.5), half * b.rng.uniform(0.6, 0.95, 3)
    b.stands(at, float(first[0]), float(first[2]), y)


def plinth(b: Builder, at: Placement) -> None:
    """A pedestal with a ball, egg or drum on it."""
    half, height = uniform(b.rng, 0.18, 0.32), uniform(b.rng, 0.4, 1.1)
    b.add(choose_kind(b, BOX, CYLINDER), at, (0, height / 2, 0), (half, height / 2, half), b.material("object"))
    b.add(BOX, at, (0, height + 0.02, 0), (half * 1.15, 0.025, half * 1.15), b.material("object"))
    size = uniform(b.rng, 0.18, 0.38)
    tall = size * uniform(b.rng, 0.8, 1.5)
    b.add(
        choose_kind(b, SPHERE, SPHERE, CYLINDER),
        at,
        (0, height + 0.045 + tall, 0),
        (size, tall, size),
        _shiny(b),
    )
    b.stands(at, half, half, height + tall)


def ball(b: Builder, at: Placement) -> None:
    """A ball on the floor."""
    radius = uniform(b.rng, 0.2, 0.5)
    b.add(SPHERE, at, (0, radius, 0), (radius, radius, radius), _shiny(b))
    b.stands(at, 0.2 * radius, 0.2 * radius, radius)


def drum(b: Builder, at: Placement) -> None:
    """A barrel or a stool."""
    radius, height = uniform(b.rng, 0.2, 0.38), uniform(b.rng, 0.4, 1.0)
    b.add(CYLINDER, at, (0, height / 2, 0), (radius, height / 2, radius), _shiny(b))
    b.stands(at, radius * 0.9, radius * 0.9, height)


def frame(b: Builder, at: Placement) -> None:
    """An empty standing frame of thin bars."""
    half_x, height, bar = uniform(b.rng, 0.35, 0.7), uniform(b.rng, 1.0, 1.8), uniform(b.rng, 0.015, 0.04)
    material = b.material(choose(b.rng, "wood", "object"), (0.8, 1.6))
    for x in (-1, 1):
        b.add(BOX, at, (x * half_x, height / 2, 0), (bar, height / 2, bar), material)
        b.add(BOX, at, (x * half_x, 0.02, 0), (bar, 0.02, 0.2), material)
    for y in (0.4, height - bar):
        b.add(BOX, at, (0, y, 0), (half_x, bar, bar), material)
    b.stands(at, half_x, 0.1, height)


def poles(b: Builder, at: Placement) -> None:
    """A few leaning thin rods in a row."""
    material = _shiny(b, "object")
    count, gap = int(b.rng.integers(2, 5)), uniform(b.rng, 0.15, 0.3)
    height, radius = uniform(b.rng, 0.8, 2.0), uniform(b.rng, 0.012, 0.035)
    for index in range(count):
        x = (index - (count - 1) / 2) * gap
        lean = _about_z(uniform(b.rng, -0.1, 0.1))
        b.add(CYLINDER, at, (x, height / 2, 0), (radius, height / 2, radius), material, lean)
    b.stands(at, gap * count / 2, 0.05, height)


def board(b: Builder, at: Placement) -> None:
    """A standing picture board on two legs."""
    half_x, half_y = uniform(b.rng, 0.35, 0.7), uniform(b.rng, 0.3, 0.6)
    wood = b.material("wood")
    front, back = b.material("picture", (0, 0)), b.material("picture", (0, 0))
    y = 0.35 + half_y
    b.add(BOX, at, (0, y, 0), (half_x, half_y, _THIN), {-1: wood, 5: front, 4: back})
    for x in (-1, 1):
        b.add(BOX, at, (x * half_x, (y + half_y) / 2, 0), (0.025, (y + half_y) / 2, 0.035), wood)
    b.stands(at, half_x, 0.05, 2 * y)


def column(b: Builder, at: Placement, height: float = 2.2) -> None:
    """A pillar with base and capital."""
    radius, stone = uniform(b.rng, 0.12, 0.25), b.material("object", (0.4, 1.0))
    b.add(BOX, at, (0, 0.06, 0), (radius * 1.3, 0.06, radius * 1.3), stone)
    b.add(choose_kind(b, BOX, CYLINDER), at, (0, height / 2, 0), (radius, height / 2, radius), stone)
    b.add(BOX, at, (0, height - 0.05, 0), (radius * 1.3, 0.05, radius * 1.3), stone)
    b.stands(at, radius * 1.3, radius * 1.3, 1.5)


def trinket(b: Builder, at: Placement, size: float) -> None:
    """A small object that stands on another one: ball, box, vase or upright picture."""
    half, material = size * uniform(b.rng, 0.35, 0.7), _shiny(b)
    kind = int(b.rng.integers(4))
    if kind == 0:
        b.add(SPHERE, at, (0, half, 0), (half, half, half), material)
    elif kind == 1:
        b.add(BOX, at, (0, half * 0.6, 0), (half, half * 0.6, half * 0.8), material)
    elif kind == 2:
        b.add(CYLINDER, at, (0, half * 1.2, 0), (half * 0.6, half * 1.2, half * 0.6), material)
    else:
        picture = b.material("picture", (0, 0))
        b.add(BOX, at, (0, half * 1.2, 0), (half, half * 1.2, 0.015), {-1: material, 5: picture, 4: picture})


def tree(b: Builder, at: Placement) -> None:
    """A trunk with a crown of balls."""
    height, leaves = uniform(b.rng, 1.4, 2.6), b.material("foliage", (0.3, 0.7))
    b.add(CYLINDER, at, (0, height / 2, 0), (0.1, height / 2, 0.1), b.material("wood"))
    for _ in range(int(b.rng.integers(2, 5))):
        size = b.rng.uniform(0.45, 0.9, 3)
        local = uniform(b.rng, -0.4, 0.4), height + uniform(b.rng, 0.0, 0.8), uniform(b.rng, -0.4, 0.4)
        b.add(SPHERE, at, local, _triple(size), leaves)
    b.stands(at, 0.12, 0.12, height)


def bench(b: Builder, at: Placement) -> None:
    """A bench of slats on two stone feet."""
    wood, stone = b.material("wood"), b.material("object")
    for z in (-0.16, 0.0, 0.16):
        b.add(BOX, at, (0, 0.45, z), (0.8, 0.02, 0.06), wood)
    b.add(BOX, at, (0, 0.75, -0.24), (0.8, 0.12, 0.02), wood)
    for x in (-0.6, 0.6):
        b.add(BOX, at, (x, 0.215, 0), (0.06, 0.215, 0.2), stone)
    b.stands(at, 0.7, 0.2, 0.8)


def arch(b: Builder, at: Placement) -> None:
    """A gate: two posts and a lintel."""
    half_x, height, post = uniform(b.rng, 0.6, 1.1), uniform(b.rng, 1.9, 2.8), uniform(b.rng, 0.1, 0.25)
    stone = b.material(choose(b.rng, "object", "wall"), (0.3, 0.7))
    for x in (-1, 1):
        b.add(BOX, at, (x * half_x, height / 2, 0), (post, height / 2, post), stone)
    b.add(BOX, at, (0, height + post, 0), (half_x + post * 1.5, post, post * 1.2), stone)
    b.stands(at, half_x + post, post, height)


def street_lamp(b: Builder, at: Placement) -> None:
    """A tall thin pole with a globe."""
    height, pole = uniform(b.rng, 2.2, 3.5), _shiny(b, "wood")
    b.add(CYLINDER, at, (0, height / 2, 0), (0.04, height / 2, 0.04), pole)
    b.add(CYLINDER, at, (0, 0.15, 0), (0.1, 0.15, 0.1), pole)
    b.add(SPHERE, at, (0, height + 0.15, 0), (0.18, 0.18, 0.18), b.material("ceiling", emission=0.8))
    b.stands(at, 0.1, 0.1, 1.6)


def choose_kind(b: Builder, *kinds: ShapeKind) -> ShapeKind:
    """One of these shapes, all equally likely."""
    return kinds[int(b.rng.integers(len(kinds)))]


Maker = Callable[[Builder, Placement], None]
FOOTPRINT: dict[Maker, float] = {
    table: 0.9, round_table: 0.6, chair: 0.4, shelf: 0.7, sofa: 1.0, cabinet: 0.7, lamp: 0.25, plant: 0.45,
    crates: 0.55, plinth: 0.4, ball: 0.5, drum: 0.4, frame: 0.7, poles: 0.6, board: 0.7, column: 0.35, tree: 1.0,
    bench: 0.85, arch: 1.3, street_lamp: 0.2,
}  # fmt: skip
BY_WALL: tuple[Maker, ...] = (shelf, cabinet, sofa)
IN_ROOM: tuple[Maker, ...] = (
    table,
    round_table,
    chair,
    chair,
    lamp,
    plant,
    crates,
    plinth,
    ball,
    drum,
    frame,
    poles,
    board,
)
IN_CORRIDOR: tuple[Maker, ...] = (chair, lamp, plant, crates, plinth, drum, poles, ball)
OUTDOORS: tuple[Maker, ...] = (
    tree,
    tree,
    bench,
    arch,
    street_lamp,
    plinth,
    column,
    crates,
    board,
    ball,
    drum,
    poles,
    plant,
)
