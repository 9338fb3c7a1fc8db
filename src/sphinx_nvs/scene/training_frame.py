"""nerfstudio's training frame: the coordinates that its viewer shows, and saves camera paths in.

nerfstudio turns, centres and scales cameras before it trains, x' = s (R x + t), and writes R, t and s to
`dataparser_transforms.json`. A camera path says nothing of its coordinates, so the evidence decides:

    the file is named                  training
    it lies beside path or scene       training, if the cameras then see the scene; else the scene's own coordinates,
                                       if a camera of the path is one of the scene's there; else refused
    there is none                      the scene's own, unless a camera of the path is one of the scene's in the frame
                                       that nerfstudio makes by default, or none sees the scene: refused

Shapes: V cameras.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from sphinx_nvs.errors import InputError
from sphinx_nvs.geometry import se3
from sphinx_nvs.geometry.cameras import Cameras
from sphinx_nvs.scene.belonging import seeing
from sphinx_nvs.scene.jsonfile import matrix, number, read_json
from sphinx_nvs.scene.transforms import flip_yz
from sphinx_nvs.scene.world_frame import World

NAME = "dataparser_transforms.json"
_SAME = 2e-3
_OWN = "the scene's own coordinates"


@dataclass(frozen=True, kw_only=True)
class Dataparser:
    """The content of a dataparser_transforms.json.

    Args:
        rows: R and t, three rows of four numbers.
        scale: s.
        source: the file, for sentences.
    """

    rows: tuple[tuple[float, ...], ...]
    scale: float
    source: str

    def world(self, origin: tuple[float, float, float]) -> World:
        """The training frame as coordinates of a scene with this origin."""
        return World(transform=self.rows, scale=self.scale, origin=origin)


def dataparser_in(value: Any, path: Path) -> Dataparser:
    """The content of such a file.

    Raises:
        InputError: it has no `transform` or `scale`, or they cannot be.
    """
    where = f"file {path}"
    if not isinstance(value, dict):
        raise InputError(where, f"it holds a {type(value).__name__}, not an object", "give transform and scale")
    rows = matrix(value.get("transform"), where, "transform")[:3].tolist()
    scale = number(value, "scale", where)
    dataparser = Dataparser(rows=tuple(tuple(row) for row in rows), scale=scale, source=path.name)
    try:
        dataparser.world((0.0, 0.0, 0.0))
    except InputError as error:
        raise InputError(where, f"transform and scale cannot be used: {error.found}", error.hint) from None
    return dataparser


def read_dataparser(path: Path) -> Dataparser:
    """Reads the file.

    Raises:
        InputError: see `dataparser_in`.
    """
    return dataparser_in(read_json(path), path)


def dataparser_beside(*folders: Path) -> Dataparser | None:
    """The file in the first of some folders that has one; None if none has."""
    return next((read_dataparser(folder / NAME) for folder in folders if (folder / NAME).is_file()), None)


def choose_world(
    path: Cameras,
    contexts: Cameras,
    everyone: Cameras,
    own: World,
    *,
    named: Dataparser | None,
    found: Dataparser | None,
    where: str,
) -> tuple[World, tuple[str, ...]]:
    """The coordinates that a camera path is in, and what to tell of the choice.

    Args:
        path: the cameras as the file gives them.
        contexts: the scene's cameras, inside coordinates.
        everyone: all cameras of the scene, inside coordinates.
        own: the scene's coordinates.
        named: the training frame that the user names.
        found: the training frame that lies beside the path or the scene.
        where: names the file in errors.

    Raises:
        InputError: the path cannot belong to the scene in any of its coordinates.
    """
    if named is not None:
        if not _belongs(path, named.world(own.origin), contexts):
            raise _foreign(where, f"read with {named.source}, its cameras look away from the scene, or are far from it")
        return named.world(own.origin), (f"the camera path is in nerfstudio's training frame ({named.source})",)
    if found is not None:
        return _with_found(path, contexts, everyone, own, found, where)
    if _is_among(own.inside(path.c2w), everyone):
        return own, ()
    for frame in _default_frames(everyone, own):
        if _is_among(frame.inside(path.c2w), everyone):
            raise _foreign(where, f"it is in nerfstudio's training frame, not in {_OWN}")
    if not _belongs(path, own, contexts):
        raise _foreign(where, f"in {_OWN} its cameras look away from the scene, or are far from it")
    return own, (f"the camera path is read in {_OWN}: no {NAME} says that it is in a training frame",)


def _with_found(
    path: Cameras, contexts: Cameras, everyone: Cameras, own: World, found: Dataparser, where: str
) -> tuple[World, tuple[str, ...]]:
    """The choice where a training frame lies beside."""
    training = found.world(own.origin)
    is_own = _is_among(own.inside(path.c2w), everyone)
    if _belongs(path, training, contexts) and (not is_own or _is_among(training.inside(path.c2w), everyone)):
        return training, (f"the camera path is in nerfstudio's training frame ({found.source})",)
    if is_own:
        return own, (f"the camera path is in {_OWN}: with {found.source} it would not show the scene",)
    raise _foreign(
        where, f"read with the {found.source} found, its cameras look away from the scene, or are far from it"
    )


def _foreign(where: str, found: str) -> InputError:
    hint = f"name the {NAME} of the run that the path was made with: --dataparser FILE"
    return InputError(where, found, hint)


def _belongs(path: Cameras, world: World, contexts: Cameras) -> bool:
    """Whether most cameras of the path see the scene."""
    moved = Cameras(world.inside(path.c2w), path.K, path.height, path.width)
    return bool(seeing(moved, contexts).double().mean() > 0.5)


def _is_among(c2w: Float[Tensor, "V 4 4"], everyone: Cameras) -> bool:
    """Whether one of the poses is a camera of the scene."""
    extent = float(torch.cdist(everyone.centres, everyone.centres).max()) or 1.0
    distance = torch.cdist(c2w[:, :3, 3], everyone.centres, compute_mode="donot_use_mm_for_euclid_dist") / extent
    angle = se3.rotation_angle(c2w[:, None], everyone.c2w[None])
    return bool(((distance < _SAME) & (angle < _SAME)).any())


def _default_frames(everyone: Cameras, own: World) -> Iterator[World]:
    """The frames that nerfstudio makes of a scene's cameras: as they are or upright, centred, in a unit box."""
    poses = flip_yz(own.outside(everyone.c2w))
    middle = poses[:, :3, 3].mean(dim=0)
    for R in (torch.eye(3, dtype=torch.float64), _upright(poses[:, :3, 1].mean(dim=0))):
        moved = (poses[:, :3, 3] - middle) @ R.T
        largest = float(moved.abs().max())
        if largest > 0:
            transform = torch.cat([R, -(R @ middle)[:, None]], dim=1)
            yield _composed(World(transform=_rows(transform), scale=1 / largest), own)


