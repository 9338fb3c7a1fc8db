"""COLMAP sparse models, text and binary; lenses that are no polynomial are computed by pycolmap.

`cameras` holds a model's name, size and parameters; `images` holds, per photo, the world-to-camera rotation as a
quaternion (w, x, y, z) and translation, so that c2w = [R^T, -R^T t; 0 1]. Axes are OpenCV's and pixels are
counted from the image corner: nothing is converted. Reference: COLMAP documentation, "Output format".

Shapes: one photo at a time.
"""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from sphinx_nvs.errors import InputError
from sphinx_nvs.geometry import se3
from sphinx_nvs.geometry.cameras import check_pose
from sphinx_nvs.scene.capture import Capture, PosedView
from sphinx_nvs.scene.distortion import Bend, Distortion, Lens
from sphinx_nvs.scene.intrinsics import MOST_PIXELS, fit_to_image, intrinsics_matrix
from sphinx_nvs.scene.orientation import Readings, settled
from sphinx_nvs.scene.photos import check_one_pose_a_photo, find_photo, natural_key, photos_in
from sphinx_nvs.scene.textfile import read_text, text_in

_ONE, _TWO = ("f", "cx", "cy"), ("fx", "fy", "cx", "cy")
_MODELS: dict[str, tuple[int, tuple[str, ...]]] = {
    "SIMPLE_PINHOLE": (0, _ONE),
    "PINHOLE": (1, _TWO),
    "SIMPLE_RADIAL": (2, (*_ONE, "k1")),
    "RADIAL": (3, (*_ONE, "k1", "k2")),
    "OPENCV": (4, (*_TWO, "k1", "k2", "p1", "p2")),
    "OPENCV_FISHEYE": (5, (*_TWO, "k1", "k2", "k3", "k4")),
    "FULL_OPENCV": (6, (*_TWO, "k1", "k2", "p1", "p2", "k3", "k4", "k5", "k6")),
    "FOV": (7, (*_TWO, "omega")),
    "SIMPLE_RADIAL_FISHEYE": (8, (*_ONE, "k")),
    "RADIAL_FISHEYE": (9, (*_ONE, "k1", "k2")),
    "THIN_PRISM_FISHEYE": (10, (*_TWO, "k1", "k2", "p1", "p2", "k3", "k4", "sx1", "sy1")),
    "RAD_TAN_THIN_PRISM_FISHEYE": (
        11,
        (*_TWO, "k0", "k1", "k2", "k3", "k4", "k5", "p0", "p1", "s0", "s1", "s2", "s3"),
    ),
    "SIMPLE_DIVISION": (12, (*_ONE, "k")),
    "DIVISION": (13, (*_TWO, "k")),
    "SIMPLE_FISHEYE": (14, _ONE),
    "FISHEYE": (15, _TWO),
    "EUCM": (16, (*_TWO, "alpha", "beta")),
}
_NAME_OF_ID = {number: name for name, (number, _) in _MODELS.items()} | {17: "EQUIRECTANGULAR"}
_POLYNOMIALS = ("SIMPLE_PINHOLE", "PINHOLE", "SIMPLE_RADIAL", "RADIAL", "OPENCV")
_NEUTRAL = ("FULL_OPENCV", "SIMPLE_DIVISION", "DIVISION")
"""Models that are a pinhole when every parameter is 0."""

_PLACES = ("", "sparse", "colmap/sparse", "distorted/sparse", "dense/sparse", "colmap", "model", "models")
_PHOTO_FOLDERS = ("images", "input", "images_2", "images_4", "images_8")


@dataclass(frozen=True, kw_only=True)
class _Camera:
    """A line of `cameras`."""

    K: Float[Tensor, "3 3"]
    height: int
    width: int
    lens: Bend | None


@dataclass(frozen=True, kw_only=True)
class _Photo:
    """A line of `images`: world-to-camera as (w, x, y, z, tx, ty, tz)."""

    number: int
    pose: tuple[float, ...]
    lens: int
    name: str


def sparse_folders(path: Path) -> list[Path]:
    """The folders that hold models: `path` itself, or its usual places below and the numbered ones there."""
    found = []
    for place in _PLACES:
        folder = path / place
        numbered = sorted(
            (inner for inner in folder.glob("*") if inner.name.isdecimal() and inner.is_dir()),
            key=lambda inner: int(inner.name),
        )
        found += [candidate for candidate in (folder, *numbered) if _holds_model(candidate)]
        if found:
            break
    return found


