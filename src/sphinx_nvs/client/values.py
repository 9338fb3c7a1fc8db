"""The server's responses as values. Unknown fields, which a newer server may add, are ignored.

Numbers have the units that their names say; times have a time zone. The fields are those of the OpenAPI document.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal

from sphinx_nvs.json_types import JSONMapping, JSONObject

Json = JSONMapping
"""A JSON object."""

Status = Literal["queued", "previewed", "refining", "completed", "failed", "cancelled", "expired"]
Level = Literal["preview", "final"]

FINAL = ("completed", "failed", "cancelled", "expired")
"""Final states, and kinds of a job's last event."""


@dataclass(frozen=True, kw_only=True)
class Scene:
    """A stored scene.

    Args:
        id: id of the scene.
        num_views: number of photos.
        width: width of the first stored photo, pixels.
        height: height of the first stored photo, pixels.
        bytes: size on disk.
        warnings: sentences about what may lower the quality of frames.
        created_at: when it was uploaded.
        expires_at: when it is deleted; None for never.
    """

    id: str
    num_views: int
    width: int
    height: int
    bytes: int
    warnings: tuple[str, ...]
    created_at: datetime
    expires_at: datetime | None

    @classmethod
    def of(cls, data: Json) -> Scene:
        """Converts the response."""
        return cls(
            id=data["id"],
            num_views=data["num_views"],
            width=data["width"],
            height=data["height"],
            bytes=data["bytes"],
            warnings=tuple(data["warnings"]),
            created_at=_datetime(data["created_at"]),
            expires_at=_optional_datetime(data["expires_at"]),
        )


@dataclass(frozen=True, kw_only=True)
class Quote:
    """Predicted latency and quality of a job.

    Args:
        latency_p50_s: seconds from acceptance to the last frame, queueing included; the median.
        latency_p95_s: the 95th percentile.
        wait_s: seconds in the queue.
        quality: share of full diffusion's quality, 0..1.
        active_share: share of full diffusion that is computed, 0..1.
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
        return cls(
            latency_p50_s=float(data["latency_s"]["p50"]),
            latency_p95_s=float(data["latency_s"]["p95"]),
            wait_s=float(data["wait_s"]),
            quality=float(data["quality"]),
            active_share=float(data["active_share"]),
            reason=data["reason"],
        )


@dataclass(frozen=True, kw_only=True)
class Job:
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

    @classmethod
    def of(cls, data: Json) -> Job:
        """Converts the response."""
        same = ("id", "status", "level", "scene", "num_frames", "width", "height", "seed", "priority", "reason")
        return cls(
            **{name: data[name] for name in same},
            fps=float(data["fps"]),
            progress=_optional_float(data["progress"]),
            quality=_optional_float(data["quality"]),
            quote=None if data["quote"] is None else Quote.of(data["quote"]),
            created_at=_datetime(data["created_at"]),
            finished_at=_optional_datetime(data["finished_at"]),
            expires_at=_optional_datetime(data["expires_at"]),
        )


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
class Plan:
    """The plan of every unit of a job planned so far.

    Args:
        id: id of the job.
        units: each with unit, targets, quality, predicted_s, active_share, steps, reason, and the plan's summary.
    """

    id: str
    units: tuple[JSONObject, ...]

    @classmethod
    def of(cls, data: Json) -> Plan:
        """Converts the response."""
        return cls(id=data["id"], units=tuple(data["units"]))


@dataclass(frozen=True, kw_only=True)
class Network:
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
class Model:
    """The preset that the server runs.

    Args:
        id: name of the preset.
        size_multiple: smallest side of frames, pixels; sides are computed in multiples of it, then cropped.
        window: number of views refined together.
        networks: its networks.
    """

    id: str
    size_multiple: int
    window: int
    networks: tuple[Network, ...]

    @classmethod
    def of(cls, data: Json) -> Model:
        """Converts the response."""
        networks = tuple(Network(**_known(Network, network)) for network in data["networks"])
        return cls(id=data["id"], size_multiple=data["size_multiple"], window=data["window"], networks=networks)


@dataclass(frozen=True, kw_only=True)
class Device:
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
class Capacity:
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

    @classmethod
    def of(cls, data: Json) -> Capacity:
        """Converts the response."""
        devices = tuple(Device(**_known(Device, device)) for device in data["devices"])
        return cls(**{**_known(cls, data), "devices": devices})


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


def _known(kind: type, data: Json) -> JSONObject:
    """Returns the fields that a class has; converts integers to float where it declares so, as JSON has one type."""
    types = kind.__annotations__
    return {name: float(value) if types[name] == "float" else value for name, value in data.items() if name in types}


def _datetime(text: str) -> datetime:
    return datetime.fromisoformat(text)


def _optional_datetime(text: str | None) -> datetime | None:
    return None if text is None else _datetime(text)


def _optional_float(value: float | int | None) -> float | None:
    return None if value is None else float(value)
