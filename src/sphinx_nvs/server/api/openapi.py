"""What the OpenAPI document says about answers, for routes to share."""

from __future__ import annotations

from typing import Any

from sphinx_nvs.server.api.problems import KINDS, MEDIA_TYPE
from sphinx_nvs.server.api.responses import Problem

_REQUEST_ID = {"X-Request-ID": {"description": "Finds the request in the server's log.", "schema": {"type": "string"}}}
_RETRY = {"Retry-After": {"description": "Seconds after which to ask again.", "schema": {"type": "integer"}}}
_CHALLENGE = {"WWW-Authenticate": {"schema": {"type": "string"}}}
_ALWAYS = (400, 401, 421, 422, 429, 503)


def problems(*statuses: int, always: tuple[int, ...] = _ALWAYS) -> dict[int | str, dict[str, Any]]:
    """Documents the problems that a route answers with, beside those that every route may."""
    return {status: _problem(status) for status in sorted({*statuses, *always})}


def _problem(status: int) -> dict[str, Any]:
    kind, title = KINDS[status]
    headers = _REQUEST_ID | (_RETRY if status in (429, 503) else {}) | (_CHALLENGE if status == 401 else {})
    example = {
        "type": f"urn:sphinx-nvs:problem:{kind}",
        "title": title,
        "status": status,
        "detail": f"{title}.",
        "instance": "urn:sphinx-nvs:request:4f2a9c01d7b35e68",
    }
    content = {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}, "example": example}}
    return {"description": title, "headers": headers, "content": content}


def binary(
    media_type: str, description: str, *others: str, has_ranges: bool = False
) -> dict[int | str, dict[str, Any]]:
    """Documents a file as the answer."""
    content = {kind: {"schema": {"type": "string", "format": "binary"}} for kind in (media_type, *others)}
    answers: dict[int | str, dict[str, Any]] = {
        200: {"description": description, "content": content},
        304: {"description": "It is what `If-None-Match` names."},
    }
    if has_ranges:
        answers[206] = {
            "description": "The asked-for range.",
            "content": {**content, "multipart/byteranges": {"schema": {"type": "string", "format": "binary"}}},
        }
    return answers


SCHEMAS = {"Problem": Problem}
"""Schemas that answers refer to by name and no route returns."""
