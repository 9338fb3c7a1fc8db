"""Conversion of uploaded, untrusted files to a stored scene that devices can trust.

Every layout becomes the same: photos as PNG, undistorted, upright, scaled down where they are larger than networks can
use, without metadata (place, time, camera); and one transforms.json with pinhole cameras. The uploaded files are
deleted afterwards.
"""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from sphinx_nvs import media
from sphinx_nvs.errors import InputError, SphinxError, spans
from sphinx_nvs.geometry.tours import tour
from sphinx_nvs.geometry.views import pose_distances
from sphinx_nvs.posing.advice import UnposedError
from sphinx_nvs.scene.capture import Capture, PosedView
from sphinx_nvs.scene.colmap import photo_names
from sphinx_nvs.scene.conventions import with_checked_poses
from sphinx_nvs.scene.diagnostics import warnings_for
from sphinx_nvs.scene.jsonfile import matrix
from sphinx_nvs.scene.photos import find_photo, plain_name
from sphinx_nvs.scene.re10k import is_re10k
from sphinx_nvs.scene.readers import holds_scene, read_capture
from sphinx_nvs.scene.textfile import files_ending, read_text
from sphinx_nvs.scene.transforms import flip_yz, frame_from, write_transforms
from sphinx_nvs.scene.world_frame import World
from sphinx_nvs.server.api.scrubbing import scrub
from sphinx_nvs.server.scenes.archives import safe_name
from sphinx_nvs.server.scenes.target_cameras import ALL_CAMERAS
from sphinx_nvs.server.server_config import UploadLimits

DEFAULT_VIEWS = 9
"""Largest number of photos kept unless the client chooses: regressors are made for 2 to 9."""

TRANSFORMS = "transforms.json"

_DEEPEST = 5
"""Folders in folders that an archive's scene is looked for in."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class SceneRequest:
    """Options of an upload.

    Args:
        contexts: numbers of the photos to keep, `0,4,7`, or how many; None for the split's, otherwise all or an even
            selection.
        split: number of the `train_test_split_N.json` whose train views are kept.
        notes: warnings about files that were skipped.
        photos: names of a form's photos below `images/`, in the order of the form; None for an archive.
        focal_mm: focal length of the camera of photos without cameras, as that of 35 mm film; None if unknown.
    """

    contexts: str | None = None
    split: int | None = None
    notes: tuple[str, ...] = ()
    photos: tuple[str, ...] | None = None
    focal_mm: float | None = None


@dataclass(frozen=True, kw_only=True)
class StoredScene:
    """A stored scene; see `engine.store.row_types.SceneRow`."""

    num_views: int
    width: int
    height: int
    bytes: int
    warnings: tuple[str, ...]


def make_scene(source: Path, folder: Path, request: SceneRequest, limits: UploadLimits) -> StoredScene:
    """Converts uploaded files to a stored scene.

    Args:
        source: folder with the files, whose names are safe.
        folder: folder of the scene.
        request: options of the upload.
        limits: see `UploadLimits`.

    Raises:
        InputError: the files cannot be used; the sentence names them as the client did.
    """
    transforms = source / TRANSFORMS
    with client_errors(source):
        if request.photos is not None and transforms.is_file():
            _name_photos(transforms, request.photos)
    root = _root(source)
    with client_errors(root, source), media.pixels_at_most(limits.photo_pixels):
        _check_references(root)
        _check_photos(root, limits)
        capture = read_capture(root)
        _check_inside(capture, root)
        chosen, notes = _chosen(with_checked_poses(capture), request, limits)
        if len(chosen) < len(capture):
            _keep_all_cameras(capture, folder)
        return _keep(chosen, folder, limits, (*request.notes, *notes))


def keep_capture(capture: Capture, folder: Path, limits: UploadLimits) -> StoredScene:
    """Stores a capture that is part of this package."""
    return _keep(capture, folder, limits, ())


@contextmanager
def client_errors(*folders: Path) -> Iterator[None]:
    """Removes this machine's paths from errors, and converts unexpected exceptions of readers to InputError."""
    try:
        yield
    except InputError as error:
        raise _scrubbed(error, folders) from error
    except SphinxError:
        raise
    except Exception as error:
        # Hostile files break readers in ways that no list of exceptions covers; the log has the traceback.
        _log.warning("unreadable scene", exc_info=error)
        raise InputError("scene", "its files are damaged or do not fit together", "check and send again") from error


