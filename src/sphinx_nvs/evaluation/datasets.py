"""Evaluation scenes by name: each yields cases, a case being context views and held-out views with their photos.

    procedural:SPLIT:N     the first N procedural scenes of a split (train, val, test); no model is trained on test
    captures:DIR, DIR      a scene, or every scene of a folder, in any layout of `read_capture`; all of its splits
    re10k:DIR, acid:DIR    pixelSplat's chunks with an evaluation index beside them, or camera files with frames

Several names are joined by commas. A scene without splits gives two context views `GAP` frames apart, or its ends, and
three targets between them, as pixelSplat's evaluation does.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

from jaxtyping import Float
from torch import Tensor

from sphinx_nvs.errors import InputError
from sphinx_nvs.geometry.cameras import Cameras
from sphinx_nvs.procedural import procedural_views
from sphinx_nvs.scene import Capture, Scene, Split, read_capture
from sphinx_nvs.scene.conventions import with_checked_poses
from sphinx_nvs.scene.re10k import is_re10k, read_re10k
from sphinx_nvs.scene.torch_chunks import is_chunk_folder, read_chunk_index, read_chunked_clip, read_evaluation_index

PROCEDURAL_VIEWS, PROCEDURAL_CONTEXT = 8, (0, 4)
"""Views 1 to 3 are between the two context views, 5 to 7 are beyond them."""
GAP = 45
SPLITS = ("train", "val", "test")


@dataclass(frozen=True, kw_only=True, eq=False)
class Loaded:
    """A case in memory.

    Args:
        scene: the context views.
        targets: held-out cameras.
        truth: their photos, sRGB in [0, 1].
        depth: their z-depth in world units if known exactly, else None.
    """

    scene: Scene
    targets: Cameras
    truth: Float[Tensor, "V 3 H W"]
    depth: Float[Tensor, "V H W"] | None = None


@dataclass(frozen=True, kw_only=True)
class Case:
    """A case whose images are not loaded yet.

    Args:
        name: unique in an evaluation, valid in file names.
        source: description of its origin.
        load: reads it; takes the frames' `Size`.
    """

    name: str
    source: str
    load: Callable[[Size], Loaded]


@dataclass(frozen=True, kw_only=True)
class Size:
    """Size of frames and number of targets.

    Args:
        short_side: short side in pixels; the long one follows the photos' aspect ratio.
        exact: height and width, regardless of the photos' aspect ratio; None uses `short_side`.
        multiple: sides are multiples of this.
        most_views: maximum number of targets, evenly spaced.
    """

    short_side: int
    exact: tuple[int, int] | None = None
    multiple: int = 8
    most_views: int = 8


def cases_named(data: str, splits: Collection[int] | None = None) -> list[Case]:
    """The cases of a data specification.

    Args:
        data: names joined by commas; see the module docstring.
        splits: only these splits of captures; None means all.

    Raises:
        InputError: a name has another form, a folder has no scenes, or two cases share a name.
    """
    cases = [case for part in data.split(",") if part.strip() for case in _cases(part.strip(), splits)]
    if not cases:
        raise InputError("--data", f"{data!r} names no scene", "give e.g. procedural:test:3 or captures:DIR")
    names = [case.name for case in cases]
    doubled = next((name for i, name in enumerate(names) if name in names[:i]), None)
    if doubled is not None:
        raise InputError("--data", f"{doubled} is named twice", "name every scene once")
    return cases


def _cases(part: str, splits: Collection[int] | None) -> list[Case]:
    kind, _, rest = part.partition(":")
    if kind == "procedural":
        return _procedural_cases(part)
    if kind in ("re10k", "acid"):
        return _clip_cases(kind, Path(rest))
    return _capture_cases(Path(rest if kind == "captures" else part), splits)


def _procedural_cases(part: str) -> list[Case]:
    match = re.fullmatch(rf"procedural:({'|'.join(SPLITS)}):([1-9]\d*)", part)
    if not match:
        raise InputError("--data", f"{part!r}", "give procedural:SPLIT:N, e.g. procedural:test:50")
    split = match[1]
    return [
        Case(name=f"procedural-{split}-{seed:03d}", source=part, load=partial(_load_procedural, seed, split))
        for seed in range(int(match[2]))
    ]


def _load_procedural(seed: int, split: str, size: Size) -> Loaded:
    side = max(size.multiple, round(size.short_side / size.multiple) * size.multiple)
    height, width = size.exact or (side, side)
    rgb, depth, cameras, _ = procedural_views(seed, PROCEDURAL_VIEWS, height, width, split=split)
    context = list(PROCEDURAL_CONTEXT)
    held_out = _spread([view for view in range(PROCEDURAL_VIEWS) if view not in context], size.most_views)
    scene = Scene(name=f"{split}-{seed:03d}", images=rgb[context], cameras=cameras[context])
    return Loaded(scene=scene, targets=cameras[held_out], truth=rgb[held_out], depth=depth[held_out])


def _capture_cases(folder: Path, splits: Collection[int] | None) -> list[Case]:
    """Every split of a scene, or of every scene in a folder."""
    captures = _captures(folder)
    if not captures:
        raise InputError(f"folder {folder}", "it holds no scene", "give a scene or a folder of scenes")
    cases = []
    for capture in captures:
        chosen = {n: split for n, split in sorted(capture.splits.items()) if splits is None or n in splits}
        if not capture.splits:
            chosen = {2: default_split(capture)}
        # Once for all splits of a scene, and only if one of them is evaluated.
        checked = cache(partial(with_checked_poses, capture))
        for number, split in chosen.items():
            load = partial(_load_checked, checked, split)
            cases.append(Case(name=f"{_file_safe(capture.name)}-{number}", source=folder.resolve().name, load=load))
    return cases


def _load_checked(checked: Callable[[], Capture], split: Split, size: Size) -> Loaded:
    return _loaded(checked(), split, size)


def _captures(folder: Path) -> list[Capture]:
    """The scene in a folder, or those in its subfolders; subfolders without a scene are skipped."""
    if not folder.is_dir():
        return [read_capture(folder)]
    try:
        return [read_capture(folder)]
    except InputError as error:
        if "no known layout" not in error.found:
            raise
    captures = []
    for inner in sorted(path for path in folder.iterdir() if path.is_dir()):
        try:
            captures.append(read_capture(inner))
        except InputError as error:
            if "no known layout" not in error.found:
                raise
    return captures


def _clip_cases(kind: str, folder: Path) -> list[Case]:
    """Clips of RealEstate10K or ACID."""
    if not folder.is_dir():
        raise InputError("--data", f"{folder} is not a folder", f"give {kind}:DIR with chunks or camera text files")
    index = evaluation_index(folder)
    if is_chunk_folder(folder):
        if index is None:
            raise InputError(f"folder {folder}", "there is no evaluation index", "put one there, *evaluation*.json")
        chunks = read_chunk_index(folder)
        wanted = {key: split for key, split in read_evaluation_index(index).items() if key in chunks}
        # By chunk: many clips share a file, which is still in the system's cache for the next one.
        ordered = sorted(wanted, key=lambda key: (chunks[key], key))
        return [
            Case(
                name=f"{kind}-{_file_safe(key)}",
                source=f"{kind}:{folder.resolve().name}",
                load=partial(_load_chunked, folder, chunks[key], key, wanted[key]),
            )
            for key in ordered
        ]
    files = {path.stem: path for path in sorted(folder.rglob("*.txt")) if is_re10k(path)}
    if not files:
        raise InputError(f"folder {folder}", "it has neither chunks nor camera files", f"give {kind}:DIR with either")
    splits = {} if index is None else read_evaluation_index(index)
    return [
        Case(
            name=f"{kind}-{_file_safe(key)}",
            source=f"{kind}:{folder.resolve().name}",
            load=partial(_load_raw, path, splits.get(key)),
        )
        for key, path in files.items()
        if index is None or key in splits
    ]


def evaluation_index(folder: Path) -> Path | None:
    """The evaluation index in a folder or its parent; None if there is none.

    Raises:
        InputError: there are several.
    """
    for place in (folder, folder.parent):
        found = sorted(place.glob("*evaluation*.json"))
        if len(found) > 1:
            raise InputError(f"folder {place}", f"it holds {len(found)} evaluation indices", "leave one of them")
        if found:
            return found[0]
    return None


def default_split(capture: Capture) -> Split:
    """Two context views and three targets evenly spaced between them, among the views that have a photo.

    Raises:
        InputError: fewer than three photos.
    """
    photos = [i for i, view in enumerate(capture.views) if view.image is not None]
    if len(photos) < 3:
        raise InputError(f"capture {capture.name}", f"it has {len(photos)} photos", "give at least 3")
    last = min(GAP, len(photos) - 1)
    between = sorted({round(last * share) for share in (0.25, 0.5, 0.75)} - {0, last})
    return Split(train_ids=(photos[0], photos[last]), test_ids=tuple(photos[i] for i in between))


def _load_raw(path: Path, split: Split | None, size: Size) -> Loaded:
    capture = read_re10k(path)
    return _loaded(capture, split or default_split(capture), size)


def _load_chunked(folder: Path, chunk: str, key: str, split: Split, size: Size) -> Loaded:
    return _loaded(read_chunked_clip(folder, chunk, key, (*split.train_ids, *split.test_ids)), split, size)


def _loaded(capture: Capture, split: Split, size: Size) -> Loaded:
    height, width = size.exact or capture.default_size(size.short_side, size.multiple)
    truth = capture.load(_spread(list(split.test_ids), size.most_views), height, width)
    scene = capture.load(split.train_ids, height, width)
    return Loaded(scene=scene, targets=truth.cameras, truth=truth.images)


def _spread(ids: list[int], most: int) -> list[int]:
    """At most `most` of the ids, evenly spaced, first and last included."""
    if len(ids) <= most:
        return ids
    if most == 1:
        return [ids[len(ids) // 2]]
    return [ids[round(i * (len(ids) - 1) / (most - 1))] for i in range(most)]


def _file_safe(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "_", name)
