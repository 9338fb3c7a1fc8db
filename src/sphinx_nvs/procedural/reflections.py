"""Planar reflections: flat faces that mirror the scene in front of them, faintly or clearly, like glass or wet floors.

A flat mirror shows the world from behind it: with M the reflection at its plane, the image of the pose M c2w. A ray
keeps
its parameter under M: what that image shows nearer than the mirror is behind it, and is not reflected.

Only training images have them: the test split is a fixed reference.

Shapes: V views, H W pixels.
"""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from sphinx_nvs.geometry.cameras import Cameras
from sphinx_nvs.geometry.projection import unproject
from sphinx_nvs.geometry.rays import rays
from sphinx_nvs.procedural.ray_casting import FAR, Hits, Primitives, ShapeKind, cast
from sphinx_nvs.procedural.world import World

MOST_FACES = 2
LEAST_SEEN = 0.02
"""Least share of all pixels that a polished face covers."""

_FLAT = (ShapeKind.BOX, ShapeKind.ROOM)
_OUT_OF_SIGHT = -1e6
_TOLERANCE = 1e-3


class Face(NamedTuple):
    """A flat face of a shape: local axis, and the side (-1 or 1) of it."""

    primitive: int
    axis: int
    side: int


def polished(
    world: World,
    cameras: Cameras,
    rgb: Float[Tensor, "V 3 H W"],
    depth: Float[Tensor, "V H W"],
    generator: torch.Generator,
) -> Float[Tensor, "V 3 H W"]:
    """The world's images with one or two of their visible flat faces polished; unchanged if there is none.

    Args:
        world: the world in the images.
        cameras: cameras of the images.
        rgb: images from `World.render`.
        depth: z-depth from `World.render`, world units.
        generator: selects the faces and their reflectance.
    """
    faces = _flat_faces(world, cameras)
    for _ in range(1 + int(torch.randint(MOST_FACES, (), generator=generator))):
        if not faces:
            break
        seen = torch.tensor(list(faces.values()), dtype=torch.float32).sqrt()
        face = list(faces)[int(torch.multinomial(seen, 1, generator=generator))]
        del faces[face]
        # Glass and lacquer are far more common than mirrors.
        straight = 0.03 + 0.6 * float(torch.rand((), generator=generator)) ** 2
        rgb = reflecting(world, cameras, rgb, depth, face, straight)
    return rgb


def reflecting(
    world: World,
    cameras: Cameras,
    rgb: Float[Tensor, "V 3 H W"],
    depth: Float[Tensor, "V H W"],
    face: Face,
    straight: float,
) -> Float[Tensor, "V 3 H W"]:
    """The images with one face polished.

    Args:
        world: the world in the images.
        cameras: cameras of the images.
        rgb: images from `World.render`, or from this function for another face.
        depth: z-depth from `World.render`, world units.
        face: the mirror.
        straight: reflectance at normal incidence; at grazing angles it tends to 1 (Schlick 1994).
    """
    shapes = world.stage.primitives
    normal = shapes.rotation[face.primitive, :, face.axis] * face.side
    point = shapes.centre[face.primitive] + normal * shapes.half[face.primitive, face.axis]
    behind = _reflected(cameras, point.double(), normal.double())
    shown, shown_depth = (picture.flip(-1) for picture in _without(world, face.primitive).render(behind))
    on_face = _where(world, cameras, depth, face) & (shown_depth > depth * (1 + _TOLERANCE))
    cosine = (rays(cameras)[1].float() @ normal).abs()
    share = straight + (1 - straight) * (1 - cosine).clamp(0, 1) ** 5
    share = torch.where(on_face, share, 0.0)[:, None]
    # Film is 1 - exp(-response light), images its root (`shading`): light mixes linearly, 1 - film by powers.
    dark, dark_shown = (1 - rgb.square()).clamp(1e-4, 1), (1 - shown.square()).clamp(1e-4, 1)
    mixed = (1 - dark ** (1 - share) * dark_shown**share).clamp(0, 1).sqrt()
    return torch.where(on_face[:, None], mixed, rgb)


def _flat_faces(world: World, cameras: Cameras) -> dict[Face, int]:
    """Flat faces that cover enough pixels, with their number of pixels."""
    hits = _hits(world.stage.primitives, cameras)
    codes, counts = hits.surface.unique(return_counts=True)
    found = {}
    least = LEAST_SEEN * hits.surface.numel()
    for code, count in zip(codes.tolist(), counts.tolist(), strict=True):
        primitive, axis = divmod(code, 4)
        if code < 0 or count < least or int(world.stage.primitives.kind[primitive]) not in _FLAT:
            continue
        for face in (Face(primitive, axis, side) for side in (-1, 1)):
            seen = int(_where(world, cameras, hits.depth, face).sum())
            if seen >= least:
                found[face] = seen
    return found


def _hits(primitives: Primitives, cameras: Cameras) -> Hits:
    """First hits of the rays through pixel centres."""
    u, v = (torch.arange(length, dtype=torch.float32) + 0.5 for length in (cameras.width, cameras.height))
    return cast(primitives, cameras.c2w.float(), torch.linalg.inv(cameras.K).float(), u, v)


def _where(world: World, cameras: Cameras, depth: Tensor, face: Face) -> Bool[Tensor, "V H W"]:
    """Pixels that see this face."""
    shapes, one = world.stage.primitives, slice(face.primitive, face.primitive + 1)
    alone = Primitives(shapes.kind[one], shapes.centre[one], shapes.rotation[one], shapes.half[one])
    hits = _hits(alone, cameras)
    met = (hits.surface == face.axis) & (hits.depth < FAR) & ((hits.depth - depth).abs() <= _TOLERANCE * depth)
    axis = shapes.rotation[face.primitive, :, face.axis]
    along = (unproject(cameras, hits.depth) - shapes.centre[face.primitive]).float() @ axis
    return met & (along * face.side > 0)


def _reflected(cameras: Cameras, point: Float[Tensor, "3"], normal: Float[Tensor, "3"]) -> Cameras:
    """The cameras behind a mirror; their images must be flipped left to right."""
    mirror = torch.eye(4, dtype=torch.float64)
    mirror[:3, :3] -= 2 * normal[:, None] * normal
    mirror[:3, 3] = 2 * (normal @ point) * normal
    # Flipping x in the camera and in the image keeps the pose a rotation.
    flip = torch.diag(torch.tensor([-1.0, 1, 1, 1], dtype=torch.float64))
    K = cameras.K.clone()
    K[:, 0, 2] = cameras.width - K[:, 0, 2]
    return replace(cameras, c2w=mirror @ cameras.c2w @ flip, K=K)


def _without(world: World, primitive: int) -> World:
    """The world seen from behind a mirror: without the mirror's own box, but with the room that a wall belongs to."""
    shapes = world.stage.primitives
    if int(shapes.kind[primitive]) == ShapeKind.ROOM:
        return world
    centre = shapes.centre.clone()
    centre[primitive] = _OUT_OF_SIGHT
    return replace(world, stage=replace(world.stage, primitives=replace(shapes, centre=centre)))
