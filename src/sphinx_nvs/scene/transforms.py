"""nerfstudio's transforms.json, in and out, with the train/test splits of ReconFusion and SEVA beside it.

The file holds camera-to-world matrices with OpenGL axes (+x right, +y up, -z forward), so that

    c2w = applied_transform^-1 . transform_matrix . diag(1, -1, -1, 1)

and intrinsics in pixels counted from the image corner, which is this package's convention already.
Reference: nerfstudio documentation, "Data conventions"; `train_test_split_N.json` holds train_ids, test_ids:
indices into `frames`.

Shapes: V views, H W pixels.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from sphinx_nvs import media
from sphinx_nvs.errors import InputError
from sphinx_nvs.geometry.cameras import Cameras, check_pose
from sphinx_nvs.scene.capture import Capture, PosedView, Split
from sphinx_nvs.scene.distortion import Distortion
from sphinx_nvs.scene.intrinsics import Fitted, fit_to_image, intrinsics_matrix
from sphinx_nvs.scene.jsonfile import matrix, number, read_json

_PINHOLE_OR_OPENCV = ("PINHOLE", "SIMPLE_PINHOLE", "OPENCV", "SIMPLE_RADIAL", "RADIAL", "PERSPECTIVE")
_SPLIT_NAME = re.compile(r"train_test_split_(\d+)\.json")


def flip_yz(c2w: Float[Tensor, "*V 4 4"]) -> Float[Tensor, "*V 4 4"]:
    """Camera-to-world from OpenGL axes to OpenCV axes, or back."""
    return c2w * c2w.new_tensor([1.0, -1.0, -1.0, 1.0])


def read_transforms(path: Path, *, with_images: bool = True) -> Capture:
    """Reads a transforms.json and the `train_test_split_N.json` files beside it.

    Intrinsics may be shared or per frame; `camera_angle_x` stands for `fl_x`; `w`, `h` may be missing when
    the image is there; `file_path` may be null (a camera without photo) or lack its ending.

    Args:
        path: the JSON file.
        with_images: False reads cameras only: photos are not looked for where `w` and `h` are given.

    Raises:
        InputError: anything in it cannot be used; the sentence names the file, the frame and the field.
    """
    data = read_json(path)
    frames = data.get("frames")
    if not isinstance(frames, list) or not frames:
        found = "frames is missing" if frames is None else f"frames is {json.dumps(frames)[:40]}"
        raise InputError(f"file {path}", found, "list at least one frame")
    undo = _undo_applied(data, path)
    views = tuple(_view(data, frame, undo, path, index, with_images) for index, frame in enumerate(frames))
    folder = path.parent.resolve()
    return Capture(
        name=folder.name,
        views=views,
        splits=read_splits(path.parent, len(views)),
        path=path,
        layout="nerfstudio transforms.json",
    )


def _undo_applied(data: Mapping[str, Any], path: Path) -> Float[Tensor, "4 4"]:
    """The inverse of `applied_transform`; identity when there is none."""
    if data.get("applied_transform") is None:
        return torch.eye(4, dtype=torch.float64)
    applied = matrix(data["applied_transform"], f"file {path}", "applied_transform")
    if not torch.isfinite(applied).all() or abs(float(torch.linalg.det(applied))) < 1e-9:
        raise InputError(f"file {path}", "applied_transform is singular or not finite", "remove it or correct it")
    return torch.linalg.inv(applied)


def _view(
    data: Mapping[str, Any], frame: object, undo: Float[Tensor, "4 4"], path: Path, index: int, with_images: bool
) -> PosedView:
    """One entry of `frames`; its own fields win over the file's."""
    where = f"frame {index} of {path}"
    if not isinstance(frame, dict):
        raise InputError(where, f"it is {json.dumps(frame)[:40]}", "give an object with transform_matrix")
    fields = {**data, **frame}
    is_sized = "w" in fields and "h" in fields
    wanted = with_images or not is_sized
    image = _image_path(frame.get("file_path"), path.parent, where) if wanted else None
    c2w = undo @ flip_yz(matrix(frame.get("transform_matrix"), where, "transform_matrix"))
    check_pose(c2w, where)
    fitted = _intrinsics(fields, image, where)
    return PosedView(
        name=frame.get("file_path") or f"frame {index}",
        c2w=c2w,
        K=fitted.K,
        height=fitted.height,
        width=fitted.width,
        image=image,
        distortion=_distortion(fields, where),
        oriented=fitted.oriented,
    )


def _image_path(name: object, folder: Path, where: str) -> Path | None:
    """The photo's file; endings are tried when the name has none that exists."""
    if name is None or name == "":
        return None
    if not isinstance(name, str):
        raise InputError(where, f"file_path is {json.dumps(name)[:40]}", "give a file name or null")
    path = folder / name
    if path.is_file():
        return path
    for suffix in media.IMAGE_SUFFIXES:
        for candidate in (path.with_name(path.name + suffix), path.with_name(path.name + suffix.upper())):
            if candidate.is_file():
                return candidate
    raise InputError(where, f"its image {path} does not exist", "restore the image or set file_path to null")


def _intrinsics(fields: Mapping[str, Any], image: Path | None, where: str) -> Fitted:
    """K at the size of the photo, or at `w` x `h` for a camera without photo."""
    size = _declared_size(fields, image, where)
    K = _pixel_intrinsics(fields, size, where)
    return Fitted(K=K, height=size[0], width=size[1]) if image is None else fit_to_image(K, size, image, where)


