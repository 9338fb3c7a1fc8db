"""Jobs and units: the request, its state, and its events. Values only.

A job is a path of target views of a stored scene. Its units are what devices work on, checkpoints when finished:

    regression   every target view rendered by the regressor: the preview
    anchors      refined frames that later units depend on                      (`long_paths.units`, kinds of `Unit`)
    chunk        refined frames

Life of a job: queued -> previewed -> refining -> completed, or failed, cancelled, expired at any point. A job whose
refinement keeps failing after its preview ends as completed at level `preview`, with the reason.

Shapes: V target views.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from sphinx_nvs.json_types import JSONObject
from sphinx_nvs.sampling_params import SamplingParams

Matrix = tuple[tuple[float, ...], ...]


class JobState(StrEnum):
    """A job's state; `types.transitions` says which follows which."""

    QUEUED = "queued"
    PREVIEWED = "previewed"
    REFINING = "refining"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"
    EXPIRED = "expired"

    @property
    def is_final(self) -> bool:
        """Whether nothing comes after it."""
        return self in FINAL_STATES


FINAL_STATES = frozenset({JobState.COMPLETED, JobState.FAILED, JobState.CANCELLED, JobState.EXPIRED})


class UnitKind(StrEnum):
    """The kind of frames that a unit makes."""

    REGRESSION = "regression"
    ANCHORS = "anchors"
    CHUNK = "chunk"


class UnitState(StrEnum):
    """A unit's state; `types.transitions` says which follows which."""

    WAITING = "waiting"
    RUNNING = "running"
    DONE = "done"
    POISON = "poison"


class EventKind(StrEnum):
    """The kinds of events in a job's stream."""

    QUEUED = "queued"
    PREVIEW_FRAME = "preview_frame"
    PLAN = "plan"
    PROGRESS = "progress"
    FRAME_REFINED = "frame_refined"
    DEGRADED = "degraded"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"
    EXPIRED = "expired"


@dataclass(frozen=True, kw_only=True)
class JobSpec:
    """A request as JSON values that have been checked.

    Args:
        scene: id of a stored scene.
        c2w: one camera pose per target view, 4x4, OpenCV axes, world units of the scene.
        K: intrinsics per target view, 3x3, pixels.
        width: width of the frames, pixels.
        height: height of the frames, pixels.
        fps: frame rate of the video.
        quality: requested quality, 0..1; None leaves it to the deadline, or to the preset's default.
        deadline_s: seconds after acceptance by which all frames must be finished; None for no deadline.
        min_quality: floor below which the job is never planned, 0..1.
        seed: seed of the noise.
        priority: larger goes first among equals of slack, -10..10.
        world: the coordinates that the scene's file is written in, see `scene.world.World.to_json`; None for those of
            `c2w`.
        notes: what was decided when the cameras were read, one sentence each.
        num_omitted: number of target views whose cameras are left out, as in lists of jobs.
    """

    scene: str
    c2w: tuple[Matrix, ...]
    K: tuple[Matrix, ...]
    width: int
    height: int
    fps: float = 24.0
    quality: float | None = None
    deadline_s: float | None = None
    min_quality: float = 0.0
    seed: int = 0
    priority: int = 0
    world: JSONObject | None = None
    notes: tuple[str, ...] = ()
    num_omitted: int = 0

    @property
    def num_views(self) -> int:
        """V."""
        return len(self.c2w) + self.num_omitted

    @property
    def params(self) -> SamplingParams:
        """Quality, deadline and seed as one value; raises InputError for a number outside its range."""
        return SamplingParams(
            quality=self.quality, min_quality=self.min_quality, deadline_s=self.deadline_s, seed=self.seed
        )


@dataclass(frozen=True, kw_only=True)
class Quote:
    """The predicted latency and quality of a job at acceptance.

    Args:
        latency_s: median seconds from acceptance to the last frame, waiting included.
        latency_p95_s: 95th percentile of it.
        wait_s: predicted wait in the queue.
        quality: predicted, 0..1, in the profile's sense.
        active_share: predicted share of full diffusion's compute, decoding included, 0..1: what plans of this quality
            take on average over scenes.
        reason: one sentence.
    """

    latency_s: float
    latency_p95_s: float
    wait_s: float
    quality: float
    active_share: float
    reason: str


@dataclass(frozen=True, kw_only=True)
class UnitRow:
    """A unit of a job.

    Args:
        job_id: id of the unit's job.
        index: place among the job's units, the regression unit being 0.
        kind: kind of its frames.
        targets: target views that it makes, by number, ascending.
        depends_on: indices of units that must be done first.
        state: current state.
        attempt: number of attempts, without those that ended with the server or with a device that was working on
            another unit.
        result: artifact digests and figures of a finished unit, as JSON values.
        error: sentence of the last failure.
    """

    job_id: str
    index: int
    kind: UnitKind
    targets: tuple[int, ...]
    depends_on: tuple[int, ...] = ()
    state: UnitState = UnitState.WAITING
    attempt: int = 0
    result: JSONObject | None = None
    error: str | None = None


@dataclass(frozen=True, kw_only=True)
class JobRow:
    """A job.

    Args:
        id: unique, unguessable.
        key_id: the API key of the request, or "anonymous".
        spec: the request.
        state: current state.
        level: `none`, `preview` or `final`: the best frames that all target views have.
        created_s: acceptance, epoch seconds.
        finished_s: when it reached a final state, epoch seconds.
        expires_s: when rows and files go, epoch seconds.
        quote: the quote at acceptance.
        quality: predicted quality of what was planned; None before.
        reason: why it ended as it did; "" if there is no need to explain. Why its quality was lowered is in the
            events `degraded` alone.
        idempotency_key: idempotency key of the request, unique per API key.
        video: artifact digest of the mp4; None before.
    """

    id: str
    key_id: str
    spec: JobSpec
    state: JobState = JobState.QUEUED
    level: str = "none"
    created_s: float = 0.0
    finished_s: float | None = None
    expires_s: float | None = None
    quote: Quote | None = None
    quality: float | None = None
    reason: str = ""
    idempotency_key: str | None = None
    video: str | None = None


@dataclass(frozen=True, kw_only=True)
class Event:
    """Something that happened to a job.

    Args:
        seq: ascending over all events of a store, never reused: the `Last-Event-ID` of streams.
        job_id: to which job.
        kind: kind of event.
        at_s: when, epoch seconds.
        data: JSON values that depend on the kind.
    """

    seq: int
    job_id: str
    kind: EventKind
    at_s: float
    data: JSONObject = field(default_factory=dict)
