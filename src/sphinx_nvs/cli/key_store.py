"""The rows of a server's folder, for commands that read or change its keys."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from sphinx_nvs.errors import InputError

if TYPE_CHECKING:
    from sphinx_nvs.engine.store import JobStore


@contextmanager
def opened_store(folder: Path, database: str | None, *, is_new: bool = True) -> Iterator[JobStore]:
    """A server's rows, whether it runs or not.

    Args:
        folder: of the server.
        database: URL of the rows if they are not in the folder.
        is_new: whether the folder is made when it is missing.

    Raises:
        InputError: it cannot be used, or is missing.
    """
    from sphinx_nvs.engine.store import JobStore

    file = folder / "jobs.sqlite"
    if database is None and not is_new and not file.is_file():
        raise InputError(f"folder {folder}", "nothing was served from it yet, and no key made", "correct --folder")
    store = JobStore.open(database or file)
    try:
        yield store
    finally:
        store.close()
