"""Answers of the engine to correct requests that it declines."""

from __future__ import annotations

from sphinx_nvs.errors import InputError, SphinxError


class RefusedError(SphinxError):
    """The request is correct, but not accepted now.

    Args:
        sentence: why.
        retry_after_s: seconds after which to try again.
        http_status: 429 if the load is the reason, 503 if the server is.
    """

    exit_code = 3

    def __init__(self, sentence: str, *, retry_after_s: float | int, http_status: int = 503) -> None:
        self.retry_after_s, self.http_status = float(retry_after_s), http_status
        super().__init__(sentence)


class StoreUnavailableError(SphinxError):
    """The store of jobs cannot be read or written for now, for another reason than a full disk."""

    http_status = 503


class FencedError(StoreUnavailableError):
    """Another engine has taken over the store: this one writes nothing any more."""


class MissingError(InputError):
    """There is nothing with the requested id."""

    http_status = 404


def no_scene(scene_id: str) -> MissingError:
    """The error for a scene that has no row, or no longer."""
    return MissingError("scene", f"there is no {scene_id!r}", "upload it first")
