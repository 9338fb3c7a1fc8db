"""Authentication: an API key as a bearer token, or none where none is needed. Callers see only their own resources."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import structlog
from fastapi import Depends, Request, Security
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from fastapi.security.utils import get_authorization_scheme_param
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from sphinx_nvs.engine.catalog import PUBLIC
from sphinx_nvs.engine.store.row_types import SceneRow, SceneState
from sphinx_nvs.engine.types.jobs import JobRow
from sphinx_nvs.server.api.problems import ProblemError, problem_response, retry_after
from sphinx_nvs.server.context import Context, context_of
from sphinx_nvs.server.limits import limits_of
from sphinx_nvs.server.probe_paths import is_probe
from sphinx_nvs.server.server_config import KeyLimits

ANONYMOUS = "anonymous"
"""Owner of resources that are created without a key."""

KEY_PREFIX = "snvs_"
"""Start of every API key."""

SUBPROTOCOL_KEY = "bearer."
"""Start of the WebSocket subprotocol that carries an API key."""

_BEARER = HTTPBearer(
    auto_error=False,
    scheme_name="ApiKey",
    description="An API key. A server on loopback that has never had a key needs none.",
)
_CHALLENGE = {"WWW-Authenticate": "Bearer"}


@dataclass(frozen=True, kw_only=True)
class Caller:
    """The caller of a request.

    Args:
        key_id: id of the API key, or "anonymous"; owner of what the request creates.
        name: identifies the caller for rate limits: the key, or the address without one.
        limits: the caller's limits.
    """

    key_id: str
    name: str
    limits: KeyLimits


class Authentication:
    """Identifies the caller of every request before its body is read, and counts the request against its rate limit.

    Probes need no key and meet no limit; pages outside of the API, such as its documentation, are limited by address.

    Args:
        app: the inner application; finds the caller in the request's state.
        context: settings, keys and rates.
    """

    def __init__(self, app: ASGIApp, context: Context) -> None:
        self._app, self._context = app, context

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves a request, or answers 401 or 429."""
        if scope["type"] in ("http", "websocket") and not is_probe(scope["path"]):
            try:
                await self._identify(scope)
            except ProblemError as problem:
                # Sent from here, inside CORS, so that pages of other sites can read it.
                await problem_response(scope, problem)(scope, receive, send)
                return
        await self._app(scope, receive, send)

    async def _identify(self, scope: Scope) -> None:
        """Writes the caller to the request's state, and counts the request."""
        caller = await self._caller(scope) if scope["path"].startswith("/v1/") else self._anonymous(scope)
        scope["state"]["caller"], scope["state"]["key_id"] = caller, caller.key_id
        structlog.contextvars.bind_contextvars(key_id=caller.key_id)
        if caller.key_id == ANONYMOUS:
            self._take_or_close(caller.name, caller.limits)
        else:
            self._context.rates.take(caller.name, caller.limits)

    def _take_or_close(self, name: str, limits: KeyLimits) -> None:
        """Counts a request without a valid key; one too many closes its connection.

        What the client has sent meanwhile is not read any more, so that refusing a flood costs little.
        """
        try:
            self._context.rates.take(name, limits)
        except ProblemError as problem:
            problem.headers = {**problem.headers, "Connection": "close"}
            raise

    async def _caller(self, scope: Scope) -> Caller:
        """Identifies the caller by its key, or by its address."""
        context, header = self._context, _authorization(scope)
        scheme, secret = get_authorization_scheme_param(header)
        if not secret or scheme.lower() != "bearer":
            if header is not None:
                raise self._denied(scope, "The Authorization header must be: Bearer API_KEY.")
            if await context.requires_keys():
                raise self._denied(scope, "Send an API key as Authorization: Bearer API_KEY.")
            return self._anonymous(scope)
        if not secret.startswith(KEY_PREFIX) and not await context.requires_keys():
            # SDKs insist on some key and send a placeholder such as "none" to a server that needs none.
            return self._anonymous(scope)
        key = await context.backend.library.key_of(secret)
        if key is None:
            raise self._denied(scope, "The API key is invalid or was revoked; create a new one.")
        return Caller(key_id=key.id, name=key.id, limits=limits_of(key.limits, context.config.key))

    def _denied(self, scope: Scope, detail: str) -> ProblemError:
        """Returns the error for a missing or invalid key.

        Attempts count before they are answered, so that keys cannot be guessed fast; a valid key is found before that,
        so that an attacker behind the same address shuts out no other caller.
        """
        self._take_or_close(f"failed attempts from {_address(scope)}", self._context.config.key)
        return ProblemError(401, detail, headers=_CHALLENGE)

    def _anonymous(self, scope: Scope) -> Caller:
        """Returns a caller without a key."""
        return Caller(key_id=ANONYMOUS, name=f"address {_address(scope)}", limits=self._context.config.key)


