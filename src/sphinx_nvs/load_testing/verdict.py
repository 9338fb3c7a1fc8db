"""The outcome of accepted jobs, judged from the server's store, its clients' events, and undisturbed runs.

A job is *lost* if it was accepted (its 202 was seen) and is not completed in the end. It is *duplicated* if anything
about it contradicts itself: see `contradictions`. It is *resumed* if it was unfinished when something was killed, and
is completed all the same. A job that ends with its preview is neither lost nor complete; it is counted separately.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from sphinx_nvs.engine.artifacts import ArtifactStore
from sphinx_nvs.engine.jobs.active_job import frames_of
from sphinx_nvs.engine.store.store import JobStore
from sphinx_nvs.engine.types.jobs import FINAL_STATES, Event, EventKind, JobRow, JobState
from sphinx_nvs.errors import SphinxError
from sphinx_nvs.json_types import JSONMapping

Frames = Mapping[tuple[str, int], str]
"""Digests of a job's frames by level (`preview` or `final`) and number."""

LEVELS = {EventKind.PREVIEW_FRAME.value: "preview", EventKind.FRAME_REFINED.value: "final"}
"""Events about a frame, and the frame's level."""

FINAL = frozenset(state.value for state in FINAL_STATES)


@dataclass(frozen=True, kw_only=True)
class ReceivedEvent:
    """An event of a job.

    Args:
        seq: its number.
        kind: see `engine.types.jobs.EventKind`.
        index: index of the event's frame, if it has one.
        digest: digest of that frame, where it is known.
    """

    seq: int
    kind: str
    index: int | None = None
    digest: str | None = None


