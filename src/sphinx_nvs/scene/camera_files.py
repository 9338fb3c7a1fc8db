"""Target cameras from files and requests: this package's own JSON, and everything else that can name views.

Ours is one object with OpenCV camera-to-world matrices and intrinsics in pixels, by the convention of this
package, so that what is written is what is read:

    {"format": "sphinx-nvs cameras", "version": 1, "height": H, "width": W,
     "cameras": [{"name": "0000", "c2w": [[4 numbers] x 4], "K": [[3 numbers] x 3]}, ...]}

A nerfstudio camera path (`ns-render camera-path`) has OpenGL matrices and a vertical angle of view in degrees; its
coordinates are those of training unless shown otherwise, see `training_frame`:

    {"render_height": H, "render_width": W,
     "camera_path": [{"camera_to_world": [16 numbers, by rows], "fov": 50, "aspect": W / H}, ...]}

A transforms.json has `frames`, in the coordinates of the scene's own file unless it has an `applied_transform`; what
intrinsics it leaves out are those of the scene's first photo. `ns-export cameras` writes a list of OpenGL matrices
`transform`, in coordinates before any `applied_transform`.

Shapes: V views.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from sphinx_nvs import media
from sphinx_nvs.errors import InputError
from sphinx_nvs.geometry.cameras import Cameras, check_intrinsics, check_pose
from sphinx_nvs.geometry.fov import fov_between_borders
from sphinx_nvs.scene.belonging import check_belonging
from sphinx_nvs.scene.capture import covering
from sphinx_nvs.scene.intrinsics import MOST_PIXELS, intrinsics_matrix
from sphinx_nvs.scene.jsonfile import matrix, number, numbers, read_json_value, shown
from sphinx_nvs.scene.re10k import is_re10k
from sphinx_nvs.scene.textfile import head_of
from sphinx_nvs.scene.training_frame import Dataparser, choose_world, dataparser_beside, dataparser_in
from sphinx_nvs.scene.transforms import flip_yz, object_with_frames, transforms_in
from sphinx_nvs.scene.world_frame import World

_FORMAT = "sphinx-nvs cameras"
_VERSION = 1
_PERSPECTIVE = "perspective"
_NARROWEST_DEG, _WIDEST_DEG = 2.0, 160.0
_INTRINSICS = ("K", "fl_x", "fl_y", "camera_angle_x", "camera_angle_y")


@dataclass(frozen=True, kw_only=True)
class Targets:
    """Cameras to be rendered, with their names, and what was decided on reading, one sentence each."""

    cameras: Cameras
    names: tuple[str, ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class SceneCameras:
    """What target cameras are read for.

    Args:
        contexts: cameras of the photos in use, at the size of the frames.
        everyone: all cameras of the scene, at any size; None for `contexts`.
        world: the coordinates of the scene's file.
        folder: folder of the scene's file, where a dataparser_transforms.json may lie.
        dataparser: nerfstudio's training frame, where it is named.
    """

    contexts: Cameras
    everyone: Cameras | None = None
    world: World = field(default_factory=World)
    folder: Path | None = None
    dataparser: Dataparser | None = None


def read_targets(
    path: Path, height: int | None = None, width: int | None = None, scene: SceneCameras | None = None
) -> Targets:
    """Reads target cameras from a file; its content tells which kind it is, see the module's docstring.

    Args:
        path: a JSON file.
        height: bring the cameras to this size (scaled to cover, cut at the centre); None for the file's own.
        width: as `height`; give both or none.
        scene: that they are for; None reads them by themselves.

    Raises:
        InputError: the file is missing, is of none of the kinds, has no cameras, one of them cannot be, or none of
            them can belong to the scene.
    """
    _check_json(path)
    beside = dataparser_beside(path.parent, path.resolve().parent.parent)
    targets = targets_in(read_json_value(path), path, scene, beside)
    if height is None or width is None:
        return targets
    notes = (*targets.notes, *_cut(targets.cameras, height, width))
    return Targets(cameras=covering(targets.cameras, height, width), names=targets.names, notes=notes)


def _cut(cameras: Cameras, height: int, width: int) -> tuple[str, ...]:
    """What to tell where frames of another aspect show clearly less than the cameras see."""
    how = media.cover((cameras.height, cameras.width), (height, width))
    if height * width >= (1 - _MOST_CUT) * how.height * how.width:
        return ()
    share = 1 - height * width / (how.height * how.width)
    size = f"{cameras.width}x{cameras.height}"
    return (f"target cameras are for {size} and frames are {width}x{height}: {share:.0%} of what they see is cut off",)


def _check_json(path: Path) -> None:
    """Raises InputError, with what a file is, unless it is or claims to be JSON."""
    where = f"camera file {path}"
    if path.is_dir():
        raise InputError(where, "it is a folder", _WANTED)
    if path.suffix.lower() == ".json" or not path.is_file() or head_of(path).lstrip()[:1] in ("{", "["):
        return
    kind = next((said for said, is_kind in _KINDS.items() if is_kind(path)), "it holds no JSON")
    raise InputError(where, kind, _WANTED)


_WANTED = (
    "give a transforms.json, a camera path of nerfstudio or a camera file of this package; "
    "test is the scene's own held-out photos"
)
_COLMAP_PARTS = ("images", "cameras", "points3d", "frames", "rigs")
_KINDS: Mapping[str, Callable[[Path], bool]] = {
    "it is part of a COLMAP model, which is read as a scene and not as target cameras": (
        lambda path: path.stem.lower() in _COLMAP_PARTS and path.suffix.lower() in (".txt", ".bin")
    ),
    "it is a RealEstate10K camera file, which is read as a scene and not as target cameras": (
        lambda path: path.suffix.lower() == ".txt" and is_re10k(path)
    ),
    "it is a photo": lambda path: path.suffix.lower() in media.IMAGE_SUFFIXES,
    "it is a video": lambda path: path.suffix.lower() in media.VIDEO_SUFFIXES,
    "it is an export of another program, which is read as a scene and not as target cameras": (
        lambda path: path.suffix.lower() in (".csv", ".xml", ".out", ".npy")
    ),
    "it is a list of poses without intrinsics": lambda path: _is_trajectory(path),
}
"""What people pass as target cameras, and how it is known."""

_MOST_CUT = 0.1
"""Of a target camera's picture: sizes that are rounded to multiples cut less."""

