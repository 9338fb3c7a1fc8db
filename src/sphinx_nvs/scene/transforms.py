"""nerfstudio's transforms.json, in and out, with the train/test splits of ReconFusion and SEVA beside it.

The file holds camera-to-world matrices with OpenGL axes (+x right, +y up, -z forward), so that

    c2w = applied_transform^-1 . transform_matrix . diag(1, -1, -1, 1)

and intrinsics in pixels counted from the image corner, which is this package's convention already. Beside
`transform_matrix` and `fl_x` .. `cy` a frame may have `c2w` (OpenCV axes) and `K`.
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
from pathlib import Path, PurePosixPath
from typing import Any

from jaxtyping import Float
from torch import Tensor

from sphinx_nvs import media
from sphinx_nvs.errors import InputError
from sphinx_nvs.geometry.cameras import Cameras, check_intrinsics, check_pose
from sphinx_nvs.scene.capture import Capture, PosedView, Split
from sphinx_nvs.scene.distortion import Bend, Distortion, Lens
from sphinx_nvs.scene.intrinsics import MOST_PIXELS, Fitted, fit_to_image, intrinsics_matrix, readings
from sphinx_nvs.scene.jsonfile import matrix, number, numbers, read_json, read_json_value, shown
from sphinx_nvs.scene.orientation import Readings, settled
from sphinx_nvs.scene.photos import check_one_pose_a_photo, find_photo
from sphinx_nvs.scene.world_frame import World

_PINHOLE_OR_OPENCV = ("PINHOLE", "SIMPLE_PINHOLE", "OPENCV", "SIMPLE_RADIAL", "RADIAL", "PERSPECTIVE")
_FISHEYES = ("OPENCV_FISHEYE", "SIMPLE_RADIAL_FISHEYE", "RADIAL_FISHEYE")
_FULL = "FULL_OPENCV"
_LENS_FIELDS = ("k1", "k2", "k3", "k4", "p1", "p2")
_MATRIX = "intrinsic_matrix"
_SPLIT_NAME = re.compile(r"train_test_split_(\d+)\.json")
_ANGLES_DIFFER = 0.02
_FULL_SIZE, _SMALLER = "images", ("images_2", "images_4", "images_8")
_LISTS = ("train_filenames", "val_filenames", "test_filenames")

_READ = {
    *("frames", "camera_model", "w", "h", "fl_x", "fl_y", "cx", "cy", "camera_angle_x", "camera_angle_y", "is_fisheye"),
    *_LENS_FIELDS,
    *(
        "k5",
        "k6",
        "applied_transform",
        "applied_scale",
        "is_bad",
        "file_path",
        "transform_matrix",
        "c2w",
        "K",
        "intrinsic_matrix",
    ),
    *_LISTS,
}
"""Fields that are read."""

_NEEDLESS = {
    *("colmap_im_id", "camera_id", "ply_file_path", "orientation_override", "auto_scale_poses_override", "aabb_scale"),
    *("sharpness", "rotation", "scale", "offset", "fps", "timestamp", "time", "date", "version", "comment"),
    *("depth_file_path", "normal_file_path", "integer_depth_scale", "trainable", "format"),
}
"""Fields that say nothing about what a camera sees."""


def flip_yz(c2w: Float[Tensor, "*V 4 4"]) -> Float[Tensor, "*V 4 4"]:
    """Camera-to-world from OpenGL axes to OpenCV axes, or back."""
    return c2w * c2w.new_tensor([1.0, -1.0, -1.0, 1.0])


def read_transforms(path: Path, *, with_images: bool = True) -> Capture:
    """Reads a transforms.json and the `train_test_split_N.json` files beside it.

    Intrinsics may be shared or per frame; `camera_angle_x` stands for `fl_x`; `w`, `h` may be missing when
    the image is there; `file_path` may be null (a camera without photo) or lack its ending. `train_filenames` and
    `test_filenames` make a split.

    Args:
        path: the JSON file.
        with_images: False reads cameras only: photos are not looked for where `w` and `h` are given.

    Raises:
        InputError: anything in it cannot be used; the sentence names the file, the frame and the field.
    """
    return transforms_in(read_json_value(path), path, with_images=with_images)


def transforms_in(value: Any, path: Path, *, with_images: bool = True, world: World | None = None) -> Capture:
    """The capture that the content of a transforms.json describes; see `read_transforms`.

    Args:
        value: the content; a list is taken for `frames`.
        path: where it lies, or what it is called in errors.
        with_images: see `read_transforms`.
        world: world of the scene that these cameras belong to: its coordinates are meant unless the content has an
            `applied_transform` of its own, and its origin is kept. None for a scene by itself.

    Raises:
        InputError: see `read_transforms`.
    """
    given = object_with_frames(value, path)
    kept = [frame.get("is_bad") is not True for frame in given["frames"]]
    data, left_out = _without_bad(given, kept, path)
    own, scene = _world(data, path), world
    world = own if scene is None else _in_scene(own, scene)
    readings = [_readings(data, frame, world, path, i, with_images) for i, frame in enumerate(data["frames"])]
    views, notes = settled(readings, habit=True)
    if scene is None and with_images:
        photos = [view.image if isinstance(view.image, Path) else None for view in views]
        check_one_pose_a_photo([(v.name, p, v.c2w) for v, p in zip(views, photos, strict=True)], f"file {path}")
    named = {str(frame.get("file_path")): index for index, frame in enumerate(data["frames"])}
    splits, listed = _listed_split(data, named, path)
    beside = _kept_of(read_splits(path.parent, len(kept)), kept) if scene is None else {}
    listed = (*listed, *_replaced_split(splits, beside))
    capture = Capture(
        name=path.parent.resolve().name,
        views=views,
        splits=splits | beside,
        held_out=next((split.test_ids for split in splits.values()), ()),
        path=path,
        layout="nerfstudio transforms.json",
        world=world,
        notes=(
            *notes,
            *left_out,
            *_lens_notes(data),
            *_angle_notes(data),
            *_matrix_notes(data),
            *listed,
            *_unread(data),
        ),
    )
    return capture.centred() if scene is None else capture


def _without_bad(data: dict[str, Any], kept: list[bool], path: Path) -> tuple[dict[str, Any], tuple[str, ...]]:
    """The frames but for those that ScanNet++ marks as bad, and what to tell of these.

    Args:
        data: with all frames.
        kept: whether each frame is.
        path: names the file in errors.
    """
    if all(kept):
        return data, ()
    if not any(kept):
        raise InputError(f"file {path}", "is_bad is true for every frame", "leave at least two frames without it")
    bad = {str(frame.get("file_path")) for frame, is_kept in zip(data["frames"], kept, strict=True) if not is_kept}
    lists = {key: [name for name in data[key] if name not in bad] for key in _LISTS if isinstance(data.get(key), list)}
    frames = [frame for frame, is_kept in zip(data["frames"], kept, strict=True) if is_kept]
    return {**data, **lists, "frames": frames}, (f"frames with is_bad are left out ({len(bad)} of {len(kept)})",)


def _kept_of(splits: Mapping[int, Split], kept: list[bool]) -> dict[int, Split]:
    """Splits in the numbers of the frames that are kept."""
    numbers = {old: new for new, old in enumerate(index for index, is_kept in enumerate(kept) if is_kept)}
    return {
        count: Split(
            train_ids=tuple(numbers[i] for i in split.train_ids if i in numbers),
            test_ids=tuple(numbers[i] for i in split.test_ids if i in numbers),
        )
        for count, split in splits.items()
    }


def _in_scene(own: World, scene: World) -> World:
    """The coordinates of cameras for a scene: their own where they say so, else the scene's."""
    is_said = own.transform is not None or own.scale != 1.0
    return World(transform=own.transform, scale=own.scale, origin=scene.origin) if is_said else scene


