"""What every request passes: a request id, a log line, a time limit, and a problem document if it fails.

    request ─► `Envelope` (id, log, time limit, problems) ─► `DeprecatedPaths` ─► CORS ─► `Authentication`
    ─► `BodyLimits` ─► routes

The key is checked before a byte of the body is read: FastAPI would parse the body first.

Plain ASGI, so that streams pass through unbuffered.
"""

from __future__ import annotations

import asyncio
import re
import secrets
import time
from collections.abc import Callable
from urllib.parse import urlsplit

import structlog
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.middleware.body_limit import RequestBodyLimitMiddleware
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from sphinx_nvs.server.api.problems import MEDIA_TYPE, ProblemError, problem_from, problem_response, retry_after
from sphinx_nvs.server.hosts import is_accepted
from sphinx_nvs.server.limits import LargeBodies
from sphinx_nvs.server.probe_paths import is_probe
from sphinx_nvs.server.prometheus import HttpMetrics
from sphinx_nvs.server.server_config import ServerConfig

REQUEST_ID = "X-Request-ID"
_ACCEPTED_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")
_SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})

log = structlog.get_logger("sphinx_nvs.server")


class BodyLimits:
    """Refuses request bodies that are too large while they arrive; uploads have a larger limit than other requests.

    Other bodies are read into memory as a whole, so that few large ones may be on their way at a time.
    """

    def __init__(self, app: ASGIApp, config: ServerConfig) -> None:
        self._small = RequestBodyLimitMiddleware(app, config.json_bytes)
        self._large = RequestBodyLimitMiddleware(app, config.upload.body_bytes)
        self._bodies = LargeBodies()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves a request."""
        if scope["type"] != "http" or scope["method"] in _SAFE_METHODS:
            await self._small(scope, receive, send)
        elif is_upload(scope):
            await self._large(scope, receive, send)
        else:
            await self._counted(scope, receive, send)

    async def _counted(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves a request whose body is read into memory."""
        caller, headers = scope.get("state", {}).get("caller"), Headers(scope=scope)
        length = None if "transfer-encoding" in headers else headers.get("content-length", "0")
        try:
            with self._bodies.counted(caller.name if caller else "", length):
                await self._small(scope, receive, send)
        except ProblemError as problem:
            await problem_response(scope, problem)(scope, receive, send)


def is_upload(scope: Scope) -> bool:
    """Returns whether a request uploads a scene."""
    return scope["type"] == "http" and scope["method"] == "POST" and scope["path"] == "/v1/scenes"