_TRAJECTORY_COLUMNS = (7, 8, 12, 16)
"""Of a line: TUM's with and without time, KITTI's 3x4 rows, 4x4 rows."""


def _is_trajectory(path: Path) -> bool:
    """Whether lines are poses as TUM RGB-D or KITTI write them."""
    lines = [line.split() for line in head_of(path).splitlines() if line.strip() and not line.startswith("#")]
    if not lines or len(lines[0]) not in _TRAJECTORY_COLUMNS:
        return False
    return all(word.replace(".", "").lstrip("+-").replace("e", "").replace("-", "").isdecimal() for word in lines[0])


def targets_in(
    value: Any, path: Path, scene: SceneCameras | None = None, dataparser: Dataparser | None = None
) -> Targets:
    """The target cameras that the content of such a file names; see `read_targets`.

    Args:
        value: the content.
        path: where it lies, or what it is called in errors.
        scene: that they are for.
        dataparser: nerfstudio's training frame, where it lies beside the file.

    Raises:
        InputError: see `read_targets`.
    """
    targets = _read(value, path, scene, dataparser)
    _check_angles(targets.cameras, path)
    if scene is not None:
        check_belonging(targets.cameras, scene.contexts, f"camera file {path}")
    return targets


def _check_angles(cameras: Cameras, path: Path) -> None:
    """Raises InputError for an angle of view that only another unit explains."""
    angles = torch.rad2deg(fov_between_borders(cameras)).amax(dim=1)
    for index, degrees in enumerate(angles.tolist()):
        if not _NARROWEST_DEG <= degrees <= _WIDEST_DEG:
            raise InputError(
                f"camera {index} of {path}",
                f"it sees {degrees:.3g} degrees",
                "give fov in degrees, or focal lengths in pixels of the image size",
            )


