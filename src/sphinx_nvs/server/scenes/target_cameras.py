"""Target cameras of a request: a list, or a named path through the scene's photos.

Shapes: V cameras.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from sphinx_nvs.engine.config import EngineConfig
from sphinx_nvs.engine.store.row_types import SceneRow
from sphinx_nvs.engine.types.jobs import JobSpec
from sphinx_nvs.engine.types.validation import Limits
from sphinx_nvs.errors import InputError
from sphinx_nvs.geometry.cameras import Cameras, check_intrinsics, check_pose
from sphinx_nvs.geometry.focus import FOCUS_UNITS, focus_distance
from sphinx_nvs.geometry.paths import scene_path
from sphinx_nvs.geometry.trajectories import preset_path
from sphinx_nvs.presets import preset_named
from sphinx_nvs.scene.capture import Capture, covering
from sphinx_nvs.scene.intrinsics import intrinsics_matrix
from sphinx_nvs.scene.jsonfile import matrix
from sphinx_nvs.scene.transforms import flip_yz, read_transforms
from sphinx_nvs.server.api.requests import CameraFrame, CameraPath, CameraSet, Intrinsics, JobRequest, Size

PATH_FRAMES = 24
"""Default length of a path."""

_DEFAULT_RADII = [0.5, 0.5, 0.2]


def spec_from(request: JobRequest, scene: SceneRow, config: EngineConfig) -> JobSpec:
    """Returns the specification of the requested job; reads the scene's cameras.

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
        targets = _targets(request, contexts, config.limits)
    except (ArithmeticError, RuntimeError, ValueError) as error:
        # Splines and rotations fail with errors of their own for cameras that coincide.
        raise InputError("cameras", "no path passes through them", "choose another path or other cameras") from error
    return JobSpec(
        scene=scene.id,
        c2w=tuple(tuple(map(tuple, pose)) for pose in targets.c2w.tolist()),
        K=tuple(tuple(map(tuple, K)) for K in targets.K.tolist()),
        width=width,
        height=height,
        fps=float(request.fps),
        quality=request.quality,
        deadline_s=request.deadline_s,
        min_quality=float(request.min_quality),
        seed=request.seed,
        priority=request.priority,
    )


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


def _targets(request: JobRequest, contexts: Cameras, limits: Limits) -> Cameras:
    """Returns the cameras to render."""
    if request.cameras is None:
        count = PATH_FRAMES if request.num_frames is None else request.num_frames
        _check_count(count, limits)
        path = request.path if isinstance(request.path, CameraPath) else CameraPath(name=request.path or "interpolate")
        return _along(path, contexts, count)
    chosen = _spread(len(request.cameras.frames), request.num_frames)
    _check_count(len(chosen), limits)
    return Cameras.cat([_camera(request.cameras, index, contexts) for index in chosen])


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


def _along(path: CameraPath, contexts: Cameras, count: int) -> Cameras:
    """Returns the cameras of a named path."""
    if path.look_at is None and path.zoom_factor is None and path.spiral_radii is None:
        return scene_path(path.name, contexts, count, median_depth=path.median_depth)
    scale = focus_distance(contexts, median_depth=path.median_depth) / FOCUS_UNITS
    radii = path.spiral_radii or _DEFAULT_RADII
    return preset_path(
        path.name.replace("dolly-zoom", "dolly zoom"),
        contexts[0],
        count,
        look_at=None if path.look_at is None else contexts.c2w.new_tensor(path.look_at),
        scale=scale,
        zoom_factor=path.zoom_factor,
        spiral_radii=(radii[0], radii[1], radii[2]),
    )


def _camera(cameras: CameraSet, index: int, contexts: Cameras) -> Cameras:
    """Returns one camera of a list, at the size of the frames."""
    frame, where = cameras.frames[index], f"cameras.frames.{index}"
    if frame.c2w is not None:
        c2w = matrix(frame.c2w, where, "c2w")
    else:
        c2w = flip_yz(matrix(frame.transform_matrix, where, "transform_matrix"))
    check_pose(c2w, where)
    lens = _merged(cameras, frame)
    if frame.K is None and lens.fl_x is None and lens.fl_y is None and lens.camera_angle_x is None:
        return Cameras(c2w[None], contexts.K[:1], contexts.height, contexts.width)
    if lens.w is None or lens.h is None:
        raise InputError(where, "w and h are missing", "say which image size the intrinsics are for")
    K = c2w.new_tensor(frame.K) if frame.K is not None else intrinsics_matrix(*_pinhole(lens, lens.w, lens.h))
    check_intrinsics(K, where)
    return covering(Cameras(c2w[None], K[None], lens.h, lens.w), contexts.height, contexts.width)


def _merged(cameras: CameraSet, frame: CameraFrame) -> Intrinsics:
    """Returns a frame's intrinsics, completed by those of the list."""
    names = Intrinsics.model_fields
    own = {name: getattr(frame, name) for name in names}
    return Intrinsics(**{name: getattr(cameras, name) if own[name] is None else own[name] for name in names})


def _pinhole(lens: Intrinsics, width: int, height: int) -> tuple[float, float, float, float]:
    """Returns fx, fy, cx, cy in pixels; at least one focal length or the field of view is given."""
    by_angle = None if lens.camera_angle_x is None else 0.5 * width / math.tan(lens.camera_angle_x / 2)
    fx = lens.fl_x or by_angle or lens.fl_y or 0.0
    fy = lens.fl_y or fx
    return fx, fy, width / 2 if lens.cx is None else lens.cx, height / 2 if lens.cy is None else lens.cy