def _declared_size(fields: Mapping[str, Any], image: Path | None, where: str) -> tuple[int, int]:
    """Height and width that the intrinsics are for: as declared, else the photo's."""
    if "w" not in fields and "h" not in fields and image is not None:
        return media.image_size(image)
    height, width = (round(number(fields, key, where)) for key in ("h", "w"))
    if height < 1 or width < 1:
        raise InputError(where, f"w and h are {width} and {height}", "give the image's size in pixels")
    return height, width


def _pixel_intrinsics(fields: Mapping[str, Any], size: tuple[int, int], where: str) -> Float[Tensor, "3 3"]:
    """K in pixels from fl_x, fl_y, cx, cy or camera_angle_x, camera_angle_y (radians)."""
    height, width = size
    fx = _focal(fields, "fl_x", "camera_angle_x", width, where)
    fy = _focal(fields, "fl_y", "camera_angle_y", height, where)
    if fx is None and fy is None:
        raise InputError(where, "fl_x is missing", "add fl_x in pixels or camera_angle_x in radians")
    fx, fy = (fx if fx is not None else fy), (fy if fy is not None else fx)
    cx, cy = number(fields, "cx", where, width / 2), number(fields, "cy", where, height / 2)
    return intrinsics_matrix(float(fx or 0), float(fy or 0), cx, cy)


def _focal(fields: Mapping[str, Any], key: str, angle_key: str, length: int, where: str) -> float | None:
    """A focal length in pixels, or None if the file does not say."""
    if key in fields:
        focal = number(fields, key, where)
        if focal <= 0:
            raise InputError(where, f"{key} is {focal:g}", "give a focal length above 0 pixels")
        return focal
    if angle_key not in fields:
        return None
    angle = number(fields, angle_key, where)
    if not 0 < angle < math.pi:
        raise InputError(where, f"{angle_key} is {angle:g}", "give an angle between 0 and pi radians")
    return 0.5 * length / math.tan(angle / 2)


def _distortion(fields: Mapping[str, Any], where: str) -> Distortion | None:
    """The lens, None if all coefficients are zero or missing."""
    model = fields.get("camera_model", "OPENCV")
    if model not in _PINHOLE_OR_OPENCV or fields.get("is_fisheye"):
        raise InputError(
            where,
            f"camera_model is {json.dumps(model)}",
            f"undistort the photos to pinhole cameras first (read here: {', '.join(_PINHOLE_OR_OPENCV)})",
        )
    if model in ("PINHOLE", "SIMPLE_PINHOLE"):
        return None
    keys = ("k1", "k2", "k3", "k4", "p1", "p2")
    return Distortion(**{key: number(fields, key, where, 0.0) for key in keys}) or None


def read_splits(folder: Path, num_views: int) -> dict[int, Split]:
    """All `train_test_split_N.json` of a folder, by N.

    Raises:
        InputError: an id is not an integer, out of range or twice in a list, or `train_ids` is empty.
    """
    found = {int(match[1]): path for path in folder.iterdir() if (match := _SPLIT_NAME.fullmatch(path.name))}
    return {n: _split(found[n], num_views) for n in sorted(found)}


def _split(path: Path, num_views: int) -> Split:
    data = read_json(path)
    train, test = (_ids(data, key, path, num_views) for key in ("train_ids", "test_ids"))
    if not train:
        raise InputError(f"file {path}", "train_ids is []", "name at least one context view")
    return Split(train_ids=train, test_ids=test)


def _ids(data: Mapping[str, Any], key: str, path: Path, num_views: int) -> tuple[int, ...]:
    """One list of a split, each id valid and named once."""
    ids = data.get(key)
    if not isinstance(ids, list) or not all(isinstance(i, int) and not isinstance(i, bool) for i in ids):
        raise InputError(f"file {path}", f"{key} is {json.dumps(ids)[:40]}", "give a list of frame numbers")
    for i in ids:
        if not 0 <= i < num_views:
            raise InputError(f"file {path}", f"{key} holds {i}", f"name frames 0 to {num_views - 1}")
    repeated = [i for i, count in Counter(ids).items() if count > 1]
    if repeated:
        raise InputError(f"file {path}", f"{key} holds {repeated[0]} twice", "name every frame once")
    return tuple(ids)


def write_transforms(path: Path, cameras: Cameras, names: Sequence[str | None]) -> None:
    """Writes cameras as a nerfstudio transforms.json, or nothing: enough to train a 3DGS on a result folder.

    Args:
        path: the JSON file to write.
        cameras: one per name.
        names: image files relative to the JSON's folder; None writes null.

    Raises:
        InputError: not one name per camera.
        OutputError: see `media.written_beside`.
    """
    media.write_bytes(path, json.dumps(transforms_from(cameras, names), indent=1).encode())


def transforms_from(cameras: Cameras, names: Sequence[str | None]) -> dict[str, Any]:
    """The content of such a file; see `write_transforms`."""
    if len(names) != len(cameras):
        raise InputError("names", f"{len(names)} for {len(cameras)} cameras", "give one name per camera")
    frames = [frame_from(cameras, index, name) for index, name in enumerate(names)]
    return {"camera_model": "PINHOLE", "w": cameras.width, "h": cameras.height, "frames": frames}


def frame_from(cameras: Cameras, index: int, name: str | None) -> dict[str, Any]:
    """One camera as an entry of `frames`."""
    K = cameras.K[index]
    return {
        "file_path": name,
        "fl_x": float(K[0, 0]),
        "fl_y": float(K[1, 1]),
        "cx": float(K[0, 2]),
        "cy": float(K[1, 2]),
        "transform_matrix": flip_yz(cameras.c2w[index]).tolist(),
    }
