"""`/v1/models`, `/v1/capacity`, `/healthz`, `/readyz`, `/metrics`: the server's model, load and health."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Request, Response

from sphinx_nvs.server.api.openapi import problems
from sphinx_nvs.server.api.problems import ProblemError, retry_after
from sphinx_nvs.server.api.responses import CapacityResponse, Health, ModelResponse, ModelsResponse, NetworkResponse
from sphinx_nvs.server.api.scrubbing import scrub
from sphinx_nvs.server.auth import CallerDep, ContextDep
from sphinx_nvs.server.context import Context
from sphinx_nvs.server.prometheus import expose

router = APIRouter(tags=["system"])
probes = APIRouter(tags=["system"])

ModelName = Annotated[str, Path(max_length=200, description="Name of the preset.", examples=["embedded"])]
_TEXT = {"text/plain": {"schema": {"type": "string"}}}


@router.get("/v1/models", operation_id="list_models", summary="List models", responses=problems())
async def list_models(caller: CallerDep, context: ContextDep) -> ModelsResponse:
    """Returns the server's preset, its networks and their licences."""
    return ModelsResponse(data=[_model(context)])


@router.get("/v1/models/{model}", operation_id="get_model", summary="Get a model", responses=problems(404))
async def get_model(model: ModelName, caller: CallerDep, context: ContextDep) -> ModelResponse:
    """Returns a preset by name."""
    if model != context.backend.config.preset:
        raise ProblemError(404, f"This server has the model {context.backend.config.preset} only.")
    return _model(context)


@router.get("/v1/capacity", operation_id="get_capacity", summary="Get the server's load", responses=problems())
async def get_capacity(caller: CallerDep, context: ContextDep) -> CapacityResponse:
    """Returns devices, queue, and how far quality is being lowered."""
    return CapacityResponse.of(context.backend.capacity(), len(context.streams))


@probes.get("/healthz", operation_id="get_health", summary="Check liveness", responses=problems(always=(421,)))
async def get_health(context: ContextDep) -> Health:
    """Returns 200 as long as the process answers; `degraded` with the cause if something fails inside."""
    trouble = "" if context.engine is None else scrub(context.engine.health)
    return Health(status="degraded" if trouble else "ok", detail=trouble)


@probes.get("/readyz", operation_id="get_readiness", summary="Check readiness", responses=problems(always=(421, 503)))
async def get_readiness(context: ContextDep) -> Health:
    """Returns 200 while jobs are accepted: a device is ready, the store can be written, and there is no shutdown."""
    context.check_open()
    if not context.backend.ready:
        raise ProblemError(503, "No device is ready yet.", headers=retry_after(1))
    if trouble := await context.store_trouble():
        raise ProblemError(503, trouble, headers=retry_after(5))
    return Health(status="ready")


@probes.get(
    "/metrics",
    operation_id="get_metrics",
    summary="Get metrics for Prometheus",
    response_class=Response,
    responses={
        200: {
            "description": "Prometheus' text format, or OpenMetrics if `Accept` names it.",
            "content": _TEXT | {"application/openmetrics-text": _TEXT["text/plain"]},
        },
        **problems(404, always=(421,)),
    },
)
async def get_metrics(request: Request, context: ContextDep) -> Response:
    """Returns time to preview, SLO attainment, delivered quality, predictor error, active share, requests and more."""
    if not context.config.metrics:
        raise ProblemError(404, "Metrics are disabled.")
    if context.engine is not None:
        context.engine.capacity()  # updates the gauges
    body, media_type = expose(context.registry, request.headers.get("accept", ""))
    return Response(body, media_type=media_type)


def _model(context: Context) -> ModelResponse:
    """Returns the engine's preset as a response."""
    config = context.backend.config
    return ModelResponse(
        id=config.preset,
        size_multiple=config.size_multiple,
        window=config.resolved_window,
        default_quality=config.scheduler.default_quality,
        networks=[NetworkResponse.of(model) for model in context.backend.models()],
    )
