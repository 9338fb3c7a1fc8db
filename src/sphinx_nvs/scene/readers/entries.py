"""From one photo and its camera, as any layout tells of them, to a capture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from jaxtyping import Float
from torch import Tensor

from sphinx_nvs import media
from sphinx_nvs.errors import InputError
from sphinx_nvs.geometry.cameras import check_intrinsics, check_pose
from sphinx_nvs.scene.capture import Capture, PosedView, Split
from sphinx_nvs.scene.distortion import Bend
from sphinx_nvs.scene.intrinsics import MOST_PIXELS, fit_to_image
from sphinx_nvs.scene.orientation import Readings, settled
from sphinx_nvs.scene.photos import check_one_pose_a_photo, natural_key, other_photo_folder


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A photo and its camera.

    Args:
        name: unique in the scene.
        c2w: camera-to-world, OpenCV axes.
        K: intrinsics in pixels of an image of `size`.
        size: height and width that `K` is for, pixels; None for the photo's own.
        image: the photo.
        lens: what it bends.
    """

    name: str
    c2w: Float[Tensor, "4 4"]
    K: Float[Tensor, "3 3"]
    size: tuple[int, int] | None
    image: Path
    lens: Bend | None = None


def capture_of(
    entries: Sequence[Entry],
    *,
    path: Path,
    name: str,
    layout: str,
    habit: bool = False,
    splits: Mapping[int, Split] | None = None,
    notes: Sequence[str] = (),
) -> Capture:
    """The capture of some photos, in their order.

    Args:
        entries: at least one.
        path: that they were read from.
        name: name of the scene.
        layout: in words.
        habit: whether the layout's tools apply EXIF orientations; see `orientation.settled`.
        splits: the scene's splits.
        notes: what was decided on reading.

    Raises:
        InputError: there is none, or one cannot be.
    """
    if not entries:
        raise InputError(f"scene {path}", f"it holds no photo with a camera ({layout})", "add the photos")
    check_one_pose_a_photo([(entry.name, entry.image, entry.c2w) for entry in entries], f"scene {path}")
    views, decisions = settled([_readings(entry, layout) for entry in entries], habit=habit)
    return Capture(
        name=name, views=views, splits=splits or {}, path=path, layout=layout, notes=(*notes, *decisions)
    ).centred()


def lost_notes(lost: int, found: int, folder: Path, looked_in: Sequence[str]) -> list[str]:
    """What to tell of cameras whose photos are not found.

    Args:
        lost: how many.
        found: how many others have a photo.
        folder: the scene's folder.
        looked_in: names of the folders below it where photos are looked for.

    Raises:
        InputError: none has a photo, but a folder where they are not looked for holds photos.
    """
    if not lost:
        return []
    other = other_photo_folder(folder, looked_in)
    if other is None:
        return [f"{lost} cameras have no photo here and are left out"]
    place = other.relative_to(folder)
    if not found:
        found_there = f"its photos are in {place}, which is not looked in"
        raise InputError(f"scene {folder}", found_there, f"move them to {looked_in[0]}")
    return [f"{lost} cameras have no photo here and are left out; there are photos in {place}, which is not looked in"]


def by_name(entries: Sequence[Entry]) -> list[Entry]:
    """Sorted by name, numbers as numbers."""
    return sorted(entries, key=lambda entry: natural_key(entry.name))


def _readings(entry: Entry, layout: str) -> Readings:
    where = f"{entry.name} of {layout}"
    check_pose(entry.c2w, where)
    check_intrinsics(entry.K, where)
    size = media.image_size(entry.image) if entry.size is None else entry.size
    if not all(1 <= side <= MOST_PIXELS for side in size):
        raise InputError(where, f"its size is {size[1]}x{size[0]}", "give the image's size in pixels")
    return {
        fitted.oriented: PosedView(
            name=entry.name,
            c2w=entry.c2w,
            K=fitted.K,
            height=fitted.height,
            width=fitted.width,
            image=entry.image,
            distortion=entry.lens,
            oriented=fitted.oriented,
        )
        for fitted in fit_to_image(entry.K, size, entry.image, where)
    }


def photo_or_refusal(found: Path | None, where: str, name: str) -> Path:
    """The photo that was found.

    Raises:
        InputError: it was not.
    """
    if found is None:
        raise InputError(where, f"its photo {name} does not exist", "restore it, or take its camera out of the file")
    return found
