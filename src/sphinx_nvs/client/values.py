"""What the server answers, as values; fields that a newer server adds are passed over.

Numbers have the units that their names say; moments are aware of their time zone. The fields are those of
`server.answers`, explained there and in the OpenAPI document.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

Json = Mapping[str, Any]
"""An object as it came."""

Status = Literal["queued", "previewed", "refining", "completed", "failed", "cancelled", "expired"]
Level = Literal["preview", "final"]

FINAL = ("completed", "failed", "cancelled", "expired")
"""States, and kinds of events, behind which nothing comes."""


@dataclass(frozen=True, kw_only=True)
class Scene:
    """A stored scene.

    Args:
        id: of the scene.
        num_views: photos.
        width: of the first photo as it is kept, pixels.
        height: of the first photo as it is kept, pixels.
        bytes: that it takes.
        warnings: sentences about what may make frames poor.
        created_at: when it was uploaded.
        expires_at: when it goes; None is never.
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
        """From the answer."""
        return cls(
            id=data["id"],
            num_views=data["num_views"],
            width=data["width"],
            height=data["height"],
            bytes=data["bytes"],
            warnings=tuple(data["warnings"]),
            created_at=_moment(data["created_at"]),
            expires_at=_maybe_moment(data["expires_at"]),
        )


@dataclass(frozen=True, kw_only=True)
class Quote:
    """What a view is predicted to take and to be like.

    Args:
        latency_p50_s: from acceptance to the last frame, waiting included; the median.
        latency_p95_s: the same, 95th percentile.
        wait_s: in the queue.
        quality: share of full diffusion's quality, 0..1.
        active_share: share of full diffusion that is computed, 0..1.
        reason: why so, in a sentence.
    """

    latency_p50_s: float
    latency_p95_s: float
    wait_s: float
    quality: float
    active_share: float
    reason: str

    @classmethod
    def of(cls, data: Json) -> Quote:
        """From the answer."""
        return cls(
            latency_p50_s=float(data["latency_s"]["p50"]),
            latency_p95_s=float(data["latency_s"]["p95"]),
            wait_s=float(data["wait_s"]),
            quality=float(data["quality"]),
            active_share=float(data["active_share"]),
            reason=data["reason"],
        )


@dataclass(frozen=True, kw_only=True)
class View:
    """New views of a scene, on their way or done.

    Args:
        id: of the view.
        status: queued, previewed, refining; then completed, failed, cancelled or expired.
        level: the best frames that all cameras have: none, preview or final.
        progress: 0..1; None in lists.
        scene: id of the scene.
        num_frames: how many.
        width: of the frames, pixels.
        height: of the frames, pixels.
        fps: of the video.
        seed: of the noise.
        priority: as it was asked for.
        quality: predicted, of what is planned or delivered; None before there is a plan.
        quote: as it was told at acceptance.
        reason: why it ended as it did; empty if there is nothing to tell.
        created_at: when it was accepted.
        finished_at: None while it is not.
        expires_at: when the view and its frames go; None is never.
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
        """Whether nothing will happen to it any more."""
        return self.status in FINAL

    @classmethod
    def of(cls, data: Json) -> View:
        """From the answer."""
        same = ("id", "status", "level", "scene", "num_frames", "width", "height", "seed", "priority", "reason")
        return cls(
            **{name: data[name] for name in same},
            fps=float(data["fps"]),
            progress=_maybe_float(data["progress"]),
            quality=_maybe_float(data["quality"]),
            quote=None if data["quote"] is None else Quote.of(data["quote"]),
            created_at=_moment(data["created_at"]),
            finished_at=_maybe_moment(data["finished_at"]),
            expires_at=_maybe_moment(data["expires_at"]),
        )


@dataclass(frozen=True, kw_only=True)
class Event:
    """Something that happened to a view; docs/server.md lists the kinds and their data.

    Args:
        seq: its number, to resume behind.
        kind: queued, preview_frame, plan, degraded, progress, frame_refined, completed, failed, cancelled or expired.
        view: id of the view.
        at_s: when, epoch seconds.
        data: what belongs to the kind, such as `index` of a frame.
    """

    seq: int
    kind: str
    view: str
    at_s: float
    data: dict[str, Any] = field(default_factory=dict)

    @property
    def is_final(self) -> bool:
        """Whether nothing comes behind it."""
        return self.kind in FINAL


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What was planned for each unit of a view so far, and why.

    Args:
        id: of the view.
        units: each with unit, targets, quality, predicted_s, active_share, steps, reason, and the plan's summary.
    """

    id: str
    units: tuple[dict[str, Any], ...]

    @classmethod
    def of(cls, data: Json) -> Plan:
        """From the answer."""
        return cls(id=data["id"], units=tuple(data["units"]))


@dataclass(frozen=True, kw_only=True)
class Network:
    """One of a model's networks, and under which licence."""

    name: str
    about: str
    part: str
    licence: str
    url: str


@dataclass(frozen=True, kw_only=True)
class Model:
    """A preset that the server has.

    Args:
        id: its name.
        size_multiple: sides are computed in multiples of this, pixels, and cropped; the least length of a side.
        window: views that are refined together.
        parts: its networks.
    """

    id: str
    size_multiple: int
    window: int
    parts: tuple[Network, ...]

    @classmethod
    def of(cls, data: Json) -> Model:
        """From the answer."""
        parts = tuple(Network(**_known(Network, part)) for part in data["parts"])
        return cls(id=data["id"], size_multiple=data["size_multiple"], window=data["window"], parts=parts)


@dataclass(frozen=True, kw_only=True)
class Device:
    """A device: its name, whether it is ready and busy, units in its memory, predicted seconds left of those."""

    index: int
    name: str
    is_ready: bool
    is_busy: bool
    held: int
    work_s: float


@dataclass(frozen=True, kw_only=True)
class Capacity:
    """How busy the server is.

    Args:
        devices: what computes.
        queued: views that wait.
        running: views that are being made.
        max_queue: unfinished views that are taken on.
        wait_s: how long a view without deadline would wait for its first refinement.
        backlog_s: device seconds of everything that is left.
        pressure: how far quality is being lowered: 0 not at all .. 1 to somebody's floor.
        slo_attainment: share of views with a deadline that met it, since the start.
        streams: of events that are open.
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
        """From the answer."""
        devices = tuple(Device(**_known(Device, device)) for device in data["devices"])
        return cls(**{**_known(cls, data), "devices": devices})


@dataclass(frozen=True, kw_only=True)
class Health:
    """Whether the server is well.

    Args:
        status: `ok`; `degraded` if something goes wrong inside.
        detail: what goes wrong.
        is_ready: whether views are taken on.
    """

    status: str
    detail: str
    is_ready: bool


def _known(kind: type, data: Json) -> dict[str, Any]:
    """The fields that a value has; whole numbers become floats where it says so, as JSON does not tell them apart."""
    types = kind.__annotations__
    return {name: float(value) if types[name] == "float" else value for name, value in data.items() if name in types}


def _moment(text: str) -> datetime:
    return datetime.fromisoformat(text)


def _maybe_moment(text: str | None) -> datetime | None:
    return None if text is None else _moment(text)


def _maybe_float(value: float | int | None) -> float | None:
    return None if value is None else float(value)
