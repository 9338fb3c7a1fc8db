"""Conversions between `calls` and httpx, which both clients share; nothing is sent here."""

from __future__ import annotations

import ipaddress
from contextlib import ExitStack
from typing import Any
from urllib.parse import urlsplit

import httpx

from sphinx_nvs.client.calls import Call, NoResponse, Response
from sphinx_nvs.client.scene_upload import Part
from sphinx_nvs.errors import InputError

CONNECT_S = 10.0
"""Time limit for connecting, seconds."""

UPLOAD_S = 600.0
"""Time limit for the response to an upload, which comes after its photos were processed, seconds."""

_NEVER_SENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, httpx.UnsupportedProtocol)


def settings_of(base_url: str, api_key: str | None, timeout: float | int) -> dict[str, Any]:
    """Returns the arguments of httpx's clients.

    Args:
        base_url: the server's URL, with or without `/v1`.
        api_key: None if the server needs none.
        timeout: longest wait for a part of a response, seconds.

    Raises:
        InputError: the URL or the timeout is invalid.
    """
    url = urlsplit(base_url)
    if url.scheme not in ("http", "https") or not url.hostname:
        raise InputError("base_url", f"it is {base_url!r}", "give the server's URL, e.g. http://127.0.0.1:8000")
    if not timeout > 0:
        raise InputError("timeout", f"it is {timeout:g}", "give a number of seconds above 0")
    headers = {} if api_key is None else {"Authorization": f"Bearer {api_key}"}
    return {
        "base_url": base_url.rstrip("/").removesuffix("/v1"),
        "headers": headers,
        "timeout": httpx.Timeout(float(timeout), connect=min(CONNECT_S, float(timeout))),
        # Proxies of the environment are for other machines.
        "trust_env": not _is_loopback(url.hostname),
    }


def files_for(call: Call[object], stack: ExitStack) -> list[Part]:
    """Opens the files of a request until the stack closes."""
    return [] if call.upload is None else call.upload.parts(stack)


def request_of(http: httpx.Client | httpx.AsyncClient, call: Call[object], files: list[Part]) -> httpx.Request:
    """Returns httpx's request."""
    params = {key: value for key, value in call.params.items() if value is not None}
    # None, not {}: httpx would remove a query that is part of the path.
    common: dict[str, Any] = {"params": params or None, "headers": dict(call.headers)}
    if call.upload is not None:
        timeout = httpx.Timeout(UPLOAD_S, connect=CONNECT_S)
        common |= {"data": dict(call.upload.fields), "files": files, "timeout": timeout}
    elif call.body is not None:
        common["json"] = call.body
    return http.build_request(call.method, call.path, **common)


def stream_request_of(http: httpx.Client | httpx.AsyncClient, call: Call[object], silence_s: float) -> httpx.Request:
    """Returns httpx's request for a stream that may be silent for `silence_s` seconds."""
    timeout = httpx.Timeout(silence_s, connect=min(CONNECT_S, silence_s))
    return http.build_request(call.method, call.path, headers=dict(call.headers), timeout=timeout)


def response_of(response: httpx.Response, body: bytes) -> Response:
    """Converts httpx's response."""
    return Response(status=response.status_code, headers=response.headers, body=body)


def no_response(error: httpx.TransportError, http: httpx.Client | httpx.AsyncClient) -> NoResponse:
    """Converts httpx's error."""
    return NoResponse(reason=reason_of(error), was_sent=not isinstance(error, _NEVER_SENT), address=address_of(http))


def reason_of(error: httpx.TransportError) -> str:
    """Describes an error in a few words."""
    if isinstance(error, httpx.TimeoutException):
        return "it does not answer in time"
    return str(error) or type(error).__name__


def address_of(http: httpx.Client | httpx.AsyncClient) -> str:
    """Returns the server's URL."""
    return str(http.base_url).rstrip("/")


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
