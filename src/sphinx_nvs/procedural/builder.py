"""Collects shapes and materials while a world is laid out, then converts them to tensors.

Local frame of a placement: y up, yaw turns x towards -z; lengths in world units.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch

from sphinx_nvs.procedural.ray_casting import Primitives, ShapeKind
from sphinx_nvs.procedural.scene_tensors import Faces
from sphinx_nvs.procedural.seeds import Number, uniform
from sphinx_nvs.procedural.texture_library import MOST_VARIANTS, VARIANTS, tile

Triple = tuple[Number, Number, Number]


@dataclass(frozen=True)
class Material:
    """Appearance of a surface.

    Args:
        layer: texture in the builder's stack.
        density: tiles per world unit; 0 shows the tile once per face.
        gain: colour factor, linear.
        detail: strength of grain.
        gloss: strength of the highlight.
        emission: emitted light.
    """

    layer: int
    density: Number = 0.6
    gain: Triple = (1.0, 1.0, 1.0)
    detail: Number = 0.3
    gloss: Number = 0.0
    emission: Number = 0.0


@dataclass(frozen=True)
class Placement:
    """A local frame on the floor."""

    x: Number = 0.0
    z: Number = 0.0
    yaw: Number = 0.0
    y: Number = 0.0

    @property
    def rotation(self) -> np.ndarray:
        """World from local axes (3, 3)."""
        c, s = np.cos(self.yaw), np.sin(self.yaw)
        return np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]])

    def point(self, local: Triple) -> np.ndarray:
        """World position (3,) of a local position."""
        return self.rotation @ np.array(local) + np.array([self.x, self.y, self.z])

    def moved(self, local: Triple) -> Placement:
        """The frame with the same yaw whose origin is at a local position."""
        x, y, z = self.point(local)
        return Placement(float(x), float(z), self.yaw, float(y))


FaceMaterials = Material | dict[int, Material]


@dataclass
class Builder:
    """Builds a world one shape at a time."""

    split: str
    rng: np.random.Generator
    _layers: dict[tuple[str, int], int] = field(default_factory=dict)
    _kinds: list[int] = field(default_factory=list)
    _centres: list[np.ndarray] = field(default_factory=list)
    _rotations: list[np.ndarray] = field(default_factory=list)
    _halves: list[np.ndarray] = field(default_factory=list)
    _faces: list[list[Number]] = field(default_factory=list)
    contacts: list[list[Number]] = field(default_factory=list)
    subjects: list[np.ndarray] = field(default_factory=list)

    def __post_init__(self) -> None:
        # First, so that layer 0 is the grain in every world.
        self.layer("grain")

    def __len__(self) -> int:
        return len(self._kinds)

    def layer(self, role: str) -> int:
        """Index of a random texture of this role in the stack; adds the texture."""
        key = role, int(self.rng.integers(VARIANTS.get(role, MOST_VARIANTS)))
        return self._layers.setdefault(key, len(self._layers))

    def material(
        self, role: str, density: tuple[Number, Number] = (0.4, 1.0), gloss: Number = 0.0, emission: Number = 0.0
    ) -> Material:
        """A random material: texture, scale, slight tint and brightness."""
        rng = self.rng
        gain = uniform(rng, 0.65, 1.3) * rng.uniform(0.8, 1.2, 3)
        tint = float(gain[0]), float(gain[1]), float(gain[2])
        return Material(
            self.layer(role),
            uniform(rng, *density),
            tint,
            uniform(rng, 0.1, 0.6),
            gloss,
            emission,
        )

    def add(
        self,
        kind: ShapeKind,
        at: Placement,
        local: Triple,
        half: Triple,
        material: FaceMaterials,
        tilt: np.ndarray | None = None,
    ) -> None:
        """Adds a shape.

        Args:
            kind: which unit shape.
            at: the frame.
            local: the shape's centre in the frame.
            half: half extents.
            material: one for all faces, or by face: {2 axis + (1 on the positive side): material, -1: for the others}.
            tilt: extra rotation (3, 3) within the frame.
        """
        self._kinds.append(int(kind))
        self._centres.append(at.point(local))
        self._rotations.append(at.rotation if tilt is None else at.rotation @ tilt)
        self._halves.append(np.array(half))
        offset = self.rng.uniform(0, 1, (6, 2))
        for face in range(6):
            chosen = material if isinstance(material, Material) else material.get(face, material[-1])
            self._faces.append(_face_row(kind, half, face, chosen, offset[face]))

    def stands(self, at: Placement, half_x: Number, half_z: Number, height: Number) -> None:
        """Records a footprint on the floor for contact shading, and a subject of that height for cameras."""
        self.contacts.append([at.x, at.z, np.cos(at.yaw), np.sin(at.yaw), half_x, half_z])
        self.subjects.append(np.array([at.x, at.y + 0.6 * height, at.z]))

    def primitives(self) -> Primitives:
        """All shapes added so far, as tensors."""
        stack = [torch.from_numpy(np.stack(a)).float() for a in (self._centres, self._rotations, self._halves)]
        return Primitives(torch.tensor(self._kinds, dtype=torch.int32), *stack)

    def faces(self) -> Faces:
        """All materials added so far, as tensors."""
        table = torch.tensor(self._faces, dtype=torch.float32)
        layer, scale, offset, gain, rest = table.split([1, 2, 2, 3, 3], 1)
        return Faces(layer[:, 0].int(), scale, offset, gain, *rest.unbind(1))

    @property
    def tiles(self) -> tuple[tuple[str, int], ...]:
        """Role and variant of every texture added so far."""
        return tuple(self._layers)

    def textures(self) -> torch.Tensor:
        """All textures added so far, stacked."""
        return torch.from_numpy(np.stack([tile(self.split, role, variant) for role, variant in self._layers]))


def _face_row(kind: ShapeKind, half: Triple, face: int, material: Material, offset: np.ndarray) -> list[Number]:
    """One row of `Faces`: layer, scale (2), offset (2), gain (3), detail, gloss, emission."""
    across, down = ((2, 1), (0, 2), (0, 1))[face // 2]
    lengths = np.array([half[across], half[down]])
    if kind == ShapeKind.SPHERE:
        lengths = np.array([np.pi * half[0], np.pi / 2 * half[1]])
    elif kind == ShapeKind.CYLINDER and face < 2:
        lengths = np.array([np.pi * half[0], half[1]])
    elif kind == ShapeKind.DOME:
        lengths = np.ones(2)
    scale = lengths * material.density
    # A whole number of tiles around the shape, so that the texture has no seam.
    if kind in (ShapeKind.SPHERE, ShapeKind.CYLINDER) and face < 2:
        scale[0] = max(round(2 * scale[0]), 1) / 2
    if material.density == 0:
        scale, offset = np.array([0.499, 0.499]), np.array([0.5, 0.5])
    # Textures have their first row at the top, and y points up.
    if down == 1:
        scale = scale * [1, -1]
    # Seen from outside, the first axis runs from right to left on these two faces.
    if face in (1, 4):
        scale = scale * [-1, 1]
    return [
        material.layer,
        *scale,
        *offset,
        *material.gain,
        material.detail,
        material.gloss,
        material.emission,
    ]