def _scrubbed(error: InputError, folders: Sequence[Path]) -> InputError:
    """The error without this machine's paths."""
    where, found, hint = (scrub(part, *folders) for part in (error.where, error.found, error.hint))
    if isinstance(error, UnposedError):
        return UnposedError(where, found, hint, error.reasons)
    return type(error)(where, found, hint)


def _root(source: Path) -> Path:
    """The folder that holds the scene: archives often hold one folder, with a README beside it or without."""
    folders = [source]
    for _ in range(_DEEPEST):
        holding = [folder for folder in folders if holds_scene(folder)]
        if len(holding) > 1:
            names = ", ".join(sorted(folder.name for folder in holding)[:3])
            raise InputError("scene", f"there are {len(holding)} scenes in it ({names})", "send one scene at a time")
        if holding:
            return holding[0]
        folders = [inner for folder in folders for inner in folder.iterdir() if inner.is_dir()]
    return source


def _check_inside(capture: Capture, root: Path) -> None:
    """Every photo that a reader found has to be one that was sent."""
    for view in capture.views:
        if isinstance(view.image, Path) and not view.image.resolve().is_relative_to(root.resolve()):
            raise InputError(
                f"view {view.name}", "its photo leads out of the scene", "name files relative to the scene"
            )


def _check_references(root: Path) -> None:
    """Checks that the cameras name only files inside the upload."""
    transforms = root / TRANSFORMS
    if transforms.is_file():
        for frame in normalised(transforms)["frames"]:
            if isinstance(frame, dict) and isinstance(frame.get("file_path"), str) and frame["file_path"]:
                _check_name(frame["file_path"], "transforms.json")
        return
    for name in photo_names(root):
        _check_name(plain_name(name), "images of the COLMAP model")
    for cameras in filter(is_re10k, files_ending(root, ".txt")):
        for line in read_text(cameras).splitlines():
            if line.strip() and not line.lstrip().startswith("http"):
                _check_name(line.split()[0], cameras.name)


def _check_name(name: str, where: str) -> None:
    """Checks a photo's name, and what it stands for if it is written as in a URL."""
    safe_name(name, where)
    safe_name(unquote(name), where)


def _name_photos(path: Path, photos: Sequence[str]) -> None:
    """Rewrites the cameras to name the stored photos; cameras without names belong to the photos in order."""
    data = normalised(path)
    frames = [frame for frame in data["frames"] if isinstance(frame, dict)]
    are_named, by_name = any(frame.get("file_path") for frame in frames), _by_name(photos)
    if not are_named and photos and len(photos) != len(frames):
        raise InputError("cameras", f"there are {len(frames)} for {len(photos)} photos", "name the photos in file_path")
    for index, frame in enumerate(frames):
        given = frame.get("file_path")
        if not are_named and photos:
            frame["file_path"] = f"images/{photos[index]}"
        elif isinstance(given, str) and given:
            frame["file_path"] = f"images/{_photo_named(given, by_name)}"
    media.write_bytes(path, json.dumps(data).encode())


def _by_name(photos: Sequence[str]) -> dict[str, str]:
    """Maps names with and without suffix to photos; the first photo of a name wins."""
    known: dict[str, str] = {}
    for photo in photos:
        known.setdefault(photo, photo)
        known.setdefault(photo.rsplit(".", 1)[0], photo)
    return known


def _photo_named(name: str, by_name: Mapping[str, str]) -> str:
    """The photo that a camera means: by its whole name, or by the last part of it."""
    wanted = str(safe_name(plain_name(name), "cameras"))
    names = (wanted, wanted.rsplit("/", 1)[-1], unquote(wanted).rsplit("/", 1)[-1])
    found = next((by_name[name] for name in names if name in by_name), None)
    if found is None:
        raise InputError("cameras", f"they name {wanted!a}, which was not sent", "send that photo as images, too")
    return found


