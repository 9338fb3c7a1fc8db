"""Deprecated URLs: `/v1/views...` is served by `/v1/jobs...`, with headers that name the successor.

Reference: RFC 9745, "The Deprecation HTTP Response Header Field".
"""

from __future__ import annotations

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

OLD, NEW = "/v1/views", "/v1/jobs"

DEPRECATED_SINCE = "@1795996800"
"""2026-11-30, as RFC 9745 writes dates."""


class DeprecatedPaths:
    """Rewrites deprecated paths, so that the same routes serve them.

    Args:
        app: the inner application.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves a request."""
        path = scope.get("path", "")
        if scope["type"] != "http" or not (path == OLD or path.startswith((f"{OLD}/", f"{OLD}:"))):
            await self._app(scope, receive, send)
            return

        async def send_marked(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(raw=message["headers"])
                headers["Deprecation"] = DEPRECATED_SINCE
                headers.append("Link", f'<{NEW}>; rel="successor-version"')
            await send(message)

        # In place: the outer layers read the route from this scope.
        scope["path"] = NEW + path.removeprefix(OLD)
        scope["raw_path"] = scope["path"].encode()
        await self._app(scope, receive, send_marked)
