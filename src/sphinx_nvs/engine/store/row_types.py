"""Rows of scenes and keys, and figures computed from rows. Values only."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from sphinx_nvs.json_types import JSONObject


class SceneState(StrEnum):
    """Where a scene is: those of plain photos begin with `POSING`, all others are `READY` at once."""

    POSING = "posing"
    READY = "ready"
    FAILED = "failed"


@dataclass(frozen=True, kw_only=True)
class SceneRow:
    """A stored scene.

    Args:
        id: unique, unguessable.
        key_id: the API key that stored it, or "anonymous".
        path: folder or file of the scene, readable by devices.
        digest: artifact that contains the scene; None if it is only at `path`.
        num_views: photos.
        width: width of the photos, pixels.
        height: height of the photos, pixels.
        warnings: sentences for the user about what was found in it.
        bytes: size of its files.
        created_s: epoch seconds.
        expires_s: when row and files go, unless an unfinished job needs them; None is never.
        state: see `SceneState`.
        failure: why its cameras were not found; empty unless it failed.
    """

    id: str
    key_id: str
    path: str
    digest: str | None = None
    num_views: int
    width: int
    height: int
    warnings: tuple[str, ...] = ()
    bytes: int = 0
    created_s: float = 0.0
    expires_s: float | None = None
    state: SceneState = SceneState.READY
    failure: JSONObject = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class KeyRow:
    """An API key; its secret is shown once and nowhere stored.

    Args:
        id: unique; what rows are marked with.
        name: for people.
        hash: sha256 of the secret, in hexadecimal.
        created_s: epoch seconds.
        revoked_s: when it was revoked, epoch seconds; None while it is valid.
        limits: JSON values that the server interprets.
    """

    id: str
    name: str
    hash: str
    created_s: float
    revoked_s: float | None = None
    limits: JSONObject = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Usage:
    """A key's usage.

    Args:
        running_jobs: unfinished ones, scenes whose cameras are being found included.
        stored_jobs: all of its rows.
        stored_scenes: all of its rows.
        stored_bytes: size of its scenes and of its jobs' artifacts, each artifact counted once.
    """

    running_jobs: int = 0
    stored_jobs: int = 0
    stored_scenes: int = 0
    stored_bytes: int = 0


@dataclass(frozen=True, kw_only=True)
class Swept:
    """The result of a sweep.

    Args:
        expired: ids of unfinished jobs that were ended; their rows go with the next sweep.
        jobs: ids of jobs whose rows went.
        scenes: ids of scenes whose rows went.
        files: names of files that went.
    """

    expired: tuple[str, ...] = ()
    jobs: tuple[str, ...] = ()
    scenes: tuple[str, ...] = ()
    files: tuple[str, ...] = ()
