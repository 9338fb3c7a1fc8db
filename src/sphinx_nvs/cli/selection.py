"""Which views are context and which cameras are rendered, by the options and the scene.

1. context: `--contexts`, else the split's train views, else all views (at most `MOST_CONTEXTS`, spread)
2. targets: `test` (the split's test views, else all views that are not context), a camera file, or a path by name
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sphinx_nvs.errors import InputError, spans
from sphinx_nvs.geometry import Cameras
from sphinx_nvs.geometry.paths import INTERPOLATE, PATH_NAMES, scene_path
from sphinx_nvs.geometry.tours import along_tour
from sphinx_nvs.scene import Capture, Split
from sphinx_nvs.scene.camera_files import SceneCameras, read_targets
from sphinx_nvs.scene.training_frame import read_dataparser

MOST_CONTEXTS = 9
"""Most context views that are chosen automatically: regressors are made for 2 to 9."""

PATH_FRAMES = 24
"""Frames of a named path when `--frames` is not given."""


@dataclass(frozen=True, kw_only=True)
class ViewOptions:
    """The options that choose views, as given on the command line; None chooses automatically."""

    contexts: str | None = None
    split: int | None = None
    targets: str | None = None
    frames: int | None = None
    dataparser: Path | None = None


@dataclass(frozen=True, kw_only=True)
class Selection:
    """Context views and target cameras.

    Args:
        context_ids: the capture's views that are context.
        split: number of the split in use, None without.
        targets: cameras to render.
        target_name: `test`, the file, or the path's name.
        test_ids: the capture's views at `targets`, None for other cameras.
        notes: choices that were made automatically, one sentence each.
    """

    context_ids: tuple[int, ...]
    split: int | None
    targets: Cameras
    target_name: str
    test_ids: tuple[int, ...] | None
    notes: tuple[str, ...]


def select(capture: Capture, options: ViewOptions, height: int, width: int) -> Selection:
    """Chooses context views and target cameras.

    Args:
        capture: the scene.
        options: the options that choose views.
        height: height of context views and frames in pixels.
        width: width of context views and frames in pixels.

    Raises:
        InputError: an unknown split, view or path, no frames, or an unreadable camera file.
    """
    if options.frames is not None and options.frames < 1:
        raise InputError("--frames", f"it is {options.frames}", "give at least 1")
    number, notes = _choose_split(capture, options)
    split = None if number is None else capture.splits[number]
    context_ids, more_notes = _choose_context(capture, split, options.contexts)
    contexts = capture.cameras(context_ids, height, width)
    name = options.targets or ("test" if split else INTERPOLATE)
    test_ids = None
    if name == "test":
        test_ids = spread(_test_ids(capture, split, context_ids), options.frames)
        targets = capture.cameras(test_ids, height, width)
    else:
        ordered = contexts if _is_ordered(options) else along_tour(contexts)
        targets, cameras_notes = _cameras(name, ordered, capture, options)
        more_notes = [*more_notes, *cameras_notes]
    return Selection(
        context_ids=context_ids,
        split=number,
        targets=targets,
        target_name=name,
        test_ids=test_ids,
        notes=(*capture.notes, *notes, *more_notes),
    )


def _is_ordered(options: ViewOptions) -> bool:
    """Whether the user gives the context views an order."""
    return options.contexts is not None and "," in options.contexts


def spread(ids: Sequence[int], count: int | None) -> tuple[int, ...]:
    """`count` of `ids` (None or too many: all), evenly, first and last included; one is the middle."""
    if count is None or count >= len(ids):
        return tuple(ids)
    if count == 1:
        return (ids[len(ids) // 2],)
    return tuple(ids[round(i * (len(ids) - 1) / (count - 1))] for i in range(count))


def _choose_split(capture: Capture, options: ViewOptions) -> tuple[int | None, list[str]]:
    """The split's number, and notes about the choice."""
    known = sorted(capture.splits)
    if options.split is not None:
        if options.split not in capture.splits:
            has = f"it has {spans(known)}" if known else "it has none"
            raise InputError(f"split {options.split} of {capture.name}", has, "choose one of these or give --contexts")
        return options.split, []
    if options.contexts is not None or not known:
        return None, []
    if len(known) == 1:
        return known[0], []
    return None, [f"{capture.name} has splits {spans(known)} and none is chosen: no photo is held out; see --split"]


