"""A found scene as files: photos without lens distortion, cameras in two layouts, points, a picture, a report."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from sphinx_nvs import media
from sphinx_nvs.geometry import se3
from sphinx_nvs.geometry.cameras import Cameras
from sphinx_nvs.posing.colmap_library import colmap, num_threads
from sphinx_nvs.posing.levelling import UNITS
from sphinx_nvs.scene import read_capture
from sphinx_nvs.scene.transforms import frame_from
from sphinx_nvs.scene.world_frame import World

_QUALITY = 95


def write_scene(folder: Path, model: Any, photos: Path, report: Mapping[str, Any]) -> None:
    """Writes a levelled reconstruction into an empty folder.

    Args:
        folder: the scene's.
        model: the reconstruction.
        photos: the folder of the working copies.
        report: what was found, as JSON values.
    """
    # Matplotlib takes a second to load, which commands that only ask for cameras need not wait for.
    from sphinx_nvs.visualization.frusta import write_frusta

    _undistort(folder, model, photos)
    undistorted = colmap().Reconstruction(folder / "sparse" / "0")
    undistorted.export_PLY(folder / "points.ply")
    _write_transforms(folder / "transforms.json", undistorted)
    # The folder has a name of its own until it is whole.
    write_frusta(folder / "cameras.png", replace(read_capture(folder), name=str(report["name"])))
    media.write_bytes(folder / "poses.json", (json.dumps(report, indent=2) + "\n").encode())
    media.write_bytes(folder / "poses.md", markdown(report).encode())


def _undistort(folder: Path, model: Any, photos: Path) -> None:
    """Pinhole photos and the COLMAP model of them."""
    raw, sparse = folder / "distorted", folder / "sparse" / "0"
    raw.mkdir()
    for camera in model.cameras.values():
        if camera.params[-1] == 0:
            _as_pinhole(camera)
    model.write(raw)
    colmap().undistort_images(folder, raw, photos, jpeg_quality=_QUALITY, num_threads=num_threads())
    sparse.mkdir()
    for file in [path for path in (folder / "sparse").iterdir() if path.is_file()]:
        file.rename(sparse / file.name)
    for name in ("distorted", "stereo"):
        shutil.rmtree(folder / name, ignore_errors=True)
    for script in folder.glob("run-colmap-*"):
        script.unlink()


def _as_pinhole(camera: Any) -> None:
    """Changes the model of a lens without distortion, which COLMAP would copy as it is."""
    f, cx, cy, _ = camera.params
    camera.model, camera.params = colmap().CameraModelId.PINHOLE, [f, f, cx, cy]


def _write_transforms(path: Path, model: Any) -> None:
    """The cameras as a nerfstudio file: intrinsics by photo, for photos of several cameras differ in size."""
    images = sorted((image for image in model.images.values() if image.has_pose), key=lambda image: image.name)
    world, frames = World(), []
    for image in images:
        camera = model.cameras[image.camera_id]
        cameras = _camera(image, camera)
        frames.append({**frame_from(cameras, 0, f"images/{image.name}", world), "w": camera.width, "h": camera.height})
    value = {"camera_model": "PINHOLE", "comment": UNITS, "ply_file_path": "points.ply", "frames": frames}
    media.write_bytes(path, json.dumps(value, indent=1).encode())


def _camera(image: Any, camera: Any) -> Cameras:
    w2c = se3.pose_from(*(torch.from_numpy(part.copy()) for part in _parts(image.cam_from_world().matrix())))
    return Cameras(
        se3.inverse(w2c)[None], torch.from_numpy(camera.calibration_matrix().copy())[None], camera.height, camera.width
    )


def _parts(matrix: Any) -> tuple[Any, Any]:
    return matrix[:, :3], matrix[:, 3]


def markdown(report: Mapping[str, Any]) -> str:
    """The report as a page of text."""
    checks: Sequence[tuple[str, str]] = (
        ("photos with a camera", f"{report['registered']} of {report['photos']}"),
        ("mean reprojection error", f"{report['reprojection_px']:.2f} pixels"),
        ("median angle between rays to a point", f"{report['angle_deg']:.1f} degrees"),
        ("points", f"{report['points']}"),
        ("focal length, of the one to begin with", f"{report['focal_ratio']:.2f}"),
        ("held-out matches that fit", f"{report['held_out_fit']:.0%} of those expected, of {report['held_out']}"),
    )
    rows = "\n".join(f"| {name} | {value} |" for name, value in checks)
    notes = "\n".join(f"- {note}" for note in report["notes"])
    head = f"# Cameras of {report['name']}\n\n![the cameras](cameras.png)"
    return f"{head}\n\n| check | found |\n|---|---|\n{rows}\n\n{notes}\n"
