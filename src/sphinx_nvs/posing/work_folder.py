"""Where finished stages are kept, so that an interrupted posing continues: one folder for each set of photos.

Its name is a hash of the photos' content and of the settings; what lies in it belongs to those alone.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

FORMAT = "4"
"""Changes with whatever makes earlier stages useless."""


def cache_folder() -> Path:
    """The folder of posed scenes and unfinished ones: below $SPHINX_NVS_HOME, $XDG_CACHE_HOME or ~/.cache."""
    home = os.environ.get("SPHINX_NVS_HOME")
    if home:
        return Path(home).expanduser() / "posed"
    cache = os.environ.get("XDG_CACHE_HOME")
    return (Path(cache) if cache else Path.home() / ".cache") / "sphinx-nvs" / "posed"


def content_key(files: Sequence[Path], *settings: object) -> str:
    """A hash of files' names and content, and of settings."""
    digest = hashlib.sha256(FORMAT.encode())
    for setting in settings:
        digest.update(f"\0{setting}".encode())
    for path in files:
        digest.update(f"\0{path.name}\0".encode(errors="surrogateescape"))
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()[:32]


def work_folder(key: str, stages: Path | None = None) -> Path:
    """The folder of a key's stages, made if it is missing.

    Args:
        key: see `content_key`.
        stages: the folder of all stages; None for the cache's.
    """
    folder = (stages or cache_folder() / "unfinished") / key
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def forget(folder: Path) -> None:
    """Removes the stages of a finished set."""
    shutil.rmtree(folder, ignore_errors=True)
