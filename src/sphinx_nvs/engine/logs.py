"""Lines of the log, the same from a server and from its workers: one JSON object each, or text for people."""

from __future__ import annotations

import logging
import os
import sys

import structlog
from structlog.types import Processor

LOG_FORMAT = "SPHINX_LOG_FORMAT"
"""Environment variable with a worker's log format, `json` or `text`; without it the terminal decides."""

SHARED: tuple[Processor, ...] = (
    structlog.contextvars.merge_contextvars,
    structlog.stdlib.ExtraAdder(),
    # After the message's own fields, so that none of them can replace the line's level or name.
    structlog.stdlib.add_log_level,
    structlog.stdlib.add_logger_name,
    structlog.processors.TimeStamper(fmt="iso", utc=True),
)
"""Processors of every message."""

# Without the frames' variables: among them are requests' headers, and so API keys.
_TRACE = structlog.processors.ExceptionRenderer(structlog.tracebacks.ExceptionDictTransformer(show_locals=False))


def line_formatter(*, is_json: bool) -> logging.Formatter:
    """Formats messages, with their `extra` fields, as lines.

    Args:
        is_json: whether lines are JSON; otherwise text.
    """
    return structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=SHARED,
        processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *_rendering(is_json)],
    )


def wants_json() -> bool:
    """Whether a server's child process writes JSON: as configured, else unless it writes to a terminal."""
    chosen = os.environ.get(LOG_FORMAT)
    return chosen == "json" if chosen in ("json", "text") else not sys.stderr.isatty()


def _rendering(is_json: bool) -> tuple[Processor, ...]:
    """The formatter of a log line."""
    if is_json:
        return _TRACE, structlog.processors.JSONRenderer(default=str)
    plain = structlog.dev.plain_traceback
    return (structlog.dev.ConsoleRenderer(colors=False, exception_formatter=plain),)
