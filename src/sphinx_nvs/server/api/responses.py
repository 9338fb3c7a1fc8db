"""What clients get, field by field, and how it is made of the engine's rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from sphinx_nvs.engine.store.rows import SceneRow
from sphinx_nvs.engine.types.jobs import JobRow, JobState, Quote, UnitKind, UnitRow, UnitState
from sphinx_nvs.engine.types.status import Capacity
from sphinx_nvs.server.api.scrubbing import scrub

PREVIEW_SHARE = 0.1
"""How much of a view's progress its preview counts."""


class ErrorPlace(BaseModel):
    """One thing that is wrong with a request."""

    where: str = Field(description="Field or file.", examples=["size"])
    found: str = Field(description="What stands there.", examples=["250 is no multiple of 32"])
    hint: str = Field(description="What to do about it.", examples=["give 256 pixels, for instance"])


class Problem(BaseModel):
    """What went wrong (RFC 9457)."""

    model_config = ConfigDict(extra="allow")

    type: str = Field(description="Kind of the problem, for programs.", examples=["urn:sphinx-nvs:problem:input"])
    title: str = Field(description="The kind in words.")
    status: int = Field(description="HTTP status.")
    detail: str = Field(description="One sentence: where, what was found, how to fix it.")
    instance: str = Field(description="The request, as it is found in the server's log.")
    errors: list[ErrorPlace] | None = Field(default=None, description="Every place in the request that is wrong.")


class Scene(BaseModel):
    """A stored scene."""

    id: str
    object: Literal["scene"] = "scene"
    num_views: int = Field(description="Photos.")
    width: int = Field(description="Of the first photo as it is kept, pixels.")
    height: int = Field(description="Of the first photo as it is kept, pixels.")
    bytes: int = Field(description="That it takes.")
    warnings: list[str] = Field(description="Sentences about what may make frames poor.")
    created_at: datetime
    expires_at: datetime | None = Field(description="When it goes; every view that is asked for prolongs it.")
    links: dict[str, str]

    @classmethod
    def of(cls, row: SceneRow) -> Scene:
        """From its row."""
        return cls(
            id=row.id,
            num_views=row.num_views,
            width=row.width,
            height=row.height,
            bytes=row.bytes,
            warnings=list(row.warnings),
            created_at=_moment(row.created_s),
            expires_at=_maybe_moment(row.expires_s),
            links={"self": f"/v1/scenes/{row.id}", "cameras": f"/v1/scenes/{row.id}/cameras", "views": "/v1/views"},
        )


class Latency(BaseModel):
    """Seconds from acceptance to the last frame, waiting included."""

    p50: float = Field(description="Median.")
    p95: float = Field(description="95th percentile.")


class QuoteAnswer(BaseModel):
    """What a view is predicted to take and to be like."""

    latency_s: Latency
    wait_s: float = Field(description="Predicted wait in the queue, seconds.")
    quality: float = Field(description="Predicted, 0..1; an estimate of the preset's profile.")
    active_share: float = Field(description="Share of full diffusion that is computed, 0..1.")
    reason: str = Field(description="Why so, in a sentence.")

    @classmethod
    def of(cls, quote: Quote) -> QuoteAnswer:
        """From the engine's."""
        return cls(
            latency_s=Latency(p50=quote.latency_s, p95=quote.latency_p95_s),
            wait_s=quote.wait_s,
            quality=quote.quality,
            active_share=quote.active_share,
            reason=scrub(quote.reason),
        )


class Wishes(BaseModel):
    """What was asked for."""

    quality: float | None
    deadline_s: float | None
    min_quality: float


class View(BaseModel):
    """New views of a scene, on their way or done."""

    id: str
    object: Literal["view"] = "view"
    status: JobState = Field(description="queued, previewed, refining; then completed, failed, cancelled or expired.")
    level: Literal["none", "preview", "final"] = Field(description="The best frames that all cameras have.")
    progress: float | None = Field(description="0..1; None in lists.")
    scene: str
    num_frames: int
    width: int
    height: int
    fps: float
    seed: int
    priority: int
    asked: Wishes
    quality: float | None = Field(description="Predicted, of what is planned or delivered; None before.")
    quote: QuoteAnswer | None = Field(description="As it was told at acceptance.")
    reason: str = Field(description="Why it ended as it did; empty if there is nothing to tell.")
    warnings: list[str] = Field(
        description="What was decided when its cameras were read, and what of them is not used."
    )
    created_at: datetime
    finished_at: datetime | None
    expires_at: datetime | None = Field(description="When the view and its frames go.")
    links: dict[str, str]

    @classmethod
    def of(cls, row: JobRow, units: Sequence[UnitRow] | None = None) -> View:
        """From its row, and its units if progress is to be told."""
        spec = row.spec
        return cls(
            id=row.id,
            status=row.state,
            level=row.level,  # type: ignore[arg-type]
            progress=None if units is None else progress_of(row, units),
            scene=spec.scene,
            num_frames=spec.num_views,
            width=spec.width,
            height=spec.height,
            fps=spec.fps,
            seed=spec.seed,
            priority=spec.priority,
            asked=Wishes(quality=spec.quality, deadline_s=spec.deadline_s, min_quality=spec.min_quality),
            quality=row.quality,
            quote=None if row.quote is None else QuoteAnswer.of(row.quote),
            reason=scrub(row.reason),
            warnings=[scrub(note) for note in spec.notes],
            created_at=_moment(row.created_s),
            finished_at=_maybe_moment(row.finished_s),
            expires_at=_maybe_moment(row.expires_s),
            links=links_of(row.id),
        )


