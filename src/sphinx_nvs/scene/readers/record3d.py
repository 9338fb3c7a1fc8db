"""Record3D's EXR + RGBD export: `metadata.json` with poses and intrinsics, photos `rgb/0.jpg`, `rgb/1.jpg`, ...

A pose is a quaternion (x, y, z, w) and a centre, camera-to-world with OpenGL axes, in metres. `K` is given by columns;
`perFrameIntrinsicCoeffs` are fx, fy, cx, cy a frame.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from sphinx_nvs.errors import InputError
from sphinx_nvs.geometry import se3
from sphinx_nvs.scene.capture import Capture
from sphinx_nvs.scene.intrinsics import intrinsics_matrix
from sphinx_nvs.scene.jsonfile import number, numbers, read_json
from sphinx_nvs.scene.photos import photos_in
from sphinx_nvs.scene.readers.entries import Entry, capture_of
from sphinx_nvs.scene.transforms import flip_yz


def metadata_file(folder: Path) -> Path | None:
    """The file of such an export, None if there is none."""
    for path in (folder / "metadata.json", folder / "metadata", folder / "EXR_RGBD" / "metadata.json"):
        if path.is_file() and (path.parent / "rgb").is_dir():
            return path
    return None


def read_record3d(path: Path) -> Capture:
    """Reads an export.

    Raises:
        InputError: the file cannot be used, or there are more or fewer photos than poses.
    """
    data, where = read_json(path), f"file {path}"
    poses = numbers(data.get("poses"), where, "poses", "give 7 numbers a frame")
    if poses.ndim != 2 or poses.shape[1] != 7:
        raise InputError(where, f"poses has shape {tuple(poses.shape)}", "give 7 numbers a frame: x y z w, then centre")
    photos = photos_in(path.parent / "rgb")
    if len(photos) != len(poses):
        raise InputError(where, f"it has {len(poses)} poses for {len(photos)} photos", "give all photos of the export")
    size = (round(number(data, "h", where)), round(number(data, "w", where)))
    K = _intrinsics(data, where, len(poses))
    entries = [
        Entry(name=photo.name, c2w=_pose(pose, f"frame {i} of {path}"), K=K[i], size=size, image=photo)
        for i, (pose, photo) in enumerate(zip(poses, photos, strict=True))
    ]
    return capture_of(entries, path=path, name=path.parent.resolve().name, layout="Record3D export")


def _pose(row: Float[Tensor, "7"], where: str) -> Float[Tensor, "4 4"]:
    x, y, z, w = row[:4].unbind()
    if float(row[:4].norm()) < 1e-6:
        raise InputError(f"pose of {where}", "its quaternion is zero", "give a unit quaternion")
    return flip_yz(se3.pose_from(se3.rotation_from_quaternion(torch.stack([w, x, y, z])), row[4:]))


def _intrinsics(data: dict[str, Any], where: str, count: int) -> list[Float[Tensor, "3 3"]]:
    """One K a frame."""
    if data.get("perFrameIntrinsicCoeffs"):
        rows = numbers(data["perFrameIntrinsicCoeffs"], where, "perFrameIntrinsicCoeffs", "give 4 numbers a frame")
        if rows.shape != (count, 4):
            found = f"perFrameIntrinsicCoeffs has shape {tuple(rows.shape)}"
            raise InputError(where, found, f"give {count} rows of fx, fy, cx, cy")
        return [intrinsics_matrix(*row.tolist()) for row in rows]
    K = numbers(data.get("K"), where, "K", "give 9 numbers by columns")
    if K.numel() != 9:
        raise InputError(where, f"K has shape {tuple(K.shape)}", "give 9 numbers by columns")
    return [K.reshape(3, 3).T.contiguous()] * count
