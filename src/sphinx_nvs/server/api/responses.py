"""Response bodies, and how they are built from the engine's rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from sphinx_nvs.engine.store.row_types import SceneRow, SceneState
from sphinx_nvs.engine.types.jobs import JobRow, JobState, Quote, UnitKind, UnitRow, UnitState
from sphinx_nvs.engine.types.status import Capacity, DeviceStatus, Model
from sphinx_nvs.json_types import JSONObject
from sphinx_nvs.server.api.scrubbing import scrub

PREVIEW_SHARE = 0.1
"""Share of a job's progress that its preview counts for."""


class ErrorPlace(BaseModel):
    """One invalid field or file of a request."""

    where: str = Field(description="Field or file.", examples=["width"])
    found: str = Field(description="The value found there.", examples=["it is 20 pixels"])
    hint: str = Field(description="How to fix it.", examples=["give at least 32"])


class Problem(BaseModel):
    """An error (RFC 9457)."""

    model_config = ConfigDict(extra="allow")

    type: str = Field(description="Kind of the problem, for programs.", examples=["urn:sphinx-nvs:problem:input"])
    title: str = Field(description="Kind of the problem, for people.")
    status: int = Field(description="HTTP status.")
    detail: str = Field(description="One sentence: where, what was found, how to fix it.")
    instance: str = Field(description="The request, as it is named in the server's log.")
    errors: list[ErrorPlace] | None = Field(default=None, description="Every invalid field of the request.")


class PosingResponse(BaseModel):
    """How far the cameras of a scene's photos are found."""

    stage: str = Field(description="The present activity; waiting until the scene's turn comes.")
    progress: float = Field(description="0..1.")
    left_s: float | None = Field(description="Predicted time left, seconds; None if unknown.")


class PhotoAdvice(BaseModel):
    """What is wrong with one photo of a scene whose cameras were not found."""

    photo: str = Field(description="Name of the photo as it was sent.")
    found: str = Field(description="What is wrong.")
    hint: str = Field(description="What to do about it.")


class Scene(BaseModel):
    """A stored scene."""

    id: str
    object: Literal["scene"] = "scene"
    status: SceneState = Field(
        description="ready; posing while the cameras of photos that came without are found, failed if there are none."
    )
    posing: PosingResponse | None = Field(description="None unless the status is posing.")
    reason: str = Field(description="Why the cameras were not found; empty unless the status is failed.")
    advice: list[PhotoAdvice] = Field(description="The same for single photos.")
    num_views: int = Field(description="Number of photos; 0 unless the scene is ready, as for the size.")
    width: int = Field(description="Width of the first stored photo, pixels.")
    height: int = Field(description="Height of the first stored photo, pixels.")
    bytes: int = Field(description="Size on disk.")
    warnings: list[str] = Field(description="Sentences about what may lower the quality of frames.")
    created_at: datetime
    expires_at: datetime | None = Field(description="When the scene is deleted; every new job postpones it.")
    links: dict[str, str]

    @classmethod
    def of(cls, row: SceneRow, posing: PosingResponse | None = None) -> Scene:
        """Builds the response from the stored row, and from the progress of a scene whose cameras are being found."""
        failure = row.failure
        return cls(
            id=row.id,
            status=row.state,
            posing=posing if row.state is SceneState.POSING else None,
            reason=f"{failure['where']}: {failure['found']}; {failure['hint']}" if failure else "",
            advice=[PhotoAdvice(**photo) for photo in failure.get("photos", ())],
            num_views=row.num_views,
            width=row.width,
            height=row.height,
            bytes=row.bytes,
            warnings=list(row.warnings),
            created_at=_datetime(row.created_s),
            expires_at=_optional_datetime(row.expires_s),
            links={
                "self": f"/v1/scenes/{row.id}",
                "events": f"/v1/scenes/{row.id}/events",
                "cameras": f"/v1/scenes/{row.id}/cameras",
                "jobs": "/v1/jobs",
            },
        )


class Latency(BaseModel):
    """Seconds from acceptance to the last frame, queueing included."""

    p50: float = Field(description="Median.")
    p95: float = Field(description="95th percentile.")


