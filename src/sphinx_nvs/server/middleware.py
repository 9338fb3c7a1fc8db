"""What happens to every request, whatever it asks for: an id, a log line, a time limit, and a problem if it fails.

    request ─► `Envelope` (id, log, time, problems) ─► CORS if wanted ─► `BodyLimits` ─► routes

Written as plain ASGI, so that streams pass through untouched.
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
from starlette.middleware.body_limit import RequestBodyLimitMiddleware
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from sphinx_nvs.server.api.problems import MEDIA_TYPE, ProblemError, problem_from, problem_response, retry_after
from sphinx_nvs.server.config import ServerConfig
from sphinx_nvs.server.hosts import is_answered
from sphinx_nvs.server.prometheus import HttpMetrics

REQUEST_ID = "X-Request-ID"
_ACCEPTED_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")
_SAFE = frozenset({"GET", "HEAD", "OPTIONS"})

log = structlog.get_logger("sphinx_nvs.server")


class BodyLimits:
    """Refuses bodies that are too large, while they come in: uploads may be larger than everything else."""

    def __init__(self, app: ASGIApp, config: ServerConfig) -> None:
        self._small = RequestBodyLimitMiddleware(app, config.json_bytes)
        self._large = RequestBodyLimitMiddleware(app, config.upload.body_bytes)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes a request on."""
        limited = self._large if is_upload(scope) else self._small
        await limited(scope, receive, send)


def is_upload(scope: Scope) -> bool:
    """Whether a request may bring photos."""
    return scope["type"] == "http" and scope["method"] == "POST" and scope["path"] == "/v1/scenes"


class Envelope:
    """The outermost layer.

    Args:
        app: what answers.
        config: limits.
        metrics: counts.
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
        """Passes a request on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        answer = Answer(scope, send, _id_of(scope))
        started = self._clock()
        self._open += 1
        structlog.contextvars.clear_contextvars()
        structlog.contextvars.bind_contextvars(request_id=answer.request_id)
        try:
            await self._within_time(scope, receive, answer)
        except ClientDisconnect:
            pass  # Nobody is there to be answered; without a status the line in the log says 499.
        except Exception as error:
            await self._failed(scope, answer, error)
        finally:
            self._open -= 1
            self._note(scope, answer, self._clock() - started)

    async def _within_time(self, scope: Scope, receive: Receive, answer: Answer) -> None:
        """Lets the app answer; the response has to begin in time, and may then take as long as it likes."""
        limit = 2 * self._config.upload.seconds if is_upload(scope) else self._config.request_s
        try:
            async with asyncio.timeout(limit) as deadline:
                answer.begun = lambda: deadline.reschedule(None)
                self._refuse(scope)
                await self._app(scope, receive, answer.send)
        except TimeoutError as error:
            if answer.status is not None:
                raise
            late = f"No answer was ready within {limit:g} s; ask again later."
            raise ProblemError(503, late, headers=retry_after(5)) from error
        finally:
            answer.begun = _do_nothing

    def _refuse(self, scope: Scope) -> None:
        """Turns away what comes on top of too much, under another's name, and what other sites' pages send."""
        if not is_answered(Headers(scope=scope).get("host"), self._config):
            raise ProblemError(421, "This server does not answer under that name; see the setting hosts.")
        if self._open > self._config.connections:
            raise ProblemError(503, "Too many requests are open; ask again in a moment.", headers=retry_after(1))
        if scope["method"] not in _SAFE and not _is_own_page(Headers(scope=scope), self._config.cors_origins):
            raise ProblemError(403, "Pages of other sites may not change anything here; see cors_origins.")

    async def _failed(self, scope: Scope, answer: Answer, error: Exception) -> None:
        """Answers what nothing else answered; the log gets the trace, the user the request's id."""
        problem = problem_from(error)
        if problem.status == 500:
            log.error("request failed", exc_info=error)
        if answer.status is None:
            await problem_response(scope, problem)(scope, _nothing, answer.send)

    def _note(self, scope: Scope, answer: Answer, seconds: float) -> None:
        """One line, and the counts."""
        route = getattr(scope.get("route"), "path", "")
        status = answer.status or 499
        self._metrics.observe(scope["method"], route, status, seconds)
        key_id = scope["state"].get("key_id", "")
        log.info(
            "request",
            method=scope["method"],
            route=route or "none",
            path=scope["path"][:200],
            status=status,
            ms=round(1000 * seconds, 2),
            key_id=key_id,
        )


class Answer:
    """A response on its way out: gets its id, and becomes a problem if it is an error in another form.

    Args:
        scope: of the request.
        send: to the client.
        request_id: of the request.
    """

    def __init__(self, scope: Scope, send: Send, request_id: str) -> None:
        self.request_id, self.status, self.begun = request_id, None, _do_nothing
        self._scope, self._send, self._is_replaced = scope, send, False
        scope.setdefault("state", {})["request_id"] = request_id

    status: int | None
    begun: Callable[[], None]

    async def send(self, message: Message) -> None:
        """Passes a message on."""
        if message["type"] == "http.response.start":
            await self._start(message)
        elif not self._is_replaced:
            await self._send(message)

    async def _start(self, message: Message) -> None:
        """Headers; whatever answers with an error and no problem document is made to."""
        headers = MutableHeaders(raw=message["headers"])
        is_problem = headers.get("content-type", "").startswith(MEDIA_TYPE)
        self.status = message["status"]
        self.begun()
        if self.status >= 400 and not is_problem:
            self._is_replaced = True
            await self._replace(self.status, headers)
            return
        headers[REQUEST_ID] = self.request_id
        headers["X-Content-Type-Options"] = "nosniff"
        await self._send(message)

    async def _replace(self, status: int, headers: MutableHeaders) -> None:
        """Sends a problem in place of a response that a library made."""
        kept = {name: value for name, value in headers.items() if name not in ("content-type", "content-length")}
        problem = problem_from(_status_error(status))
        problem.headers = kept | {REQUEST_ID: self.request_id, "X-Content-Type-Options": "nosniff"}
        await problem_response(self._scope, problem)(self._scope, _nothing, self._send)


def _status_error(status: int) -> Exception:
    """An exception that stands for nothing but its status."""
    from starlette.exceptions import HTTPException

    return HTTPException(status)


def _id_of(scope: Scope) -> str:
    """The client's id for this request, if it is one that logs can bear, or a new one."""
    given = Headers(scope=scope).get(REQUEST_ID, "")
    return given if _ACCEPTED_ID.fullmatch(given) else secrets.token_hex(8)


def _is_own_page(headers: Headers, origins: tuple[str, ...]) -> bool:
    """Whether a request comes from no web page, from one of this server, or from one that is permitted."""
    origin = headers.get("origin")
    if origin is None or "*" in origins or origin in origins:
        return True
    try:
        return urlsplit(origin).netloc == headers.get("host", "")
    except ValueError:
        return False


async def _nothing() -> Message:
    """A request whose body nobody reads any more."""
    return {"type": "http.disconnect"}


def _do_nothing() -> None:
    """Nothing to tell."""