@dataclass(kw_only=True)
class Accepted:
    """A request that was answered with 202, as its client knows it.

    Args:
        job_id: id in the answer.
        key: idempotency key that it was sent with.
        request: number of the request; equal numbers are equal requests.
        received: events of its stream, in the order of arrival.
        fetched: frames that were downloaded while the job went on.
    """

    job_id: str
    key: str
    request: int
    received: list[ReceivedEvent] = field(default_factory=list)
    fetched: dict[tuple[str, int], str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Kept:
    """A job as the server's store has it in the end.

    Args:
        job_id: id of the job.
        key: idempotency key of its request.
        state: its state.
        level: level of its frames.
        created_s: epoch seconds.
        finished_s: epoch seconds.
        reason: why it ended as it did.
        frames: frames that its units refer to.
        events: every stored event, in order.
        damaged: frames whose files are missing or do not match their name's hash.
    """

    job_id: str
    key: str | None
    state: str
    level: str
    created_s: float
    finished_s: float | None
    reason: str = ""
    frames: Frames = field(default_factory=dict)
    events: Sequence[ReceivedEvent] = ()
    damaged: Sequence[str] = ()

    @property
    def is_completed(self) -> bool:
        """Whether every frame was refined."""
        return self.state == JobState.COMPLETED.value and self.level == "final"

    @property
    def is_preview_only(self) -> bool:
        """Whether it ended with its preview, since refinement kept failing."""
        return self.state == JobState.COMPLETED.value and self.level != "final"

    def was_unfinished(self, at_s: float | int) -> bool:
        """Whether it was accepted and not ended at this time, epoch seconds."""
        return self.created_s <= at_s and (self.finished_s is None or self.finished_s > at_s)


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """The counts; see the module.

    Args:
        accepted: jobs.
        lost: number of accepted jobs that are lost.
        duplicated: number of stored jobs with duplicates.
        resumed: number of completed jobs that were unfinished at a kill.
        unfinished_at_kills: those.
        preview_only: jobs that ended with their preview.
        unknown: stored jobs whose 202 no client received; they must be finished, too, but no client waits for them.
        compared: completed jobs whose frames were compared with those of an undisturbed run.
        reasons: sentences about what is wrong.
    """

    accepted: int
    lost: int
    duplicated: int
    resumed: int
    unfinished_at_kills: int
    preview_only: int
    unknown: int
    compared: int
    reasons: tuple[str, ...] = ()

    @property
    def is_good(self) -> bool:
        """Whether nothing was lost and nothing contradicts itself."""
        return not self.lost and not self.duplicated


def judge(
    accepted: Sequence[Accepted], kept: Sequence[Kept], kills_s: Sequence[float], undisturbed: Mapping[int, Frames]
) -> Verdict:
    """Judges a run.

    Args:
        accepted: what clients received.
        kept: what the store has.
        kills_s: when something was killed, epoch seconds.
        undisturbed: frames of requests that ran alone, by the requests' numbers.
    """
    jobs = {job.job_id: job for job in kept}
    mine = {promise.job_id: promise for promise in accepted}
    lost = [promise for promise in accepted if not _is_kept(promise, jobs)]
    reasons = [f"{promise.job_id}: {_loss(promise, jobs)}" for promise in lost]
    duplicated = 0
    for job in kept:
        found = contradictions(job, mine.get(job.job_id), undisturbed)
        duplicated += bool(found)
        reasons += [f"{job.job_id}: {sentence}" for sentence in found]
    for key, times in Counter(job.key for job in kept if job.key).items():
        if times > 1:
            duplicated += 1
            reasons.append(f"idempotency key {key}: {times} jobs have it")
    compared = [job for job in kept if job.job_id in mine and mine[job.job_id].request in undisturbed]
    hit = [job for job in kept if any(job.was_unfinished(at_s) for at_s in kills_s)]
    return Verdict(
        accepted=len(accepted),
        lost=len(lost),
        duplicated=duplicated,
        resumed=sum(job.is_completed for job in hit),
        unfinished_at_kills=len(hit),
        preview_only=sum(job.is_preview_only for job in kept),
        unknown=sum(job.job_id not in mine for job in kept),
        compared=sum(job.is_completed for job in compared),
        reasons=tuple(reasons),
    )


def _is_kept(promise: Accepted, jobs: Mapping[str, Kept]) -> bool:
    """Whether a promise was kept, be it with the preview alone."""
    job = jobs.get(promise.job_id)
    return job is not None and (job.is_completed or job.is_preview_only)


def _loss(promise: Accepted, jobs: Mapping[str, Kept]) -> str:
    job = jobs.get(promise.job_id)
    if job is None:
        return "it was accepted, and is not in the store"
    return f"it was accepted, and is {job.state}" + (f" ({job.reason})" if job.reason else "")


def contradictions(job: Kept, promise: Accepted | None, undisturbed: Mapping[int, Frames]) -> list[str]:
    """Contradictions of a job, as sentences.

    Args:
        job: the job in the store.
        promise: its client's record; None if no client has one.
        undisturbed: see `judge`.
    """
    found = [*_endings(job), *_duplicate_events(job.events), *_differing(job)]
    found += [f"file of {name} is missing or damaged" for name in job.damaged]
    if promise is not None:
        found += _wrong_events(job, promise)
        if job.is_completed and promise.request in undisturbed:
            found += _unlike(job.frames, undisturbed[promise.request], "when nothing is killed")
    return found


def _endings(job: Kept) -> list[str]:
    """A job ends once, and as its row says; no event follows the final one."""
    ends = [event for event in job.events if event.kind in FINAL]
    if len(ends) > 1:
        return [f"it ended {len(ends)} times: {', '.join(event.kind for event in ends)}"]
    if ends and ends[0] is not job.events[-1]:
        return [f"{job.events[-1].kind} follows {ends[0].kind}"]
    is_over = job.state in FINAL
    if is_over and (not ends or ends[0].kind != job.state):
        return [f"its row says {job.state}, its last event does not"]
    return ["its last event is final, its row is not"] if ends and not is_over else []


def _duplicate_events(events: Iterable[ReceivedEvent]) -> list[str]:
    """Every frame has one event, or equal ones."""
    digests: dict[tuple[str, int], set[str]] = {}
    for event in events:
        if event.kind in LEVELS and event.index is not None and event.digest is not None:
            digests.setdefault((LEVELS[event.kind], event.index), set()).add(event.digest)
    return [
        f"{level} frame {index} has events with {len(found)} different digests"
        for (level, index), found in digests.items()
        if len(found) > 1
    ]


def _differing(job: Kept) -> list[str]:
    """The frames of the last events are those that its units refer to."""
    last = {(LEVELS[e.kind], e.index): e.digest for e in job.events if e.kind in LEVELS and e.index is not None}
    # Of an unfinished job, events may name frames of a unit that was lost and begins again.
    if not job.is_completed:
        last = {place: digest for place, digest in last.items() if place in job.frames}
    return _unlike(job.frames, {place: digest for place, digest in last.items() if digest}, "as its events say")


def _wrong_events(job: Kept, promise: Accepted) -> list[str]:
    """The events and frames that a client received are those of the store."""
    events = {event.seq: event for event in job.events}
    numbers = [event.seq for event in promise.received]
    found = []
    if numbers != sorted(set(numbers)):
        found.append("its client received events twice, or out of order")
    for event in promise.received:
        known = events.get(event.seq)
        if known is None or (known.kind, known.index) != (event.kind, event.index):
            found.append(f"its client received {event.kind} as number {event.seq}, the store has another event there")
    # From its first event on: a client may have begun in the middle of the stream.
    whole = [event.seq for event in job.events if numbers and event.seq >= numbers[0]]
    if numbers and promise.received[-1].kind in FINAL and numbers != whole:
        found.append("its client missed events")
    for (level, index), digest in promise.fetched.items():
        if job.frames.get((level, index)) != digest:
            found.append(f"{level} frame {index} was another one when its client fetched it")
    return found


def _unlike(mine: Frames, other: Frames, when: str) -> list[str]:
    """Frames that are not the same."""
    places = sorted(place for place in mine.keys() | other.keys() if mine.get(place) != other.get(place))
    if not places:
        return []
    level, index = places[0]
    return [f"{len(places)} frames are not those {when}, {level} frame {index} is the first"]


def read_kept(folder: Path) -> list[Kept]:
    """Every job that a server's folder has, its files checked; no server may run on it.

    Raises:
        SphinxError: the store cannot be read.
    """
    artifacts = ArtifactStore(folder / "artifacts")
    store = JobStore.open(folder / "jobs.sqlite", artifacts=artifacts)
    try:
        return [_kept(store, artifacts, row) for row in _all_jobs(store)]
    finally:
        store.close()


def _all_jobs(store: JobStore) -> list[JobRow]:
    """Page by page."""
    rows: list[JobRow] = []
    while page := store.list_jobs(before=rows[-1].id if rows else None, limit=500):
        rows += page
    return rows


def _kept(store: JobStore, artifacts: ArtifactStore, row: JobRow) -> Kept:
    units = store.units(row.id)
    frames = {(level, i): digest for level in ("preview", "final") for i, digest in frames_of(units, level).items()}
    return Kept(
        job_id=row.id,
        key=row.idempotency_key,
        state=row.state.value,
        level=row.level,
        created_s=row.created_s,
        finished_s=row.finished_s,
        reason=row.reason,
        frames=frames,
        events=[_event(event.seq, event.kind.value, event.data) for event in _all_events(store, row.id)],
        damaged=[f"{level} frame {i}" for (level, i), digest in frames.items() if not _is_whole(artifacts, digest)],
    )


def _all_events(store: JobStore, job_id: str) -> list[Event]:
    """Page by page."""
    events: list[Event] = []
    while page := store.events(job_id, after=events[-1].seq if events else 0):
        events += page
    return events


def _event(seq: int, kind: str, data: JSONMapping) -> ReceivedEvent:
    return ReceivedEvent(seq=seq, kind=kind, index=data.get("index"), digest=data.get("frame"))


def _is_whole(artifacts: ArtifactStore, digest: str) -> bool:
    """Whether an artifact's file matches its name's hash."""
    try:
        artifacts.read(digest)
    except SphinxError:
        return False
    return True