def _read(value: Any, path: Path, scene: SceneCameras | None, dataparser: Dataparser | None) -> Targets:
    """By its kind."""
    if isinstance(value, list) and value and isinstance(value[0], dict) and "transform" in value[0]:
        return _exported(value, path, scene)
    data = {"frames": value} if isinstance(value, list) else value
    if not isinstance(data, dict):
        raise InputError(f"file {path}", f"it holds a {type(data).__name__}, not an object", "give {...} with cameras")
    if data.get("format") == _FORMAT:
        return _ours(data, path, World() if scene is None else scene.world)
    if "camera_path" in data:
        return _camera_path(data, path, scene, dataparser)
    if "frames" in data:
        return _from_transforms(data, path, scene)
    raise InputError(
        f"camera file {path}",
        f"it has none of the fields format, camera_path, frames (it has {', '.join(list(data)[:5]) or 'none'})",
        "give cameras.json, a nerfstudio camera path or a transforms.json",
    )


def _listed(
    data: Mapping[str, Any], key: str, path: Path, hint: str = "give at least one camera"
) -> list[dict[str, Any]]:
    """The non-empty list of objects at `key`."""
    entries = data.get(key)
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise InputError(f"camera file {path}", f"{key} is {shown(entries)}", "give a list of cameras")
    if not entries:
        raise InputError(f"camera file {path}", f"{key} is []", hint)
    return entries


def _size(data: Mapping[str, Any], keys: tuple[str, str], path: Path) -> tuple[int, int]:
    """Height and width in pixels."""
    height, width = (round(number(data, key, f"camera file {path}")) for key in keys)
    if height < 1 or width < 1:
        raise InputError(f"camera file {path}", f"its size is {width}x{height}", "give at least 1x1 pixels")
    if max(height, width) > MOST_PIXELS:
        found = f"its size is {width}x{height}"
        raise InputError(f"camera file {path}", found, f"give at most {MOST_PIXELS} pixels a side")
    return height, width


def _ours(data: Mapping[str, Any], path: Path, world: World) -> Targets:
    """Our own format."""
    if data.get("version") != _VERSION:
        found = f"its version is {shown(data.get('version'))}"
        raise InputError(f"camera file {path}", found, f"this release reads version {_VERSION}")
    height, width = _size(data, ("height", "width"), path)
    c2w, K, names = [], [], []
    for index, entry in enumerate(_listed(data, "cameras", path)):
        where = f"camera {index} of {path}"
        pose = matrix(entry.get("c2w"), where, "c2w")
        K.append(_matrix3(entry.get("K"), where))
        if not world:
            check_pose(pose, where)
        c2w.append(world.inside(pose))
        check_pose(c2w[-1], where)
        check_intrinsics(K[-1], where)
        names.append(str(entry.get("name", f"{index:04d}")))
    return Targets(cameras=Cameras(torch.stack(c2w), torch.stack(K), height, width), names=tuple(names))


def _matrix3(value: object, where: str) -> Float[Tensor, "3 3"]:
    K = numbers(value, where, "K", "give 3 rows of 3 numbers, in pixels")
    if K.shape != (3, 3):
        raise InputError(where, f"K has shape {tuple(K.shape)}", "give 3 rows of 3 numbers, in pixels")
    return K


def _camera_path(data: Mapping[str, Any], path: Path, scene: SceneCameras | None, beside: Dataparser | None) -> Targets:
    """A camera path of nerfstudio's viewer."""
    kind = data.get("camera_type", _PERSPECTIVE)
    if kind != _PERSPECTIVE:
        found = f"camera_type is {shown(kind)}, and frames here are perspective ones"
        raise InputError(f"camera file {path}", found, "choose the perspective camera in the viewer and save it again")
    height, width = _size(data, ("render_height", "render_width"), path)
    hint = "give at least one camera: keyframes become a path in the viewer (Generate Command)"
    c2w, K = [], []
    for index, entry in enumerate(_listed(data, "camera_path", path, hint)):
        where = f"camera {index} of {path}"
        pose = flip_yz(matrix(entry.get("camera_to_world"), where, "camera_to_world"))
        check_pose(pose, where)
        c2w.append(pose)
        K.append(_vertical_fov_intrinsics(number(entry, "fov", where), height, width, where))
    poses = torch.stack(c2w)
    notes: tuple[str, ...] = ()
    cameras = Cameras(poses, torch.stack(K), height, width)
    if scene is not None:
        world, notes = _path_world(data, cameras, path, scene, beside)
        cameras = Cameras(world.inside(poses), cameras.K, height, width)
    names = tuple(f"{index:04d}" for index in range(len(c2w)))
    return Targets(cameras=cameras, names=names, notes=notes)


