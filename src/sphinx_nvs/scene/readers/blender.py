"""Blender / NeRF-synthetic: `transforms_train.json`, `transforms_val.json` and `transforms_test.json` side by side.

Each is a transforms.json with `camera_angle_x` and names without endings. Views are those of train, then val, then
test; test (or val, where there is none) is held out. Reference: Mildenhall et al., "NeRF", 2020.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from sphinx_nvs.errors import InputError
from sphinx_nvs.scene.capture import Capture, PosedView, Split
from sphinx_nvs.scene.jsonfile import read_json_value
from sphinx_nvs.scene.transforms import transforms_in

LAYOUT = "Blender (NeRF-synthetic) transforms_train.json"
_PARTS = ("train", "val", "test")


def is_blender(folder: Path) -> bool:
    """Whether a folder holds this layout."""
    return (folder / "transforms_train.json").is_file()


def read_blender(folder: Path) -> Capture:
    """Reads the files that there are.

    Raises:
        InputError: one cannot be used, or they are in different coordinates.
    """
    captures = {}
    for part in _PARTS:
        path = folder / f"transforms_{part}.json"
        if path.is_file():
            captures[part] = transforms_in(_with_intrinsics(read_json_value(path), path), path)
    train = captures["train"]
    for part, capture in captures.items():
        if (capture.world.transform, capture.world.scale) != (train.world.transform, train.world.scale):
            found = f"its applied_transform differs from that of transforms_{part}.json"
            raise InputError(f"scene {folder}", found, "give all files in the same coordinates")
    views: list[PosedView] = []
    ids: dict[str, tuple[int, ...]] = {}
    for part, capture in captures.items():
        ids[part] = tuple(range(len(views), len(views) + len(capture)))
        # Each file was centred by itself.
        inside = (replace(view, c2w=train.world.inside(capture.world.outside(view.c2w))) for view in capture.views)
        views += [replace(view, name=f"{part}: {view.name}") for view in inside]
    held_out = ids.get("test") or ids.get("val")
    notes = list(dict.fromkeys(note for capture in captures.values() for note in capture.notes))
    if "test" in ids and "val" in ids:
        notes.append("views of transforms_val.json are neither context nor held out unless they are named")
    splits = {len(train): Split(train_ids=ids["train"], test_ids=held_out)} if held_out else {}
    return replace(
        train,
        name=folder.resolve().name,
        views=tuple(views),
        splits=splits,
        held_out=held_out or (),
        path=folder,
        layout=LAYOUT,
        notes=tuple(notes),
    )


def _with_intrinsics(value: object, path: Path) -> object:
    """The content, unless it is nerfstudio's list of exported cameras, which has no intrinsics."""
    if isinstance(value, list) and value and isinstance(value[0], dict) and "transform" in value[0]:
        found = "it is a list of cameras from ns-export cameras, which has no intrinsics"
        raise InputError(f"file {path}", found, "give the transforms.json of the data, or name this file as --targets")
    return value
