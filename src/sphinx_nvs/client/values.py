"""The server's responses as values. Unknown fields, which a newer server may add, are ignored.

Numbers have the units that their names say; times have a time zone. The fields are those of the OpenAPI document.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from types import UnionType
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

from sphinx_nvs.json_types import JSONMapping, JSONObject

Json = JSONMapping
"""A JSON object."""

Status = Literal["queued", "previewed", "refining", "completed", "failed", "cancelled", "expired"]
Level = Literal["preview", "final"]

FINAL = ("completed", "failed", "cancelled", "expired")
"""Final states, and kinds of a job's last event."""

_Self = TypeVar("_Self", bound="_Response")


class _Response:
    """An object of a response, whose fields are converted to the types that the class declares."""

    @classmethod
    def of(cls: type[_Self], data: Json) -> _Self:
        """Converts the response."""
        return cls(**{name: _converted(kind, data[name]) for name, kind in get_type_hints(cls).items()})


def _converted(kind: Any, value: Any) -> Any:
    """A JSON value as a field's type: JSON has no times and no tuples, and writes whole floats as integers."""
    if value is None:
        return None
    if get_origin(kind) is UnionType:
        kind = get_args(kind)[0]
    if get_origin(kind) is tuple:
        return tuple(_converted(get_args(kind)[0], each) for each in value)
    if kind is datetime:
        return datetime.fromisoformat(value)
    if isinstance(kind, type) and issubclass(kind, _Response):
        return kind.of(value)
    return float(value) if kind is float else value


@dataclass(frozen=True, kw_only=True)
class Posing(_Response):
    """How far the cameras of a scene's photos are found.

    Args:
        stage: the present activity.
        progress: 0..1.
        left_s: predicted seconds left; None if unknown.
    """

    stage: str
    progress: float
    left_s: float | None


@dataclass(frozen=True, kw_only=True)
class PhotoAdvice(_Response):
    """What is wrong with one photo.

    Args:
        photo: its name.
        found: what is wrong.
        hint: what to do about it.
    """

    photo: str
    found: str
    hint: str


@dataclass(frozen=True, kw_only=True)
class Scene(_Response):
    """A stored scene.

    Args:
        id: id of the scene.
        status: ready; posing while the cameras of photos that came without are found, failed if there are none.
        posing: how far they are found; None unless the status is posing.
        reason: why they were not found; empty unless the status is failed.
        advice: the same for single photos.
        num_views: number of photos.
        width: width of the first stored photo, pixels.
        height: height of the first stored photo, pixels.
        bytes: size on disk.
        warnings: sentences about what may lower the quality of frames.
        created_at: when it was uploaded.
        expires_at: when it is deleted; None for never.
    """

    id: str
    status: Literal["posing", "ready", "failed"]
    posing: Posing | None
    reason: str
    advice: tuple[PhotoAdvice, ...]
    num_views: int
    width: int
    height: int
    bytes: int
    warnings: tuple[str, ...]
    created_at: datetime
    expires_at: datetime | None

    @classmethod
    def of(cls, data: Json) -> Scene:
        """Converts the response; servers that find no cameras say less."""
        return super().of({"status": "ready", "posing": None, "reason": "", "advice": (), **data})


@dataclass(frozen=True, kw_only=True)
class Quote(_Response):
    """Predicted latency and quality of a job.

    Args:
        latency_p50_s: seconds from acceptance to the last frame, queueing included; the median.
        latency_p95_s: the 95th percentile.
        wait_s: seconds in the queue.
        quality: share of full diffusion's quality, 0..1.
        active_share: share of full diffusion's compute, decoding included, 0..1: an average over scenes.
        reason: why this plan was chosen, in one sentence.
    """

    latency_p50_s: float
    latency_p95_s: float
    wait_s: float
    quality: float
    active_share: float
    reason: str

    @classmethod
    def of(cls, data: Json) -> Quote:
        """Converts the response."""
        latency_s = data["latency_s"]
        return super().of({**data, "latency_p50_s": latency_s["p50"], "latency_p95_s": latency_s["p95"]})