def _holds_model(folder: Path) -> bool:
    return any((folder / f"images{ending}").is_file() for ending in (".bin", ".txt"))


def sparse_folder(path: Path) -> Path | None:
    """The folder that holds the first model; None if there is none."""
    return next(iter(sparse_folders(path)), None)


def read_colmap(path: Path) -> Capture:
    """Reads a COLMAP sparse model and the photos beside it; views are sorted by name, numbers as numbers.

    Of several models the one with the most photos is read. Lenses of every model are undistorted as photos are loaded.

    Args:
        path: the scene (`sparse/0`, `sparse` or `colmap/sparse/0` below it) or the model's folder. Photos lie in
            `images` or `input` (or smaller in `images_2`, `images_4`, `images_8`), beside the model or up to three
            folders above it, or beside `sparse` itself.

    Raises:
        InputError: a file is missing, damaged or inconsistent, or its cameras are no perspective or fisheye ones.
    """
    folders = sparse_folders(path)
    if not folders:
        raise InputError(f"folder {path}", "it holds no COLMAP model", "give a folder with images.bin or images.txt")
    models = [(folder, _read_images(folder)) for folder in folders]
    sparse, photos = max(models, key=lambda model: len(model[1]))
    if not photos:
        raise InputError(f"COLMAP model {sparse}", "it has 0 images", "give a model with at least one image")
    cameras = _read_cameras(sparse)
    photos = sorted(photos, key=lambda photo: natural_key(photo.name))
    found = _photo_files(sparse, photos)
    readings = [_readings(photo, cameras, found, sparse) for photo in photos]
    views, notes = settled(readings, habit=False)
    check_one_pose_a_photo([(v.name, found.get(v.name), v.c2w) for v in views], f"COLMAP model {sparse}")
    root = path if path.is_dir() and sparse != path else _above(sparse)
    return Capture(
        name=root.resolve().name,
        views=views,
        path=path,
        layout="COLMAP sparse model",
        notes=(*_told(models, sparse), *_in_two_forms(sparse), *_unregistered(found, photos), *notes),
    ).centred()


def _told(models: list[tuple[Path, list[_Photo]]], sparse: Path) -> tuple[str, ...]:
    """Which of several models is read."""
    if len(models) == 1:
        return ()
    sizes = ", ".join(f"{folder.name} with {len(photos)}" for folder, photos in models)
    return (f"there are {len(models)} COLMAP models ({sizes} photos): {sparse.name}, the largest, is read",)


def _in_two_forms(sparse: Path) -> tuple[str, ...]:
    """Which form of a model is read, if it is there in both and they differ."""
    binary, text = sparse / "images.bin", sparse / "images.txt"
    if not (binary.is_file() and text.is_file()):
        return ()
    try:
        if _are_alike(_read_images_bin(binary), _read_images_txt(text)):
            return ()
    except InputError:
        pass
    newer = " and newer" if text.stat().st_mtime > binary.stat().st_mtime else ""
    return (f"images.bin and cameras.bin are read; images.txt beside is different{newer}: remove what is not meant",)


def _are_alike(one: list[_Photo], other: list[_Photo]) -> bool:
    """Whether two lists have the same photos with the same poses, up to rounding in text."""
    first, second = ({photo.name: photo.pose for photo in photos} for photos in (one, other))
    return first.keys() == second.keys() and all(
        math.isclose(a, b, rel_tol=1e-6, abs_tol=1e-6)
        for name, pose in first.items()
        for a, b in zip(pose, second[name], strict=True)
    )


def _unregistered(found: dict[str, Path], photos: list[_Photo]) -> tuple[str, ...]:
    """What to tell of photos that the model does not have."""
    beside = {path for folder in {path.parent for path in found.values()} for path in photos_in(folder)}
    missing = sorted(beside - set(found.values()))
    if not missing:
        return ()
    return (f"{len(missing)} photos beside the model are not in it ({missing[0].name}, ...): they have no camera",)


def photo_names(path: Path) -> list[str]:
    """Names of the photos of COLMAP models (see `read_colmap`), as they are written there; no photo is looked for."""
    return [photo.name for folder in sparse_folders(path) for photo in _read_images(folder)]


def _read_cameras(sparse: Path) -> dict[int, _Camera]:
    """Cameras by id, from whichever form the images have."""
    if (sparse / "images.bin").is_file():
        return _read_cameras_bin(sparse / "cameras.bin")
    return _read_cameras_txt(sparse / "cameras.txt")