class Envelope:
    """The outermost layer.

    Args:
        app: the inner application.
        config: limits.
        metrics: counts requests.
        clock: seconds, for durations.
    """

    def __init__(
        self,
        app: ASGIApp,
        config: ServerConfig,
        metrics: HttpMetrics,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._app, self._config, self._metrics, self._clock = app, config, metrics, clock
        self._open = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves a request."""
        if scope["type"] == "websocket":
            await self._socket(scope, receive, send)
            return
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        sender = ResponseSender(scope, send, _request_id(scope))
        started = self._clock()
        self._open += 1
        # Whatever an earlier request of this connection bound must not appear in this one's log lines.
        structlog.contextvars.clear_contextvars()
        structlog.contextvars.bind_contextvars(request_id=sender.request_id)
        try:
            await self._within_time(scope, receive, sender)
        except ClientDisconnect:
            pass  # No response can be sent; the log line says 499.
        except Exception as error:
            await self._failed(scope, sender, error)
        finally:
            self._open -= 1
            self._record(scope, sender, self._clock() - started)

    async def _socket(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves a WebSocket; one that is refused gets a response in place of the connection."""
        request_id, started = _request_id(scope), self._clock()
        scope.setdefault("state", {})["request_id"] = request_id
        structlog.contextvars.clear_contextvars()
        structlog.contextvars.bind_contextvars(request_id=request_id)
        self._open += 1
        try:
            self._check_socket(scope)
            await self._app(scope, receive, send)
        except ProblemError as problem:
            await problem_response(scope, problem)(scope, receive, send)
        except Exception as error:
            log.error("live session failed", exc_info=error)
        finally:
            self._open -= 1
            log.info(
                "live session",
                path=scope["path"][:200],
                s=round(self._clock() - started, 2),
                key_id=scope["state"].get("key_id", ""),
            )

    def _check_socket(self, scope: Scope) -> None:
        """Refuses WebSockets under another name, above the connection limit, or of pages of other sites."""
        headers = Headers(scope=scope)
        if not is_accepted(headers.get("host"), self._config):
            raise ProblemError(421, "This server does not answer under that name; see the setting hosts.")
        if self._open > self._config.connections:
            raise ProblemError(503, "Too many requests are open; retry in a moment.", headers=retry_after(1))
        # Browsers let every page open a WebSocket to any server, and send no preflight request.
        if not _is_same_origin(headers, self._config.cors_origins):
            raise ProblemError(403, "Pages of other sites may not open a live session; see cors_origins.")

    async def _within_time(self, scope: Scope, receive: Receive, sender: ResponseSender) -> None:
        """Serves a request; the response must start in time, and may then take as long as it needs."""
        # Uploads have a limit of their own for arriving; the same again is for unpacking and checking.
        limit = 2 * self._config.upload.seconds if is_upload(scope) else self._config.request_s
        try:
            async with asyncio.timeout(limit) as deadline:
                # The limit is for the first byte only: an event stream lasts as long as its job.
                sender.on_start = lambda: deadline.reschedule(None)
                self._check(scope)
                await self._app(scope, self._uncounted(receive), sender.send)
        except TimeoutError as error:
            # Too late for another answer: headers are sent, so the connection can only be closed.
            if sender.status is not None:
                raise
            late = f"No response was ready within {limit:g} s; retry later."
            raise ProblemError(503, late, headers=retry_after(5)) from error
        finally:
            sender.on_start = _no_operation

    def _uncounted(self, receive: Receive) -> Receive:
        """Returns `receive`, during which a request is not counted as open: the server does nothing for it then.

        Otherwise bodies that are announced and never sent would take the places of all others.
        """

        async def received() -> Message:
            self._open -= 1
            try:
                return await receive()
            finally:
                self._open += 1

        return received

    def _check(self, scope: Scope) -> None:
        """Refuses requests under another name, above the connection limit, or from pages of other sites.

        Raises:
            ProblemError: 400, 421, 503 or 403.
        """
        headers = Headers(scope=scope)
        if "transfer-encoding" in headers and "content-length" in headers:
            # A proxy may go by the other one, and take the rest for a request of its next client (RFC 9112, 6.3).
            detail = "Send Content-Length or Transfer-Encoding, not both."
            raise ProblemError(400, detail, headers={"Connection": "close"})
        if not is_accepted(headers.get("host"), self._config):
            raise ProblemError(421, "This server does not answer under that name; see the setting hosts.")
        if self._open > self._config.connections and not is_probe(scope["path"]):
            raise ProblemError(503, "Too many requests are open; retry in a moment.", headers=retry_after(1))
        if scope["method"] not in _SAFE_METHODS and not _is_same_origin(headers, self._config.cors_origins):
            raise ProblemError(403, "Pages of other sites may not change anything here; see cors_origins.")

    async def _failed(self, scope: Scope, sender: ResponseSender, error: Exception) -> None:
        """Answers an exception that no inner layer handled; the log gets the traceback, the client the request id."""
        problem = problem_from(error)
        if problem.status == 500:
            log.error("request failed", exc_info=error)
        if sender.status is None:
            await problem_response(scope, problem)(scope, _disconnected, sender.send)

    def _record(self, scope: Scope, sender: ResponseSender, seconds: float) -> None:
        """Writes the log line and counts the request."""
        # The route's pattern, not the address: ids as labels would make a metric per job.
        route = getattr(scope.get("route"), "path", "")
        status = sender.status or 499
        self._metrics.observe(scope["method"], route, status, seconds)
        log.info(
            "request",
            method=scope["method"],
            route=route or "none",
            path=_logged_path(scope["path"]),
            status=status,
            ms=round(1000 * seconds, 2),
            key_id=scope["state"].get("key_id", ""),
        )


class ResponseSender:
    """Sends a response: adds common headers, and replaces errors of libraries by problem documents.

    Args:
        scope: the request's scope.
        send: sends to the client.
        request_id: the request's id.
    """

    def __init__(self, scope: Scope, send: Send, request_id: str) -> None:
        self.request_id = request_id
        self.status: int | None = None
        self.on_start: Callable[[], None] = _no_operation
        self._scope, self._send, self._is_replaced = scope, send, False
        scope.setdefault("state", {})["request_id"] = request_id

    async def send(self, message: Message) -> None:
        """Passes a message on."""
        if message["type"] == "http.response.start":
            await self._start(message)
        elif not self._is_replaced:
            await self._send(message)

    async def _start(self, message: Message) -> None:
        """Sends the headers, or a problem document in place of another error response."""
        headers = MutableHeaders(raw=message["headers"])
        is_problem = headers.get("content-type", "").startswith(MEDIA_TYPE)
        self.status = message["status"]
        self.on_start()
        if self.status >= 400 and not is_problem:
            self._is_replaced = True
            await self._replace(self.status, headers)
            return
        headers[REQUEST_ID] = self.request_id
        headers["X-Content-Type-Options"] = "nosniff"
        await self._send(message)

    async def _replace(self, status: int, headers: MutableHeaders) -> None:
        """Sends a problem document with the headers of the response that it replaces."""
        kept = {name: value for name, value in headers.items() if name not in ("content-type", "content-length")}
        problem = problem_from(HTTPException(status))
        problem.headers = kept | {REQUEST_ID: self.request_id, "X-Content-Type-Options": "nosniff"}
        await problem_response(self._scope, problem)(self._scope, _disconnected, self._send)


def _logged_path(path: str) -> str:
    """Returns a path for the log, without the token of a shared video."""
    return "/shared/..." if path.startswith("/shared/") else path[:200]


def _request_id(scope: Scope) -> str:
    """Returns the client's id for this request if it is short and plain, otherwise a new one."""
    given = Headers(scope=scope).get(REQUEST_ID, "")
    return given if _ACCEPTED_ID.fullmatch(given) else secrets.token_hex(8)


def _is_same_origin(headers: Headers, origins: tuple[str, ...]) -> bool:
    """Returns whether a request comes from no web page, from one of this server, or from an allowed one."""
    origin = headers.get("origin")
    if origin is None or "*" in origins or origin in origins:
        return True
    try:
        return urlsplit(origin).netloc == headers.get("host", "")
    except ValueError:
        return False


async def _disconnected() -> Message:
    """Stands for `receive` where the body is not read any more."""
    return {"type": "http.disconnect"}


def _no_operation() -> None:
    """Does nothing."""
