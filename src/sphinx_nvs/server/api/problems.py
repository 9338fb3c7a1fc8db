"""Errors as problem documents (RFC 9457, `application/problem+json`).

    type       urn:sphinx-nvs:problem:KIND; docs/reference/http-api.md lists the kinds
    title      the kind in words
    status     HTTP status of the response
    detail     one sentence: where, what was found, hint
    instance   urn:sphinx-nvs:request:ID, with the id of the request
    errors     where, found and hint of every invalid field

The `/v1/videos` routes add `error`, which clients of that API read.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from http import HTTPStatus

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import Response

from sphinx_nvs.engine.types.engine_errors import MissingError, RefusedError
from sphinx_nvs.errors import InputError, SphinxError
from sphinx_nvs.json_types import JSONMapping, JSONObject
from sphinx_nvs.server.api.scrubbing import scrub

MEDIA_TYPE = "application/problem+json"

KINDS: dict[int, tuple[str, str]] = {
    400: ("malformed", "The request cannot be read"),
    401: ("unauthorized", "Missing or invalid API key"),
    403: ("forbidden", "Not permitted"),
    404: ("not-found", "Not found"),
    405: ("method-not-allowed", "Method not allowed"),
    406: ("not-acceptable", "Not available in the requested format"),
    408: ("timeout", "The request took too long to arrive"),
    409: ("conflict", "Conflict with the current state"),
    413: ("too-large", "The request is too large"),
    415: ("unsupported-media-type", "Unsupported media type"),
    416: ("range", "The range is outside the file"),
    421: ("misdirected", "The server does not answer under this name"),
    422: ("input", "Invalid input"),
    429: ("too-many", "Too many requests"),
    500: ("internal", "Internal error"),
    503: ("unavailable", "Temporarily unavailable"),
    507: ("storage", "Insufficient storage"),
}
"""Name and title of the kind of each status."""

_MAX_SHOWN = 80
# Pydantic's error types for a value of another type.
_WRONG_TYPE = ("model_type", "model_attributes_type", "string_type")

# Names of union members in pydantic's locations.
_TYPES = ("constrained-str", "str", "int", "float", "Size", "CameraPath")


class ProblemError(Exception):
    """An error that ends a request.

    Args:
        status: HTTP status of the response.
        detail: one sentence.
        headers: headers of the response, such as `Retry-After`.
        errors: where, found and hint of every invalid field.
    """

    def __init__(
        self,
        status: int,
        detail: str,
        *,
        headers: Mapping[str, str] | None = None,
        errors: Sequence[Mapping[str, str]] = (),
    ) -> None:
        self.status, self.detail, self.headers, self.errors = status, detail, dict(headers or {}), list(errors)
        super().__init__(detail)


def retry_after(seconds: float | int) -> dict[str, str]:
    """Returns the header `Retry-After`, in whole seconds, at least 1."""
    return {"Retry-After": str(max(1, math.ceil(min(seconds, 86_400))))}


def problem_response(scope: JSONMapping, problem: ProblemError) -> Response:
    """Returns a problem document.

    Args:
        scope: the request's scope, for its id and path.
        problem: the error.
    """
    status = problem.status
    kind, title = KINDS.get(status) or (str(status), HTTPStatus(status).phrase)
    request_id = scope.get("state", {}).get("request_id", "")
    detail = scrub(problem.detail)
    document: JSONObject = {
        "type": f"urn:sphinx-nvs:problem:{kind}",
        "title": title,
        "status": status,
        "detail": detail,
        "instance": f"urn:sphinx-nvs:request:{request_id}",
    }
    if problem.errors:
        document["errors"] = [{key: scrub(text) for key, text in error.items()} for error in problem.errors]
    if str(scope.get("path", "")).startswith("/v1/videos"):
        document["error"] = _openai_error(status, kind, detail, problem.errors)
    # ASCII only: input that is quoted may hold lone surrogates, which UTF-8 cannot encode.
    return Response(json.dumps(document).encode("ascii"), status, problem.headers, MEDIA_TYPE)


def _openai_error(status: int, kind: str, detail: str, errors: Sequence[Mapping[str, str]]) -> JSONObject:
    """Returns an error object of the OpenAI API."""
    kinds = {401: "authentication_error", 404: "not_found_error", 429: "rate_limit_error"}
    type_ = "server_error" if status >= 500 else kinds.get(status, "invalid_request_error")
    return {"message": detail, "type": type_, "code": kind, "param": errors[0]["where"] if errors else None}


def problem_from(error: Exception) -> ProblemError:
    """Converts an exception; internal errors reveal nothing but the request's id."""
    if isinstance(error, ProblemError):
        return error
    if isinstance(error, RequestValidationError):
        return _from_validation(error)
    if isinstance(error, HTTPException):
        return ProblemError(error.status_code, _detail_of(error), headers=error.headers)
    if isinstance(error, RefusedError):
        return ProblemError(error.http_status, str(error), headers=retry_after(error.retry_after_s))
    if isinstance(error, InputError):
        return from_input_error(error)
    if isinstance(error, SphinxError) and error.http_status != 500:
        return ProblemError(error.http_status, str(error))
    return ProblemError(500, "The server failed; its log has the cause under the request's id.")


