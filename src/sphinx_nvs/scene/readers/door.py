"""One entry point for every scene: identifies the layout of a path, or the meaning of a name, and calls its reader."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from sphinx_nvs.errors import InputError
from sphinx_nvs.scene.capture import Capture
from sphinx_nvs.scene.colmap import read_colmap, sparse_folders
from sphinx_nvs.scene.conventions import with_checked_poses
from sphinx_nvs.scene.demo import read_demo
from sphinx_nvs.scene.procedural_captures import PREFIX, read_generated
from sphinx_nvs.scene.re10k import camera_file, is_re10k, read_re10k
from sphinx_nvs.scene.readers import (
    blender,
    bundler,
    llff,
    metashape,
    mvsnet,
    polycam,
    realitycapture,
    record3d,
    sdfstudio,
    unread,
)
from sphinx_nvs.scene.scene import Scene
from sphinx_nvs.scene.transforms import read_transforms

DEMO = "demo"
_LAYOUTS = (
    "transforms.json (nerfstudio), sparse/0/images.bin or images.txt (COLMAP), "
    "a camera .txt with its frames (RealEstate10K, ACID); docs/reference/inputs.md lists all"
)


def read_capture(path_or_name: str | Path) -> Capture:
    """Reads a scene.

    Args:
        path_or_name: a folder or file in one of the layouts of docs/reference/inputs.md, or `demo`,
            `procedural:SEED`, `procedural:KIND:SEED`. A folder called like a name is reached as `./demo`.

    Raises:
        InputError: nothing is there, no known layout is found, or its content cannot be used.
    """
    if str(path_or_name) == DEMO:
        demo = read_demo()
        beside = "the bundled demo is read; the folder of that name here is ./demo"
        return replace(demo, notes=(*demo.notes, beside)) if os.path.isdir(DEMO) else demo
    if str(path_or_name).startswith(PREFIX):
        return read_generated(str(path_or_name))
    path = Path(path_or_name)
    # Unlike pathlib's, this says no to names too long for any file system.
    if os.path.exists(path) and path.is_dir():
        return _read_folder(path)
    if os.path.exists(path) and path.is_file():
        return _read_file(path)
    raise InputError(
        f"scene {path}", "there is no such file or folder", "correct the path, or say demo or procedural:SEED"
    )


def holds_scene(folder: Path) -> bool:
    """Whether a folder holds a known layout; its content may still be unusable."""
    return _reader_of(folder) is not None


def read_scene(
    path_or_name: str | Path,
    views: Sequence[int] | None = None,
    *,
    height: int | None = None,
    width: int | None = None,
) -> Scene:
    """Reads a scene's photos and cameras, as context views of a pipeline.

    Args:
        path_or_name: see `read_capture`.
        views: which views, by number; None for every view with a photo.
        height: height of the images in pixels; with `width`, or neither.
        width: width of the images in pixels. Without a size the photos keep their shape, their short side 256 pixels.

    Raises:
        InputError: see `read_capture`, `conventions.with_checked_poses` and `Capture.load`, or a height without a
            width.
    """
    capture = with_checked_poses(read_capture(path_or_name))
    chosen = [i for i, view in enumerate(capture.views) if view.image is not None] if views is None else views
    if (height is None) != (width is None):
        raise InputError("size", "only one of height and width is given", "give both, or neither")
    size = capture.default_size() if height is None or width is None else (height, width)
    return capture.load(chosen, *size)


def _read_folder(path: Path) -> Capture:
    """The first layout that is found."""
    reader = _reader_of(path)
    if reader is not None:
        return reader()
    unread.check_unread(path)
    raise InputError(
        f"scene {path}", f"no known layout is found (looked for {_LAYOUTS})", "give a folder with one of these"
    )


Reader = Callable[[], Capture]


def _reader_of(path: Path) -> Reader | None:
    """What reads a folder, None if nothing does: layouts with a file of a fixed name come first."""
    return _by_name(path) or _by_content(path)


def _by_name(path: Path) -> Reader | None:
    """Layouts that a file of a fixed name tells."""
    if (path / "transforms.json").is_file():
        return partial(read_transforms, path / "transforms.json")
    if blender.is_blender(path):
        return partial(blender.read_blender, path)
    if sparse_folders(path):
        return partial(read_colmap, path)
    if (path / sdfstudio.NAME).is_file():
        return partial(sdfstudio.read_sdfstudio, path / sdfstudio.NAME)
    if (path / llff.NAME).is_file():
        return partial(llff.read_llff, path / llff.NAME)
    if (bundle := bundler.bundle_file(path)) is not None:
        return partial(bundler.read_bundler, bundle)
    return None


def _by_content(path: Path) -> Reader | None:
    """Layouts that the content of their files tells."""
    if (keyframes := polycam.keyframes_folder(path)) is not None:
        return partial(polycam.read_polycam, keyframes, path)
    if (metadata := record3d.metadata_file(path)) is not None:
        return partial(record3d.read_record3d, metadata)
    if (xml := metashape.cameras_file(path)) is not None:
        return partial(metashape.read_metashape, xml)
    if (registration := realitycapture.registration_file(path)) is not None:
        return partial(realitycapture.read_realitycapture, registration)
    if (cams := mvsnet.cams_folder(path)) is not None:
        return partial(mvsnet.read_mvsnet, cams)
    if (cameras := camera_file(path)) is not None:
        return partial(read_re10k, cameras)
    return None


def _read_file(path: Path) -> Capture:
    """A layout's main file, named directly."""
    if path.name == sdfstudio.NAME:
        return sdfstudio.read_sdfstudio(path)
    if path.name == llff.NAME:
        return llff.read_llff(path)
    if path.suffix.lower() == ".json":
        return read_transforms(path)
    if path.suffix.lower() == ".out":
        return bundler.read_bundler(path)
    if path.suffix.lower() == ".xml" and metashape.is_metashape(path):
        return metashape.read_metashape(path)
    if path.suffix.lower() == ".csv" and realitycapture.is_realitycapture(path):
        return realitycapture.read_realitycapture(path)
    if path.suffix.lower() == ".txt" and is_re10k(path):
        return read_re10k(path)
    if path.name in ("images.bin", "images.txt", "cameras.bin", "cameras.txt") and sparse_folders(path.parent):
        return read_colmap(path.parent)
    unread.check_video(path)
    unread.check_archive(path)
    raise InputError(
        f"scene {path}",
        "it is no known kind of camera file",
        "give a transforms.json, a RealEstate10K .txt or a folder",
    )