def object_with_frames(value: Any, path: Path) -> dict[str, Any]:
    """The object with a list `frames` that cameras are in; a bare list is taken for it.

    Raises:
        InputError: it is something else, or an entry is no object.
    """
    data = {"frames": value} if isinstance(value, list) else value
    if not isinstance(data, dict):
        raise InputError(f"file {path}", f"it holds a {type(data).__name__}, not an object", "give {...} with frames")
    frames = data.get("frames")
    if not isinstance(frames, list) or not frames:
        found = "frames is missing" if frames is None else f"frames is {shown(frames)}"
        raise InputError(f"file {path}", found, "list at least one frame")
    for index, frame in enumerate(frames):
        if not isinstance(frame, dict):
            where = f"frame {index} of {path}"
            raise InputError(where, f"it is {shown(frame)}", "give an object with transform_matrix")
    return data


def _world(data: Mapping[str, Any], path: Path) -> World:
    """The file's coordinates, by `applied_transform` and `applied_scale`."""
    rows = None
    if data.get("applied_transform") is not None:
        applied = matrix(data["applied_transform"], f"file {path}", "applied_transform")
        rows = tuple(tuple(row) for row in applied[:3].tolist())
    scale = number(data, "applied_scale", f"file {path}", 1.0) if data.get("applied_scale") is not None else 1.0
    try:
        return World(transform=rows, scale=scale)
    except InputError as error:
        found = f"{error.where}{error.found.removeprefix('it')}"
        raise InputError(f"file {path}", found, error.hint) from None


