"""Polycam's developer mode: `keyframes/` with a JSON file and a photo a keyframe, adjusted ones preferred.

Poses `t_00` .. `t_23` are camera-to-world with ARKit's (OpenGL's) axes, in metres, y up; intrinsics are in pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from sphinx_nvs.errors import InputError
from sphinx_nvs.scene.capture import Capture
from sphinx_nvs.scene.intrinsics import intrinsics_matrix
from sphinx_nvs.scene.jsonfile import number, read_json
from sphinx_nvs.scene.photos import find_photo, natural_key, photos_in
from sphinx_nvs.scene.readers.entries import Entry, by_name, capture_of, photo_or_refusal
from sphinx_nvs.scene.transforms import flip_yz

_KINDS = (("corrected_cameras", "corrected_images"), ("cameras", "images"))


def keyframes_folder(folder: Path) -> Path | None:
    """The folder with cameras and photos, None if there is none."""
    for candidate in (folder / "keyframes", folder):
        if any((candidate / cameras).is_dir() and (candidate / images).is_dir() for cameras, images in _KINDS):
            names = [path for cameras, _ in _KINDS for path in _cameras(candidate / cameras)]
            if names:
                return candidate
    return None


def _cameras(folder: Path) -> list[Path]:
    """The files of cameras, without those that macOS adds to archives (`._1000.json`)."""
    return [path for path in folder.glob("*.json") if not path.name.startswith(".")]


def read_polycam(folder: Path, path: Path) -> Capture:
    """Reads keyframes.

    Args:
        folder: see `keyframes_folder`.
        path: the scene.

    Raises:
        InputError: a file of them cannot be used.
    """
    cameras, images = next(kind for kind in _KINDS if _cameras(folder / kind[0]))
    notes = [] if cameras == _KINDS[0][0] else ["poses are ARKit's own: Polycam has not adjusted them"]
    entries = [_entry(camera, folder / images) for camera in _cameras(folder / cameras)]
    notes += _left_out(folder, [entry.image for entry in entries], images)
    return capture_of(
        by_name(entries), path=path, name=path.resolve().name, layout="Polycam keyframes", habit=False, notes=notes
    )


def _left_out(folder: Path, photos: Sequence[Path], images: str) -> list[str]:
    """What to tell of keyframes that have no camera among those that are read."""
    taken = {photo.stem for photo in photos}
    others = {path.stem for name in (images, "images") for path in photos_in(folder / name)} - taken
    if not others:
        return []
    some = min(others, key=natural_key)
    return [f"{len(others)} keyframes have no camera beside those that are read and are left out ({some}, ...)"]


def _entry(camera: Path, images: Path) -> Entry:
    data, where = read_json(camera), f"file {camera}"
    rows = [[number(data, f"t_{row}{column}", where) for column in range(4)] for row in range(3)]
    c2w = flip_yz(torch.tensor([*rows, [0.0, 0.0, 0.0, 1.0]], dtype=torch.float64))
    fx, fy, cx, cy = (number(data, key, where) for key in ("fx", "fy", "cx", "cy"))
    size = (round(number(data, "height", where)), round(number(data, "width", where)))
    if min(fx, fy) <= 0:
        raise InputError(where, f"its focal length is {min(fx, fy):g}", "give a focal length above 0 pixels")
    photo = photo_or_refusal(find_photo(images, camera.stem), where, f"{images / camera.stem}.jpg")
    return Entry(name=photo.name, c2w=c2w, K=intrinsics_matrix(fx, fy, cx, cy), size=size, image=photo)
