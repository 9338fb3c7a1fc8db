"""Access to a server's store, for commands that read or change its keys."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from sphinx_nvs.errors import InputError

if TYPE_CHECKING:
    from sphinx_nvs.engine.store import JobStore


@contextmanager
def opened_store(folder: Path, database: str | None, *, is_new: bool = True) -> Iterator[JobStore]:
    """Opens a server's store, whether the server runs or not.

    Args:
        folder: the server's folder.
        database: URL of the database if it is not in the folder.
        is_new: whether a missing folder is created.

    Raises:
        InputError: it cannot be used, or is missing.
    """
    from sphinx_nvs.engine.store import JobStore

    # As `serve` does: stored files are private to this user.
    os.umask(0o077)
    file = folder / "jobs.sqlite"
    if database is None and not is_new and not file.is_file():
        raise InputError(f"folder {folder}", "no server has used it and it has no key", "correct --folder")
    store = JobStore.open(database or file)
    try:
        yield store
    finally:
        store.close()
