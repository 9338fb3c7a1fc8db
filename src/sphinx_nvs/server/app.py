"""The app: routes, middleware and the OpenAPI document around one engine.

docs/reference/http-api.md says what the API promises.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable

from fastapi import FastAPI, Request
from fastapi.openapi.utils import get_openapi
from pydantic.json_schema import models_json_schema
from starlette.concurrency import run_in_threadpool
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import HTMLResponse, Response

from sphinx_nvs.engine.catalog import PUBLIC
from sphinx_nvs.engine.store.row_types import SceneRow
from sphinx_nvs.json_types import JSONObject
from sphinx_nvs.scene.demo import read_demo
from sphinx_nvs.server.api import docs_page, problems
from sphinx_nvs.server.api.requests import VideoRequest
from sphinx_nvs.server.api.responses import Problem
from sphinx_nvs.server.auth import Authentication
from sphinx_nvs.server.backend import Backend
from sphinx_nvs.server.context import Context
from sphinx_nvs.server.deprecated_paths import DeprecatedPaths
from sphinx_nvs.server.middleware import REQUEST_ID, BodyLimits, Envelope
from sphinx_nvs.server.prometheus import EngineCollector, HttpMetrics
from sphinx_nvs.server.routes import (
    job_routes,
    live_routes,
    page_routes,
    result_routes,
    scene_routes,
    share_routes,
    system_routes,
    video_routes,
)
from sphinx_nvs.server.scenes.ingest import keep_capture
from sphinx_nvs.server.server_config import ServerConfig

DEMO = "demo"
"""Id of the scene that all callers share."""

VERSION = "2.0.0"
"""Version of the API; the major number changes when something is removed."""

ABOUT = """\
New views of a scene from a few posed photos, as jobs: upload a scene, create a job with a quality or a deadline, get a
quote, receive previews and refined frames as they are made, download the video. Every error is a problem document
(RFC 9457).
"""

TAGS = [
    {"name": "scenes", "description": "Photos with cameras."},
    {"name": "jobs", "description": "Jobs that render new views of a scene."},
    {"name": "results", "description": "Results of a job."},
    {"name": "videos (OpenAI)", "description": "Jobs in the terms of OpenAI's video API."},
    {"name": "system", "description": "The server's model, load and health."},
]

EngineFactory = Callable[[], Awaitable[Backend]]
"""Opens an engine; the caller closes it."""


def create_app(engine: Backend | EngineFactory, config: ServerConfig | None = None) -> FastAPI:
    """Creates an ASGI app.

    Args:
        engine: an open engine, which stays open when the app ends; or a function that opens one when the app starts,
            which the app then closes.
        config: settings; None for the defaults.
    """
    config = config or ServerConfig()
    context = Context(config=config)
    app = FastAPI(
        title="sphinx-nvs",
        version=VERSION,
        description=ABOUT,
        openapi_tags=TAGS,
        lifespan=lambda app: _lifespan(context, engine),
        # A redirect of a POST would lose its body with many clients; an address with a slash too many is a 404.
        redirect_slashes=False,
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
    )
    app.state.context = context
    if isinstance(engine, Backend):
        _attach(context, engine)
    problems.install(app)
    _add_routes(app)
    _add_middleware(app, config, context)
    app.openapi = lambda: _openapi(app)  # type: ignore[method-assign]
    return app


def _add_routes(app: FastAPI) -> None:
    """Adds all routes; probes also under names where load generators and orchestrators expect them."""
    for module in (scene_routes, live_routes, job_routes, result_routes, share_routes, video_routes, system_routes):
        app.include_router(module.router)
    app.include_router(system_routes.probes)
    app.include_router(system_routes.probes, prefix="/v1", include_in_schema=False)
    app.add_api_route("/health", system_routes.get_health, include_in_schema=False)
    app.include_router(page_routes.router)
    app.include_router(share_routes.public)
    app.add_api_route("/docs", _docs, include_in_schema=False)
    app.add_api_route("/openapi.json", _openapi_document, include_in_schema=False)


async def _docs(request: Request) -> HTMLResponse:
    """Returns the documentation page, which loads nothing from other sites, as FastAPI's own page does."""
    app = request.app
    page = _written_once(app, "docs_page", lambda: docs_page.page(app.openapi()).encode())
    return HTMLResponse(page, headers=docs_page.HEADERS)


