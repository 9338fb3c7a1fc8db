"""SDFStudio: `meta_data.json` with `rgb_path`, `camtoworld` (OpenCV axes) and `intrinsics` (4x4, pixels) a frame."""

from __future__ import annotations

import json
from pathlib import Path

from sphinx_nvs.errors import InputError
from sphinx_nvs.scene.capture import Capture
from sphinx_nvs.scene.jsonfile import matrix, number, numbers, read_json, shown
from sphinx_nvs.scene.photos import find_photo
from sphinx_nvs.scene.readers.entries import Entry, capture_of, photo_or_refusal

NAME = "meta_data.json"
_MODELS = ("OPENCV", "PINHOLE", "SIMPLE_PINHOLE", "PERSPECTIVE")


def read_sdfstudio(path: Path) -> Capture:
    """Reads the file and the photos that it names.

    Raises:
        InputError: a field cannot be used, or a photo is missing.
    """
    data, where = read_json(path), f"file {path}"
    model, frames = data.get("camera_model", "OPENCV"), data.get("frames")
    if model not in _MODELS:
        raise InputError(where, f"camera_model is {json.dumps(model)}", f"give one of {', '.join(_MODELS)}")
    if not isinstance(frames, list) or not frames or not all(isinstance(frame, dict) for frame in frames):
        raise InputError(where, f"frames is {shown(frames)}", "list at least one frame")
    size = (round(number(data, "height", where)), round(number(data, "width", where)))
    entries = []
    for index, frame in enumerate(frames):
        place = f"frame {index} of {path}"
        name = frame.get("rgb_path")
        if not isinstance(name, str):
            raise InputError(place, f"rgb_path is {shown(name)}", "give a file name")
        image = photo_or_refusal(find_photo(path.parent, name), place, name)
        K = numbers(frame.get("intrinsics"), place, "intrinsics", "give 4 rows of 4 numbers, in pixels")
        if K.shape not in ((3, 3), (3, 4), (4, 4)):
            raise InputError(place, f"intrinsics has shape {tuple(K.shape)}", "give 4 rows of 4 numbers, in pixels")
        c2w = matrix(frame.get("camtoworld"), place, "camtoworld")
        entries.append(Entry(name=name, c2w=c2w, K=K[:3, :3].clone(), size=size, image=image))
    return capture_of(entries, path=path, name=path.parent.resolve().name, layout="SDFStudio meta_data.json")
