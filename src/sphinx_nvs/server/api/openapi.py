"""Descriptions of responses in the OpenAPI document, shared by routes."""

from __future__ import annotations

from sphinx_nvs.json_types import JSONObject
from sphinx_nvs.server.api.problems import KINDS, MEDIA_TYPE

_REQUEST_ID = {"X-Request-ID": {"description": "The request's id in the server's log.", "schema": {"type": "string"}}}
_RETRY = {"Retry-After": {"description": "Seconds after which to retry.", "schema": {"type": "integer"}}}
_CHALLENGE = {"WWW-Authenticate": {"schema": {"type": "string"}}}
_ALWAYS = (400, 401, 421, 422, 429, 503)


def problems(*statuses: int, always: tuple[int, ...] = _ALWAYS) -> dict[int | str, JSONObject]:
    """Describes the problems that a route may return, in addition to those that every route may."""
    return {status: _problem(status) for status in sorted({*statuses, *always})}


def _problem(status: int) -> JSONObject:
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


def binary(media_type: str, description: str, *others: str, has_ranges: bool = False) -> dict[int | str, JSONObject]:
    """Describes a file as the response."""
    content = {kind: {"schema": {"type": "string", "format": "binary"}} for kind in (media_type, *others)}
    responses: dict[int | str, JSONObject] = {
        200: {"description": description, "content": content},
        304: {"description": "The client has the version that `If-None-Match` names."},
    }
    if has_ranges:
        responses[206] = {
            "description": "The requested range.",
            "content": {**content, "multipart/byteranges": {"schema": {"type": "string", "format": "binary"}}},
        }
    return responses
