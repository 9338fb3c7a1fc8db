"""Bundler: `bundle.out` with the list of its photos.

After a comment and the numbers of cameras and points, each camera has five lines: focal length and two radial terms,
three rows of R, and t, world-to-camera with OpenGL axes. A point p = -(x, y)/z is shown at
f (1 + k1 |p|^2 + k2 |p|^4) p, counted from the image's centre with y up. Cameras of focal length 0 were not registered.
Reference: Snavely, "Bundler v0.4 user's manual".
"""

from __future__ import annotations

import math
from pathlib import Path

import torch

from sphinx_nvs import media
from sphinx_nvs.errors import InputError
from sphinx_nvs.geometry import se3
from sphinx_nvs.scene.capture import Capture
from sphinx_nvs.scene.distortion import Distortion
from sphinx_nvs.scene.intrinsics import intrinsics_matrix
from sphinx_nvs.scene.photos import find_photo
from sphinx_nvs.scene.readers.entries import Entry, capture_of, photo_or_refusal
from sphinx_nvs.scene.textfile import read_text
from sphinx_nvs.scene.transforms import flip_yz

_OUTS = ("bundle.out", "bundle/bundle.out", "bundle.rd.out", "bundle/bundle.rd.out")
_LISTS = ("list.txt", "bundle/list.txt", "bundle.out.list.txt", "bundle.rd.out.list.txt")
_FOLDERS = (".", "images", "visualize", "input")
_MOST_CAMERAS = 100_000


def bundle_file(folder: Path) -> Path | None:
    """The file of such a scene, None if there is none."""
    return next((folder / name for name in _OUTS if (folder / name).is_file()), None)


def read_bundler(path: Path) -> Capture:
    """Reads the file; photos are named by `list.txt` beside or above it.

    Raises:
        InputError: a file is missing or cannot be understood.
    """
    root = path.parent.parent if path.parent.name == "bundle" else path.parent
    names = _names(root)
    numbers = _numbers(path)
    count = int(numbers[0])
    if not 0 < count <= _MOST_CAMERAS or len(numbers) < 2 + 15 * count:
        raise InputError(f"file {path}", f"it is cut short, or has {count} cameras", "copy it again")
    if count != len(names):
        raise InputError(f"file {path}", f"it has {count} cameras for {len(names)} names", "give its own list.txt")
    entries = [
        _entry(name, numbers[2 + 15 * i : 17 + 15 * i], root, f"camera {i} of {path}")
        for i, name in enumerate(names)
        if numbers[2 + 15 * i] > 0
    ]
    lost = count - len(entries)
    notes = [f"{lost} photos are not registered and are left out"] if lost else []
    return capture_of(entries, path=path, name=root.resolve().name, layout="Bundler bundle.out", notes=notes)


def _names(root: Path) -> list[str]:
    path = next((root / name for name in _LISTS if (root / name).is_file()), None)
    if path is None:
        raise InputError(f"folder {root}", "it has a bundle.out, but no list.txt with its photos", "add list.txt")
    lines = read_text(path).splitlines()
    return [_name(line) for line in lines if line.strip()]


def _name(line: str) -> str:
    """A line is a name, and sometimes `0 FOCAL` behind it."""
    fields = line.rsplit(maxsplit=2)
    has_focal = len(fields) == 3 and fields[1] == "0" and fields[2].replace(".", "", 1).isdecimal()
    return fields[0] if has_focal else line.strip()


def _numbers(path: Path) -> list[float]:
    """Everything behind the comment, up to the first thing that is no number."""
    lines = read_text(path).splitlines()
    values: list[float] = []
    for line in (line for line in lines if not line.startswith("#")):
        try:
            values += [float(field) for field in line.split()]
        except ValueError as error:
            raise InputError(f"file {path}", f"{line[:40]!r} holds no numbers", "copy it again") from error
    if len(values) < 2 or not all(map(math.isfinite, values[:2])):
        raise InputError(f"file {path}", "it has no cameras", "copy it again")
    return values


def _entry(name: str, numbers: list[float], root: Path, where: str) -> Entry:
    focal, k1, k2 = numbers[:3]
    R = torch.tensor(numbers[3:12], dtype=torch.float64).view(3, 3)
    t = torch.tensor(numbers[12:15], dtype=torch.float64)
    found = next((photo for folder in _FOLDERS if (photo := find_photo(root / folder, name)) is not None), None)
    image = photo_or_refusal(found, where, name)
    height, width = media.image_size(image, oriented=False)
    return Entry(
        name=name,
        c2w=flip_yz(se3.inverse(se3.pose_from(R, t))),
        K=intrinsics_matrix(focal, focal, width / 2, height / 2),
        size=(height, width),
        image=image,
        lens=Distortion(k1=k1, k2=k2) or None,
    )
