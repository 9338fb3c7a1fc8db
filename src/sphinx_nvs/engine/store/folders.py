"""Scenes' folders: removed with their rows, and when no row is about them."""

from __future__ import annotations

import contextlib
import shutil
from pathlib import Path


def remove_within(folder: Path, path: Path) -> bool:
    """Removes the entry of `folder` that contains `path`; returns False, and removes nothing, if there is none."""
    top = _top(folder, path)
    if top is None:
        return False
    if top.is_dir() and not top.is_symlink():
        shutil.rmtree(top, ignore_errors=True)
    else:
        top.unlink(missing_ok=True)
    return True


def sweep_folder(folder: Path, keep: set[str], *, now: float | int, grace_s: float | int) -> list[str]:
    """Removes entries of a folder that contain none of the given paths.

    Args:
        folder: may be missing.
        keep: paths of scenes that have rows.
        now: epoch seconds.
        grace_s: entries younger than this stay, since their rows may not be written yet.

    Returns:
        Names of the entries that went.
    """
    kept = {_top(folder, Path(path)) for path in keep}
    gone = []
    for entry in sorted(folder.resolve().glob("*")):
        with contextlib.suppress(FileNotFoundError):
            if entry not in kept and entry.lstat().st_mtime < now - grace_s and remove_within(folder, entry):
                gone.append(entry.name)
    return gone


def _top(folder: Path, path: Path) -> Path | None:
    """The entry of `folder` that contains `path`; a link counts where it is, not where it points."""
    root = folder.resolve()
    # Links in the parents are followed, the entry's own is not: a link in the folder may be removed, its target never.
    whole = path.parent.resolve() / path.name
    if path.name == ".." or not whole.is_relative_to(root) or whole == root:
        return None
    return root / whole.relative_to(root).parts[0]