def normalised(transforms: Path) -> dict[str, Any]:
    """Converts a file of cameras to the form that this package's reader accepts, and writes it back.

    A bare list becomes `frames`, `c2w` (OpenCV axes) becomes `transform_matrix`, and `K` becomes `fl_x` etc.

    Raises:
        InputError: the file is not JSON, or has no cameras.
    """
    try:
        data = json.loads(read_text(transforms))
    except (ValueError, RecursionError) as error:
        at = f" (line {error.lineno}, column {error.colno})" if isinstance(error, json.JSONDecodeError) else ""
        raise InputError("cameras", f"they are not valid JSON{at}", "send a transforms.json") from error
    data = {"frames": data} if isinstance(data, list) else data
    if not isinstance(data, dict) or not isinstance(data.get("frames"), list) or not data["frames"]:
        raise InputError("cameras", "they have no list `frames`", "send a transforms.json")
    data["frames"] = [
        _normalised_frame(frame, f"frame {i} of cameras", transforms.parent) for i, frame in enumerate(data["frames"])
    ]
    # Whole or not at all: a process that was killed is started again on the same files.
    media.write_bytes(transforms, json.dumps(data).encode())
    return data


def _normalised_frame(frame: Any, where: str, folder: Path) -> Any:
    """One camera."""
    if not isinstance(frame, dict):
        return frame
    frame = dict(frame)
    if isinstance(frame.get("file_path"), str):
        frame["file_path"] = _relative(frame["file_path"], folder)
    if frame.get("transform_matrix") is None and frame.get("c2w") is not None:
        frame["transform_matrix"] = flip_yz(matrix(frame.pop("c2w"), where, "c2w")).tolist()
    K = frame.pop("K", None)
    if K is not None:
        is_square = isinstance(K, list) and len(K) == 3 and all(isinstance(row, list) and len(row) == 3 for row in K)
        if not is_square:
            raise InputError(where, "K is not a 3x3 matrix", "give 3 rows of 3 numbers, in pixels")
        frame |= {"fl_x": K[0][0], "fl_y": K[1][1], "cx": K[0][2], "cy": K[1][2]}
    return frame


def _relative(name: str, folder: Path) -> str:
    """A photo's name with `/`; of one that was absolute on the sender's machine, the part that was sent."""
    plain = plain_name(name)
    parts = [part for part in plain.split("/") if part]
    has_drive = bool(parts) and parts[0].endswith(":")
    if not (plain.startswith("/") or has_drive) or ".." in parts:
        return plain
    tails = ("/".join(parts[start:]) for start in range(int(has_drive), len(parts)))
    return next((tail for tail in tails if find_photo(folder, tail) is not None), plain)


def _check_photos(root: Path, limits: UploadLimits) -> None:
    """Checks the photos' formats and sizes."""
    photos = [path for path in sorted(root.rglob("*")) if path.suffix.lower() in media.IMAGE_SUFFIXES]
    if not photos:
        raise InputError("scene", "there are no photos in it", "send at least one PNG or JPEG file")
    for path in photos:
        check_photo(path, limits)


