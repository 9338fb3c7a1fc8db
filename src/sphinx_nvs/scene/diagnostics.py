"""What a capture is, in numbers and warnings: before minutes are spent on it.

Angles between views are those of their optical axes' frames (the rotation between the poses); baselines are
distances between optical centres, in the capture's own units and as a share of the distance to the scene
(`geometry.focus.focus_distance`), which is what decides how hard matching is.

Shapes: V views, N pairs of neighbouring views.
"""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from sphinx_nvs.geometry import se3
from sphinx_nvs.geometry.cameras import Cameras
from sphinx_nvs.geometry.focus import focus_distance, is_converging, look_at_point
from sphinx_nvs.geometry.fov import fov_between_borders
from sphinx_nvs.scene.capture import Capture, Split

WIDE_ANGLE_DEG = 25.0
"""Views further apart than this are hard to match."""

WIDE_BASELINE = 0.5
"""Baselines longer than this share of the distance to the scene are hard to match."""

WIDE_FOV_DEG = 90.0
"""Angles of view above this are outside what the networks were trained on."""

_SAME_PLACE = 1e-3
_OFF_CENTRE = 0.1
_STRETCHED = 1.25
"""Times the focal length in one direction is that in the other: pixels of cameras are square."""


def describe(capture: Capture) -> dict[str, Any]:
    """Everything worth knowing before a render, as plain JSON values; no photo is decoded.

    Args:
        capture: any capture.

    Returns:
        `name`, `layout`, `path`, `views`, `images`, `sizes` ("WxH" -> count), `default_size`, `distorted`,
        `fov_deg` (horizontal, vertical: min, median, max), `focus_distance`, `look_at` (None unless the cameras
        converge), `baseline` (between neighbours: median, max; largest), `neighbour_angle_deg`, `splits`,
        `notes` on what was decided on reading, and `warnings`, lists of sentences. Lengths are in the file's own units.
    """
    cameras = _native_cameras(capture)
    height, width = capture.default_size()
    fov = torch.rad2deg(torch.cat([fov_between_borders(camera) for camera in cameras]))
    together = _one_size(cameras)
    world = capture.world
    return {
        "name": capture.name,
        "layout": capture.layout,
        "path": None if capture.path is None else str(capture.path),
        "views": len(capture),
        "images": sum(view.image is not None for view in capture.views),
        "sizes": dict(Counter(f"{view.width}x{view.height}" for view in capture.views)),
        "default_size": f"{width}x{height}",
        "distorted": any(view.distortion is not None for view in capture.views),
        "fov_deg": {"horizontal": _spread(fov[:, 0]), "vertical": _spread(fov[:, 1])},
        "focus_distance": world.scale * focus_distance(together),
        "look_at": world.point_outside(look_at_point(together)).tolist() if is_converging(together) else None,
        "baseline": {**_spread(world.scale * _steps(together)), "largest": world.scale * _largest(together)},
        "neighbour_angle_deg": _spread(_turns(together)),
        "splits": {str(n): _describe_split(together, split) for n, split in capture.splits.items()},
        "notes": list(capture.notes),
        "warnings": warnings_for(capture),
    }


def warnings_for(capture: Capture) -> list[str]:
    """Sentences about what will make a render of this capture poor; empty when nothing stands out."""
    cameras = _native_cameras(capture)
    together = _one_size(cameras)
    return [
        *_image_warnings(capture),
        *_lens_warnings(cameras),
        *_position_warnings(together),
        *(warning for n, split in capture.splits.items() for warning in _split_warnings(together, n, split)),
    ]


def _image_warnings(capture: Capture) -> list[str]:
    found = []
    missing = [view.name for view in capture.views if view.image is None]
    if missing:
        found.append(
            f"{len(missing)} of {len(capture)} views have no image ({missing[0]}, ...): they can only be targets"
        )
    if len({view.width > view.height for view in capture.views}) > 1:
        found.append("photos are both upright and lying: the default size cuts much of some of them")
    return found