def _readings(
    data: Mapping[str, Any], frame: Mapping[str, Any], world: World, path: Path, index: int, with_images: bool
) -> Readings:
    """One entry of `frames` by how its photo may be read; its own fields win over the file's."""
    where = f"frame {index} of {path}"
    # Some programs write null for what they do not know.
    fields = {key: value for key, value in {**data, **frame}.items() if value is not None}
    is_sized = "w" in fields and "h" in fields
    wanted = with_images or not is_sized
    image = _image_path(frame.get("file_path"), path.parent, where) if wanted else None
    c2w = world.inside(_pose(frame, where))
    check_pose(c2w, where)
    lens = _distortion(fields, where)
    return {
        fitted.oriented: PosedView(
            name=frame.get("file_path") or f"frame {index}",
            c2w=c2w,
            K=fitted.K,
            height=fitted.height,
            width=fitted.width,
            image=image,
            distortion=lens,
            oriented=fitted.oriented,
        )
        for fitted in _intrinsics(fields, image, where)
    }


def _pose(frame: Mapping[str, Any], where: str) -> Float[Tensor, "4 4"]:
    """`transform_matrix` (OpenGL axes) or `c2w` (OpenCV axes), in OpenCV axes."""
    if frame.get("c2w") is None:
        return flip_yz(matrix(frame.get("transform_matrix"), where, "transform_matrix"))
    if frame.get("transform_matrix") is not None:
        raise InputError(where, "it has c2w and transform_matrix", "give one of both")
    return matrix(frame["c2w"], where, "c2w")


def _image_path(name: object, folder: Path, where: str) -> Path | None:
    """The photo's file; see `photos.find_photo`."""
    if name is None or name == "":
        return None
    if not isinstance(name, str):
        raise InputError(where, f"file_path is {shown(name)}", "give a file name or null")
    found = find_photo(folder, name) or _smaller_photo(folder, name)
    if found is None:
        raise InputError(
            where, f"its image {folder / name} does not exist", "restore the image or set file_path to null"
        )
    return found


def _smaller_photo(folder: Path, name: str) -> Path | None:
    """The photo in a folder of smaller copies, where a data set is kept without the full ones."""
    parts = PurePosixPath(name.replace("\\", "/")).parts
    if parts[0] != _FULL_SIZE:
        return None
    copies = (find_photo(folder, str(PurePosixPath(smaller, *parts[1:]))) for smaller in _SMALLER)
    return next((copy for copy in copies if copy is not None), None)