def _read_images(sparse: Path) -> list[_Photo]:
    """Images, from whichever form is there."""
    if (sparse / "images.bin").is_file():
        return _read_images_bin(sparse / "images.bin")
    return _read_images_txt(sparse / "images.txt")


def _above(sparse: Path) -> Path:
    """The scene's folder, of a model's."""
    folder = sparse.resolve()
    while folder.name.isdecimal() or folder.name in ("sparse", "distorted", "colmap", "model", "models", "dense"):
        folder = folder.parent
    return folder


def _photo_files(sparse: Path, photos: list[_Photo]) -> dict[str, Path]:
    """Every photo's file by its name in the model, all from the folder that has the most of them."""
    above = [sparse, *list(sparse.resolve().parents)[:3]]
    folders = [inner for folder in above for inner in (*(folder / name for name in _PHOTO_FOLDERS), folder)]
    best: dict[str, Path] = {}
    for folder in (folder for folder in folders if folder.is_dir()):
        found = {photo.name: path for photo in photos if (path := find_photo(folder, photo.name)) is not None}
        if len(found) > len(best):
            best = found
        if len(best) == len(photos):
            break
    if not best:
        names = ", ".join(_PHOTO_FOLDERS)
        raise InputError(
            f"COLMAP model {sparse}",
            f"no photo such as {photos[0].name} is found beside or above it (looked in {names})",
            "put the photos into images beside the model",
        )
    return best


def _readings(photo: _Photo, cameras: dict[int, _Camera], found: dict[str, Path], sparse: Path) -> Readings:
    """A photo with its camera, brought to the photo's real size, by how it may be read."""
    where = f"image {photo.name} of COLMAP model {sparse}"
    if photo.lens not in cameras:
        raise InputError(where, f"its camera {photo.lens} is not in cameras", "export the model again")
    camera, image = cameras[photo.lens], found.get(photo.name)
    if image is None:
        folder = next(iter(found.values())).parent
        raise InputError(
            where, f"there is no file {folder / photo.name}", "restore the image or remove it from the model"
        )
    c2w = _pose(photo, where)
    fitting = fit_to_image(camera.K, (camera.height, camera.width), image, f"COLMAP model {sparse}")
    return {
        fitted.oriented: PosedView(
            name=photo.name,
            c2w=c2w,
            K=fitted.K,
            height=fitted.height,
            width=fitted.width,
            image=image,
            distortion=camera.lens,
            oriented=fitted.oriented,
        )
        for fitted in fitting
    }


def _pose(photo: _Photo, where: str) -> Float[Tensor, "4 4"]:
    """Camera-to-world of a photo."""
    numbers = torch.tensor(photo.pose, dtype=torch.float64)
    if float(numbers[:4].norm()) < 1e-6:
        raise InputError(f"pose of {where}", "its quaternion is zero", "give a unit quaternion")
    w2c = se3.pose_from(se3.rotation_from_quaternion(numbers[:4]), numbers[4:])
    c2w = se3.inverse(w2c)
    check_pose(c2w, where)
    return c2w


def _camera(model: str, width: int, height: int, numbers: tuple[float, ...], where: str) -> _Camera:
    """Named parameters to K and lens."""
    if model not in _MODELS:
        hint = f"undistort with COLMAP's image_undistorter first (read here: {', '.join(_MODELS)})"
        raise InputError(where, f"its model is {model}", hint)
    names = _MODELS[model][1]
    if len(numbers) != len(names):
        raise InputError(where, f"{model} has {len(numbers)} parameters", f"give {len(names)}: {', '.join(names)}")
    named = dict(zip(names, numbers, strict=True))
    fx, fy = named.get("fx", named.get("f", 0.0)), named.get("fy", named.get("f", 0.0))
    if fx <= 0 or fy <= 0:
        raise InputError(where, f"its focal length is {min(fx, fy):g}", "give a focal length above 0 pixels")
    if not (1 <= width <= MOST_PIXELS and 1 <= height <= MOST_PIXELS):
        raise InputError(where, f"its size is {width}x{height}", "give the image's size in pixels")
    K = intrinsics_matrix(fx, fy, named["cx"], named["cy"])
    return _Camera(K=K, height=height, width=width, lens=_lens(model, named))


