"""Camera files: this package's own JSON, and everything else that can name target views.

Ours is one object with OpenCV camera-to-world matrices and intrinsics in pixels, by the convention of this
package, so that what is written is what is read:

    {"format": "sphinx-nvs cameras", "version": 1, "height": H, "width": W,
     "cameras": [{"name": "0000", "c2w": [[4 numbers] x 4], "K": [[3 numbers] x 3]}, ...]}

A nerfstudio camera path (`ns-render camera-path`) has OpenGL matrices and a vertical angle of view in degrees:

    {"render_height": H, "render_width": W,
     "camera_path": [{"camera_to_world": [16 numbers, by rows], "fov": 50, "aspect": W / H}, ...]}

Shapes: V views.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from sphinx_nvs import media
from sphinx_nvs.errors import InputError
from sphinx_nvs.geometry.cameras import Cameras, check_intrinsics, check_pose
from sphinx_nvs.scene.capture import covering
from sphinx_nvs.scene.intrinsics import intrinsics_matrix
from sphinx_nvs.scene.jsonfile import matrix, number, read_json
from sphinx_nvs.scene.transforms import flip_yz, read_transforms

_FORMAT = "sphinx-nvs cameras"
_VERSION = 1


@dataclass(frozen=True, kw_only=True)
class Targets:
    """Cameras to be rendered, with their names."""

    cameras: Cameras
    names: tuple[str, ...]


def read_targets(path: Path, height: int | None = None, width: int | None = None) -> Targets:
    """Reads target cameras from a file: ours, a nerfstudio camera path, or a transforms.json.

    Args:
        path: a JSON file; its content tells which of the three it is.
        height: bring the cameras to this size (scaled to cover, cut at the centre); None for the file's own.
        width: as `height`; give both or none.

    Raises:
        InputError: the file is missing, is none of the three, has no cameras, or one of them cannot be.
    """
    data = read_json(path)
    if data.get("format") == _FORMAT:
        targets = _ours(data, path)
    elif "camera_path" in data:
        targets = _camera_path(data, path)
    elif "frames" in data:
        targets = _from_transforms(path)
    else:
        raise InputError(
            f"camera file {path}",
            f"it has none of the fields format, camera_path, frames (it has {', '.join(list(data)[:5]) or 'none'})",
            "give cameras.json, a nerfstudio camera path or a transforms.json",
        )
    if height is None or width is None:
        return targets
    return Targets(cameras=covering(targets.cameras, height, width), names=targets.names)


def _listed(data: Mapping[str, Any], key: str, path: Path) -> list[dict[str, Any]]:
    """The non-empty list of objects at `key`."""
    entries = data.get(key)
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise InputError(f"camera file {path}", f"{key} is {json.dumps(entries)[:40]}", "give a list of cameras")
    if not entries:
        raise InputError(f"camera file {path}", f"{key} is []", "give at least one camera")
    return entries


def _size(data: Mapping[str, Any], keys: tuple[str, str], path: Path) -> tuple[int, int]:
    """Height and width in pixels."""
    height, width = (round(number(data, key, f"camera file {path}")) for key in keys)
    if height < 1 or width < 1:
        raise InputError(f"camera file {path}", f"its size is {width}x{height}", "give at least 1x1 pixels")
    return height, width


def _ours(data: Mapping[str, Any], path: Path) -> Targets:
    """Our own format."""
    if data.get("version") != _VERSION:
        found = f"its version is {json.dumps(data.get('version'))}"
        raise InputError(f"camera file {path}", found, f"this release reads version {_VERSION}")
    height, width = _size(data, ("height", "width"), path)
    c2w, K, names = [], [], []
    for index, entry in enumerate(_listed(data, "cameras", path)):
        where = f"camera {index} of {path}"
        c2w.append(matrix(entry.get("c2w"), where, "c2w"))
        K.append(_matrix3(entry.get("K"), where))
        check_pose(c2w[-1], where)
        check_intrinsics(K[-1], where)
        names.append(str(entry.get("name", f"{index:04d}")))
    return Targets(cameras=Cameras(torch.stack(c2w), torch.stack(K), height, width), names=tuple(names))


def _matrix3(value: object, where: str) -> Float[Tensor, "3 3"]:
    try:
        K = torch.tensor(value, dtype=torch.float64)
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(where, "K is not a matrix of numbers", "give 3 rows of 3 numbers, in pixels") from error
    if K.shape != (3, 3):
        raise InputError(where, f"K has shape {tuple(K.shape)}", "give 3 rows of 3 numbers, in pixels")
    return K


def _camera_path(data: Mapping[str, Any], path: Path) -> Targets:
    """A camera path of nerfstudio's viewer."""
    height, width = _size(data, ("render_height", "render_width"), path)
    c2w, K = [], []
    for index, entry in enumerate(_listed(data, "camera_path", path)):
        where = f"camera {index} of {path}"
        c2w.append(flip_yz(matrix(entry.get("camera_to_world"), where, "camera_to_world")))
        check_pose(c2w[-1], where)
        K.append(_vertical_fov_intrinsics(number(entry, "fov", where), height, width, where))
    names = tuple(f"{index:04d}" for index in range(len(c2w)))
    return Targets(cameras=Cameras(torch.stack(c2w), torch.stack(K), height, width), names=names)


def _vertical_fov_intrinsics(degrees: float, height: int, width: int, where: str) -> Float[Tensor, "3 3"]:
    if not 0 < degrees < 180:
        raise InputError(where, f"fov is {degrees:g}", "give an angle between 0 and 180 degrees")
    focal = 0.5 * height / math.tan(math.radians(degrees) / 2)
    return intrinsics_matrix(focal, focal, width / 2, height / 2)


def _from_transforms(path: Path) -> Targets:
    """All cameras of a transforms.json, at the size of its first one; its photos need not be there."""
    capture = read_transforms(path, with_images=False)
    first = capture.views[0]
    cameras = capture.cameras(range(len(capture)), first.height, first.width)
    return Targets(cameras=cameras, names=tuple(Path(view.name).stem for view in capture.views))


def write_cameras(path: Path, cameras: Cameras, names: Sequence[str] | None = None) -> None:
    """Writes cameras in this package's own JSON, or nothing.

    Args:
        path: the JSON file to write.
        cameras: at least one.
        names: one per camera; None numbers them.

    Raises:
        InputError: not one name per camera.
        OutputError: see `media.written_beside`.
    """
    names = [f"{index:04d}" for index in range(len(cameras))] if names is None else names
    if len(names) != len(cameras):
        raise InputError("names", f"{len(names)} for {len(cameras)} cameras", "give one name per camera")
    entries = [
        {"name": name, "c2w": c2w.tolist(), "K": K.tolist()}
        for name, c2w, K in zip(names, cameras.c2w, cameras.K, strict=True)
    ]
    data = {
        "format": _FORMAT,
        "version": _VERSION,
        "height": cameras.height,
        "width": cameras.width,
        "cameras": entries,
    }
    media.write_bytes(path, json.dumps(data, indent=1).encode())
