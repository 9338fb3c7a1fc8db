"""Requests and what is read from their answers: pure, so that the sync and the async client share them."""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from sphinx_nvs.client.problems import ApiError, UnreachableError, seconds_from
from sphinx_nvs.client.uploads import Upload
from sphinx_nvs.client.values import Capacity, Health, Level, Model, Plan, Quote, Scene, View

T_co = TypeVar("T_co", covariant=True)

PAGE = 100
"""Things of a page."""


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What came back.

    Args:
        status: of HTTP.
        headers: by names in lower case.
        body: whole.
    """

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""

    @property
    def retry_after_s(self) -> float | None:
        """When to come again."""
        return seconds_from(self.headers.get("retry-after"))

    @property
    def error(self) -> ApiError:
        """The problem that it tells of."""
        return ApiError.of(self.status, self.headers, self.body)

    def json(self) -> Any:
        """The body's value.

        Raises:
            ApiError: it is no JSON, so that something else than the server answered.
        """
        try:
            return json.loads(self.body)
        except ValueError as error:
            raise ApiError(status=self.status, detail="what answered is no sphinx-nvs server") from error


@dataclass(frozen=True, kw_only=True)
class Lost:
    """No answer came.

    Args:
        why: in a few words.
        was_sent: whether the server may have got the request.
        address: of the server.
    """

    why: str
    was_sent: bool
    address: str


@dataclass(frozen=True, kw_only=True)
class Call(Generic[T_co]):
    """One request.

    Args:
        method: of HTTP.
        path: below the server's address.
        read: makes the value of an answer.
        params: of the query; None is left out.
        headers: beside the usual ones.
        body: a JSON value; None is no body.
        upload: files in place of that.
        is_repeatable: whether sending it twice is as good as once.
        expected: statuses that are no errors beside 2xx.
    """

    method: str
    path: str
    read: Callable[[Answer], T_co]
    params: Mapping[str, Any] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    body: Any = None
    upload: Upload | None = None
    is_repeatable: bool = True
    expected: tuple[int, ...] = ()

    def result(self, outcome: Answer | Lost) -> T_co:
        """The value of what came back.

        Raises:
            ApiError: the server said no.
            UnreachableError: it said nothing.
        """
        if isinstance(outcome, Lost):
            raise UnreachableError(outcome.address, outcome.why)
        if not 200 <= outcome.status < 300 and outcome.status not in self.expected:
            raise outcome.error
        return self.read(outcome)


def id_of(thing: Scene | View | str) -> str:
    """The id of a scene or a view, or of what is one already."""
    return thing if isinstance(thing, str) else thing.id


def create_scene(upload: Upload) -> Call[Scene]:
    """Uploads a scene; not sent again once it may have arrived, for a second one would be another scene."""
    return Call(
        method="POST",
        path="/v1/scenes",
        upload=upload,
        is_repeatable=False,
        read=lambda answer: Scene.of(answer.json()),
    )


def get_scene(scene: Scene | str) -> Call[Scene]:
    """A scene."""
    return Call(method="GET", path=f"/v1/scenes/{id_of(scene)}", read=lambda answer: Scene.of(answer.json()))


def delete_scene(scene: Scene | str) -> Call[None]:
    """Deletes one; that it is gone already is as good."""
    return Call(method="DELETE", path=f"/v1/scenes/{id_of(scene)}", expected=(404,), read=lambda answer: None)


def scene_cameras(scene: Scene | str) -> Call[dict[str, Any]]:
    """Its photos' cameras as a transforms.json."""
    return Call(method="GET", path=f"/v1/scenes/{id_of(scene)}/cameras", read=lambda answer: dict(answer.json()))


def scene_photo(scene: Scene | str, index: int) -> Call[bytes]:
    """One of its photos as PNG."""
    return _file(f"/v1/scenes/{id_of(scene)}/photos/{index}", {})


def list_scenes(after: str | None) -> Call[tuple[list[Scene], bool]]:
    """A page of scenes, and whether there are more."""
    return _page("/v1/scenes", after, Scene.of)