def _lens_warnings(cameras: list[Cameras]) -> list[str]:
    found = []
    widest = max(math.degrees(float(fov_between_borders(camera).max())) for camera in cameras)
    if widest > WIDE_FOV_DEG:
        found.append(f"very wide angle of view ({widest:.0f} degrees): image borders are stretched and hard to match")
    offset = max(float((camera.K_norm[0, :2, 2] - 0.5).abs().max()) for camera in cameras)
    if offset > _OFF_CENTRE:
        found.append(f"a principal point lies {100 * offset:.0f} % of the image away from its centre: check cx and cy")
    ratio = max(float(torch.exp((camera.K[0, 0, 0] / camera.K[0, 1, 1]).log().abs())) for camera in cameras)
    if ratio > _STRETCHED:
        found.append(f"focal lengths in x and y differ {ratio:.2g} times: check fl_x and fl_y, or photos are stretched")
    return found


def _position_warnings(cameras: Cameras) -> list[str]:
    """About where the cameras are, whatever the splits."""
    if len(cameras) == 1:
        return ["a single view: nothing can be triangulated"]
    focus = focus_distance(cameras)
    if _largest(cameras) < _SAME_PLACE * focus or _largest(cameras) == 0:
        return ["all cameras are in one place: nothing can be triangulated"]
    found = []
    doubles = int((_steps(cameras) < 1e-6 * _largest(cameras)).sum())
    if doubles:
        found.append(
            f"{doubles} neighbouring views have nearly identical centres: as a context pair they show no depth"
        )
    if not is_converging(cameras):
        found.append(
            "the cameras look at no common point: its distance is guessed from their baseline for preset paths"
        )
    return found


def _split_warnings(cameras: Cameras, number: int, split: Split) -> list[str]:
    """About the context views of one split, each with its nearest other one."""
    found = []
    shared = sorted(set(split.train_ids) & set(split.test_ids))
    if shared:
        found.append(f"split {number}: view {shared[0]} is both context and target: its score measures nothing")
    if len(split.train_ids) < 2:
        return found
    angle, baseline = _gaps(cameras, split)
    if angle > WIDE_ANGLE_DEG:
        found.append(f"split {number}: wide baseline, neighbouring context views are {angle:.0f} degrees apart")
    elif baseline > WIDE_BASELINE:
        share = f"{100 * baseline:.0f} % of the distance to the scene"
        found.append(f"split {number}: wide baseline, neighbouring context views are {share} apart")
    return found


def _describe_split(cameras: Cameras, split: Split) -> dict[str, Any]:
    found: dict[str, Any] = {"contexts": list(split.train_ids), "targets": list(split.test_ids)}
    if len(split.train_ids) > 1:
        found["largest_context_angle_deg"], found["largest_context_baseline"] = _gaps(cameras, split)
    return found


def _gaps(cameras: Cameras, split: Split) -> tuple[float, float]:
    """Largest angle (degrees) and baseline (share of the focus distance) from a context to its nearest other one."""
    contexts = cameras[list(split.train_ids)]
    itself = torch.eye(len(contexts), dtype=torch.bool)
    angles = se3.rotation_angle(contexts.c2w[:, None], contexts.c2w[None]).masked_fill(itself, torch.inf)
    distances = torch.cdist(contexts.centres, contexts.centres).masked_fill(itself, torch.inf)
    angle = math.degrees(float(angles.min(dim=1).values.max()))
    return angle, float(distances.min(dim=1).values.max()) / focus_distance(cameras)


def _native_cameras(capture: Capture) -> list[Cameras]:
    """Every view's undistorted camera at its photo's size."""
    return [view.camera(view.height, view.width) for view in capture.views]


def _one_size(cameras: list[Cameras]) -> Cameras:
    """All poses in one value, behind images of one (square) size; for questions about poses only."""
    return Cameras.cat([camera.resized(1, 1) for camera in cameras])


def _steps(cameras: Cameras) -> Float[Tensor, "N"]:
    """Distance from every view to the next one."""
    return cameras.centres.diff(dim=0).norm(dim=-1)


def _turns(cameras: Cameras) -> Float[Tensor, "N"]:
    """Angle in degrees from every view to the next one."""
    return torch.rad2deg(se3.rotation_angle(cameras.c2w[:-1], cameras.c2w[1:]))


def _largest(cameras: Cameras) -> float:
    return float(torch.cdist(cameras.centres, cameras.centres).max())


def _spread(values: Float[Tensor, "N"]) -> dict[str, float]:
    """Minimum, median, maximum; zeros where there is nothing."""
    if len(values) == 0:
        return {"min": 0.0, "median": 0.0, "max": 0.0}
    return {"min": float(values.min()), "median": float(values.median()), "max": float(values.max())}