def _intrinsics(fields: Mapping[str, Any], image: Path | None, where: str) -> tuple[Fitted, ...]:
    """K at the size of the photo, or at `w` x `h` for a camera without photo; one for each reading of the photo."""
    if image is not None and "w" not in fields and "h" not in fields:
        return tuple(
            Fitted(K=_pixel_intrinsics(fields, size, where), height=size[0], width=size[1], oriented=oriented)
            for oriented, size in readings(image).items()
        )
    size = _declared_size(fields, where)
    K = _pixel_intrinsics(fields, size, where)
    return (Fitted(K=K, height=size[0], width=size[1]),) if image is None else fit_to_image(K, size, image, where)


def _declared_size(fields: Mapping[str, Any], where: str) -> tuple[int, int]:
    """Height and width that the intrinsics are for."""
    height, width = (round(number(fields, key, where)) for key in ("h", "w"))
    if height < 1 or width < 1:
        raise InputError(where, f"w and h are {width} and {height}", "give the image's size in pixels")
    if max(height, width) > MOST_PIXELS:
        raise InputError(where, f"w and h are {width} and {height}", f"give at most {MOST_PIXELS} pixels")
    return height, width


def _pixel_intrinsics(fields: Mapping[str, Any], size: tuple[int, int], where: str) -> Float[Tensor, "3 3"]:
    """K in pixels from K, or from fl_x, fl_y, cx, cy or camera_angle_x, camera_angle_y (radians)."""
    if fields.get("K") is not None:
        return _matrix_intrinsics(fields["K"], "K", where)
    if fields.get(_MATRIX) is not None and not any(key in fields for key in ("fl_x", "fl_y")):
        return _matrix_intrinsics(fields[_MATRIX], _MATRIX, where)
    height, width = size
    fx = _focal(fields, "fl_x", "camera_angle_x", width, where)
    fy = _focal(fields, "fl_y", "camera_angle_y", height, where)
    if fx is None and fy is None:
        raise InputError(where, "fl_x is missing", "add fl_x in pixels or camera_angle_x in radians")
    fx, fy = (fx if fx is not None else fy), (fy if fy is not None else fx)
    cx, cy = number(fields, "cx", where, width / 2), number(fields, "cy", where, height / 2)
    return intrinsics_matrix(float(fx or 0), float(fy or 0), cx, cy)


def _matrix_intrinsics(value: object, key: str, where: str) -> Float[Tensor, "3 3"]:
    """K as it is given, by itself or as the corner of a 4x4 matrix."""
    hint = "give 3 rows of 3 numbers, in pixels; the last one is 0 0 1"
    K = numbers(value, where, key, hint)
    if K.shape not in ((3, 3), (4, 4)):
        raise InputError(where, f"{key} has shape {tuple(K.shape)}", hint)
    K = K[:3, :3]
    if K[2].tolist() != [0.0, 0.0, 1.0]:
        found = f"the third row of {key} is {' '.join(f'{x:g}' for x in K[2].tolist())}"
        raise InputError(where, found, f"{hint}; it may be transposed")
    check_intrinsics(K, where)
    return K


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


