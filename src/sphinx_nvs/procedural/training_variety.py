"""Additional kinds of places, light and air for training and validation only.

The test split is a fixed reference; a training set with more variety than the reference makes the models generalise to
photos. Half of the mixed worlds of `train` and `val` come from here:

- *hall*: rows of columns, a flight of stairs, a gallery: repetition, thin parts, long sight lines;
- *street*: two rows of fronts, parked vehicles, a fence, a hedge: long perspective, many occlusions;
- *jumble*: boxes, balls and rods at any angle in a room: disocclusion without a prior that objects stand upright.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from sphinx_nvs.procedural.builder import Builder, Material, Placement
from sphinx_nvs.procedural.ray_casting import ShapeKind
from sphinx_nvs.procedural.scene_tensors import Air, Light
from sphinx_nvs.procedural.seeds import uniform

BOX, SPHERE, CYLINDER = ShapeKind.BOX, ShapeKind.SPHERE, ShapeKind.CYLINDER


def random_rotation(rng: np.random.Generator, most: float = np.pi) -> np.ndarray:
    """A random rotation (3, 3) by at most `most` radians about a random axis (Rodrigues' formula)."""
    axis = rng.standard_normal(3)
    x, y, z = axis / np.linalg.norm(axis)
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    angle = uniform(rng, -most, most)
    return np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross


def stairs(b: Builder, at: Placement, num_steps: int) -> None:
    """A straight flight with a handrail; rises along z."""
    half_x, rise, run = uniform(b.rng, 0.4, 0.8), uniform(b.rng, 0.12, 0.2), uniform(b.rng, 0.22, 0.32)
    stone, rail = b.material("floor", (0.4, 0.9)), b.material("wood", gloss=0.3)
    for step in range(num_steps):
        height = (step + 1) * rise
        b.add(BOX, at, (0, height / 2, step * run), (half_x, height / 2, run / 2), stone)
    length, angle = float(np.hypot(num_steps * run, num_steps * rise)) / 2, -np.arctan2(rise, run)
    c, s = np.cos(angle), np.sin(angle)
    slope = np.array([[1, 0, 0], [0, c, -s], [0, s, c]])
    middle = (half_x, 0.9 + num_steps * rise / 2, (num_steps - 1) * run / 2)
    b.add(BOX, at, middle, (0.025, 0.025, length), rail, slope)
    for step in (0, num_steps - 1):
        foot = (step + 1) * rise
        b.add(CYLINDER, at, (half_x, foot + 0.45, step * run), (0.018, 0.45, 0.018), rail)
    b.stands(at, half_x, num_steps * run / 2, num_steps * rise)


def fence(b: Builder, at: Placement, length: float) -> None:
    """Thin posts under two rails, along x."""
    wood, height = b.material("wood"), uniform(b.rng, 0.7, 1.2)
    for x in np.linspace(-length / 2, length / 2, int(b.rng.integers(4, 8))):
        b.add(BOX, at, (float(x), height / 2, 0), (0.03, height / 2, 0.03), wood)
    for y in (0.45 * height, 0.9 * height):
        b.add(BOX, at, (0, y, 0), (length / 2, 0.025, 0.02), wood)
    b.stands(at, length / 2, 0.05, height)


def hedge(b: Builder, at: Placement, length: float) -> None:
    """A clipped bush along x."""
    height = uniform(b.rng, 0.5, 1.2)
    b.add(BOX, at, (0, height / 2, 0), (length / 2, height / 2, 0.25), b.material("foliage", (0.5, 1.2)))
    b.stands(at, length / 2, 0.25, height)


def vehicle(b: Builder, at: Placement) -> None:
    """A box on four wheels with a glossy body and a cabin; along x."""
    half_x, half_z, body = (
        uniform(b.rng, 0.8, 1.3),
        uniform(b.rng, 0.35, 0.5),
        b.material("object", gloss=uniform(b.rng, 0.3, 0.9)),
    )
    glass = b.material("sky", (0, 0), gloss=0.8)
    b.add(BOX, at, (0, 0.42, 0), (half_x, 0.2, half_z), body)
    b.add(BOX, at, (uniform(b.rng, -0.2, 0.2), 0.78, 0), (0.55 * half_x, 0.18, 0.9 * half_z), {-1: glass, 3: body})
    wheel, tyre = uniform(b.rng, 0.18, 0.26), b.material("object", gloss=0.1)
    lying = np.array([[1.0, 0, 0], [0, 0, -1], [0, 1, 0]])
    for x in (-0.62, 0.62):
        b.add(CYLINDER, at, (x * half_x, wheel, 0), (wheel, half_z + 0.03, wheel), tyre, lying)
    b.stands(at, half_x, half_z, 0.95)


def debris(b: Builder, at: Placement) -> None:
    """One shape of any kind, size and orientation, resting near the floor or floating."""
    kind = (BOX, BOX, SPHERE, CYLINDER)[int(b.rng.integers(4))]
    half = b.rng.uniform(0.05, 0.5, 3) * uniform(b.rng, 0.5, 1.2)
    if b.rng.uniform() < 0.3:
        half[int(b.rng.integers(3))] = uniform(b.rng, 0.015, 0.04)
    if kind == CYLINDER:
        half[2] = half[0]
    material = b.material(
        "picture" if kind == BOX and b.rng.uniform() < 0.35 else "object", gloss=uniform(b.rng, 0, 0.8)
    )
    if b.rng.uniform() < 0.06:
        material = replace(material, emission=uniform(b.rng, 0.3, 1.0))
    height = float(half.max()) + (uniform(b.rng, 0.0, 1.6) if b.rng.uniform() < 0.5 else 0.0)
    tilt = random_rotation(b.rng) if b.rng.uniform() < 0.6 else None
    b.add(kind, at, (0, height, 0), (float(half[0]), float(half[1]), float(half[2])), material, tilt)
    b.subjects.append(at.point((0, height, 0)))


def colonnade(b: Builder, size: np.ndarray) -> None:
    """Two rows of round or square columns with beams over them."""
    stone = b.material("object", (0.3, 0.9))
    kind, radius, height = (BOX, CYLINDER)[int(b.rng.integers(2))], uniform(b.rng, 0.1, 0.22), float(size[1])
    count = int(b.rng.integers(2, 5))
    aside = float(size[0]) * uniform(b.rng, 0.45, 0.7)
    for side in (-1, 1):
        for z in np.linspace(-0.75, 0.75, count) * size[2]:
            at = Placement(side * aside, float(z))
            b.add(kind, at, (0, height / 2, 0), (radius, height / 2, radius), stone)
            b.stands(at, radius, radius, 1.5)
        b.add(BOX, Placement(x=side * aside), (0, height - 0.15, 0), (radius, 0.15, 0.9 * float(size[2])), stone)


def fronts(b: Builder, size: np.ndarray) -> None:
    """A row of houses along each side of a street (its axis is z), and one that closes it."""
    for side in (-1, 1):
        z = -float(size[2]) * 1.4
        while z < 1.4 * size[2]:
            half = uniform(b.rng, 1.0, 2.2), uniform(b.rng, 1.6, 4.5), uniform(b.rng, 0.8, 1.6)
            at = Placement(
                side * (float(size[0]) + half[2] + uniform(b.rng, 0.05, 0.5)), z + half[0], -side * np.pi / 2
            )
            b.add(BOX, at, (0, half[1], 0), half, {-1: b.material("facade", (0.15, 0.35)), 3: b.material("ceiling")})
            z += 2 * half[0] + (uniform(b.rng, 0.3, 1.5) if b.rng.uniform() < 0.3 else 0.0)
    far = Placement(z=float(size[2]) * 1.6)
    b.add(
        BOX, far, (0, 2.0, 0), (float(size[0]) * 1.5, uniform(b.rng, 1.5, 3.5), 0.5), b.material("facade", (0.15, 0.35))
    )


def sky_over(b: Builder) -> None:
    """A dome and the ground below it."""
    sky = Material(b.layer("sky"), uniform(b.rng, 0.1, 0.25), detail=0.0, emission=uniform(b.rng, 0.3, 1.1))
    b.add(ShapeKind.DOME, Placement(y=-1.0), (0, 0, 0), (60.0, 60.0, 60.0), sky)
    b.add(BOX, Placement(), (0, -0.5, 0), (70.0, 0.5, 70.0), b.material("ground", (0.3, 0.8)))


def relit(rng: np.random.Generator, light: Light, outdoors: bool) -> Light:
    """The same lamps with another mood: dusk, coloured lamps, hard light from one side, or unchanged."""
    mood = int(rng.integers(5))
    if mood == 0:
        dim = uniform(rng, 0.25, 0.6)
        return replace(light, above=light.above * dim, below=light.below * dim)
    if mood == 1:
        tint = torch.from_numpy(rng.uniform(0.45, 1.15, (len(light.colour), 3))).float()
        return replace(light, colour=light.colour * tint * uniform(rng, 1.0, 1.6))
    if mood == 2:
        scale = torch.ones(len(light.colour), 1)
        scale[0] = uniform(rng, 1.2, 2.0)
        return replace(light, colour=light.colour * scale, above=light.above * 0.7, below=light.below * 0.5)
    if mood == 3 and outdoors:
        # An overcast day: shadows are negligible.
        return replace(light, colour=light.colour * 0.2, above=light.above * 1.8, below=light.below * 1.4)
    return light


def varied_air(rng: np.random.Generator, air: Air, outdoors: bool) -> Air:
    """Adds haze or dust in some places; varies exposure and white balance more."""
    response = (
        air.response * float(2 ** uniform(rng, -0.6, 0.5)) * torch.from_numpy(2 ** rng.uniform(-0.2, 0.2, 3)).float()
    )
    if rng.uniform() > (0.6 if outdoors else 0.25):
        return replace(air, response=response)
    fog = air.fog * uniform(rng, 0.5, 1.1) * torch.from_numpy(rng.uniform(0.85, 1.1, 3)).float()
    density = uniform(rng, 0.01, 0.09 if outdoors else 0.06)
    return replace(air, fog=fog, fog_density=torch.tensor(density), response=response)
