"""LLFF: `poses_bounds.npy` beside a folder of photos.

One row of 17 numbers a photo, in the order of the photos' names as Python sorts them (`10.jpg` before `2.jpg`): a 3x5
matrix by rows, [R | o | (height, width, focal)] with columns of R that are down, right and backwards, then the nearest
and the farthest depth. With OpenCV axes

    c2w = [R_2, R_1, -R_3, o]

Reference: Mildenhall et al., "Local Light Field Fusion", 2019.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from sphinx_nvs.errors import InputError
from sphinx_nvs.geometry import se3
from sphinx_nvs.scene.capture import Capture
from sphinx_nvs.scene.intrinsics import intrinsics_matrix
from sphinx_nvs.scene.photos import photos_in
from sphinx_nvs.scene.readers.entries import Entry, by_name, capture_of

NAME = "poses_bounds.npy"
_NUMBERS = 17
_FOLDERS = ("images", "input", "images_2", "images_4", "images_8")


def read_llff(path: Path) -> Capture:
    """Reads the file and the photos beside it.

    Raises:
        InputError: it is no such array, or there are more or fewer photos than rows.
    """
    try:
        rows = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise InputError(
            f"file {path}", "it is no numpy array of numbers", "make it again with LLFF's tools"
        ) from error
    if rows.ndim != 2 or rows.shape[1] != _NUMBERS or rows.dtype.kind not in "fiu" or not np.isfinite(rows).all():
        raise InputError(f"file {path}", f"its shape is {rows.shape}", f"give {_NUMBERS} finite numbers a photo")
    # LLFF's tools list names without regard to numbers.
    found = {folder: sorted(photos_in(path.parent / folder), key=lambda photo: photo.name) for folder in _FOLDERS}
    photos = next((photos for photos in found.values() if len(photos) == len(rows)), None)
    if photos is None:
        counts = ", ".join(f"{len(photos)} in {folder}" for folder, photos in found.items() if photos) or "no photos"
        raise InputError(
            f"file {path}", f"it has {len(rows)} cameras for {counts}", "give the photos that it was made of"
        )
    entries = []
    for row, photo in zip(torch.from_numpy(rows.astype(np.float64)), photos, strict=True):
        pose = row[:15].view(3, 5)
        down, right, back, centre, (height, width, focal) = pose.unbind(1)
        c2w = se3.pose_from(torch.stack([right, down, -back], dim=1), centre)
        size = round(float(height)), round(float(width))
        K = intrinsics_matrix(float(focal), float(focal), size[1] / 2, size[0] / 2)
        entries.append(Entry(name=photo.name, c2w=c2w, K=K, size=size, image=photo))
    return capture_of(by_name(entries), path=path, name=path.parent.resolve().name, layout="LLFF poses_bounds.npy")
