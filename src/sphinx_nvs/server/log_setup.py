"""Logging of the server process: JSON, one object a line, with the request's id, for server, engine and uvicorn."""

from __future__ import annotations

import logging
import sys
from typing import TextIO

import structlog

from sphinx_nvs.engine.logs import SHARED, line_formatter

# Libraries whose messages below WARNING are dropped.
_VERBOSE = ("alembic", "uvicorn")


def configure_logs(stream: TextIO | None = None, *, level: str = "INFO", is_json: bool = True) -> None:
    """Sets up logging of the whole process.

    Args:
        stream: stream to write to; None for standard error.
        level: lowest level that is written.
        is_json: False writes lines for people.
    """
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(line_formatter(is_json=is_json))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    for name in _VERBOSE:
        logging.getLogger(name).setLevel(level if level == "DEBUG" else max(logging.WARNING, root.level))
    structlog.configure(
        processors=[structlog.stdlib.filter_by_level, *SHARED, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,
    )
