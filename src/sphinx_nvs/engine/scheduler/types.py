"""What goes into the scheduler and what comes out of it: settings, requests, decisions, snapshots. Values only.

Times are seconds of one clock that the caller reads and passes as `now`; requests carry `accepted_at` of the same one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from sphinx_nvs.engine.types.jobs import JobRow, Quote, UnitRow
from sphinx_nvs.engine.types.messages import UnitKey
from sphinx_nvs.engine.types.prices import PriceTable
from sphinx_nvs.errors import InputError
from sphinx_nvs.sampling_params import DEFAULT_QUALITY

SHARES = ("preview_share", "refinement_share", "late_share", "headroom", "live_share")
"""Settings that are shares of a device's time, in [0, 1)."""


@dataclass(frozen=True, kw_only=True)
class SchedulerConfig:
    """Weights and bounds of the scheduler.

    Args:
        max_queue: largest number of unfinished jobs, over all keys.
        max_queue_per_key: unfinished jobs that one API key may have.
        max_held: largest number of begun units that a device holds at a time.
        packing: whether one step may serve several units; for devices that one unit does not fill.
        max_pack: most units of one step.
        pack_below: share of active cells below which a unit is sparse enough to be packed.
        preview_share: least share of a device's time for previews while urgent work waits, too.
        refinement_share: least share of a device's time for refinement while previews wait, too, and nothing is urgent.
        late_share: least share of a device's time for jobs whose deadline is lost, while others wait, too.
        turn_s: seconds that must be due to a class before its turn comes.
        headroom: share of the devices' time that is not planned, for what arrives later.
        anticipation: share of the work that would arrive at the recent rate for which capacity is reserved.
        memory_s: time constant of the recent rate, seconds.
        urgent_s: a set of jobs is urgent when all devices together could waste no more than this and still meet it.
        margin: share of the remaining time by which plans end before a deadline.
        load_stretch: device seconds that a plan may take when there is load, over the predicted 95th percentile.
        default_quality: for jobs that name neither quality nor deadline, 0..1.
        soft_deadline_s: soft deadline of jobs that have none: this, and `soft_stretch` times their own seconds.
        soft_stretch: see `soft_deadline_s`.
        replan_s: oldest analysis that decisions are based on, seconds.
        reject_late: whether a job that is predicted to miss its deadline even at its floor is rejected.
        live_share: most of a device's time for frames of live sessions beside a job.
        live_rest_s: seconds without a newer camera before the still of a live session is refined.
    """

    max_queue: int = 4096
    max_queue_per_key: int = 1024
    max_held: int = 4
    packing: bool = False
    max_pack: int = 4
    pack_below: float = 0.25
    preview_share: float = 0.3
    refinement_share: float = 0.3
    late_share: float = 0.05
    turn_s: float = 0.5
    headroom: float = 0.1
    anticipation: float = 1.0
    memory_s: float = 15.0
    urgent_s: float = 1.0
    margin: float = 0.05
    load_stretch: float = 1.25
    default_quality: float = DEFAULT_QUALITY
    soft_deadline_s: float = 60.0
    soft_stretch: float = 10.0
    replan_s: float = 0.25
    reject_late: bool = False
    live_share: float = 0.5
    live_rest_s: float = 0.15

    def __post_init__(self) -> None:
        for name in ("max_queue", "max_queue_per_key", "max_held", "max_pack"):
            if getattr(self, name) < 1:
                raise InputError(f"scheduler.{name}", f"it is {getattr(self, name)}", "give at least 1")
        for name in SHARES:
            if not 0 <= getattr(self, name) < 1:
                raise InputError(f"scheduler.{name}", f"it is {getattr(self, name):g}", "give a share in [0, 1)")
        if self.headroom + self.late_share >= 1:
            raise InputError("scheduler.headroom", "it leaves nothing beside late_share", "lower one of them")