def _upright(up: Float[Tensor, "3"]) -> Float[Tensor, "3 3"]:
    """The smallest rotation that takes `up` to +z."""
    up = up / up.norm().clamp_min(1e-12)
    wanted = torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64)
    axis = torch.linalg.cross(up, wanted)
    if float(axis.norm()) < 1e-9:
        axis = torch.tensor([1.0, 0.0, 0.0], dtype=torch.float64)
    return se3.rotation_about(axis, torch.atan2(torch.linalg.cross(up, wanted).norm(), up @ wanted))


def _composed(frame: World, own: World) -> World:
    """The frame, made of the file's coordinates, as one made of those inside."""
    inner = torch.eye(4, dtype=torch.float64)
    inner[:3] = torch.tensor(own.transform, dtype=torch.float64) if own.transform else inner[:3]
    inner[:3] *= own.scale
    outer = torch.eye(4, dtype=torch.float64)
    outer[:3] = torch.tensor(frame.transform, dtype=torch.float64)
    return World(transform=_rows((outer @ inner)[:3]), scale=frame.scale, origin=own.origin)


def _rows(matrix3x4: Float[Tensor, "3 4"]) -> tuple[tuple[float, ...], ...]:
    return tuple(tuple(row) for row in matrix3x4.tolist())
