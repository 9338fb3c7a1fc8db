"""Authentication: an API key as a bearer token, or none where none is needed. Callers see only their own resources."""

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
from sphinx_nvs.server.context import Context, context_of
from sphinx_nvs.server.limits import limits_of
from sphinx_nvs.server.server_config import KeyLimits

ANONYMOUS = "anonymous"
"""Owner of resources that are created without a key."""

KEY_PREFIX = "snvs_"
"""Start of every API key."""

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


async def authenticated(
    request: Request, credentials: Annotated[HTTPAuthorizationCredentials | None, Security(_BEARER)]
) -> Caller:
    """Identifies the caller and counts the request against its rate limit.

    Raises:
        ProblemError: 401 for a missing or invalid key, 429 above the rate limit.
    """
    context = context_of(request)
    caller = await _caller(request, context, credentials)
    request.scope["state"]["key_id"] = caller.key_id
    structlog.contextvars.bind_contextvars(key_id=caller.key_id)
    context.rates.take(caller.name, caller.limits)
    return caller


async def _caller(request: Request, context: Context, credentials: HTTPAuthorizationCredentials | None) -> Caller:
    """Identifies the caller by its key, or by its address."""
    address = request.client.host if request.client else ""
    if credentials is None:
        if "authorization" in request.headers:
            raise ProblemError(401, "The Authorization header must be: Bearer API_KEY.", headers=_CHALLENGE)
        if await context.requires_keys():
            raise ProblemError(401, "Send an API key as Authorization: Bearer API_KEY.", headers=_CHALLENGE)
        return _anonymous(context, address)
    if not credentials.credentials.startswith(KEY_PREFIX) and not await context.requires_keys():
        # SDKs insist on some key and send a placeholder such as "none" to a server that needs none.
        return _anonymous(context, address)
    key = await context.backend.library.key_of(credentials.credentials)
    if key is None:
        # Failed attempts count before they are answered, so that keys cannot be guessed fast.
        context.rates.take(f"failed attempts from {address}", context.config.key)
        raise ProblemError(401, "The API key is invalid or was revoked; create a new one.", headers=_CHALLENGE)
    return Caller(key_id=key.id, name=key.id, limits=limits_of(key.limits, context.config.key))


def _anonymous(context: Context, address: str) -> Caller:
    """Returns a caller without a key."""
    return Caller(key_id=ANONYMOUS, name=f"address {address}", limits=context.config.key)


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
