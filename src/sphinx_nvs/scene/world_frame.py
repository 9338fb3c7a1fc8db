"""The coordinates that a scene's file is written in, and the ones that are used inside.

A file may hold coordinates that a tool has turned, moved and scaled (nerfstudio's `applied_transform` A and
`applied_scale` s), and they may lie far from their origin (UTM). Inside, both are undone:

    x_file = s A (x + origin),   c2w_file = [A R, x_file; 0 1]

A is a similarity or a mirror image of one; what it scales is taken out of rotations. Cameras come in and go out in
the file's coordinates.

Shapes: V cameras.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from sphinx_nvs.errors import InputError

FAR = 100.0
"""Centres further from the origin than this many times their own extent are moved to it."""

_ORIGIN = (0.0, 0.0, 0.0)
_ROWS = ((1.0, 0.0, 0.0, 0.0), (0.0, 1.0, 0.0, 0.0), (0.0, 0.0, 1.0, 0.0))

Rows = tuple[tuple[float, ...], ...]


@dataclass(frozen=True, kw_only=True)
class World:
    """How a scene's coordinates are written in its file; see the module docstring.

    Args:
        transform: A, three rows of four numbers; None where the file has none.
        scale: s.
        origin: origin of the inside's coordinates, in the file's before A and s.

    Raises:
        InputError: A is singular or not finite, or s is not above 0.
    """

    transform: Rows | None = None
    scale: float = 1.0
    origin: tuple[float, float, float] = _ORIGIN

    def __post_init__(self) -> None:
        A = self._linear
        if not torch.isfinite(A).all() or abs(float(torch.linalg.det(A[:3, :3]))) < 1e-9:
            raise InputError("applied_transform", "it is singular or not finite", "remove it or correct it")
        if not 0 < self.scale < float("inf"):
            raise InputError("applied_scale", f"it is {self.scale:g}", "give a number above 0, or remove it")

    def __bool__(self) -> bool:
        """Whether the file's coordinates differ from those inside."""
        return self.transform is not None or self.scale != 1.0 or self.origin != _ORIGIN

    @property
    def _linear(self) -> Float[Tensor, "4 4"]:
        """A as a 4x4 matrix."""
        return torch.tensor([*(self.transform or _ROWS), (0.0, 0.0, 0.0, 1.0)], dtype=torch.float64)

    def inside(self, c2w: Float[Tensor, "*V 4 4"]) -> Float[Tensor, "*V 4 4"]:
        """Poses of the file to poses inside, both camera-to-world with OpenCV axes."""
        if not self:
            return c2w
        at = c2w.clone()
        at[..., :3, 3] /= self.scale
        return _shifted(_moved(torch.linalg.inv(self._linear), at), self.origin, -1)

    def outside(self, c2w: Float[Tensor, "*V 4 4"]) -> Float[Tensor, "*V 4 4"]:
        """Poses inside to poses of the file: the inverse of `inside`."""
        if not self:
            return c2w
        at = _moved(self._linear, _shifted(c2w, self.origin, 1))
        at[..., :3, 3] *= self.scale
        return at

    def point_inside(self, point: Float[Tensor, "3"]) -> Float[Tensor, "3"]:
        """A point of the file to a point inside."""
        pose = torch.eye(4, dtype=torch.float64)
        pose[:3, 3] = point
        return self.inside(pose)[:3, 3]

    def point_outside(self, point: Float[Tensor, "3"]) -> Float[Tensor, "3"]:
        """A point inside to a point of the file."""
        pose = torch.eye(4, dtype=torch.float64)
        pose[:3, 3] = point
        return self.outside(pose)[:3, 3]

    def centred(self, c2w: Float[Tensor, "V 4 4"]) -> World:
        """The same file's coordinates with an origin amid these poses, if they lie `FAR` from the present one.

        Args:
            c2w: poses inside.
        """
        centres = c2w[:, :3, 3]
        middle = centres.mean(dim=0)
        extent = float((centres - middle).norm(dim=-1).max())
        # A lone camera has no extent; single precision resolves coordinates of thousands well enough.
        if float(middle.norm()) <= FAR * (extent or 10.0):
            return self
        # A whole number keeps the shift exact.
        x, y, z = (middle + torch.tensor(self.origin, dtype=torch.float64)).round().tolist()
        return World(transform=self.transform, scale=self.scale, origin=(x, y, z))

    def to_json(self) -> dict[str, Any]:
        """As JSON values; `world_from` reads them."""
        rows = None if self.transform is None else [list(row) for row in self.transform]
        return {"transform": rows, "scale": self.scale, "origin": list(self.origin)}

    def fields(self) -> dict[str, Any]:
        """What a transforms.json in the file's coordinates has to say of them."""
        said: dict[str, Any] = {}
        if self.transform is not None:
            said["applied_transform"] = [list(row) for row in self.transform]
        if self.scale != 1.0:
            said["applied_scale"] = self.scale
        return said


def world_from(values: Mapping[str, Any] | None) -> World:
    """The world that `World.to_json` wrote; None is a world without any of its fields."""
    if values is None:
        return World()
    rows = values["transform"]
    x, y, z = values["origin"]
    transform = None if rows is None else tuple(tuple(float(v) for v in row) for row in rows)
    return World(transform=transform, scale=float(values["scale"]), origin=(x, y, z))


def _moved(A: Float[Tensor, "4 4"], c2w: Float[Tensor, "*V 4 4"]) -> Float[Tensor, "*V 4 4"]:
    """Poses moved by a similarity, whose scale stays out of rotations."""
    scale = float(torch.linalg.det(A[:3, :3]).abs()) ** (1 / 3)
    moved = A @ c2w
    if abs(scale - 1) > 1e-6:
        moved[..., :3, :3] /= scale
    return moved


def _shifted(c2w: Float[Tensor, "*V 4 4"], origin: tuple[float, float, float], sign: int) -> Float[Tensor, "*V 4 4"]:
    shifted = c2w.clone()
    shifted[..., :3, 3] += sign * shifted.new_tensor(origin)
    return shifted
