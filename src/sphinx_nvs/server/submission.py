"""From a request body to an accepted job, for every route that creates jobs."""

from __future__ import annotations

from fastapi import Request
from starlette.concurrency import run_in_threadpool

from sphinx_nvs.engine.store.row_types import Usage
from sphinx_nvs.engine.types.jobs import JobRow, JobSpec
from sphinx_nvs.server.api.problems import ProblemError
from sphinx_nvs.server.api.requests import JobRequest
from sphinx_nvs.server.auth import Caller, own_scene
from sphinx_nvs.server.context import Context
from sphinx_nvs.server.limits import check_running, check_storage
from sphinx_nvs.server.scenes.target_cameras import spec_from


async def requires_json(request: Request) -> None:
    """Raises ProblemError, 415, unless a request's Content-Type is JSON."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json" and not (kind.startswith("application/") and kind.endswith("+json")):
        raise ProblemError(415, "Send a JSON object, with Content-Type: application/json.")


async def spec_of(context: Context, caller: Caller, body: JobRequest) -> JobSpec:
    """Returns the specification of the requested job.

    Raises:
        InputError: the target cameras are invalid.
        ProblemError: 404 if the scene does not exist.
    """
    scene = await own_scene(context, caller, body.scene)
    return await run_in_threadpool(spec_from, body, scene, context.backend.config)


async def submit(context: Context, caller: Caller, body: JobRequest, idempotency_key: str | None) -> JobRow:
    """Accepts the requested job and postpones its scene's expiry.

    Raises:
        InputError: the request is invalid.
        RefusedError: the queue is full, or the engine is closing.
        ProblemError: the server is shutting down, or the caller is over a limit.
    """
    context.check_open()

    def check_limits(usage: Usage) -> None:
        check_running(usage, caller.limits)
        check_storage(usage, caller.limits)

    spec = await spec_of(context, caller, body)
    job, is_new = await context.backend.accept(
        spec, key_id=caller.key_id, idempotency_key=idempotency_key, allow=check_limits
    )
    if is_new:
        await context.backend.library.keep_scene(spec.scene, ttl_s=context.config.scene_ttl_s)
    return job
