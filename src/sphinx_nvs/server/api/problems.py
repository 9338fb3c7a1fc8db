"""Every error as a problem document (RFC 9457, `application/problem+json`), whoever found it.

    type       urn:sphinx-nvs:problem:KIND, the same for the same kind of trouble; docs/server.md lists them
    title      the kind in words          status     of the response          detail    one sentence: where, what, hint
    instance   urn:sphinx-nvs:request:ID of the request                   errors    where, found, hint; for wrong input

The `/v1/videos` routes add `error`, which is what clients of that API look for.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import Response

from sphinx_nvs.engine.types.errors import MissingError, RefusedError
from sphinx_nvs.errors import InputError, SphinxError
from sphinx_nvs.server.api.scrubbing import scrub

MEDIA_TYPE = "application/problem+json"

KINDS: dict[int, tuple[str, str]] = {
    400: ("malformed", "The request cannot be read"),
    401: ("unauthorized", "An API key is needed"),
    403: ("forbidden", "This is not permitted"),
    404: ("not-found", "There is no such thing"),
    405: ("method-not-allowed", "This address does not know that method"),
    406: ("not-acceptable", "It cannot be had in that form"),
    408: ("timeout", "The request took too long to arrive"),
    409: ("conflict", "That does not go with how things stand"),
    413: ("too-large", "The request is too large"),
    415: ("unsupported-media-type", "The request is in a form that is not understood"),
    416: ("range", "That range is not in the file"),
    421: ("misdirected", "The server has another name"),
    422: ("input", "Something in the request cannot be used"),
    429: ("too-many", "Too much is asked for at the moment"),
    500: ("internal", "The server failed"),
    503: ("unavailable", "The server cannot do that now"),
    507: ("storage", "There is no room left"),
}
"""Name and title of a kind, by status."""

_SHOWN = 80
_WRONG_KIND = ("model_type", "model_attributes_type", "string_type")
"""Pydantic's words for a value that is of another kind altogether."""

_TYPES = ("constrained-str", "str", "int", "float", "Size", "CameraPath")


class ProblemError(Exception):
    """Ends a request with a problem.

    Args:
        status: of the response.
        detail: one sentence.
        headers: of the response, such as `Retry-After`.
        errors: places in the input.
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
    """The header that says when to come again, in whole seconds from 1."""
    return {"Retry-After": str(max(1, math.ceil(min(seconds, 86_400))))}


def problem_response(scope: Mapping[str, Any], problem: ProblemError) -> Response:
    """A problem document.

    Args:
        scope: of the request, for its id.
        problem: what to say.
    """
    status = problem.status
    kind, title = KINDS.get(status) or (str(status), HTTPStatus(status).phrase)
    request_id = scope.get("state", {}).get("request_id", "")
    detail = scrub(problem.detail)
    document: dict[str, Any] = {
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
    # ASCII only: what users send may hold characters that no encoding has.
    return Response(json.dumps(document).encode("ascii"), status, problem.headers, MEDIA_TYPE)


def _openai_error(status: int, kind: str, detail: str, errors: Sequence[Mapping[str, str]]) -> dict[str, Any]:
    """The same for clients of the OpenAI API."""
    kinds = {401: "authentication_error", 404: "not_found_error", 429: "rate_limit_error"}
    type_ = "server_error" if status >= 500 else kinds.get(status, "invalid_request_error")
    return {"message": detail, "type": type_, "code": kind, "param": errors[0]["where"] if errors else None}


def problem_from(error: Exception) -> ProblemError:
    """What to tell of an exception; one that is not meant for users says nothing of itself."""
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
    return ProblemError(500, "Something went wrong here; the request's id finds it in the server's log.")


def _detail_of(error: HTTPException) -> str:
    """A sentence for what a library refused; routes of this server refuse by `ProblemError`."""
    if str(error.detail) != HTTPStatus(error.status_code).phrase or error.status_code not in KINDS:
        return str(error.detail)
    if error.status_code == 404:
        return "The server has no such address; /docs shows those that it has."
    return f"{KINDS[error.status_code][1]}."


def from_input_error(error: InputError, status: int | None = None) -> ProblemError:
    """A user's mistake; `status` if it is another than the error's own."""
    place = {"where": error.where, "found": error.found, "hint": error.hint}
    status = (404 if isinstance(error, MissingError) else error.http_status) if status is None else status
    return ProblemError(status, str(error), errors=[place])


def _from_validation(error: RequestValidationError) -> ProblemError:
    """What pydantic found."""
    found = error.errors()
    if any(one["type"] == "json_invalid" for one in found):
        at = next(one["loc"][-1] for one in found if one["type"] == "json_invalid")
        return ProblemError(400, f"body: it is no JSON from character {at} on; send a JSON object")
    errors = _told_once(found[:20])
    return ProblemError(422, "; ".join(f"{e['where']}: {e['found']}; {e['hint']}" for e in errors[:3]), errors=errors)


def _told_once(found: Sequence[Mapping[str, Any]]) -> list[dict[str, str]]:
    """Places that are wrong; of a field that may be of two kinds, only what is wrong with the one that was meant."""
    places = [(_place(one), _is_wrong_kind(one)) for one in found]
    known = [place["where"] for place, is_wrong_kind in places if not is_wrong_kind]
    return [
        place
        for place, is_wrong_kind in places
        if not is_wrong_kind or not any(f"{where}.".startswith(f"{place['where']}.") for where in known)
    ]


def _is_wrong_kind(one: Mapping[str, Any]) -> bool:
    """Whether a value is of another kind altogether."""
    return one["type"] in _WRONG_KIND or (one["type"] == "literal_error" and not isinstance(one["input"], str))


def _place(one: Mapping[str, Any]) -> dict[str, str]:
    """One of pydantic's errors in our words."""
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
    """Whether a part of a place is a field or a number, not the name of a type that pydantic tried."""
    return not isinstance(part, str) or (not re.search(r"[(\[]", part) and part not in _TYPES)


def _shown(value: object) -> str:
    """A value that a user sent, short."""
    if isinstance(value, dict | list):
        return f"{'an object' if isinstance(value, dict) else 'a list'} of {len(value)}"
    text = ascii(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"


def install(app: FastAPI) -> None:
    """Has an app answer every exception with a problem."""

    async def answer(request: Request, error: Exception) -> Response:
        if isinstance(error.__cause__, ClientDisconnect):
            # FastAPI takes a body that breaks off for one that cannot be read.
            raise error.__cause__
        problem = problem_from(error)
        if problem.status == 500:
            # The outermost layer answers it, and logs it.
            raise error
        return problem_response(request.scope, problem)

    for kind in (ProblemError, RequestValidationError, HTTPException, SphinxError):
        app.add_exception_handler(kind, answer)
