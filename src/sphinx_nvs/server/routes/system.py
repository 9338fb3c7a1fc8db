"""`/v1/models`, `/v1/capacity`, `/healthz`, `/readyz`, `/metrics`: what the server is, and how it is."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

from fastapi import APIRouter, Path, Request, Response

from sphinx_nvs.server.api.openapi import problems
from sphinx_nvs.server.api.problems import ProblemError, retry_after
from sphinx_nvs.server.api.responses import CapacityAnswer, Health, ModelAnswer, ModelsAnswer
from sphinx_nvs.server.api.scrubbing import scrub
from sphinx_nvs.server.auth import CallerDep, ContextDep
from sphinx_nvs.server.context import Context
from sphinx_nvs.server.prometheus import expose

router = APIRouter(tags=["system"])
probes = APIRouter(tags=["system"])

ModelName = Annotated[str, Path(max_length=200, description="Of the preset.", examples=["embedded"])]
_TEXT = {"text/plain": {"schema": {"type": "string"}}}


@router.get("/v1/models", operation_id="list_models", summary="What frames are made with", responses=problems())
async def list_models(caller: CallerDep, context: ContextDep) -> ModelsAnswer:
    """The preset, its networks and their licences."""
    return ModelsAnswer(data=[_model(context)])


@router.get("/v1/models/{model}", operation_id="get_model", summary="A preset", responses=problems(404))
async def get_model(model: ModelName, caller: CallerDep, context: ContextDep) -> ModelAnswer:
    """The preset, by its name."""
    if model != context.backend.config.preset:
        raise ProblemError(404, f"This server has the model {context.backend.config.preset} only.")
    return _model(context)


@router.get("/v1/capacity", operation_id="get_capacity", summary="How busy it is", responses=problems())
async def get_capacity(caller: CallerDep, context: ContextDep) -> CapacityAnswer:
    """Devices, queue, and how far quality is being lowered."""
    return CapacityAnswer.of(context.backend.capacity(), len(context.streams))


@probes.get(
    "/healthz", operation_id="get_health", summary="Whether the process is alive", responses=problems(always=(421,))
)
async def get_health(context: ContextDep) -> Health:
    """Always 200 as long as the process answers; `degraded` and why, if something goes wrong inside."""
    trouble = "" if context.engine is None else scrub(context.engine.health)
    return Health(status="degraded" if trouble else "ok", detail=trouble)


@probes.get(
    "/readyz",
    operation_id="get_readiness",
    summary="Whether views can be asked for",
    responses=problems(always=(421, 503)),
)
async def get_readiness(context: ContextDep) -> Health:
    """200 once a device has its models, 503 before, and again when the server is closing."""
    context.check_open()
    if not context.backend.ready:
        raise ProblemError(503, "No device is ready yet.", headers=retry_after(1))
    return Health(status="ready")


@probes.get(
    "/metrics",
    operation_id="get_metrics",
    summary="For Prometheus",
    response_class=Response,
    responses={
        200: {
            "description": "Prometheus' text format, or OpenMetrics if it is asked for.",
            "content": _TEXT | {"application/openmetrics-text": _TEXT["text/plain"]},
        },
        **problems(404, always=(421,)),
    },
)
async def get_metrics(request: Request, context: ContextDep) -> Response:
    """Time to preview, SLO attainment, delivered quality, predictor error, active share, requests, and the rest."""
    if not context.config.metrics:
        raise ProblemError(404, "Metrics are switched off.")
    if context.engine is not None:
        context.engine.capacity()
    body, media_type = expose(context.registry, request.headers.get("accept", ""))
    return Response(body, media_type=media_type)


def _model(context: Context) -> ModelAnswer:
    config = context.backend.config
    return ModelAnswer(
        id=config.preset,
        size_multiple=config.size_multiple,
        window=config.resolved_window,
        parts=[asdict(model) for model in context.backend.models()],
    )
