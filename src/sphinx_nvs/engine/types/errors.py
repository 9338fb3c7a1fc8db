"""Answers of the engine that are nobody's mistake."""

from __future__ import annotations

from sphinx_nvs.errors import InputError, SphinxError


class RefusedError(SphinxError):
    """The request is fine, but is not taken on now.

    Args:
        sentence: why.
        retry_after_s: seconds after which to ask again.
        http_status: 429 if the load is the reason, 503 if the server is.
    """

    exit_code = 3

    def __init__(self, sentence: str, *, retry_after_s: float | int, http_status: int = 503) -> None:
        self.retry_after_s, self.http_status = float(retry_after_s), http_status
        super().__init__(sentence)


class MissingError(InputError):
    """What was asked for by its id is not there."""

    http_status = 404


def no_scene(scene_id: str) -> MissingError:
    """What to raise where a scene has no row (any more)."""
    return MissingError("scene", f"there is no {scene_id!r}", "upload it first")
