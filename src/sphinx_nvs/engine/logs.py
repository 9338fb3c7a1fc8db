"""Lines of the log, the same from a server and from its workers: one JSON object each, or text for people."""

from __future__ import annotations

import logging
import os
import sys

import structlog
from structlog.types import Processor

LOG_FORMAT = "SPHINX_LOG_FORMAT"
"""Environment variable that tells a worker how to write, `json` or `text`; else it looks where it writes to."""

SHARED: tuple[Processor, ...] = (
    structlog.contextvars.merge_contextvars,
    structlog.stdlib.ExtraAdder(),
    # Behind what a message brings along, so that nothing of it passes for the line's own level or name.
    structlog.stdlib.add_log_level,
    structlog.stdlib.add_logger_name,
    structlog.processors.TimeStamper(fmt="iso", utc=True),
)
"""What is done to every message."""

# Without the frames' variables: among them are requests' headers, and so API keys.
_TRACE = structlog.processors.ExceptionRenderer(structlog.tracebacks.ExceptionDictTransformer(show_locals=False))


def line_formatter(*, is_json: bool) -> logging.Formatter:
    """Makes lines of messages, with whatever `extra` they bring along.

    Args:
        is_json: False makes lines for people.
    """
    return structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=SHARED,
        processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *_rendering(is_json)],
    )


def wants_json() -> bool:
    """Whether a process that a server started writes JSON: as it was told, else unless it writes to a terminal."""
    told = os.environ.get(LOG_FORMAT)
    return told == "json" if told in ("json", "text") else not sys.stderr.isatty()


def _rendering(is_json: bool) -> tuple[Processor, ...]:
    """How a line becomes text."""
    if is_json:
        return _TRACE, structlog.processors.JSONRenderer(default=str)
    plain = structlog.dev.plain_traceback
    return (structlog.dev.ConsoleRenderer(colors=False, exception_formatter=plain),)
