"""Scenes and API keys. One transaction a method, as in `store.store`."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import sqlalchemy as sa

from sphinx_nvs.engine.artifacts import ArtifactStore
from sphinx_nvs.engine.store import key_rows as _keys
from sphinx_nvs.engine.store import references as _references
from sphinx_nvs.engine.store import scene_rows as _scenes
from sphinx_nvs.engine.store.database import Database
from sphinx_nvs.engine.store.folders import remove_within
from sphinx_nvs.engine.store.row_types import KeyRow, SceneRow, Usage
from sphinx_nvs.json_types import JSONObject

MEASURED = 16384
"""Number of artifacts whose sizes are cached: several times what the largest job makes."""


class SceneStore:
    """Scenes and keys.

    Args:
        database: their rows.
        artifacts: store of files that scenes may be in; None if sizes are not counted.
        scenes_folder: folder whose entries are removed with their rows; None leaves folders alone.
    """

    def __init__(self, database: Database, artifacts: ArtifactStore | None, scenes_folder: Path | None) -> None:
        self._database, self._artifacts, self._scenes_folder = database, artifacts, scenes_folder
        self._measured: dict[str, int] = {}

    # Scenes ---------------------------------------------------------------------------------------------------------

    def add_scene(self, scene: SceneRow) -> SceneRow:
        """Adds a scene whose files are stored already; raises InputError if its id is taken."""
        sizes = self._sizes([scene.digest] if scene.digest else [])
        with self._database.writing() as writing:
            _scenes.insert_scene(writing.conn, scene)
            _references.add_references(writing.conn, _references.SCENE, scene.id, sizes)
            return scene

    def scene(self, scene_id: str) -> SceneRow | None:
        """A scene; None if there is none (any more)."""
        with self._database.reading() as conn:
            return _scenes.read_scene(conn, scene_id)

    def list_scenes(self, *, key_id: str | None = None, limit: int = 50, before: str | None = None) -> list[SceneRow]:
        """Scenes, newest first; see `list_jobs`."""
        with self._database.reading() as conn:
            return _scenes.list_scenes(conn, key_id=key_id, limit=limit, before=before)

    def delete_scene(self, scene_id: str) -> SceneRow | None:
        """Removes a scene's row, and its folder if it is in the scenes folder; its artifact goes with the next sweep.

        Returns:
            The scene as it was; None if there was none.

        Raises:
            InputError: an unfinished job needs it.
        """
        with self._database.writing() as writing:
            scene = _scenes.delete_scene(writing.conn, scene_id)
            if scene is not None:
                _references.remove_references(writing.conn, _references.SCENE, sa.select(sa.literal(scene_id)))
        if scene is not None:
            self._remove_folder(scene.path)
        return scene

    def posing_scenes(self) -> list[SceneRow]:
        """Scenes whose cameras are being found, oldest first."""
        with self._database.reading() as conn:
            return _scenes.posing_scenes(conn)

    def finish_posing(self, scene: SceneRow) -> SceneRow | None:
        """Writes what became of a scene whose cameras were being found; None if it was deleted meanwhile."""
        with self._database.writing() as writing:
            return _scenes.finish_posing(writing.conn, scene)

    def touch_scene(self, scene_id: str, expires_s: float | int | None) -> SceneRow | None:
        """Sets when a scene goes, unless it goes later anyway; None is never."""
        with self._database.writing() as writing:
            return _scenes.touch_scene(writing.conn, scene_id, expires_s)

    # Keys -----------------------------------------------------------------------------------------------------------

    def add_key(self, name: str, *, now: float | int, limits: JSONObject | None = None) -> tuple[KeyRow, str]:
        """Creates an API key.

        Returns:
            Its row, and its secret, which is shown this once: only its hash is stored.
        """
        with self._database.writing() as writing:
            return _keys.insert_key(writing.conn, name, limits or {}, now)

    def key_of(self, secret: str) -> KeyRow | None:
        """The key of a secret; None if there is none or it was revoked."""
        with self._database.reading() as conn:
            return _keys.find_key(conn, secret)

    def revoke_key(self, key_id: str, *, now: float | int) -> KeyRow | None:
        """Has a key refused from now on; None if there is none. Its jobs and scenes stay."""
        with self._database.writing() as writing:
            return _keys.revoke_key(writing.conn, key_id, now)

    def list_keys(self) -> list[KeyRow]:
        """Every key, revoked ones too, oldest first."""
        with self._database.reading() as conn:
            return _keys.list_keys(conn)

    def usage(self, key_id: str) -> Usage:
        """A key's usage, for quotas."""
        with self._database.reading() as conn:
            return _references.measure_usage(conn, key_id)

    def _remove_folder(self, path: str) -> None:
        """Removes a scene's files if they are in the scenes folder."""
        if self._scenes_folder is not None:
            remove_within(self._scenes_folder, Path(path))

    def measure(self, digests: Iterable[str]) -> None:
        """Caches the sizes of artifacts to which rows will refer soon, so that writing the rows reads no files.

        The same bytes have the same digest, so a size never changes.
        """
        found = {} if self._artifacts is None else self._artifacts.sizes(set(digests) - self._measured.keys())
        measured = {**self._measured, **found}
        self._measured = dict(list(measured.items())[-MEASURED:])

    def _sizes(self, digests: Iterable[str]) -> dict[str, int]:
        """Bytes of artifacts; 0 for missing ones, or if sizes are not counted."""
        named, known = set(digests), self._measured
        unknown = named - known.keys()
        found = self._artifacts.sizes(unknown) if self._artifacts is not None and unknown else {}
        return {digest: known.get(digest, found.get(digest, 0)) for digest in named}