def check_photo(path: Path, limits: UploadLimits) -> None:
    """Checks one photo's header."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            pixels = _pixels(path)
    except InputError:
        raise
    except Exception as error:
        # Pillow's readers raise all kinds of exceptions on damaged files.
        raise InputError(f"photo {path.name}", "it is not an image, or is damaged", "send a PNG or JPEG") from error
    if pixels > limits.photo_pixels:
        raise InputError(f"photo {path.name}", f"it has {pixels} pixels", f"scale it to at most {limits.photo_pixels}")


def _pixels(path: Path) -> int:
    """Width times height, of a picture of one of `media.FORMATS`."""
    if media.is_heic(path):
        height, width = media.image_size(path)
        return height * width
    with media.open_picture(path) as image:
        return image.width * image.height


def _chosen(capture: Capture, request: SceneRequest, limits: UploadLimits) -> tuple[Capture, list[str]]:
    """The views to keep, and what to tell about the choice."""
    pool = [index for index, view in enumerate(capture.views) if view.image is not None]
    notes = []
    if request.split is not None:
        if request.split not in capture.splits:
            known = spans(sorted(capture.splits)) or "none"
            raise InputError("split", f"there is no {request.split}", f"this scene has: {known}")
        pool = [index for index in capture.splits[request.split].train_ids if index in pool]
    if not pool:
        raise InputError("scene", "no camera has a photo", "name the photos in file_path")
    if request.contexts is not None:
        ids = _parsed(request.contexts, pool)
    else:
        ids = spread(pool, None if request.split is not None else DEFAULT_VIEWS)
        if len(ids) < len(pool):
            notes.append(f"{len(ids)} of {len(pool)} photos are kept, evenly spread; choose others with contexts")
    if request.contexts is None or "," not in request.contexts:
        ids, was_moved = _along_tour(capture, ids)
        notes += ["the photos' order turned back and forth: paths go along the shortest tour"] if was_moved else []
    if len(ids) > limits.views:
        raise InputError("contexts", f"{len(ids)} photos would be kept", f"choose at most {limits.views}")
    return replace(capture, views=tuple(capture.views[index] for index in ids), splits={}, held_out=()), notes


def _along_tour(capture: Capture, ids: Sequence[int]) -> tuple[Sequence[int], bool]:
    """The views in the order of the shortest tour through them, and whether that is another order."""
    cameras = capture.cameras(ids, 1, 1)
    order = tour(pose_distances(cameras, cameras))
    return [ids[place] for place in order], order != list(range(len(ids)))


def _parsed(contexts: str, pool: Sequence[int]) -> Sequence[int]:
    """Parses `I,J,...` as view numbers, a lone `N` as the number of views to select from `pool`."""
    parts = [part.strip() for part in contexts.split(",") if part.strip()]
    are_numbers = all(part.isascii() and part.isdecimal() and len(part) < 7 for part in parts)
    if not 1 <= len(parts) <= len(pool) or not are_numbers:
        shown = ascii(contexts if len(contexts) < 60 else f"{contexts[:60]}…")
        raise InputError("contexts", f"it is {shown}", f"give photos as 0,4,7 or a count from 1 to {len(pool)}")
    numbers = [int(part) for part in parts]
    if "," not in contexts:
        if not 1 <= numbers[0] <= len(pool):
            raise InputError("contexts", f"it is {numbers[0]}", f"give a number of photos from 1 to {len(pool)}")
        return spread(pool, numbers[0])
    for number in numbers:
        if number not in pool or numbers.count(number) > 1:
            raise InputError("contexts", f"photo {number} does not exist, or is listed twice", "list every photo once")
    return numbers


def spread(ids: Sequence[int], count: int | None) -> Sequence[int]:
    """Selects `count` of `ids` evenly, first and last included; None selects all, 1 the middle one."""
    if count is None or count >= len(ids):
        return ids
    if count == 1:
        return [ids[len(ids) // 2]]
    return [ids[round(i * (len(ids) - 1) / (count - 1))] for i in range(count)]


def _keep(capture: Capture, folder: Path, limits: UploadLimits, notes: Sequence[str]) -> StoredScene:
    """Writes the scene's files."""
    folder.mkdir(parents=True, exist_ok=True)
    frames = [_keep_view(view, folder, index, limits, capture.world) for index, view in enumerate(capture.views)]
    kept = {"camera_model": "PINHOLE", **capture.world.fields(), "frames": frames}
    media.write_bytes(folder / TRANSFORMS, json.dumps(kept).encode())
    sentences = [scrub(sentence, folder) for sentence in (*notes, *capture.notes, *warnings_for(capture))]
    return StoredScene(
        num_views=len(frames),
        width=frames[0]["w"],
        height=frames[0]["h"],
        bytes=sum(path.stat().st_size for path in folder.iterdir()),
        warnings=tuple(sentences[:20]),
    )


def _keep_all_cameras(capture: Capture, folder: Path) -> None:
    """Writes all cameras, of photos that are not kept, too: they tell in which coordinates a camera path is."""
    folder.mkdir(parents=True, exist_ok=True)
    cameras = capture.cameras(range(len(capture)), 1, 1)
    write_transforms(folder / ALL_CAMERAS, cameras, [None] * len(cameras), capture.world)


def _keep_view(view: PosedView, folder: Path, index: int, limits: UploadLimits, world: World) -> dict[str, Any]:
    """One photo, and its camera as an entry of `frames`, in the coordinates of the file that was sent."""
    scale = min(1.0, limits.kept_side / max(view.height, view.width))
    camera = view.camera(max(1, round(view.height * scale)), max(1, round(view.width * scale)), "stretch")
    name = f"{index:03d}.png"
    media.write_png(folder / name, view.fitted(camera.height, camera.width, "stretch", oversampling=1.25))
    return {**frame_from(camera, 0, name, world), "w": camera.width, "h": camera.height}
