"""From a request for views to a job, for every route that asks for one."""

from __future__ import annotations

from fastapi import Request
from starlette.concurrency import run_in_threadpool

from sphinx_nvs.engine.store.row_types import Usage
from sphinx_nvs.engine.types.jobs import JobRow, JobSpec
from sphinx_nvs.server.api.problems import ProblemError
from sphinx_nvs.server.api.requests import ViewRequest
from sphinx_nvs.server.auth import Caller, own_scene
from sphinx_nvs.server.context import Context
from sphinx_nvs.server.limits import check_running, check_storage
from sphinx_nvs.server.scenes.target_cameras import spec_from


async def needs_json(request: Request) -> None:
    """Raises ProblemError, 415, if a request says that its body is no JSON."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json" and not (kind.startswith("application/") and kind.endswith("+json")):
        raise ProblemError(415, "Send a JSON object, with Content-Type: application/json.")


async def spec_of(context: Context, caller: Caller, wish: ViewRequest) -> JobSpec:
    """The job that is asked for.

    Raises:
        InputError: cameras that cannot be.
        ProblemError: there is no such scene.
    """
    scene = await own_scene(context, caller, wish.scene)
    return await run_in_threadpool(spec_from, wish, scene, context.backend.config)


async def accepted(context: Context, caller: Caller, wish: ViewRequest, idempotency_key: str | None) -> JobRow:
    """The job that is asked for, taken on.

    Raises:
        InputError: a wish that cannot be met.
        RefusedError: the queue is full, or the engine is closing.
        ProblemError: nothing is taken on, or nothing more of this caller.
    """
    context.check_open()

    def allow(usage: Usage) -> None:
        check_running(usage, caller.limits)
        check_storage(usage, caller.limits)

    spec = await spec_of(context, caller, wish)
    job, is_new = await context.backend.accept(spec, key_id=caller.key_id, idempotency_key=idempotency_key, allow=allow)
    if is_new:
        await context.backend.library.keep_scene(spec.scene, ttl_s=context.config.scene_ttl_s)
    return job