def _choose_context(capture: Capture, split: Split | None, contexts: str | None) -> tuple[tuple[int, ...], list[str]]:
    """The context views, and notes about the choice."""
    with_photo = tuple(i for i, view in enumerate(capture.views) if view.image is not None)
    pool = split.train_ids if split else tuple(i for i in with_photo if i not in capture.held_out) or with_photo
    if contexts is not None:
        return _parsed_contexts(contexts, pool), []
    # A layout's own training set is all photos but the test ones, and may be hundreds.
    is_chosen = split is not None and not capture.held_out
    if is_chosen or len(pool) <= MOST_CONTEXTS:
        return pool, []
    chosen = spread(pool, MOST_CONTEXTS)
    return chosen, [f"{capture.name} has {len(pool)} photos: views {spans(chosen)} are context; choose with --contexts"]


def _parsed_contexts(contexts: str, pool: Sequence[int]) -> tuple[int, ...]:
    """`I,J,...` are view numbers, a lone `N` is how many to pick from `pool`."""
    parts = [part.strip() for part in contexts.split(",") if part.strip()]
    if not parts or not all(part.isdecimal() and len(part) < 7 for part in parts):
        shown = contexts if len(contexts) < 60 else f"{contexts[:60]}…"
        raise InputError("--contexts", f"{shown!r}", "give view numbers as 0,4,7 or a count as 3")
    numbers = [int(part) for part in parts]
    if "," not in contexts:
        if not 1 <= numbers[0] <= len(pool):
            hint = f"give 1 to {len(pool)}, or name views as 0,4,7"
            raise InputError("--contexts", f"it is {numbers[0]} views", hint)
        return spread(pool, numbers[0])
    repeated = [i for i in numbers if numbers.count(i) > 1]
    if repeated:
        raise InputError("--contexts", f"view {repeated[0]} is named twice", "name every view once")
    return tuple(numbers)


def _test_ids(capture: Capture, split: Split | None, context_ids: Sequence[int]) -> tuple[int, ...]:
    """Held-out views: the split's, else all photos; never a context view."""
    photos = (i for i, view in enumerate(capture.views) if view.image is not None)
    pool = split.test_ids if split else capture.held_out or photos
    ids = tuple(i for i in pool if i not in context_ids)
    if not ids:
        raise InputError(
            "--targets test", f"{capture.name} has no view beside the context", "name a path, e.g. interpolate"
        )
    return ids


def _cameras(name: str, contexts: Cameras, capture: Capture, options: ViewOptions) -> tuple[Cameras, tuple[str, ...]]:
    """The cameras of a named path or of a file, and what to tell of them."""
    if name.replace("dolly-", "dolly ") in PATH_NAMES:
        return scene_path(name, contexts, PATH_FRAMES if options.frames is None else options.frames), ()
    path = Path(name)
    if not path.exists():
        known = ", ".join(("test", *PATH_NAMES))
        raise InputError(
            "--targets",
            f"{name!r} is neither a camera file nor a camera path",
            f"give a camera file or one of: {known}",
        )
    scene = SceneCameras(
        contexts=contexts,
        everyone=capture.cameras(range(len(capture)), contexts.height, contexts.width),
        world=capture.world,
        folder=capture.folder,
        dataparser=None if options.dataparser is None else read_dataparser(options.dataparser),
    )
    targets = read_targets(path, contexts.height, contexts.width, scene)
    return targets.cameras[list(spread(range(len(targets.cameras)), options.frames))], targets.notes