@dataclass(frozen=True, kw_only=True)
class Job(_Response):
    """A job: new views of a scene, unfinished or finished.

    Args:
        id: id of the job.
        status: queued, previewed, refining; then completed, failed, cancelled or expired.
        level: the best level at which every frame exists: none, preview or final.
        progress: 0..1; None in lists.
        scene: id of the scene.
        num_frames: number of frames.
        width: width of the frames, pixels.
        height: height of the frames, pixels.
        fps: frame rate of the video.
        seed: seed of the noise.
        priority: as requested.
        quality: predicted quality of the plan or of the result; None before planning.
        quote: the quote at acceptance.
        reason: why the job ended as it did; may be empty.
        created_at: when it was accepted.
        finished_at: when it ended; None before.
        expires_at: when the job and its frames are deleted; None for never.
    """

    id: str
    status: Status
    level: Literal["none", "preview", "final"]
    progress: float | None
    scene: str
    num_frames: int
    width: int
    height: int
    fps: float
    seed: int
    priority: int
    quality: float | None
    quote: Quote | None
    reason: str
    created_at: datetime
    finished_at: datetime | None
    expires_at: datetime | None

    @property
    def is_final(self) -> bool:
        """Whether the job has ended."""
        return self.status in FINAL


@dataclass(frozen=True, kw_only=True)
class Event:
    """An event of a job; docs/reference/http-api.md lists the kinds and their data.

    Args:
        seq: number of the event; a stream can resume after it.
        kind: queued, preview_frame, plan, degraded, progress, frame_refined, completed, failed, cancelled or expired.
        job: id of the job.
        at_s: time, epoch seconds.
        data: fields of the kind, such as `index` of a frame.
    """

    seq: int
    kind: str
    job: str
    at_s: float
    data: JSONObject = field(default_factory=dict)

    @property
    def is_final(self) -> bool:
        """Whether it is the job's last event."""
        return self.kind in FINAL


@dataclass(frozen=True, kw_only=True)
class Plan(_Response):
    """The plan of every unit of a job planned so far.

    Args:
        id: id of the job.
        units: each with unit, targets, quality, predicted_s, active_share, compute_share, steps, reason, and the plan's
            summary.
    """

    id: str
    units: tuple[JSONObject, ...]


@dataclass(frozen=True, kw_only=True)
class Network(_Response):
    """One network of a model.

    Args:
        name: name of its model card.
        description: what it is, in one sentence.
        role: what it does in the pair.
        licence: name of its licence.
        url: where the licence can be read.
    """

    name: str
    description: str
    role: str
    licence: str
    url: str


@dataclass(frozen=True, kw_only=True)
class Model(_Response):
    """The preset that the server runs.

    Args:
        id: name of the preset.
        size_multiple: smallest side of frames, pixels; sides are computed in multiples of it, then cropped.
        window: number of views refined together.
        default_quality: quality of jobs that name neither quality nor deadline, 0..1.
        networks: its networks.
    """

    id: str
    size_multiple: int
    window: int
    default_quality: float
    networks: tuple[Network, ...]


@dataclass(frozen=True, kw_only=True)
class Device(_Response):
    """A device of the server.

    Args:
        index: number of the device.
        name: name for people.
        is_ready: whether its models are loaded.
        is_busy: whether it is computing.
        resident_units: number of started units in its memory.
        remaining_s: predicted seconds left of those units.
    """

    index: int
    name: str
    is_ready: bool
    is_busy: bool
    resident_units: int
    remaining_s: float


@dataclass(frozen=True, kw_only=True)
class Capacity(_Response):
    """The server's load.

    Args:
        devices: its devices.
        queued: number of jobs that wait.
        running: number of started, unfinished jobs.
        max_queue: largest number of unfinished jobs.
        wait_s: seconds until a new job without deadline would start refinement.
        backlog_s: device seconds of all unfinished work.
        pressure: how far quality is lowered under load: 0 not at all, 1 down to a job's floor.
        slo_attainment: share of jobs with a deadline that met it since the start.
        streams: number of open event streams.
    """

    devices: tuple[Device, ...]
    queued: int
    running: int
    max_queue: int
    wait_s: float
    backlog_s: float
    pressure: float
    slo_attainment: float
    streams: int


@dataclass(frozen=True, kw_only=True)
class Health:
    """The server's health.

    Args:
        status: `ok`, or `degraded` if something fails inside.
        detail: what fails, or why no jobs are accepted.
        is_ready: whether jobs are accepted.
    """

    status: str
    detail: str
    is_ready: bool