def quote(body: Mapping[str, Any]) -> Call[Quote]:
    """What a view would take."""
    return Call(method="POST", path="/v1/views:quote", body=body, read=lambda answer: Quote.of(answer.json()))


def create_view(body: Mapping[str, Any], idempotency_key: str | None) -> Call[View]:
    """Asks for views; the key makes it safe to send again."""
    headers = {"Idempotency-Key": idempotency_key or secrets.token_urlsafe(18)}
    return Call(method="POST", path="/v1/views", body=body, headers=headers, read=lambda answer: View.of(answer.json()))


def get_view(view: View | str) -> Call[View]:
    """A view."""
    return Call(method="GET", path=f"/v1/views/{id_of(view)}", read=lambda answer: View.of(answer.json()))


def list_views(after: str | None) -> Call[tuple[list[View], bool]]:
    """A page of views, and whether there are more."""
    return _page("/v1/views", after, View.of)


def cancel(view: View | str) -> Call[View]:
    """Ends a view; not sent again once it may have arrived, for what has ended is removed by the next one."""
    return Call(
        method="DELETE",
        path=f"/v1/views/{id_of(view)}",
        is_repeatable=False,
        read=lambda answer: View.of(answer.json()),
    )


def delete_view(view: View | str) -> Call[bool]:
    """Ends a view, or removes one that has ended; whether there is none any more."""
    return Call(
        method="DELETE",
        path=f"/v1/views/{id_of(view)}",
        expected=(404,),
        read=lambda answer: answer.status == 404,
    )


def plan(view: View | str) -> Call[Plan]:
    """Its plan."""
    return Call(method="GET", path=f"/v1/views/{id_of(view)}/plan", read=lambda answer: Plan.of(answer.json()))


def plan_picture(view: View | str, frame: int) -> Call[bytes]:
    """The plan of one frame as PNG."""
    return _file(f"/v1/views/{id_of(view)}/plan.png", {"frame": frame})


def frame(view: View | str, index: int, level: Level) -> Call[bytes]:
    """A frame as PNG."""
    return _file(f"/v1/views/{id_of(view)}/frames/{index}", {"level": level})


def video(view: View | str) -> Call[bytes]:
    """The video as mp4."""
    return _file(f"/v1/views/{id_of(view)}/content", {})


def cameras(view: View | str) -> Call[dict[str, Any]]:
    """The frames' cameras as a transforms.json."""
    return Call(method="GET", path=f"/v1/views/{id_of(view)}/cameras", read=lambda answer: dict(answer.json()))


def models() -> Call[list[Model]]:
    """What frames are made with."""
    return Call(
        method="GET", path="/v1/models", read=lambda answer: [Model.of(model) for model in answer.json()["data"]]
    )


def capacity() -> Call[Capacity]:
    """How busy the server is."""
    return Call(method="GET", path="/v1/capacity", read=lambda answer: Capacity.of(answer.json()))


def live() -> Call[tuple[str, str]]:
    """Whether the server is alive: status and detail."""
    return Call(method="GET", path="/healthz", read=lambda answer: (answer.json()["status"], answer.json()["detail"]))


def ready() -> Call[str | None]:
    """Why no views are taken on; None if they are. 503 is an answer here."""
    return Call(
        method="GET",
        path="/readyz",
        expected=(503,),
        read=lambda answer: None if answer.status == 200 else answer.error.detail,
    )


def health_of(alive: tuple[str, str], not_ready: str | None) -> Health:
    """Both in one."""
    status, detail = alive
    return Health(status=status, detail=detail or not_ready or "", is_ready=not_ready is None)


def _file(path: str, params: Mapping[str, Any]) -> Call[bytes]:
    return Call(method="GET", path=path, params=params, read=lambda answer: answer.body)


_Row = TypeVar("_Row")


def _page(path: str, after: str | None, of: Callable[[Any], _Row]) -> Call[tuple[list[_Row], bool]]:
    """Part of a list, newest first."""

    def read(answer: Answer) -> tuple[list[_Row], bool]:
        page = answer.json()
        return [of(row) for row in page["data"]], bool(page["has_more"])

    return Call(method="GET", path=path, params={"after": after, "limit": PAGE}, read=read)
