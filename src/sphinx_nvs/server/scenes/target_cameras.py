"""Target cameras of a request: a list, or a named path through the scene's photos.

Shapes: V cameras.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from sphinx_nvs.engine.config import EngineConfig
from sphinx_nvs.engine.store.row_types import SceneRow
from sphinx_nvs.engine.types.job_validation import Limits
from sphinx_nvs.errors import InputError
from sphinx_nvs.geometry.cameras import Cameras
from sphinx_nvs.geometry.focus import FOCUS_UNITS, focus_distance
from sphinx_nvs.geometry.paths import scene_path
from sphinx_nvs.geometry.trajectories import preset_path
from sphinx_nvs.presets import preset_named
from sphinx_nvs.scene.camera_files import SceneCameras, targets_in
from sphinx_nvs.scene.capture import Capture, covering
from sphinx_nvs.scene.jsonfile import read_json_value
from sphinx_nvs.scene.transforms import read_transforms, transforms_in
from sphinx_nvs.server.api.requests import CameraPath, JobRequest, Size

ALL_CAMERAS = "all_cameras.json"
"""All cameras of a scene of which only some photos are kept, as a transforms.json beside the scene's own."""

PATH_FRAMES = 24
"""Default length of a path."""

_DEFAULT_RADII = [0.5, 0.5, 0.2]


class Targets(NamedTuple):
    """The target cameras of a request.

    Args:
        cameras: V cameras with the size of the frames, in the scene's own frame of coordinates.
        world: where that frame of coordinates lies in the scene's file, as JSON; None if it is the same.
        notes: fields of the request that were not used.
    """

    cameras: Cameras
    world: dict[str, Any] | None
    notes: tuple[str, ...]


def targets_of(request: JobRequest, scene: SceneRow, config: EngineConfig) -> Targets:
    """Returns the requested target cameras; reads the scene's cameras.

    Args:
        request: the request body.
        scene: the scene that it names.
        config: the engine's settings, for sizes and limits.

    Raises:
        InputError: a camera is invalid, or there are too many.
    """
    capture = read_cameras(scene)
    height, width = _size(request.size, capture, config)
    contexts = capture.cameras(range(len(capture)), height, width)
    try:
        targets, notes = _targets(request, capture, contexts, config.limits, Path(scene.path))
    except (ArithmeticError, RuntimeError, ValueError) as error:
        # Splines and rotations fail with errors of their own for cameras that coincide.
        raise InputError("cameras", "no path passes through them", "choose another path or other cameras") from error
    return Targets(targets, capture.world.to_json() if capture.world else None, notes)


def read_cameras(scene: SceneRow) -> Capture:
    """Returns a stored scene's cameras without reading its photos."""
    return read_transforms(Path(scene.path) / "transforms.json", with_images=False)


def _size(size: Size | str | None, capture: Capture, config: EngineConfig) -> tuple[int, int]:
    """Returns the height and width of the frames."""
    if size is None:
        return capture.default_size(preset_named(config.preset).short_side, config.size_multiple)
    if isinstance(size, str):
        width, height = (int(side) for side in size.lower().split("x"))
        return height, width
    return size.height, size.width


def _targets(
    request: JobRequest, capture: Capture, contexts: Cameras, limits: Limits, folder: Path
) -> tuple[Cameras, tuple[str, ...]]:
    """The cameras to render, and what to tell of them."""
    if request.cameras is None:
        count = PATH_FRAMES if request.num_frames is None else request.num_frames
        _check_count(count, limits)
        path = request.path if isinstance(request.path, CameraPath) else CameraPath(name=request.path or "interpolate")
        return _along(path, capture, contexts, count), ()
    body = request.cameras.model_dump(exclude_unset=True, exclude_none=True)
    kind = next(key for key in ("frames", "camera_path", "cameras") if key in body)
    chosen = _spread(len(body[kind]), request.num_frames)
    _check_count(len(chosen), limits)
    body[kind] = [body[kind][index] for index in chosen]
    everyone = _everyone(folder, capture) if kind == "camera_path" else None
    scene = SceneCameras(contexts=contexts, everyone=everyone, world=capture.world)
    targets = targets_in(body, Path("cameras"), scene)
    return covering(targets.cameras, contexts.height, contexts.width), targets.notes


def _everyone(folder: Path, capture: Capture) -> Cameras | None:
    """All cameras of the scene that was uploaded, None if these are the ones that are kept."""
    path = folder / ALL_CAMERAS
    if not path.is_file():
        return None
    all_of_them = transforms_in(read_json_value(path), path, with_images=False, world=capture.world)
    return all_of_them.cameras(range(len(all_of_them)), 1, 1)


def _check_count(count: int, limits: Limits) -> None:
    """Checks the number of frames before anything is computed for each of them."""
    if count > limits.max_views:
        raise InputError("num_frames", f"it is {count}", f"request at most {limits.max_views}")


def _spread(total: int, count: int | None) -> Sequence[int]:
    """Selects `count` of `total` indices evenly, first and last included; None selects all, 1 the middle one."""
    if count is None or count >= total:
        return range(total)
    if count == 1:
        return (total // 2,)
    return [round(i * (total - 1) / (count - 1)) for i in range(count)]


def _along(path: CameraPath, capture: Capture, contexts: Cameras, count: int) -> Cameras:
    """A path by name."""
    world = capture.world
    median_depth = None if path.median_depth is None else path.median_depth / world.scale
    if path.look_at is None and path.zoom_factor is None and path.spiral_radii is None:
        return scene_path(path.name, contexts, count, median_depth=median_depth)
    scale = focus_distance(contexts, median_depth=median_depth) / FOCUS_UNITS
    radii = path.spiral_radii or _DEFAULT_RADII
    return preset_path(
        path.name.replace("dolly-zoom", "dolly zoom"),
        contexts[0],
        count,
        look_at=None if path.look_at is None else world.point_inside(contexts.c2w.new_tensor(path.look_at)),
        scale=scale,
        zoom_factor=path.zoom_factor,
        spiral_radii=(radii[0], radii[1], radii[2]),
    )