def _distortion(fields: Mapping[str, Any], where: str) -> Bend | None:
    """The lens, None if all coefficients are zero or missing."""
    model = fields.get("camera_model", "OPENCV")
    flag = fields.get("is_fisheye", False)
    if flag not in (True, False):
        raise InputError(where, f"is_fisheye is {shown(flag)}", "give true or false")
    is_fisheye = model in _FISHEYES or bool(flag)
    if not is_fisheye and model not in (*_PINHOLE_OR_OPENCV, _FULL):
        known = ", ".join((*_PINHOLE_OR_OPENCV, _FULL, *_FISHEYES))
        raise InputError(
            where,
            f"camera_model is {shown(model)}",
            f"undistort the photos to pinhole cameras first (read here: {known})",
        )
    given = {key: number(fields, key, where, 0.0) for key in (*_LENS_FIELDS, "k5", "k6")}
    if is_fisheye:
        return Lens(model="OPENCV_FISHEYE", numbers=tuple(given[key] for key in ("k1", "k2", "k3", "k4")))
    if model == _FULL or given["k5"] or given["k6"]:
        order = ("k1", "k2", "p1", "p2", "k3", "k4", "k5", "k6")
        return Lens(model=_FULL, numbers=tuple(given[key] for key in order)) if any(given.values()) else None
    return Distortion(**{key: given[key] for key in _LENS_FIELDS}) or None


def _lens_notes(data: Mapping[str, Any]) -> tuple[str, ...]:
    """What to tell of coefficients that the camera model does not list."""
    entries = [{**data, **frame} for frame in data["frames"]]
    bent = next((entry for entry in entries if _is_bent_pinhole(entry)), None)
    if bent is None:
        return ()
    keys = ", ".join(key for key in _LENS_FIELDS if bent.get(key))
    return (f"camera_model is {bent['camera_model']}, which has no {keys}: they are used as those of OPENCV",)


def _angle_notes(data: Mapping[str, Any]) -> tuple[str, ...]:
    """What to tell of an angle that is another than that of the focal length, which wins."""
    for entry in ({**data, **frame} for frame in data["frames"]):
        for key, angle_key, side in (("fl_x", "camera_angle_x", "w"), ("fl_y", "camera_angle_y", "h")):
            given = [value for name in (key, angle_key, side) if isinstance(value := entry.get(name), int | float)]
            if len(given) < 3 or min(given) <= 0:
                continue
            focal, angle, length = given
            meant = 2 * math.atan(length / (2 * focal))
            if abs(angle / meant - 1) > _ANGLES_DIFFER:
                said = f"{angle_key} is {math.degrees(angle):.3g} degrees and {key} means {math.degrees(meant):.3g}"
                return (f"{said}: {key} is used",)
    return ()


def _matrix_notes(data: Mapping[str, Any]) -> tuple[str, ...]:
    """What to tell of an intrinsic matrix with another focal length than the other fields say."""
    for entry in ({**data, **frame} for frame in data["frames"]):
        rows, focal, angle = entry.get(_MATRIX), entry.get("fl_x"), entry.get("camera_angle_x")
        if rows is None or entry.get("K") is not None:
            continue
        K = numbers(rows, "frames", _MATRIX, "give 3 rows of 3 numbers")
        given = float(K[0, 0])
        if isinstance(focal, int | float) and abs(focal / given - 1) > _ANGLES_DIFFER:
            return (f"{_MATRIX} has the focal length {given:.4g} and fl_x is {focal:.4g}: fl_x is used",)
        if focal is None and isinstance(angle, int | float):
            width = entry["w"] if isinstance(entry.get("w"), int | float) else 2 * float(K[0, 2])
            meant = 2 * math.atan(width / (2 * given))
            if abs(angle / meant - 1) > _ANGLES_DIFFER:
                said = f"camera_angle_x is {math.degrees(angle):.3g} degrees and {_MATRIX} means"
                return (f"{said} {math.degrees(meant):.3g}: {_MATRIX} is used",)
    return ()


def _is_bent_pinhole(fields: Mapping[str, Any]) -> bool:
    return fields.get("camera_model") in ("PINHOLE", "SIMPLE_PINHOLE") and any(fields.get(k) for k in _LENS_FIELDS)


def _unread(data: Mapping[str, Any]) -> tuple[str, ...]:
    """What to tell of fields that are not used and might matter."""
    keys = {key for entry in (data, *data["frames"]) for key in entry}
    unread = sorted(keys - _READ - _NEEDLESS)
    if not unread:
        return ()
    some = ", ".join(key[:40] for key in unread[:5]) + (", ..." if len(unread) > 5 else "")
    return (f"fields that are not used: {some}",)


