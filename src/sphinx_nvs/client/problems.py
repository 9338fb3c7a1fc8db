"""What can go wrong for a client, as exceptions with one sentence each."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

from sphinx_nvs.client.values import View
from sphinx_nvs.errors import SphinxError


@dataclass(frozen=True, kw_only=True)
class Place:
    """One thing that is wrong with a request: the field, what stands there, and how to fix it."""

    where: str
    found: str
    hint: str


class ApiError(SphinxError):
    """The server said no (RFC 9457).

    Args:
        status: of the answer.
        type: kind of the problem, for programs, e.g. `urn:sphinx-nvs:problem:input`.
        title: the kind in words.
        detail: one sentence: where, what was found, how to fix it.
        instance: the request, as the server's log has it.
        errors: every place in the request that is wrong.
        retry_after_s: seconds after which it may go better; None if the server does not say.
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
        """The first field of the request that is wrong; None if it is nothing about a field."""
        return self.errors[0].where if self.errors else None

    @classmethod
    def of(cls, status: int, headers: Mapping[str, str], body: bytes) -> ApiError:
        """From an answer, also of something between here and the server that knows no problem documents."""
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
    """The server cannot be reached, or went away."""

    http_status = 503

    def __init__(self, address: str, why: str) -> None:
        self.address, self.why = address, why
        super().__init__(f"server {address}: it cannot be reached ({why}); start it, or correct the address")


class ViewEndedError(SphinxError):
    """A view ended without its frames.

    Args:
        view: as it is now.
    """

    def __init__(self, view: View) -> None:
        self.view = view
        super().__init__(f"view {view.id}: it is {view.status}" + (f": {view.reason}" if view.reason else ""))


def seconds_from(retry_after: str | None) -> float | None:
    """The header `Retry-After` where it says seconds; dates are passed over."""
    try:
        seconds = float(retry_after or "")
    except ValueError:
        return None
    return seconds if 0 <= seconds < float("inf") else None
