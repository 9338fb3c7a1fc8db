"""Exceptions of the client, each with a one-sentence message."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

from sphinx_nvs.client.values import Job, Scene
from sphinx_nvs.errors import SphinxError


@dataclass(frozen=True, kw_only=True)
class Place:
    """One invalid field of a request: the field, the value found, and how to fix it."""

    where: str
    found: str
    hint: str


class ApiError(SphinxError):
    """An error response (RFC 9457).

    Args:
        status: HTTP status.
        type: kind of the problem, for programs, e.g. `urn:sphinx-nvs:problem:input`.
        title: kind of the problem, for people.
        detail: one sentence: where, what was found, how to fix it.
        instance: the request, as it is named in the server's log.
        errors: every invalid field of the request.
        retry_after_s: seconds after which to retry; None if the server does not say.
    """

    def __init__(
        self,
        *,
        status: int,
        type: str = "about:blank",
        title: str = "",
        detail: str = "",
        instance: str = "",
        errors: tuple[Place, ...] = (),
        retry_after_s: float | None = None,
    ) -> None:
        self.status, self.type, self.title, self.detail = status, type, title, detail
        self.instance, self.errors, self.retry_after_s = instance, errors, retry_after_s
        self.http_status = status
        super().__init__(f"{detail or title or 'the server refused'} (HTTP {status})")

    @property
    def field(self) -> str | None:
        """The first invalid field of the request; None if the error is not about a field."""
        return self.errors[0].where if self.errors else None

    @classmethod
    def of(cls, status: int, headers: Mapping[str, str], body: bytes) -> ApiError:
        """Parses an error response, which a proxy may have sent without a problem document."""
        try:
            data = json.loads(body)
        except ValueError:
            data = None
        data = data if isinstance(data, dict) else {}
        places = data.get("errors") or ()
        names = ("where", "found", "hint")
        return cls(
            status=status,
            type=str(data.get("type", "about:blank")),
            title=str(data.get("title", "")),
            detail=str(data.get("detail", "")),
            instance=str(data.get("instance", headers.get("x-request-id", ""))),
            errors=tuple(Place(**{name: str(place.get(name, "")) for name in names}) for place in places),
            retry_after_s=seconds_from(headers.get("retry-after")),
        )


class UnreachableError(SphinxError):
    """The server cannot be reached, or the connection was lost.

    Args:
        address: URL of the server.
        reason: why, in a few words.
    """

    http_status = 503

    def __init__(self, address: str, reason: str) -> None:
        self.address, self.reason = address, reason
        super().__init__(f"server {address}: it cannot be reached ({reason}); start it, or correct the address")


class JobEndedError(SphinxError):
    """A job failed, was cancelled or expired.

    Args:
        job: the job in its final state.
    """

    def __init__(self, job: Job) -> None:
        self.job = job
        super().__init__(f"job {job.id}: it is {job.status}" + (f": {job.reason}" if job.reason else ""))


class SceneFailedError(SphinxError):
    """The cameras of a scene's photos were not found.

    Args:
        scene: the scene; its `advice` is about single photos.
    """

    def __init__(self, scene: Scene) -> None:
        self.scene = scene
        super().__init__(f"scene {scene.id}: {scene.reason}")


def seconds_from(retry_after: str | None) -> float | None:
    """Parses the header `Retry-After`; None for dates and invalid values."""
    try:
        seconds = float(retry_after or "")
    except ValueError:
        return None
    return seconds if 0 <= seconds < float("inf") else None
