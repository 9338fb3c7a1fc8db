"""The app: routes, layers and the OpenAPI document around one engine. Read docs/server.md first."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic.json_schema import models_json_schema
from starlette.concurrency import run_in_threadpool
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import HTMLResponse, RedirectResponse

from sphinx_nvs.engine.catalog import PUBLIC
from sphinx_nvs.engine.store.row_types import SceneRow
from sphinx_nvs.scene.demo import read_demo
from sphinx_nvs.server.api import docs_page, problems
from sphinx_nvs.server.api.requests import VideoRequest
from sphinx_nvs.server.api.responses import Problem
from sphinx_nvs.server.backend import Backend
from sphinx_nvs.server.config import ServerConfig
from sphinx_nvs.server.context import Context
from sphinx_nvs.server.middleware import REQUEST_ID, BodyLimits, Envelope
from sphinx_nvs.server.prometheus import EngineCollector, HttpMetrics
from sphinx_nvs.server.routes import results, scenes, system, videos, views
from sphinx_nvs.server.scenes.ingest import keep_capture

DEMO = "demo"
"""Id of the scene that everybody has."""

VERSION = "1.0.0"
"""Of the API: the first number changes when something is taken away."""

ABOUT = """\
New views of a scene from a few posed photos, as jobs: upload a scene, ask for views with a quality or a deadline, get a
quote, watch previews and refined frames arrive, fetch the video. Every error is a problem document (RFC 9457).
"""

TAGS = [
    {"name": "scenes", "description": "Photos with cameras."},
    {"name": "views", "description": "Jobs: new views of a scene."},
    {"name": "results", "description": "What came of a view."},
    {"name": "videos (OpenAI)", "description": "The same jobs in the words of OpenAI's video API."},
    {"name": "system", "description": "What the server is, and how it is."},
]

Factory = Callable[[], Awaitable[Backend]]
"""Opens an engine; whoever opened it closes it."""


def create_app(engine: Backend | Factory, config: ServerConfig | None = None) -> FastAPI:
    """An ASGI app.

    Args:
        engine: an open engine, which stays open when the app ends; or what opens one when the app starts, which the app
            then closes, too.
        config: settings; None for the usual ones.
    """
    config = config or ServerConfig()
    context = Context(config=config)
    app = FastAPI(
        title="sphinx-nvs",
        version=VERSION,
        description=ABOUT,
        openapi_tags=TAGS,
        lifespan=lambda app: _lifespan(context, engine),
        redirect_slashes=False,
        docs_url=None,
        redoc_url=None,
    )
    app.state.context = context
    if isinstance(engine, Backend):
        _take(context, engine)
    problems.install(app)
    for routes in (scenes.router, views.router, results.router, videos.router, system.router, system.probes):
        app.include_router(routes)
    # Load generators and probes look for these under other names, too.
    app.include_router(system.probes, prefix="/v1", include_in_schema=False)
    app.add_api_route("/health", system.get_health, include_in_schema=False)
    app.add_api_route("/", _to_docs, include_in_schema=False)
    app.add_api_route("/docs", lambda: _docs(app), include_in_schema=False)
    _add_layers(app, config, context)
    app.openapi = lambda: _openapi(app)  # type: ignore[method-assign]
    return app


async def _to_docs() -> RedirectResponse:
    """Whoever opens the server's address in a browser wants to see what it is."""
    return RedirectResponse("/docs")


def _docs(app: FastAPI) -> HTMLResponse:
    """FastAPI's own page would load its script from elsewhere."""
    return HTMLResponse(docs_page.page(app.openapi()), headers=docs_page.HEADERS)


def _add_layers(app: FastAPI, config: ServerConfig, context: Context) -> None:
    """The last that is added is the first that sees a request."""
    app.add_middleware(BodyLimits, config=config)
    if config.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=list(config.cors_origins),
            allow_methods=["GET", "HEAD", "POST", "DELETE"],
            allow_headers=["Authorization", "Content-Type", "Idempotency-Key", "Last-Event-ID", REQUEST_ID],
            expose_headers=[REQUEST_ID, "Retry-After", "Location", "ETag", "X-Level"],
        )
    app.add_middleware(Envelope, config=config, metrics=HttpMetrics(context.registry))


@contextlib.asynccontextmanager
async def _lifespan(context: Context, engine: Backend | Factory) -> AsyncIterator[None]:
    """Opens the engine if that is asked for, makes the demo scene, closes what was opened."""
    is_ours = not isinstance(engine, Backend)
    if not isinstance(engine, Backend):
        _take(context, await engine())
    try:
        if context.config.has_demo:
            await _add_demo(context.backend)
        yield
    finally:
        if is_ours and context.engine is not None:
            await context.engine.close()
            context.engine = None


def _take(context: Context, engine: Backend) -> None:
    """Makes an engine the app's."""
    context.engine = engine
    context.registry.register(EngineCollector(engine.metrics.families))


async def _add_demo(engine: Backend) -> None:
    """Makes the scene that everybody has, unless it is there."""
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


def _openapi(app: FastAPI) -> dict[str, Any]:
    """The document, with the schemas that routes refer to by name."""
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
        schema["components"]["schemas"] = dict(sorted(schemas.items()))
        app.openapi_schema = schema
    return app.openapi_schema