async def may_stay(context: Context, caller: Caller) -> bool:
    """Returns whether a caller whose request goes on may still be served: its key is valid, or none is needed."""
    if caller.key_id == ANONYMOUS:
        return not await context.requires_keys()
    return await context.is_valid(caller.key_id)


def _authorization(scope: Scope) -> str | None:
    """Returns the header; a browser cannot send it with a WebSocket, and names the key among the subprotocols."""
    header = Headers(scope=scope).get("authorization")
    if header is not None or scope["type"] != "websocket":
        return header
    keys = [name for name in scope["subprotocols"] if name.startswith(SUBPROTOCOL_KEY)]
    return f"Bearer {keys[0].removeprefix(SUBPROTOCOL_KEY)}" if keys else None


def _address(scope: Scope) -> str:
    """Returns the client's address."""
    return scope["client"][0] if scope.get("client") else ""


async def authenticated(
    request: Request, credentials: Annotated[HTTPAuthorizationCredentials | None, Security(_BEARER)]
) -> Caller:
    """Returns the caller that `Authentication` found; the bearer scheme is declared for the API's documentation."""
    caller = request.scope["state"]["caller"]
    assert isinstance(caller, Caller)
    return caller


CallerDep = Annotated[Caller, Depends(authenticated)]
ContextDep = Annotated[Context, Depends(context_of)]


async def own_job(context: Context, caller: Caller, job_id: str) -> JobRow:
    """Returns a job of the caller's.

    Raises:
        ProblemError: 404 if it does not exist or belongs to another caller.
    """
    job = await context.backend.job(job_id)
    # The same answer for both: whether an id exists is nothing that another key may learn.
    if job is None or job.key_id != caller.key_id:
        raise ProblemError(404, "There is no job with this id; GET /v1/jobs lists yours.")
    return job


async def own_scene(context: Context, caller: Caller, scene_id: str) -> SceneRow:
    """Returns a scene of the caller's, or one that all callers share.

    Raises:
        ProblemError: 404 if it does not exist or belongs to another caller.
    """
    scene = await context.backend.library.scene(scene_id)
    if scene is None or scene.key_id not in (caller.key_id, PUBLIC):
        raise ProblemError(404, "There is no scene with this id; upload it with POST /v1/scenes.")
    return scene


async def own_ready_scene(context: Context, caller: Caller, scene_id: str) -> SceneRow:
    """Returns a scene as `own_scene` does, whose cameras are known.

    Raises:
        ProblemError: see `own_scene`; 409 if its cameras are being found, or were not found.
    """
    scene = await own_scene(context, caller, scene_id)
    if scene.state is SceneState.POSING:
        detail = "The cameras of this scene's photos are being found; wait until its status is ready."
        raise ProblemError(409, detail, headers=retry_after(5))
    if scene.state is SceneState.FAILED:
        raise ProblemError(409, f"This scene has no cameras: {scene.failure['found']}; {scene.failure['hint']}.")
    return scene
