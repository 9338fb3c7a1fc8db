"""Who asks: an API key as a bearer token, or anybody where no keys are needed; each sees only what is its own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import structlog
from fastapi import Depends, Request, Security
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from sphinx_nvs.engine.catalog import PUBLIC
from sphinx_nvs.engine.store.row_types import SceneRow
from sphinx_nvs.engine.types.jobs import JobRow
from sphinx_nvs.server.api.problems import ProblemError
from sphinx_nvs.server.config import KeyLimits
from sphinx_nvs.server.context import Context, context_of
from sphinx_nvs.server.limits import limits_of

ANONYMOUS = "anonymous"
"""Owner of what is asked for without a key."""

_BEARER = HTTPBearer(
    auto_error=False,
    scheme_name="ApiKey",
    description="An API key; on loopback none is needed while there is none.",
)
_CHALLENGE = {"WWW-Authenticate": "Bearer"}


@dataclass(frozen=True, kw_only=True)
class Caller:
    """Who asks.

    Args:
        key_id: of the API key, or "anonymous": the owner of what is made.
        name: whose requests are counted together: the key, or the address without one.
        limits: that hold.
    """

    key_id: str
    name: str
    limits: KeyLimits


async def identified(
    request: Request, credentials: Annotated[HTTPAuthorizationCredentials | None, Security(_BEARER)]
) -> Caller:
    """Who asks, its request counted.

    Raises:
        ProblemError: 401 without a key that holds where one is needed or given; 429 if it asks too often.
    """
    context = context_of(request)
    caller = await _caller(request, context, credentials)
    request.scope["state"]["key_id"] = caller.key_id
    structlog.contextvars.bind_contextvars(key_id=caller.key_id)
    context.buckets.take(caller.name, caller.limits)
    return caller


async def _caller(request: Request, context: Context, credentials: HTTPAuthorizationCredentials | None) -> Caller:
    """By key if there is one in the request, by address else."""
    address = request.client.host if request.client else ""
    if credentials is None:
        if "authorization" in request.headers:
            raise ProblemError(401, "Authorization must read: Bearer API_KEY.", headers=_CHALLENGE)
        if await context.requires_keys():
            raise ProblemError(401, "Send an API key as Authorization: Bearer API_KEY.", headers=_CHALLENGE)
        return Caller(key_id=ANONYMOUS, name=f"address {address}", limits=context.config.key)
    key = await context.backend.library.key_of(credentials.credentials)
    if key is None:
        # Guesses are counted, too, before they are told that they are wrong.
        context.buckets.take(f"guesses {address}", context.config.key)
        raise ProblemError(401, "This API key does not hold; ask for a new one.", headers=_CHALLENGE)
    return Caller(key_id=key.id, name=key.id, limits=limits_of(key.limits, context.config.key))


CallerDep = Annotated[Caller, Depends(identified)]
ContextDep = Annotated[Context, Depends(context_of)]


async def own_job(context: Context, caller: Caller, job_id: str) -> JobRow:
    """A job of the caller's; others' are as if they were not there.

    Raises:
        ProblemError: 404.
    """
    job = await context.backend.job(job_id)
    if job is None or job.key_id != caller.key_id:
        raise ProblemError(404, "There is no view of that id, or none any more; GET /v1/views lists yours.")
    return job


async def own_scene(context: Context, caller: Caller, scene_id: str, *, status: int = 404) -> SceneRow:
    """A scene of the caller's, or one that everybody has.

    Raises:
        ProblemError: of this status if there is none.
    """
    scene = await context.backend.library.scene(scene_id)
    if scene is None or scene.key_id not in (caller.key_id, PUBLIC):
        detail = "There is no scene of that id, or none any more; upload it with POST /v1/scenes."
        raise ProblemError(status, detail)
    return scene
