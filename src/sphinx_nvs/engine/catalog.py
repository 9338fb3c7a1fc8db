"""Scenes, keys and files of an engine, for a server: calls of the stores in threads.

folder/scenes/ID     a scene, swept with its row          folder/copies/DIGEST     copies of remote files
"""

from __future__ import annotations

import contextlib
import secrets
import shutil
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from sphinx_nvs.engine.artifacts import ArtifactStore
from sphinx_nvs.engine.jobs.lifecycle import in_thread
from sphinx_nvs.engine.store import JobStore
from sphinx_nvs.engine.store.row_types import KeyRow, SceneRow, Usage
from sphinx_nvs.engine.types.job_validation import Limits
from sphinx_nvs.engine.types.jobs import JobRow
from sphinx_nvs.errors import InputError, OutputError

PUBLIC = "public"
"""Owner of the scenes that every key may use and none may delete."""

MOST_COPIES = 64
"""Largest number of copies of remote files."""

COPIES_S = Limits.ttl_s
"""How long a copy, or what a writer that died left of one, is kept, seconds."""

LEAST_FREE_BYTES = 64 << 20
"""Free space below which a server is not ready."""


class Library:
    """The scenes, keys and files that an engine stores for users.

    Args:
        store: rows.
        artifacts: files.
        folder: the engine's folder.
        clock: epoch seconds.
    """

    def __init__(self, store: JobStore, artifacts: ArtifactStore, folder: Path, clock: Callable[[], float]) -> None:
        self._store, self._artifacts, self._clock = store, artifacts, clock
        self._folder, self.scenes_folder = folder, folder / "scenes"
        self._copies = folder / "copies"

    # Scenes ---------------------------------------------------------------------------------------------------------

    def new_scene_folder(self) -> tuple[str, Path]:
        """A new, unguessable id, and that scene's folder, created empty; it is swept unless a row follows."""
        scene_id = f"scene_{secrets.token_urlsafe(12)}"
        folder = self.scenes_folder / scene_id
        folder.mkdir(parents=True)
        return scene_id, folder

    async def add_scene(self, scene: SceneRow, *, ttl_s: float | int | None = None) -> SceneRow:
        """Adds a scene whose files are stored already; it expires `ttl_s` seconds from now, or never if None."""
        now = self._clock()
        row = replace(scene, created_s=now, expires_s=None if ttl_s is None else now + ttl_s)
        return await in_thread(self._store.add_scene, row)

    async def scene(self, scene_id: str) -> SceneRow | None:
        """A scene; None if there is none (any more)."""
        return await in_thread(self._store.scene, scene_id)

    async def scenes(self, *, key_id: str, after: str | None = None, limit: int = 50) -> list[SceneRow]:
        """A key's scenes, newest first, starting after the scene `after`.

        Raises:
            InputError: there is no scene `after`.
        """
        return await in_thread(self._store.list_scenes, key_id=key_id, before=after, limit=limit)

    async def delete_scene(self, scene_id: str) -> SceneRow | None:
        """Removes a scene; None if there was none.

        Raises:
            InputError: an unfinished job needs it.
        """
        return await in_thread(self._store.delete_scene, scene_id)

    async def posing_scenes(self) -> list[SceneRow]:
        """Scenes whose cameras are being found, oldest first."""
        return await in_thread(self._store.posing_scenes)

    async def finish_posing(self, scene: SceneRow) -> SceneRow | None:
        """Writes what became of a scene whose cameras were being found; None if it was deleted meanwhile."""
        return await in_thread(self._store.finish_posing, scene)

    async def keep_scene(self, scene_id: str, *, ttl_s: float | int) -> None:
        """Has a scene go `ttl_s` seconds from now, unless it goes later anyway."""
        await in_thread(self._store.touch_scene, scene_id, self._clock() + ttl_s)

    # Shared videos --------------------------------------------------------------------------------------------------

    async def share_job(self, job_id: str) -> str | None:
        """Makes a link to a job's video, in place of an earlier one; its token, None if there is no such job."""
        return await in_thread(self._store.share_job, job_id, now=self._clock())

    async def unshare_job(self, job_id: str) -> None:
        """Ends the link to a job's video, if there is one."""
        await in_thread(self._store.unshare_job, job_id)

    async def shared_job(self, token: str) -> JobRow | None:
        """The job that a link is for; None if there is none (any more)."""
        return await in_thread(self._store.shared_job, token)

    # Keys -----------------------------------------------------------------------------------------------------------

    async def key_of(self, secret: str) -> KeyRow | None:
        """The key of a secret; None if there is none or it was revoked."""
        return await in_thread(self._store.key_of, secret)

    async def has_keys(self) -> bool:
        """Whether a key was ever created, revoked or not: revoking the last one does not open a server to everyone."""
        return bool(await in_thread(self._store.list_keys))

    async def valid_keys(self) -> frozenset[str]:
        """Ids of the keys that are not revoked."""
        keys = await in_thread(self._store.list_keys)
        return frozenset(key.id for key in keys if key.revoked_s is None)

    async def check(self) -> None:
        """Raises an error if nothing can be stored.

        Raises:
            OutputError: the disk is (nearly) full.
            StoreUnavailableError: the database cannot be written.
        """
        await in_thread(self._check)

    def _check(self) -> None:
        self._store.check()
        free = shutil.disk_usage(self._folder).free
        if free < LEAST_FREE_BYTES:
            raise OutputError("the server's folder", f"{free >> 20} MiB are free on its disk", "free some space")

    async def usage(self, key_id: str) -> Usage:
        """The key's usage now."""
        return await in_thread(self._store.usage, key_id)

    # Files ----------------------------------------------------------------------------------------------------------

    async def file(self, digest: str) -> Path:
        """An artifact as a file of this machine, its content checked; a remote one is fetched and cached.

        Raises:
            InputError: there is no such artifact.
            DamagedError: its bytes were not what was stored; it was removed.
        """
        return await in_thread(self._file, digest)

    def _file(self, digest: str) -> Path:
        with contextlib.suppress(InputError):
            return self._artifacts.checked_path(digest)
        copy = self._copies / digest
        if not copy.is_file():
            data = self._artifacts.read(digest)
            self._copies.mkdir(parents=True, exist_ok=True)
            # A name of its own for each writer, then renamed: several requests may fetch the same artifact at once.
            part = copy.with_name(f"{digest}.{secrets.token_hex(4)}")
            part.write_bytes(data)
            part.replace(copy)
            self._forget_old_copies()
        return copy

    def _forget_old_copies(self) -> None:
        """Removes all but the newest copies, and those older than rows can be, so that copies go after their rows."""
        files = _newest_first(self._copies)
        # Files with a suffix are still being written, or were left by a writer that died.
        copies = [path for _, path in files if not path.suffix]
        old = [path for written_s, path in files if written_s < time.time() - COPIES_S]
        for path in {*copies[MOST_COPIES:], *old}:
            path.unlink(missing_ok=True)


def _newest_first(folder: Path) -> list[tuple[float, Path]]:
    """The files of a folder, and when each was written, epoch seconds."""
    found = []
    for path in folder.iterdir():
        # Other threads rename and remove files at the same time.
        with contextlib.suppress(FileNotFoundError):
            found.append((path.stat().st_mtime, path))
    return sorted(found, reverse=True)


def discard_folder(folder: Path) -> None:
    """Removes the folder of a scene that did not become one."""
    shutil.rmtree(folder, ignore_errors=True)
