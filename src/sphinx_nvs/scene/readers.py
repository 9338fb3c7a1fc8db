"""One door for every scene: looks at what a path holds, or what a name means, and calls the right reader."""

from __future__ import annotations

from pathlib import Path

from sphinx_nvs.errors import InputError
from sphinx_nvs.scene.capture import Capture
from sphinx_nvs.scene.colmap import read_colmap, sparse_folder
from sphinx_nvs.scene.demo import read_demo
from sphinx_nvs.scene.procedural_captures import PREFIX, read_generated
from sphinx_nvs.scene.re10k import camera_file, is_re10k, read_re10k
from sphinx_nvs.scene.transforms import read_transforms

DEMO = "demo"
_LAYOUTS = (
    "transforms.json (nerfstudio), sparse/0/images.bin or images.txt (COLMAP), "
    "a camera .txt with its frames (RealEstate10K, ACID)"
)


def read_capture(path_or_name: str | Path) -> Capture:
    """Reads a scene.

    Args:
        path_or_name: a folder or file in one of the layouts of docs/conventions.md, or `demo`,
            `procedural:SEED`, `procedural:KIND:SEED`. A folder called like a name is reached as `./demo`.

    Raises:
        InputError: nothing is there, no known layout is found, or its content cannot be used.
    """
    if str(path_or_name) == DEMO:
        return read_demo()
    if str(path_or_name).startswith(PREFIX):
        return read_generated(str(path_or_name))
    path = Path(path_or_name)
    if path.is_dir():
        return _read_folder(path)
    if path.is_file():
        return _read_file(path)
    raise InputError(
        f"scene {path}", "there is no such file or folder", "correct the path, or say demo or procedural:SEED"
    )


def _read_folder(path: Path) -> Capture:
    """The first layout that is found."""
    if (path / "transforms.json").is_file():
        return read_transforms(path / "transforms.json")
    if sparse_folder(path) is not None:
        return read_colmap(path)
    if (cameras := camera_file(path)) is not None:
        return read_re10k(cameras)
    raise InputError(
        f"scene {path}", f"no known layout is found (looked for {_LAYOUTS})", "give a folder with one of these"
    )


def _read_file(path: Path) -> Capture:
    """A layout's main file, named directly."""
    if path.suffix == ".json":
        return read_transforms(path)
    if path.suffix == ".txt" and is_re10k(path):
        return read_re10k(path)
    raise InputError(
        f"scene {path}",
        "it is no known kind of camera file",
        "give a transforms.json, a RealEstate10K .txt or a folder",
    )
