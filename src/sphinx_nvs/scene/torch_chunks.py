"""RealEstate10K and ACID as pixelSplat and MVSplat hand them on: `.torch` chunks with an index.

A chunk is a list of clips, each a dictionary with `key` (the clip's name), `cameras` (one row of 18 numbers a frame: fx
fy cx cy divided by width and height, two zeros, the world-to-camera [R t] by rows) and `images` (one JPEG file a frame,
as uint8 tensors). `index.json` says which chunk holds which clip; an evaluation index names their context and target
frames.

Chunks are pickles. They are read by torch's weights-only reader, which admits tensors and plain containers; a file that
holds anything else is refused. References: Charatan et al., "pixelSplat", 2024; Chen et al., "MVSplat", 2024.

Shapes: V frames.
"""

from __future__ import annotations

import io
import json
import pickle
import warnings
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from sphinx_nvs.errors import InputError
from sphinx_nvs.media import float_from_uint8, open_picture
from sphinx_nvs.scene.capture import Capture, PosedView, Split
from sphinx_nvs.scene.intrinsics import intrinsics_matrix
from sphinx_nvs.scene.textfile import read_text

INDEX = "index.json"
_NUMBERS = 18
_FIELDS = {"key", "cameras", "images"}


def is_chunk_folder(folder: Path) -> bool:
    """Whether a folder holds chunks."""
    return any(folder.glob("*.torch"))


def read_chunk_index(folder: Path) -> dict[str, str]:
    """Clips of a folder with the chunk that holds each; chunks are opened where there is no `index.json`.

    Raises:
        InputError: the index, or without one a chunk, cannot be used.
    """
    path = folder / INDEX
    if not path.is_file():
        return {clip["key"]: chunk.name for chunk in sorted(folder.glob("*.torch")) for clip in read_chunk(chunk)}
    index = _json(path)
    if not all(isinstance(name, str) for name in index.values()):
        raise InputError(f"file {path}", "it does not map clips to chunks", "give the index.json made with the chunks")
    return index


def read_evaluation_index(path: Path) -> dict[str, Split]:
    """Context and target frames by clip; clips whose entry is null are left out.

    Raises:
        InputError: the file has another form.
    """
    splits = {}
    for key, entry in _json(path).items():
        if entry is None:
            continue
        try:
            splits[key] = Split(train_ids=tuple(map(int, entry["context"])), test_ids=tuple(map(int, entry["target"])))
        except (KeyError, TypeError, ValueError):
            hint = 'give an object with "context" and "target", each a list of frame numbers'
            raise InputError(f"clip {key} of {path}", f"its entry is {str(entry)[:40]}", hint) from None
    return splits


def read_chunked_clip(folder: Path, chunk: str, key: str, frames: Sequence[int] | None = None) -> Capture:
    """A clip of a chunk.

    Args:
        folder: folder of the chunks.
        chunk: the chunk's file name.
        key: the clip's name.
        frames: frames whose photos are decoded; the others become cameras without photo. None is all.

    Raises:
        InputError: the chunk cannot be used, or has no such clip.
    """
    clips = {clip["key"]: clip for clip in read_chunk(folder / chunk)}
    if key not in clips:
        raise InputError(f"chunk {folder / chunk}", f"it has no clip {key}", f"correct {INDEX}, or delete it")
    return _capture(clips[key], folder / chunk, range(len(clips[key]["cameras"])) if frames is None else frames)


@lru_cache(maxsize=1)
def read_chunk(path: Path) -> list[Mapping[str, Any]]:
    """The clips of a chunk; the last one read is kept, since neighbours in an index share it.

    Raises:
        InputError: it cannot be read, or holds something else than tensors and plain containers.
    """
    try:
        with warnings.catch_warnings():
            # Torch warns of other pickle protocols before it refuses what they may hold.
            warnings.simplefilter("ignore")
            clips = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise InputError(f"chunk {path}", f"cannot be read ({error.strerror})", "give a readable file") from None
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, IndexError, KeyError):
        found = "it holds something else than tensors in lists and dictionaries, or is damaged"
        raise InputError(f"chunk {path}", found, "fetch it again from where it is published") from None
    if not isinstance(clips, list) or not all(isinstance(clip, dict) and set(clip) >= _FIELDS for clip in clips):
        raise InputError(f"chunk {path}", "it is no list of clips", "give chunks made by pixelSplat's conversion")
    return clips


def _json(path: Path) -> dict[str, Any]:
    try:
        data = json.loads(read_text(path))
    except (ValueError, RecursionError) as error:
        raise InputError(f"file {path}", f"cannot be read ({type(error).__name__})", "give a JSON file") from None
    if not isinstance(data, dict):
        raise InputError(f"file {path}", "it holds no object", "give a JSON object with one entry a clip")
    return data


def _capture(clip: Mapping[str, Any], path: Path, frames: Sequence[int]) -> Capture:
    """Cameras of all frames, photos of some."""
    cameras, images = clip["cameras"], clip["images"]
    where = f"clip {clip['key']} of {path}"
    if cameras.ndim != 2 or cameras.shape[1] != _NUMBERS or len(images) != len(cameras):
        found = f"cameras are {tuple(cameras.shape)} for {len(images)} images"
        raise InputError(where, found, f"give {_NUMBERS} numbers a frame and as many images")
    wanted = {int(i) for i in frames}
    photos = {i: _decoded(images[i], f"frame {i} of {where}") for i in sorted(wanted) if i < len(images)}
    usual = next(iter(photos.values())) if photos else _decoded(images[0], f"frame 0 of {where}")
    views = tuple(_view(i, row, photos.get(i), usual.shape[-2:]) for i, row in enumerate(cameras.double()))
    return Capture(name=str(clip["key"]), views=views, path=path, layout="RealEstate10K chunk")


def _view(index: int, row: Float[Tensor, "18"], photo: Tensor | None, usual: Sequence[int]) -> PosedView:
    height, width = usual if photo is None else photo.shape[-2:]
    fx, fy, cx, cy = row[:4].tolist()
    w2c = torch.eye(4, dtype=torch.float64)
    w2c[:3] = row[6:].view(3, 4)
    return PosedView(
        name=f"{index:04d}",
        c2w=torch.linalg.inv(w2c),
        K=intrinsics_matrix(fx * width, fy * height, cx * width, cy * height),
        height=height,
        width=width,
        image=photo,
    )


def _decoded(data: Tensor, where: str) -> Float[Tensor, "3 H W"]:
    """A picture file's bytes as a picture."""
    try:
        with open_picture(io.BytesIO(data.to(torch.uint8).numpy().tobytes())) as image:
            pixels = np.array(image.convert("RGB"))
    except (OSError, Image.DecompressionBombError):
        raise InputError(where, "it is no picture", "fetch the chunk again from where it is published") from None
    return float_from_uint8(torch.from_numpy(pixels).permute(2, 0, 1))