def _path_world(
    data: Mapping[str, Any], cameras: Cameras, path: Path, scene: SceneCameras, beside: Dataparser | None
) -> tuple[World, tuple[str, ...]]:
    """The coordinates of a camera path, and what to tell of them."""
    named = scene.dataparser
    if data.get("dataparser_transforms") is not None:
        named = dataparser_in(data["dataparser_transforms"], Path("dataparser_transforms"))
    found = beside if beside is not None or scene.folder is None else dataparser_beside(scene.folder)
    everyone = scene.contexts if scene.everyone is None else scene.everyone
    where = f"camera file {path}"
    return choose_world(cameras, scene.contexts, everyone, scene.world, named=named, found=found, where=where)


def _vertical_fov_intrinsics(degrees: float, height: int, width: int, where: str) -> Float[Tensor, "3 3"]:
    if not 0 < degrees < 180:
        raise InputError(where, f"fov is {degrees:g}", "give an angle between 0 and 180 degrees")
    focal = 0.5 * height / math.tan(math.radians(degrees) / 2)
    return intrinsics_matrix(focal, focal, width / 2, height / 2)


def _from_transforms(data: Mapping[str, Any], path: Path, scene: SceneCameras | None) -> Targets:
    """All cameras of a transforms.json, at the size of its first one; its photos need not be there."""
    given = object_with_frames(data, path)
    if scene is not None:
        frames = enumerate(given["frames"])
        given = {
            **given,
            "frames": [_with_intrinsics(given, f, scene.contexts, f"frame {i} of {path}") for i, f in frames],
        }
    capture = transforms_in(given, path, with_images=False, world=None if scene is None else scene.world)
    first = capture.views[0]
    cameras = capture.cameras(range(len(capture)), first.height, first.width)
    return Targets(cameras=cameras, names=tuple(Path(view.name).stem for view in capture.views), notes=capture.notes)


def _with_intrinsics(
    data: Mapping[str, Any], frame: Mapping[str, Any], contexts: Cameras, where: str
) -> Mapping[str, Any]:
    """The frame, with the intrinsics of the scene's first photo where neither it nor the file has any."""
    if any(fields.get(key) is not None for fields in (data, frame) for key in _INTRINSICS):
        if not all(key in data or key in frame for key in ("w", "h")) and not frame.get("file_path"):
            raise InputError(where, "w and h are missing", "say which image size the intrinsics are for")
        return frame
    return {**frame, "K": contexts.K[0].tolist(), "w": contexts.width, "h": contexts.height}


def _exported(entries: Sequence[Any], path: Path, scene: SceneCameras | None) -> Targets:
    """The list that `ns-export cameras` writes: poses alone, undone to the coordinates before `applied_transform`."""
    if scene is None:
        found = "it is a list from ns-export cameras, which has no intrinsics"
        raise InputError(f"camera file {path}", found, "read it for a scene")
    world = World(origin=scene.world.origin)
    c2w, names = [], []
    for index, entry in enumerate(entries):
        where = f"camera {index} of {path}"
        if not isinstance(entry, dict):
            raise InputError(where, f"it is {shown(entry)}", "give an object with transform")
        c2w.append(world.inside(flip_yz(matrix(entry.get("transform"), where, "transform"))))
        check_pose(c2w[-1], where)
        names.append(Path(str(entry.get("file_path", f"{index:04d}"))).stem)
    contexts = scene.contexts
    K = contexts.K[:1].expand(len(c2w), 3, 3)
    cameras = Cameras(torch.stack(c2w), K, contexts.height, contexts.width)
    note = "the list from ns-export cameras has no intrinsics: those of the first context view are used"
    return Targets(cameras=cameras, names=tuple(names), notes=(note,))


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
