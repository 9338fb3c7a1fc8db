"""`sphinx-nvs poses`: plain photos or a video in, a scene out; and plain photos as the scene of other commands."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sphinx_nvs.cli.options.pose_options import Poses
from sphinx_nvs.cli.output import POSED, check_output, claimed, replace_folder, write_sums
from sphinx_nvs.cli.progress import eta_text, say, share_progress
from sphinx_nvs.errors import InputError, OutputError
from sphinx_nvs.posing import is_plain, pose_source
from sphinx_nvs.posing.colmap_library import muted
from sphinx_nvs.posing.photo_sources import cached_scene
from sphinx_nvs.posing.posing_progress import Report
from sphinx_nvs.posing.work_folder import cache_folder
from sphinx_nvs.scene.readers import unread
from sphinx_nvs.scene.readers.door import DEMO


def poses(options: Poses) -> None:
    """Runs the command.

    Raises:
        InputError: an option cannot be used, or the photos do not determine cameras.
        OutputError: the scene cannot be written.
    """
    if options.seed < 0:
        raise InputError("--seed", f"it is {options.seed}", "give a whole number from 0")
    check_output(options.out, options.overwrite, Path(options.photos), command=POSED)
    with claimed(options.out), _home_named(), _reported() as progress:
        target = options.out.with_name(f".{options.out.name}.new") if options.out.exists() else options.out
        scene = pose_source(options.photos, target, focal_mm=options.focal_mm, seed=options.seed, progress=progress)
        write_sums(target, POSED)
        if target != options.out:
            replace_folder(options.out, target, POSED)
    report = {**scene.report, "out": str(options.out)}
    sys.stdout.write(f"{json.dumps(report) if options.json else summary(report)}\n")


def summary(report: dict[str, Any]) -> str:
    """The report as lines of text."""
    checks = (
        f"{report['registered']} of {report['photos']} photos, {report['points']} points, "
        f"{report['reprojection_px']:.2f} pixels of error, {report['seconds']:.0f} s: {report['out']}"
    )
    return "\n".join([checks, *(f"  {note}" for note in report["notes"])])


def posed(scene: str, *, seed: int = 0) -> str:
    """The scene itself, or for plain photos or a video the scene that was made of them.

    Raises:
        InputError: the photos do not determine cameras.
    """
    path = Path(scene)
    if scene == DEMO or not os.path.exists(path) or not is_plain(path):
        return scene
    if path.is_dir():
        _check_cameras(path)
    with _home_named(), _reported() as progress:
        folder, was_there = cached_scene(path, seed=seed, progress=progress)
    say(f"cameras of {scene}: {'found earlier' if was_there else 'found now'}, kept in {folder}")
    return str(folder)


def _check_cameras(folder: Path) -> None:
    """Says which files beside plain photos may hold cameras and are not read.

    Raises:
        InputError: they are a layout that is known.
    """
    unread.check_layout(folder, is_plain=True)
    ignored = unread.files_like_cameras(folder)
    if ignored:
        some = ", ".join(ignored[:3]) + (", ..." if len(ignored) > 3 else "")
        say(f"files beside the photos are in no layout of cameras that is read: {some}")


@contextmanager
def _home_named() -> Iterator[None]:
    """Names the variable to set where the folder of posed scenes cannot be used.

    Raises:
        OutputError: it cannot be made, read or written.
    """
    try:
        yield
    except OSError as error:
        home, at = (
            cache_folder(),
            Path(os.fsdecode(error.filename)) if isinstance(error.filename, str | bytes) else None,
        )
        if at is None or not (at.is_relative_to(home) or home.is_relative_to(at)):
            raise
        hint = "set SPHINX_NVS_HOME to a folder that you may write to"
        raise OutputError(f"folder {home} of posed scenes", f"{at}: {error.strerror}", hint) from error


@contextmanager
def _reported() -> Iterator[Report | None]:
    """The library's progress as a bar, without COLMAP's log."""
    with muted() as file, share_progress(file) as bar:
        yield None if bar is None else lambda what, share, left: bar(what, share, eta_text(left))