async def _openapi_document(request: Request) -> Response:
    """Returns the OpenAPI document."""
    app = request.app
    document = _written_once(app, "openapi_document", lambda: json.dumps(app.openapi()).encode())
    return Response(document, media_type="application/json")


def _written_once(app: FastAPI, name: str, make: Callable[[], bytes]) -> bytes:
    """Returns a document that never changes; writing it at every request would be a lever for attackers."""
    if not hasattr(app.state, name):
        setattr(app.state, name, make())
    return bytes(getattr(app.state, name))


def _add_middleware(app: FastAPI, config: ServerConfig, context: Context) -> None:
    """Adds middleware; the last added is the outermost."""
    app.add_middleware(BodyLimits, config=config)
    app.add_middleware(Authentication, context=context)
    if config.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=list(config.cors_origins),
            allow_methods=["GET", "HEAD", "POST", "DELETE"],
            allow_headers=["Authorization", "Content-Type", "Idempotency-Key", "Last-Event-ID", REQUEST_ID],
            expose_headers=[REQUEST_ID, "Retry-After", "Location", "ETag", "X-Level"],
        )
    app.add_middleware(DeprecatedPaths)
    app.add_middleware(Envelope, config=config, metrics=HttpMetrics(context.registry))


@contextlib.asynccontextmanager
async def _lifespan(context: Context, engine: Backend | EngineFactory) -> AsyncIterator[None]:
    """Opens the engine if the app owns it, adds the demo scene, resumes posing, and closes what it opened."""
    is_owned = not isinstance(engine, Backend)
    if not isinstance(engine, Backend):
        _attach(context, await engine())
    try:
        if context.config.has_demo:
            await _add_demo(context.backend)
        await context.posing.resume(context.backend.library)
        yield
    finally:
        await context.posing.close()
        if is_owned and context.engine is not None:
            await context.engine.close()
            context.engine = None


def _attach(context: Context, engine: Backend) -> None:
    """Makes an engine, and its metrics, available to the app."""
    context.engine = engine
    context.registry.register(EngineCollector(engine.metrics.registry))


async def _add_demo(engine: Backend) -> None:
    """Adds the scene that all callers share, unless it exists."""
    if await engine.library.scene(DEMO) is not None:
        return
    _, folder = await run_in_threadpool(engine.library.new_scene_folder)
    limits = ServerConfig().upload
    made = await run_in_threadpool(lambda: keep_capture(read_demo(), folder, limits))
    row = SceneRow(
        id=DEMO,
        key_id=PUBLIC,
        path=str(folder),
        num_views=made.num_views,
        width=made.width,
        height=made.height,
        warnings=made.warnings,
        bytes=made.bytes,
    )
    await engine.library.add_scene(row)


def _openapi(app: FastAPI) -> JSONObject:
    """Returns the OpenAPI document, with the schemas that routes refer to only by name."""
    if app.openapi_schema is None:
        schema = get_openapi(
            title=app.title,
            version=app.version,
            description=app.description,
            routes=app.routes,
            tags=app.openapi_tags,
            license_info={"name": "Apache-2.0", "identifier": "Apache-2.0"},
        )
        _, extra = models_json_schema(
            [(Problem, "serialization"), (VideoRequest, "validation")], ref_template="#/components/schemas/{model}"
        )
        schemas = schema["components"].setdefault("schemas", {})
        schemas |= {name: part for name, part in extra["$defs"].items() if name not in schemas}
        # Sorted, so that the document does not change with the order in which routes are imported; a test pins it.
        schema["components"]["schemas"] = dict(sorted(schemas.items()))
        app.openapi_schema = schema
    return app.openapi_schema
