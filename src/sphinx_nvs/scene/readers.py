"""One door for every scene: looks at what a path holds, or what a name means, and calls the right reader."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from sphinx_nvs.errors import InputError
from sphinx_nvs.scene.capture import Capture
from sphinx_nvs.scene.transforms import read_transforms

_LOOKED_FOR = "transforms.json"


def read_capture(path_or_name: str | Path) -> Capture:
    """Reads a scene.

    Args:
        path_or_name: a folder or file in one of the layouts of docs/conventions.md, or `demo`,
            `procedural:SEED`, `procedural:KIND:SEED`.

    Raises:
        InputError: nothing is there, no known layout is found, or its content cannot be used.
    """
    path = Path(path_or_name)
    if not path.exists():
        raise InputError(
            f"scene {path}",
            "there is no such file or folder",
            "correct the path, or say demo or procedural:SEED",
        )
    reader = _reader(path)
    if reader is None:
        raise InputError(
            f"scene {path}", "no known layout is found", f"give a folder or file with one of: {_LOOKED_FOR}"
        )
    return reader()


def _reader(path: Path) -> Callable[[], Capture] | None:
    """The reader for what is there, or None."""
    if path.suffix == ".json":
        return lambda: read_transforms(path)
    if (path / "transforms.json").is_file():
        return lambda: read_transforms(path / "transforms.json")
    return None
