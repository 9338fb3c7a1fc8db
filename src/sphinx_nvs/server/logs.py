"""Logs as JSON, one object a line, with the request's id in each: of this server, of the engine, of uvicorn."""

from __future__ import annotations

import logging
import sys
from typing import TextIO

import structlog
from structlog.types import Processor

_SHARED: tuple[Processor, ...] = (
    structlog.contextvars.merge_contextvars,
    structlog.stdlib.ExtraAdder(),
    # Behind what a message brings along, so that nothing of it passes for the line's own level or name.
    structlog.stdlib.add_log_level,
    structlog.stdlib.add_logger_name,
    structlog.processors.TimeStamper(fmt="iso", utc=True),
)

# Without the frames' variables: among them are requests' headers, and so API keys.
_TRACE = structlog.processors.ExceptionRenderer(structlog.tracebacks.ExceptionDictTransformer(show_locals=False))

_TALKATIVE = ("alembic", "uvicorn")
"""Libraries whose news is no news to whoever runs a server."""


def configure_logs(stream: TextIO | None = None, *, level: str = "INFO", is_json: bool = True) -> None:
    """Sets up logging of the whole process.

    Args:
        stream: to write to; None for standard error.
        level: of what is written.
        is_json: False writes lines for people.
    """
    formatter = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=_SHARED,
        processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *_rendering(is_json)],
    )
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(formatter)
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    for name in _TALKATIVE:
        logging.getLogger(name).setLevel(level if level == "DEBUG" else max(logging.WARNING, root.level))
    structlog.configure(
        processors=[structlog.stdlib.filter_by_level, *_SHARED, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,
    )


def _rendering(is_json: bool) -> tuple[Processor, ...]:
    """How a line becomes text."""
    if is_json:
        return _TRACE, structlog.processors.JSONRenderer(default=str)
    plain = structlog.dev.plain_traceback
    return (structlog.dev.ConsoleRenderer(colors=False, exception_formatter=plain),)
