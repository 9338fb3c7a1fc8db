"""A scene to render, as tensors: shapes, materials, light, air.

Shapes: P primitives, F = 6 P faces, M textures, L lamps, C contacts, S shadow-map side.
"""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Float, Int32
from torch import Tensor

from sphinx_nvs.procedural.ray_casting import Primitives


@dataclass(frozen=True)
class Faces:
    """Materials of the faces: row 6 p + 2 axis + (1 on the positive side) is a face of primitive p.

    Args:
        layer: texture index.
        scale: texture tiles per unit of the unit shape, (across, down).
        offset: offset in tiles.
        gain: colour factor, linear light.
        detail: strength of the grain that breaks repetition.
        gloss: strength of the highlight.
        emission: emitted light, in units of its colour.
    """

    layer: Int32[Tensor, "F"]
    scale: Float[Tensor, "F 2"]
    offset: Float[Tensor, "F 2"]
    gain: Float[Tensor, "F 3"]
    detail: Float[Tensor, "F"]
    gloss: Float[Tensor, "F"]
    emission: Float[Tensor, "F"]


@dataclass(frozen=True)
class Light:
    """Lamps, sun and sky; the first lamp (or the sun) casts shadows.

    Args:
        position: positions of the lamps, world units; a sun is a distant lamp.
        colour: intensity at zero distance, linear.
        reach: distance at which a lamp's intensity is halved; very large for a sun.
        above: ambient light on surfaces that face up.
        below: ambient light on surfaces that face down.
        shadow_depth: z-depth of the first solid surface seen from lamp 0, a square image.
        shadow_w2c: pose of that image's camera.
        shadow_focal: its focal length, pixels; its axis meets the centre of the image.
    """

    position: Float[Tensor, "L 3"]
    colour: Float[Tensor, "L 3"]
    reach: Float[Tensor, "L"]
    above: Float[Tensor, "3"]
    below: Float[Tensor, "3"]
    shadow_depth: Float[Tensor, "S S"]
    shadow_w2c: Float[Tensor, "4 4"]
    shadow_focal: Float[Tensor, ""]


@dataclass(frozen=True)
class Air:
    """Fog and the camera's response.

    Args:
        fog: its colour, linear.
        fog_density: share of light lost per world unit.
        response: exposure times white balance, per channel.
    """

    fog: Float[Tensor, "3"]
    fog_density: Float[Tensor, ""]
    response: Float[Tensor, "3"]


@dataclass(frozen=True)
class SceneTensors:
    """All data from which an image is computed; world units are about a metre, y is up.

    Args:
        primitives: shapes; the first encloses the scene.
        faces: six materials per primitive.
        textures: packed mip pyramids (see `texture_library`); layer 0 is grain.
        light: lamps and ambient light.
        air: fog and exposure.
        contacts: footprints (x, z, cos, sin, half x, half z) of objects on the floor.
    """

    primitives: Primitives
    faces: Faces
    textures: Int32[Tensor, "M texels"]
    light: Light
    air: Air
    contacts: Float[Tensor, "C 6"]