def _listed_split(
    data: Mapping[str, Any], named: Mapping[str, int], path: Path
) -> tuple[dict[int, Split], tuple[str, ...]]:
    """The split that `train_filenames` and `test_filenames` make, and what to tell of it."""
    train, val, test = (_listed_ids(data, key, named, path) for key in _LISTS)
    if not train or not (test or val):
        return {}, ()
    held_out = test or val
    note = f"train_filenames and {'test' if test else 'val'}_filenames are split {len(train)}"
    return {len(train): Split(train_ids=train, test_ids=held_out)}, (note,)


def _replaced_split(listed: Mapping[int, Split], beside: Mapping[int, Split]) -> tuple[str, ...]:
    """What to tell where a file beside it has the number of the split that the file itself lists."""
    number = next((number for number, split in listed.items() if beside.get(number, split) != split), None)
    if number is None:
        return ()
    return (f"train_test_split_{number}.json is split {number}, not train_filenames, which names as many",)


def _listed_ids(data: Mapping[str, Any], key: str, named: Mapping[str, int], path: Path) -> tuple[int, ...]:
    """The frames that a list of file names means."""
    names = data.get(key) or []
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise InputError(f"file {path}", f"{key} is {shown(names)}", "give a list of file names")
    for name in names:
        if name not in named:
            raise InputError(f"file {path}", f"{key} holds {shown(name)}", "name files as file_path of frames does")
    return tuple(dict.fromkeys(named[name] for name in names))


def read_splits(folder: Path, num_views: int) -> dict[int, Split]:
    """All `train_test_split_N.json` of a folder, by N.

    Raises:
        InputError: two files have one number, an id is not an integer, out of range or twice in a list, or `train_ids`
            is empty.
    """
    found: dict[int, Path] = {}
    for path in sorted(folder.iterdir()):
        if (match := _SPLIT_NAME.fullmatch(path.name)) is None:
            continue
        other = found.setdefault(int(match[1]), path)
        if other != path:
            message = f"{other.name} and {path.name} are both its split {int(match[1])}"
            raise InputError(f"scene {folder}", message, "keep one of them")
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


def write_transforms(path: Path, cameras: Cameras, names: Sequence[str | None], world: World | None = None) -> None:
    """Writes cameras as a nerfstudio transforms.json, or nothing: enough to train a 3DGS on a result folder.

    Args:
        path: the JSON file to write.
        cameras: one per name.
        names: image files relative to the JSON's folder; None writes null.
        world: the coordinates to write them in; None for those inside.

    Raises:
        InputError: not one name per camera.
        OutputError: see `media.written_beside`.
    """
    media.write_bytes(path, json.dumps(transforms_from(cameras, names, world), indent=1).encode())


def transforms_from(cameras: Cameras, names: Sequence[str | None], world: World | None = None) -> dict[str, Any]:
    """The content of such a file; see `write_transforms`."""
    if len(names) != len(cameras):
        raise InputError("names", f"{len(names)} for {len(cameras)} cameras", "give one name per camera")
    world = World() if world is None else world
    frames = [frame_from(cameras, index, name, world) for index, name in enumerate(names)]
    return {"camera_model": "PINHOLE", "w": cameras.width, "h": cameras.height, **world.fields(), "frames": frames}


def frame_from(cameras: Cameras, index: int, name: str | None, world: World) -> dict[str, Any]:
    """One camera as an entry of `frames`, in the coordinates of a file."""
    K = cameras.K[index]
    return {
        "file_path": name,
        "fl_x": float(K[0, 0]),
        "fl_y": float(K[1, 1]),
        "cx": float(K[0, 2]),
        "cy": float(K[1, 2]),
        "transform_matrix": flip_yz(world.outside(cameras.c2w[index])).tolist(),
    }