class QuoteResponse(BaseModel):
    """Predicted latency and quality of a job."""

    latency_s: Latency
    wait_s: float = Field(description="Predicted time in the queue, seconds.")
    quality: float = Field(description="Predicted quality, 0..1, an estimate of the preset's profile.")
    active_share: float = Field(
        description="Share of full diffusion's compute, decoding included, 0..1: what plans of this quality take on "
        "average over scenes."
    )
    reason: str = Field(description="Why this plan was chosen, in one sentence.")

    @classmethod
    def of(cls, quote: Quote) -> QuoteResponse:
        """Builds the response from the engine's quote."""
        return cls(
            latency_s=Latency(p50=quote.latency_s, p95=quote.latency_p95_s),
            wait_s=quote.wait_s,
            quality=quote.quality,
            active_share=quote.active_share,
            reason=scrub(quote.reason),
        )


class RequestedQuality(BaseModel):
    """Quality and deadline as requested."""

    quality: float | None
    deadline_s: float | None
    min_quality: float


class Job(BaseModel):
    """A job: new views of a scene, unfinished or finished."""

    id: str
    object: Literal["job"] = "job"
    status: JobState = Field(description="queued, previewed, refining; then completed, failed, cancelled or expired.")
    level: Literal["none", "preview", "final"] = Field(description="The best level at which every frame exists.")
    progress: float | None = Field(description="0..1; None in lists.")
    scene: str
    num_frames: int
    width: int
    height: int
    fps: float
    seed: int
    priority: int
    requested: RequestedQuality
    quality: float | None = Field(description="Predicted quality of the plan or of the result; None before planning.")
    quote: QuoteResponse | None = Field(description="The quote at acceptance.")
    reason: str = Field(description="Why the job ended as it did; may be empty.")
    warnings: list[str] = Field(description="Notes on how the cameras were read, and on fields that are not used.")
    created_at: datetime
    finished_at: datetime | None
    expires_at: datetime | None = Field(description="When the job and its frames are deleted.")
    links: dict[str, str]

    @classmethod
    def of(cls, row: JobRow, units: Sequence[UnitRow] | None = None) -> Job:
        """Builds the response from a job's row, and from its units if progress is to be reported."""
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
            requested=RequestedQuality(quality=spec.quality, deadline_s=spec.deadline_s, min_quality=spec.min_quality),
            quality=row.quality,
            quote=None if row.quote is None else QuoteResponse.of(row.quote),
            reason=scrub(row.reason),
            warnings=[scrub(note) for note in spec.notes],
            created_at=_datetime(row.created_s),
            finished_at=_optional_datetime(row.finished_s),
            expires_at=_optional_datetime(row.expires_s),
            links=links_of(row.id),
        )


class Page(BaseModel):
    """A page of a list, newest first."""

    object: Literal["list"] = "list"
    has_more: bool
    next: str | None = Field(description="URL of the next page; None on the last one.")


class JobPage(Page):
    """A page of jobs."""

    data: list[Job]


class ScenePage(Page):
    """A page of scenes."""

    data: list[Scene]


class PlanResponse(BaseModel):
    """The plan of every unit planned so far."""

    id: str
    object: Literal["plan"] = "plan"
    units: list[JSONObject] = Field(
        description="unit, targets, quality, predicted_s, active_share (of cell-steps), compute_share (of full "
        "diffusion's compute), steps, reason, and the plan's summary."
    )
    image: str = Field(description="URL of one frame's plan as an image; `?frame=` selects the frame.")


class CameraResponse(BaseModel):
    """One camera, as in nerfstudio's transforms.json."""

    file_path: str | None
    fl_x: float
    fl_y: float
    cx: float
    cy: float
    transform_matrix: list[list[float]]


class CamerasResponse(BaseModel):
    """The frames' cameras as a nerfstudio transforms.json, in the coordinates of the scene's file."""

    camera_model: Literal["PINHOLE"]
    w: int
    h: int
    applied_transform: list[list[float]] | None = Field(default=None, description="As in the scene's file.")
    applied_scale: float | None = Field(default=None, description="As in the scene's file.")
    frames: list[CameraResponse]


class ShareResponse(BaseModel):
    """A link to a job's video, which needs no API key."""

    id: str = Field(description="Id of the job.")
    url: str = Field(description="A page that plays the video.")
    video: str = Field(description="The video itself, mp4.")


