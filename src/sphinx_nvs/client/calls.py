"""Requests, and how their responses are read: pure functions that both clients share."""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from sphinx_nvs.client.exceptions import ApiError, UnreachableError, seconds_from
from sphinx_nvs.client.scene_upload import Upload
from sphinx_nvs.client.values import Capacity, Health, Job, Level, Model, Plan, Quote, Scene
from sphinx_nvs.json_types import JSONMapping, JSONObject

T_co = TypeVar("T_co", covariant=True)

PAGE = 100
"""Number of items on a page."""


@dataclass(frozen=True, kw_only=True)
class Response:
    """A response.

    Args:
        status: HTTP status.
        headers: headers by lower-case name.
        body: the whole body.
    """

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""

    @property
    def retry_after_s(self) -> float | None:
        """Seconds after which to retry, None if the server does not say."""
        return seconds_from(self.headers.get("retry-after"))

    @property
    def error(self) -> ApiError:
        """The error that the response reports."""
        return ApiError.of(self.status, self.headers, self.body)

    def json(self) -> Any:
        """Parses the body.

        Raises:
            ApiError: it is not JSON, so that the response is not the server's.
        """
        try:
            return json.loads(self.body)
        except ValueError as error:
            raise ApiError(status=self.status, detail="the response is not from a sphinx-nvs server") from error


@dataclass(frozen=True, kw_only=True)
class NoResponse:
    """A request without a response.

    Args:
        reason: why, in a few words.
        was_sent: whether the server may have received the request.
        address: URL of the server.
    """

    reason: str
    was_sent: bool
    address: str


@dataclass(frozen=True, kw_only=True)
class Call(Generic[T_co]):
    """A request, and how its response is read.

    Args:
        method: HTTP method.
        path: path below the server's URL.
        read: converts the response.
        params: query parameters; those that are None are not sent.
        headers: additional headers.
        body: JSON value; None for no body.
        upload: files to send in place of a body.
        is_repeatable: whether sending the request twice has the same effect as once.
        expected: statuses other than 2xx that are not errors.
    """

    method: str
    path: str
    read: Callable[[Response], T_co]
    params: JSONMapping = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    body: object = None
    upload: Upload | None = None
    is_repeatable: bool = True
    expected: tuple[int, ...] = ()

    def result(self, outcome: Response | NoResponse) -> T_co:
        """Converts the outcome of the request.

        Raises:
            ApiError: the response is an error.
            UnreachableError: there is no response.
        """
        if isinstance(outcome, NoResponse):
            raise UnreachableError(outcome.address, outcome.reason)
        if not 200 <= outcome.status < 300 and outcome.status not in self.expected:
            raise outcome.error
        return self.read(outcome)


def id_of(item: Scene | Job | str) -> str:
    """Returns the id of a scene or job, which may be given as its id."""
    return item if isinstance(item, str) else item.id


def create_scene(upload: Upload) -> Call[Scene]:
    """Uploads a scene; not repeatable, because a second request would create a second scene."""
    return Call(
        method="POST",
        path="/v1/scenes",
        upload=upload,
        is_repeatable=False,
        read=lambda response: Scene.of(response.json()),
    )


def get_scene(scene: Scene | str) -> Call[Scene]:
    """Returns a scene."""
    return _get(f"/v1/scenes/{id_of(scene)}", Scene.of)


def delete_scene(scene: Scene | str) -> Call[None]:
    """Deletes a scene, which may be gone already."""
    return Call(method="DELETE", path=f"/v1/scenes/{id_of(scene)}", expected=(404,), read=lambda response: None)


def scene_cameras(scene: Scene | str) -> Call[JSONObject]:
    """Returns the photos' cameras as a transforms.json."""
    return _get(f"/v1/scenes/{id_of(scene)}/cameras", dict)


def scene_points(scene: Scene | str) -> Call[bytes]:
    """Returns a posed scene's points as PLY."""
    return _file(f"/v1/scenes/{id_of(scene)}/points.ply", {})


def scene_photo(scene: Scene | str, index: int) -> Call[bytes]:
    """Returns a photo as PNG."""
    return _file(f"/v1/scenes/{id_of(scene)}/photos/{index}", {})


def list_scenes(after: str | None) -> Call[tuple[list[Scene], bool]]:
    """Returns a page of scenes, and whether there are more."""
    return _page("/v1/scenes", after, Scene.of)