@dataclass(frozen=True, kw_only=True)
class Request:
    """A job as the scheduler sees it.

    Args:
        job_id: unique.
        key_id: API key, for fairness.
        accepted_at: when, on the caller's clock; deadlines count from here.
        num_views: target views.
        prices: cost of the whole job.
        quality: requested quality; None leaves it to the deadline, or to the configured default.
        deadline_s: seconds after acceptance; None for no deadline.
        min_quality: floor.
        priority: larger goes first among equals.
        size: height and width of frames, pixels: units of one size can be packed.
        units: the units known until now; the regression alone until the path is split (see `Scheduler.extend`).
    """

    job_id: str
    key_id: str
    accepted_at: float | int
    num_views: int
    prices: PriceTable
    quality: float | None = None
    deadline_s: float | int | None = None
    min_quality: float | int = 0.0
    priority: int = 0
    size: tuple[int, int] = (0, 0)
    units: tuple[UnitRow, ...] = ()

    @staticmethod
    def of(job: JobRow, prices: PriceTable, units: Sequence[UnitRow]) -> Request:
        """The request that a stored job is."""
        spec = job.spec
        return Request(
            job_id=job.id,
            key_id=job.key_id,
            accepted_at=job.created_s,
            num_views=spec.num_views,
            prices=prices,
            quality=spec.quality,
            deadline_s=spec.deadline_s,
            min_quality=spec.min_quality,
            priority=spec.priority,
            size=(spec.height, spec.width),
            units=tuple(units),
        )


@dataclass(frozen=True, kw_only=True)
class Admission:
    """The answer to a request.

    Args:
        accepted: whether the request is accepted.
        quote: the quote, also of a request that is not accepted.
        retry_after_s: when it is worth trying again; None if accepted.
        sentence: why not; "" if accepted.
    """

    accepted: bool
    quote: Quote
    retry_after_s: float | None = None
    sentence: str = ""


class Phase(StrEnum):
    """The kind of a command, see `types.messages`."""

    REGRESS = "regress"
    BEGIN = "begin"
    STEP = "step"
    FINISH = "finish"
    DROP = "drop"


@dataclass(frozen=True, kw_only=True)
class Degraded:
    """A quality that was lowered.

    Args:
        start: quality without load: the requested one, or what the deadline alone allows. The event's `from`.
        to: quality that is planned for.
        why: one sentence.
    """

    start: float
    to: float
    why: str


@dataclass(frozen=True, kw_only=True)
class Decision:
    """One command for one idle device.

    Args:
        device: its number.
        phase: kind of the command.
        units: its units; several for `STEP` with packing, and for `DROP`.
        quality: for `BEGIN`: largest quality to plan for; None otherwise.
        within_s: for `BEGIN`: device seconds that the unit may take, steps and finish; None is no limit.
        min_quality: for `BEGIN`: floor of `within_s`.
        degraded: for `BEGIN`: that it gets less than requested.
        why: why this unit, for logs.
    """

    device: int
    phase: Phase
    units: tuple[UnitKey, ...]
    quality: float | None = None
    within_s: float | None = None
    min_quality: float = 0.0
    degraded: Degraded | None = None
    why: str = ""

    @property
    def unit(self) -> UnitKey:
        """The first unit."""
        return self.units[0]


@dataclass(frozen=True, kw_only=True)
class DeviceView:
    """A device as it is now.

    Args:
        device: its number.
        is_ready: whether it takes commands.
        is_busy: whether it carries one out.
        held: number of begun units in its memory.
        work_s: predicted seconds left of those.
    """

    device: int
    is_ready: bool
    is_busy: bool
    held: tuple[UnitKey, ...]
    work_s: float


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """The scheduler as it is now.

    Args:
        jobs: unfinished.
        waiting_previews: jobs without a preview that no device works on.
        late: jobs whose deadline is lost.
        backlog_s: device seconds of everything that is left, as planned now.
        wait_s: seconds that a new job without a deadline would wait for its first refinement.
        pressure: how far quality is being lowered, 0 (not at all) .. 1 (a job is at its floor).
        correction: measured over predicted seconds of refinement, as used now.
        devices: each one.
    """

    jobs: int
    waiting_previews: int
    late: int
    backlog_s: float
    wait_s: float
    pressure: float
    correction: float
    devices: tuple[DeviceView, ...]