def _detail_of(error: HTTPException) -> str:
    """Returns a sentence for an error of a library; this server's routes raise `ProblemError`."""
    if str(error.detail) != HTTPStatus(error.status_code).phrase or error.status_code not in KINDS:
        return str(error.detail)
    if error.status_code == 404:
        return "There is no such URL; /docs lists all of them."
    return f"{KINDS[error.status_code][1]}."


def from_input_error(error: InputError, status: int | None = None) -> ProblemError:
    """A user's mistake; `status` if it is another than the error's own."""
    place = {"where": error.where, "found": error.found, "hint": error.hint}
    status = (404 if isinstance(error, MissingError) else error.http_status) if status is None else status
    return ProblemError(status, str(error), errors=[place])


def _from_validation(error: RequestValidationError) -> ProblemError:
    """Converts pydantic's errors."""
    found = error.errors()
    if any(one["type"] == "json_invalid" for one in found):
        at = next(one["loc"][-1] for one in found if one["type"] == "json_invalid")
        return ProblemError(400, f"body: it is not valid JSON from character {at} on; send a JSON object")
    # A hostile body may have thousands of errors; three in the sentence and twenty in the list help as much.
    errors = _deduplicated(found[:20])
    return ProblemError(422, "; ".join(f"{e['where']}: {e['found']}; {e['hint']}" for e in errors[:3]), errors=errors)


def _deduplicated(found: Sequence[JSONMapping]) -> list[dict[str, str]]:
    """Converts errors; of a field with several types, keeps those of the type that was meant."""
    places = [(_place(one), _is_wrong_type(one)) for one in found]
    known = [place["where"] for place, is_wrong_type in places if not is_wrong_type]
    return [
        place
        for place, is_wrong_type in places
        if not is_wrong_type or not any(f"{where}.".startswith(f"{place['where']}.") for where in known)
    ]


def _is_wrong_type(one: JSONMapping) -> bool:
    """Returns whether an error says that a value has another type."""
    return one["type"] in _WRONG_TYPE or (one["type"] == "literal_error" and not isinstance(one["input"], str))


def _place(one: JSONMapping) -> dict[str, str]:
    """Converts one of pydantic's errors."""
    where = ".".join(map(str, filter(_is_field, one["loc"][1:]))) or str(one["loc"][0])
    message = one["msg"].removeprefix("Value error, ").removeprefix("Assertion failed, ")
    message = message.replace("Input should", "It should", 1)
    if one["type"] == "missing":
        return {"where": where, "found": "it is missing", "hint": "add it"}
    if one["type"] == "extra_forbidden":
        return {"where": where, "found": "there is no such field", "hint": "remove it or correct its name"}
    is_between_fields = one["type"] == "value_error" and isinstance(one.get("input"), dict)
    found = "its fields contradict each other" if is_between_fields else f"it is {_shown(one.get('input'))}"
    return {"where": where, "found": found, "hint": f"{message[0].lower()}{message[1:]}"}


def _is_field(part: object) -> bool:
    """Returns whether a part of a location is a field or an index, not the name of a union member."""
    return not isinstance(part, str) or (not re.search(r"[(\[]", part) and part not in _TYPES)


def _shown(value: object) -> str:
    """Quotes a value of the input, shortened."""
    if isinstance(value, dict | list):
        return f"{'an object' if isinstance(value, dict) else 'a list'} of {len(value)}"
    text = ascii(value)
    return text if len(text) <= _MAX_SHOWN else f"{text[:_MAX_SHOWN]}…"


def install(app: FastAPI) -> None:
    """Makes an app answer every exception with a problem document."""

    async def answer(request: Request, error: Exception) -> Response:
        if isinstance(error.__cause__, ClientDisconnect):
            # FastAPI reports a client that disconnects in its body as a body that cannot be read.
            raise error.__cause__
        problem = problem_from(error)
        if problem.status == 500:
            # The outermost middleware answers and logs it.
            raise error
        return problem_response(request.scope, problem)

    for kind in (ProblemError, RequestValidationError, HTTPException, SphinxError):
        app.add_exception_handler(kind, answer)