def quote(body: JSONMapping) -> Call[Quote]:
    """Predicts a job's latency and quality."""
    return Call(method="POST", path="/v1/jobs:quote", body=body, read=lambda response: Quote.of(response.json()))


def create_job(body: JSONMapping, idempotency_key: str | None) -> Call[Job]:
    """Creates a job; the idempotency key makes the request repeatable."""
    # Made here and not in each attempt, so that all attempts have the same key.
    headers = {"Idempotency-Key": idempotency_key or secrets.token_urlsafe(18)}
    return Call(
        method="POST", path="/v1/jobs", body=body, headers=headers, read=lambda response: Job.of(response.json())
    )


def get_job(job: Job | str) -> Call[Job]:
    """Returns a job."""
    return _get(_path(job), Job.of)


def list_jobs(after: str | None) -> Call[tuple[list[Job], bool]]:
    """Returns a page of jobs, and whether there are more."""
    return _page("/v1/jobs", after, Job.of)


def cancel(job: Job | str) -> Call[Job]:
    """Cancels a job; not repeatable, because a second request would delete the cancelled job."""
    return Call(method="DELETE", path=_path(job), is_repeatable=False, read=lambda response: Job.of(response.json()))


def delete_job(job: Job | str) -> Call[bool]:
    """Cancels an unfinished job, or deletes a finished one; returns whether the job was gone before."""
    return Call(method="DELETE", path=_path(job), expected=(404,), read=lambda response: response.status == 404)


def plan(job: Job | str) -> Call[Plan]:
    """Returns the plan of every unit so far."""
    return _get(_path(job, "/plan"), Plan.of)


def plan_image(job: Job | str, frame: int) -> Call[bytes]:
    """Returns the plan of one frame as PNG."""
    return _file(_path(job, "/plan.png"), {"frame": frame})


def frame(job: Job | str, index: int, level: Level) -> Call[bytes]:
    """Returns a frame as PNG."""
    return _file(_path(job, f"/frames/{index}"), {"level": level})


def video(job: Job | str) -> Call[bytes]:
    """Returns the video as mp4."""
    return _file(_path(job, "/content"), {})


def cameras(job: Job | str) -> Call[JSONObject]:
    """Returns the frames' cameras as a transforms.json."""
    return _get(_path(job, "/cameras"), dict)


def models() -> Call[list[Model]]:
    """Returns the server's models."""
    return _get("/v1/models", lambda data: [Model.of(model) for model in data["data"]])


def capacity() -> Call[Capacity]:
    """Returns the server's load."""
    return _get("/v1/capacity", Capacity.of)


def live() -> Call[tuple[str, str]]:
    """Returns the server's status and its detail."""
    return _get("/healthz", lambda data: (data["status"], data["detail"]))


def ready() -> Call[str | None]:
    """Returns why no jobs are accepted, None if they are; status 503 is not an error here."""
    return Call(
        method="GET",
        path="/readyz",
        expected=(503,),
        read=lambda response: None if response.status == 200 else response.error.detail,
    )


def health_of(alive: tuple[str, str], not_ready: str | None) -> Health:
    """Combines the results of `live` and `ready`."""
    status, detail = alive
    return Health(status=status, detail=detail or not_ready or "", is_ready=not_ready is None)


_T = TypeVar("_T")


def _path(job: Job | str, below: str = "") -> str:
    """Returns the path of a job, or of something below it."""
    return f"/v1/jobs/{id_of(job)}{below}"


def _get(path: str, of: Callable[[Any], _T]) -> Call[_T]:
    """Returns a request for a JSON value."""
    return Call(method="GET", path=path, read=lambda response: of(response.json()))


def _file(path: str, params: JSONMapping) -> Call[bytes]:
    """Returns a request for a file."""
    return Call(method="GET", path=path, params=params, read=lambda response: response.body)


def _page(path: str, after: str | None, of: Callable[[Any], _T]) -> Call[tuple[list[_T], bool]]:
    """Returns a request for a page of a list, newest first."""

    def read(response: Response) -> tuple[list[_T], bool]:
        page = response.json()
        return [of(row) for row in page["data"]], bool(page["has_more"])

    return Call(method="GET", path=path, params={"after": after, "limit": PAGE}, read=read)
