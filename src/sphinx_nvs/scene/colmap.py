"""COLMAP sparse models, text and binary, without COLMAP.

`cameras` holds a model's name, size and parameters; `images` holds, per photo, the world-to-camera rotation as a
quaternion (w, x, y, z) and translation, so that c2w = [R^T, -R^T t; 0 1]. Axes are OpenCV's and pixels are
counted from the image corner: nothing is converted. Reference: COLMAP documentation, "Output format".

Shapes: one photo at a time.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from sphinx_nvs.errors import InputError
from sphinx_nvs.geometry import se3
from sphinx_nvs.geometry.cameras import check_pose
from sphinx_nvs.scene.capture import Capture, PosedView
from sphinx_nvs.scene.distortion import Distortion
from sphinx_nvs.scene.intrinsics import fit_to_image, intrinsics_matrix

_MODELS = {
    "SIMPLE_PINHOLE": (0, ("f", "cx", "cy")),
    "PINHOLE": (1, ("fx", "fy", "cx", "cy")),
    "SIMPLE_RADIAL": (2, ("f", "cx", "cy", "k1")),
    "RADIAL": (3, ("f", "cx", "cy", "k1", "k2")),
    "OPENCV": (4, ("fx", "fy", "cx", "cy", "k1", "k2", "p1", "p2")),
}
_NAME_OF_ID = {number: name for name, (number, _) in _MODELS.items()}


@dataclass(frozen=True, kw_only=True)
class _Lens:
    """A line of `cameras`."""

    K: Float[Tensor, "3 3"]
    height: int
    width: int
    distortion: Distortion | None


@dataclass(frozen=True, kw_only=True)
class _Photo:
    """A line of `images`: world-to-camera as (w, x, y, z, tx, ty, tz)."""

    number: int
    pose: tuple[float, ...]
    lens: int
    name: str


def sparse_folder(path: Path) -> Path | None:
    """The folder that holds the model: `path` itself or its usual places below; None if there is none."""
    for folder in (path, path / "sparse" / "0", path / "sparse", path / "colmap" / "sparse" / "0"):
        if any((folder / f"images{ending}").is_file() for ending in (".bin", ".txt")):
            return folder
    return None


def read_colmap(path: Path) -> Capture:
    """Reads a COLMAP sparse model and the photos beside it; views are sorted by name.

    Args:
        path: the scene (`sparse/0`, `sparse` or `colmap/sparse/0` below it) or the model's folder. Photos lie in
            `images`, beside the model or up to three folders above it.

    Raises:
        InputError: a file is missing, damaged or inconsistent, or a camera model is none of SIMPLE_PINHOLE,
            PINHOLE, SIMPLE_RADIAL, RADIAL, OPENCV.
    """
    sparse = sparse_folder(path)
    if sparse is None:
        raise InputError(f"folder {path}", "it holds no COLMAP model", "give a folder with images.bin or images.txt")
    lenses, photos = _read_model(sparse)
    if not photos:
        raise InputError(f"COLMAP model {sparse}", "it has 0 images", "give a model with at least one image")
    folder = _photo_folder(sparse)
    views = tuple(_view(photo, lenses, folder, sparse) for photo in sorted(photos, key=lambda photo: photo.name))
    return Capture(name=folder.resolve().parent.name, views=views, path=path, layout="COLMAP sparse model")


def photo_names(path: Path) -> list[str]:
    """Names of the photos of a COLMAP model (see `read_colmap`), as they are written there; no photo is looked for."""
    sparse = sparse_folder(path)
    return [] if sparse is None else [photo.name for photo in _read_model(sparse)[1]]


def _read_model(sparse: Path) -> tuple[dict[int, _Lens], list[_Photo]]:
    """Cameras by id, and images, from whichever form is there."""
    if (sparse / "images.bin").is_file():
        return _read_cameras_bin(sparse / "cameras.bin"), _read_images_bin(sparse / "images.bin")
    return _read_cameras_txt(sparse / "cameras.txt"), _read_images_txt(sparse / "images.txt")


def _photo_folder(sparse: Path) -> Path:
    """The nearest `images` folder beside or above the model."""
    above = [sparse, *list(sparse.resolve().parents)[:3]]
    for folder in above:
        if (folder / "images").is_dir():
            return folder / "images"
    raise InputError(f"COLMAP model {sparse}", "no folder images is found beside or above it", "put the photos there")


def _view(photo: _Photo, lenses: dict[int, _Lens], folder: Path, sparse: Path) -> PosedView:
    """A photo with its camera, brought to the photo's real size."""
    where = f"image {photo.name} of COLMAP model {sparse}"
    if photo.lens not in lenses:
        raise InputError(where, f"its camera {photo.lens} is not in cameras", "export the model again")
    lens = lenses[photo.lens]
    image = folder / photo.name
    if not image.is_file():
        raise InputError(where, f"there is no file {image}", "restore the image or remove it from the model")
    c2w = _pose(photo, where)
    fitted = fit_to_image(lens.K, (lens.height, lens.width), image, f"COLMAP model {sparse}")
    return PosedView(
        name=photo.name,
        c2w=c2w,
        K=fitted.K,
        height=fitted.height,
        width=fitted.width,
        image=image,
        distortion=lens.distortion,
        oriented=fitted.oriented,
    )