class NetworkResponse(BaseModel):
    """One network of a preset."""

    name: str
    description: str
    role: str = Field(description="What the network does in the pair.")
    licence: str
    url: str = Field(description="Where the licence can be read.")

    @classmethod
    def of(cls, model: Model) -> NetworkResponse:
        """Builds the response from the engine's model card."""
        return cls(name=model.name, description=model.about, role=model.part, licence=model.licence, url=model.url)


class ModelResponse(BaseModel):
    """The preset that the server runs."""

    id: str
    object: Literal["model"] = "model"
    created: int = 0
    owned_by: str = "sphinx-nvs"
    size_multiple: int = Field(description="Smallest side of frames, pixels; sides are computed in multiples of it.")
    window: int = Field(description="Number of views refined together; longer paths are split.")
    default_quality: float = Field(description="Quality of jobs that name neither quality nor deadline, 0..1.")
    networks: list[NetworkResponse]


class ModelsResponse(BaseModel):
    """The models that the server runs."""

    object: Literal["list"] = "list"
    data: list[ModelResponse]


class DeviceResponse(BaseModel):
    """A device."""

    index: int
    name: str
    is_ready: bool
    is_busy: bool
    resident_units: int = Field(description="Number of started units in its memory.")
    remaining_s: float = Field(description="Predicted seconds left of those units.")

    @classmethod
    def of(cls, device: DeviceStatus) -> DeviceResponse:
        """Builds the response from the engine's status."""
        return cls(
            index=device.index,
            name=device.name,
            is_ready=device.is_ready,
            is_busy=device.is_busy,
            resident_units=device.held,
            remaining_s=device.work_s,
        )


class CapacityResponse(BaseModel):
    """The server's load."""

    devices: list[DeviceResponse]
    queued: int = Field(description="Number of jobs that wait.")
    running: int = Field(description="Number of started, unfinished jobs.")
    max_queue: int = Field(description="Largest number of unfinished jobs.")
    wait_s: float = Field(description="Time until a new job without deadline would start refinement, seconds.")
    backlog_s: float = Field(description="Device seconds of all unfinished work.")
    pressure: float = Field(description="How far quality is lowered under load: 0 not at all, 1 down to a job's floor.")
    slo_attainment: float = Field(description="Share of jobs with a deadline that met it since the start.")
    streams: int = Field(description="Number of open event streams.")

    @classmethod
    def of(cls, capacity: Capacity, streams: int) -> CapacityResponse:
        """Builds the response from the engine's capacity and the number of open streams."""
        fields = {**asdict(capacity), "devices": [DeviceResponse.of(device) for device in capacity.devices]}
        return cls(**fields, streams=streams)


class Health(BaseModel):
    """The server's health."""

    status: Literal["ok", "degraded", "ready"]
    detail: str = ""


def links_of(job_id: str) -> dict[str, str]:
    """Returns the URLs of everything that belongs to a job."""
    root = f"/v1/jobs/{job_id}"
    return {
        "self": root,
        "events": f"{root}/events",
        "plan": f"{root}/plan",
        "frames": f"{root}/frames/{{index}}?level={{level}}",
        "content": f"{root}/content",
        "cameras": f"{root}/cameras",
    }


def progress_of(row: JobRow, units: Sequence[UnitRow]) -> float:
    """Returns a job's progress, 0..1: the preview counts `PREVIEW_SHARE`, finished frames the rest."""
    if row.state is JobState.COMPLETED:
        return 1.0
    done = [unit for unit in units if unit.state is UnitState.DONE]
    previewed = PREVIEW_SHARE if any(unit.kind is UnitKind.REGRESSION for unit in done) else 0.0
    refined = {target for unit in done if unit.kind is not UnitKind.REGRESSION for target in unit.targets}
    return previewed + (1 - PREVIEW_SHARE) * len(refined) / row.spec.num_views


def _datetime(seconds: float) -> datetime:
    """Converts epoch seconds to UTC."""
    return datetime.fromtimestamp(seconds, UTC)


def _optional_datetime(seconds: float | None) -> datetime | None:
    return None if seconds is None else _datetime(seconds)