def _lens(model: str, named: dict[str, float]) -> Bend | None:
    """The lens of a camera, None for a pinhole."""
    focals = 1 if "f" in named else 2
    numbers = tuple(named.values())[focals + 2 :]
    if model in _POLYNOMIALS:
        return Distortion(**{key: value for key, value in named.items() if key[0] in "kp"}) or None
    if model in _NEUTRAL and not any(numbers):
        return None
    return Lens(model=model, numbers=numbers, focals=focals)


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """Line numbers and lines without comments; empty lines are kept, for they count in images.txt."""
    if not path.is_file():
        raise InputError(f"file {path}", "there is no such file", "give the whole COLMAP model")
    return ((n, line) for n, line in enumerate(read_text(path).splitlines(), 1) if not line.lstrip().startswith("#"))


def _read_cameras_txt(path: Path) -> dict[int, _Camera]:
    cameras = {}
    for n, line in _lines(path):
        fields = line.split()
        if not fields:
            continue
        where = f"{path}, line {n}"
        try:
            number, width, height = int(fields[0]), int(fields[2]), int(fields[3])
            numbers = tuple(float(field) for field in fields[4:])
        except (IndexError, ValueError) as error:
            raise _malformed(where, line, "CAMERA_ID MODEL WIDTH HEIGHT PARAMS...") from error
        cameras[number] = _camera(fields[1], width, height, numbers, where)
    return cameras


def _read_images_txt(path: Path) -> list[_Photo]:
    """Every photo has a line, and behind it one of its 2D points, which may be empty, or missing where there are none.

    A line of points is a multiple of three numbers and never reads as a photo's line, whose last field is a name.
    """
    photos = []
    is_points = False
    for n, line in _lines(path):
        fields = line.split(maxsplit=9)
        if not fields or (is_points and _reads_as_points(line)):
            is_points = False
            continue
        try:
            pose = tuple(float(field) for field in fields[1:8])
            photos.append(_Photo(number=int(fields[0]), pose=pose, lens=int(fields[8]), name=fields[9].strip()))
        except (IndexError, ValueError) as error:
            expected = "IMAGE_ID QW QX QY QZ TX TY TZ CAMERA_ID NAME"
            raise _malformed(f"{path}, line {n}", line, expected) from error
        is_points = True
    return photos


def _reads_as_points(line: str) -> bool:
    """Whether a line holds (X, Y, POINT3D_ID) triples: unlike a photo's it ends in a whole number at a third place."""
    fields = line.split()
    return len(fields) % 3 == 0 and _WHOLE.fullmatch(fields[2]) is not None and _WHOLE.fullmatch(fields[-1]) is not None


_WHOLE = re.compile(r"-?\d+")


def _malformed(where: str, line: str, expected: str) -> InputError:
    return InputError(where, f"cannot be understood ({line[:40]!r})", f"it must read {expected}")


class _Bytes:
    """Little-endian values from a binary file, with a sentence where it ends too early."""

    def __init__(self, path: Path) -> None:
        if not path.is_file():
            raise InputError(f"file {path}", "there is no such file", "give the whole COLMAP model")
        self._path, self._data, self._at = path, path.read_bytes(), 0

    def take(self, layout: str) -> tuple[Any, ...]:
        """The next values of a `struct` layout."""
        size = struct.calcsize("<" + layout)
        self.skip(size)
        return struct.unpack_from("<" + layout, self._data, self._at - size)

    def skip(self, size: int) -> None:
        """Passes over bytes that are not needed."""
        self._at += size
        if self._at > len(self._data):
            raise self._truncated()

    def text(self) -> str:
        """A string that ends with a zero byte."""
        end = self._data.find(b"\0", self._at)
        if end < 0:
            raise self._truncated()
        start, self._at = self._at, end + 1
        data = self._data[start:end]
        return text_in(data) or data.decode("utf-8", errors="replace")

    def _truncated(self) -> InputError:
        return InputError(f"file {self._path}", f"it is truncated at {len(self._data)} bytes", "copy it again")


def _read_cameras_bin(path: Path) -> dict[int, _Camera]:
    data = _Bytes(path)
    cameras = {}
    for _ in range(data.take("Q")[0]):
        number, model_id, width, height = data.take("iiQQ")
        where = f"camera {number} of {path}"
        model = _NAME_OF_ID.get(model_id, f"number {model_id}")
        count = len(_MODELS[model][1]) if model in _MODELS else 0
        cameras[number] = _camera(model, width, height, data.take("d" * count), where)
    return cameras


def _read_images_bin(path: Path) -> list[_Photo]:
    data = _Bytes(path)
    photos = []
    for _ in range(data.take("Q")[0]):
        number, *pose, lens = data.take("i7di")
        photos.append(_Photo(number=number, pose=tuple(pose), lens=lens, name=data.text()))
        data.skip(data.take("Q")[0] * struct.calcsize("<ddq"))
    return photos