def _pose(photo: _Photo, where: str) -> Float[Tensor, "4 4"]:
    """Camera-to-world of a photo."""
    numbers = torch.tensor(photo.pose, dtype=torch.float64)
    if float(numbers[:4].norm()) < 1e-6:
        raise InputError(f"pose of {where}", "its quaternion is zero", "give a unit quaternion")
    w2c = se3.pose_from(se3.rotation_from_quaternion(numbers[:4]), numbers[4:])
    c2w = se3.inverse(w2c)
    check_pose(c2w, where)
    return c2w


def _lens(model: str, width: int, height: int, numbers: tuple[float, ...], where: str) -> _Lens:
    """Named parameters to K and distortion."""
    if model not in _MODELS:
        raise InputError(
            where, f"its model is {model}", f"undistort with COLMAP first (read here: {', '.join(_MODELS)})"
        )
    names = _MODELS[model][1]
    if len(numbers) != len(names):
        raise InputError(where, f"{model} has {len(numbers)} parameters", f"give {len(names)}: {', '.join(names)}")
    named = dict(zip(names, numbers, strict=True))
    fx, fy = named.get("fx", named.get("f", 0.0)), named.get("fy", named.get("f", 0.0))
    if fx <= 0 or fy <= 0:
        raise InputError(where, f"its focal length is {min(fx, fy):g}", "give a focal length above 0 pixels")
    if width < 1 or height < 1:
        raise InputError(where, f"its size is {width}x{height}", "give the image's size in pixels")
    bends = {key: value for key, value in named.items() if key[0] in "kp"}
    K = intrinsics_matrix(fx, fy, named["cx"], named["cy"])
    return _Lens(K=K, height=height, width=width, distortion=Distortion(**bends) or None)


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """Line numbers and lines without comments; empty lines are kept, for they count in images.txt."""
    if not path.is_file():
        raise InputError(f"file {path}", "there is no such file", "give the whole COLMAP model")
    text = path.read_text(encoding="utf-8", errors="replace")
    return ((n, line) for n, line in enumerate(text.splitlines(), 1) if not line.lstrip().startswith("#"))


def _read_cameras_txt(path: Path) -> dict[int, _Lens]:
    lenses = {}
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
        lenses[number] = _lens(fields[1], width, height, numbers, where)
    return lenses


def _read_images_txt(path: Path) -> list[_Photo]:
    """Every photo has two lines; the second one (its 2D points, possibly empty) is skipped."""
    photos = []
    lines = _lines(path)
    for n, line in lines:
        fields = line.split(maxsplit=9)
        if not fields:
            continue
        try:
            pose = tuple(float(field) for field in fields[1:8])
            photos.append(_Photo(number=int(fields[0]), pose=pose, lens=int(fields[8]), name=fields[9].strip()))
        except (IndexError, ValueError) as error:
            expected = "IMAGE_ID QW QX QY QZ TX TY TZ CAMERA_ID NAME"
            raise _malformed(f"{path}, line {n}", line, expected) from error
        next(lines, None)
    return photos


def _malformed(where: str, line: str, expected: str) -> InputError:
    return InputError(where, f"cannot be understood ({line[:40]!r})", f"it must read {expected}")


class _Bytes:
    """Little-endian values from a binary file, with a sentence where it ends too early."""

    def __init__(self, path: Path) -> None:
        if not path.is_file():
            raise InputError(f"file {path}", "there is no such file", "give the whole COLMAP model")
        self._path, self._data, self._at = path, path.read_bytes(), 0

    def take(self, layout: str) -> tuple:
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
        return self._data[start:end].decode("utf-8", errors="replace")

    def _truncated(self) -> InputError:
        return InputError(f"file {self._path}", f"it is truncated at {len(self._data)} bytes", "copy it again")


def _read_cameras_bin(path: Path) -> dict[int, _Lens]:
    data = _Bytes(path)
    lenses = {}
    for _ in range(data.take("Q")[0]):
        number, model_id, width, height = data.take("iiQQ")
        where = f"camera {number} of {path}"
        model = _NAME_OF_ID.get(model_id, f"number {model_id}")
        count = len(_MODELS[model][1]) if model in _MODELS else 0
        lenses[number] = _lens(model, width, height, data.take("d" * count), where)
    return lenses


def _read_images_bin(path: Path) -> list[_Photo]:
    data = _Bytes(path)
    photos = []
    for _ in range(data.take("Q")[0]):
        number, *pose, lens = data.take("i7di")
        photos.append(_Photo(number=number, pose=tuple(pose), lens=lens, name=data.text()))
        data.skip(data.take("Q")[0] * struct.calcsize("<ddq"))
    return photos