class Page(BaseModel):
    """Part of a list, newest first."""

    object: Literal["list"] = "list"
    has_more: bool
    next: str | None = Field(description="Address of the next page; None on the last one.")


class ViewPage(Page):
    """Views."""

    data: list[View]


class ScenePage(Page):
    """Scenes."""

    data: list[Scene]


class PlanAnswer(BaseModel):
    """What was planned for each unit so far."""

    id: str
    object: Literal["plan"] = "plan"
    units: list[dict[str, Any]] = Field(
        description="unit, targets, quality, predicted_s, active_share, steps, reason, and the plan's summary."
    )
    picture: str = Field(description="Address of the plan of one frame as a picture; `?frame=` says which.")


class CameraAnswer(BaseModel):
    """One camera, as in nerfstudio's transforms.json."""

    file_path: str | None
    fl_x: float
    fl_y: float
    cx: float
    cy: float
    transform_matrix: list[list[float]]


class CamerasAnswer(BaseModel):
    """Cameras as a nerfstudio transforms.json, in the coordinates of the scene's file: those behind the frames."""

    camera_model: Literal["PINHOLE"]
    w: int
    h: int
    applied_transform: list[list[float]] | None = Field(default=None, description="Of the scene's file, if it has one.")
    applied_scale: float | None = Field(default=None, description="Of the scene's file, if it has one.")
    frames: list[CameraAnswer]


class ModelAnswer(BaseModel):
    """A preset that can be asked for."""

    id: str
    object: Literal["model"] = "model"
    created: int = 0
    owned_by: str = "sphinx-nvs"
    size_multiple: int = Field(description="Least length of a side, pixels; sides are computed in multiples of it.")
    window: int = Field(description="Views that are refined together; longer paths are cut.")
    parts: list[dict[str, str]] = Field(description="The networks: name, about, part, licence, url.")


class ModelsAnswer(BaseModel):
    """The models behind this server's frames."""

    object: Literal["list"] = "list"
    data: list[ModelAnswer]


class DeviceAnswer(BaseModel):
    """A device."""

    index: int
    name: str
    is_ready: bool
    is_busy: bool
    held: int = Field(description="Units in its memory.")
    work_s: float = Field(description="Predicted seconds left of those.")


class CapacityAnswer(BaseModel):
    """How busy the server is."""

    devices: list[DeviceAnswer]
    queued: int
    running: int
    max_queue: int
    wait_s: float = Field(description="How long a view without deadline would wait for its first refinement, seconds.")
    backlog_s: float = Field(description="Device seconds of everything that is left.")
    pressure: float = Field(description="How far quality is being lowered: 0 not at all .. 1 to somebody's floor.")
    slo_attainment: float = Field(description="Share of views with a deadline that met it, since the start.")
    streams: int = Field(description="Streams of events that are open.")

    @classmethod
    def of(cls, capacity: Capacity, streams: int) -> CapacityAnswer:
        """From the engine's."""
        return cls(**asdict(capacity), streams=streams)


class Health(BaseModel):
    """Whether the server is well."""

    status: Literal["ok", "degraded", "ready"]
    detail: str = ""


def links_of(job_id: str) -> dict[str, str]:
    """Where everything about a view is."""
    root = f"/v1/views/{job_id}"
    return {
        "self": root,
        "events": f"{root}/events",
        "plan": f"{root}/plan",
        "frames": f"{root}/frames/{{index}}?level={{level}}",
        "content": f"{root}/content",
        "cameras": f"{root}/cameras",
    }


def progress_of(row: JobRow, units: Sequence[UnitRow]) -> float:
    """How much of a view is done, 0..1: the preview counts a tenth, the rest by finished frames."""
    if row.state is JobState.COMPLETED:
        return 1.0
    done = [unit for unit in units if unit.state is UnitState.DONE]
    previewed = PREVIEW_SHARE if any(unit.kind is UnitKind.REGRESSION for unit in done) else 0.0
    refined = {target for unit in done if unit.kind is not UnitKind.REGRESSION for target in unit.targets}
    return previewed + (1 - PREVIEW_SHARE) * len(refined) / row.spec.num_views


def _moment(seconds: float) -> datetime:
    """Epoch seconds as a moment."""
    return datetime.fromtimestamp(seconds, UTC)


def _maybe_moment(seconds: float | None) -> datetime | None:
    return None if seconds is None else _moment(seconds)
