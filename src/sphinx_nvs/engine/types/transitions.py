"""The life of a job and of its units: the one table that says which state follows which event, and with what effects.

    job     queued ──previewed──► previewed ──planned──► refining ──refined──► completed (level final)
              │                      └──────given up────────┴─────────────────► completed (level preview)
              └─────given up──────────────────────────────────────────────────► failed
            any unfinished state ──cancelled──► cancelled,  ──expired──► expired

    unit    waiting ──started──► running ──finished──► done
               ▲                    ├──exhausted─────► poison
               └────failed, returned, job ended

Pure and total: every (state, event) pair has an answer, and a pair that means nothing is ignored: nothing is written,
no event is sent. The store derives its SQL guards from these tables. The engine, and recovery after a restart, change
states through the store alone, so that no other file chooses a state.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum

from sphinx_nvs.engine.types.jobs import JobState, UnitRow, UnitState
from sphinx_nvs.json_types import JSONObject


class JobEvent(StrEnum):
    """What can happen to a job."""

    PREVIEWED = "previewed"
    """Every target view has been rendered by the regressor."""
    PLANNED = "planned"
    """A unit of refinement has a plan."""
    REFINED = "refined"
    """Every frame has been refined."""
    GIVEN_UP = "given_up"
    """No further frame can be made: the job ends with the frames that it has."""
    CANCELLED = "cancelled"
    """The user cancels the job."""
    EXPIRED = "expired"
    """The job's time to live is over."""


class UnitEvent(StrEnum):
    """What can happen to a unit."""

    STARTED = "started"
    """A device is about to work on it."""
    FINISHED = "finished"
    """Its result is stored."""
    FAILED = "failed"
    """An attempt failed and another is allowed."""
    EXHAUSTED = "exhausted"
    """An attempt failed and no other is allowed."""
    RETURNED = "returned"
    """An attempt ended for a reason that is not the unit's fault; it does not count."""
    JOB_ENDED = "job_ended"
    """The unit's job has reached a final state."""


class Effect(StrEnum):
    """What has to happen together with a job's change of state; all of them happen once, when the job ends."""

    STAMP_END = "stamp_end"
    """The time of the end is written."""
    RELEASE_UNITS = "release_units"
    """Running units of the job are no longer running."""


@dataclass(frozen=True, kw_only=True)
class JobTransition:
    """The answer to an event.

    Args:
        state: the job's state after the event.
        level: the best frames that all target views have from now on; None leaves the level as it is.
        effects: what has to happen in the same transaction.
        is_ignored: whether the event means nothing in this state.
    """

    state: JobState
    level: str | None = None
    effects: frozenset[Effect] = frozenset()
    is_ignored: bool = False


@dataclass(frozen=True, kw_only=True)
class UnitTransition:
    """The answer to an event.

    Args:
        state: the unit's state after the event.
        attempts: change of the number of counted attempts.
        is_ignored: whether the event means nothing in this state.
    """

    state: UnitState
    attempts: int = 0
    is_ignored: bool = False


def _to(state: JobState, level: str | None = None) -> JobTransition:
    """A transition; final states have all effects."""
    return JobTransition(state=state, level=level, effects=frozenset(Effect) if state.is_final else frozenset())


_CANCELLED, _EXPIRED = _to(JobState.CANCELLED), _to(JobState.EXPIRED)
_REFINED = _to(JobState.COMPLETED, "final")
_PREVIEW_ONLY = _to(JobState.COMPLETED, "preview")

# An event that implies an earlier one (a plan implies a preview) advances the job past the state between.
JOB_TRANSITIONS: Mapping[JobState, Mapping[JobEvent, JobTransition]] = {
    JobState.QUEUED: {
        JobEvent.PREVIEWED: _to(JobState.PREVIEWED, "preview"),
        JobEvent.PLANNED: _to(JobState.REFINING),
        JobEvent.REFINED: _REFINED,
        JobEvent.GIVEN_UP: _to(JobState.FAILED),
        JobEvent.CANCELLED: _CANCELLED,
        JobEvent.EXPIRED: _EXPIRED,
    },
    JobState.PREVIEWED: {
        JobEvent.PREVIEWED: _to(JobState.PREVIEWED, "preview"),
        JobEvent.PLANNED: _to(JobState.REFINING),
        JobEvent.REFINED: _REFINED,
        JobEvent.GIVEN_UP: _PREVIEW_ONLY,
        JobEvent.CANCELLED: _CANCELLED,
        JobEvent.EXPIRED: _EXPIRED,
    },
    JobState.REFINING: {
        JobEvent.PREVIEWED: _to(JobState.REFINING, "preview"),
        JobEvent.PLANNED: _to(JobState.REFINING),
        JobEvent.REFINED: _REFINED,
        JobEvent.GIVEN_UP: _PREVIEW_ONLY,
        JobEvent.CANCELLED: _CANCELLED,
        JobEvent.EXPIRED: _EXPIRED,
    },
}
"""What happens to unfinished jobs. Final states have no row: `next_job` ignores every event there."""

UNIT_TRANSITIONS: Mapping[UnitState, Mapping[UnitEvent, UnitTransition]] = {
    UnitState.WAITING: {
        UnitEvent.STARTED: UnitTransition(state=UnitState.RUNNING, attempts=1),
    },
    UnitState.RUNNING: {
        # A unit whose failure could not be written is still running in its row when it is started again.
        UnitEvent.STARTED: UnitTransition(state=UnitState.RUNNING, attempts=1),
        UnitEvent.FINISHED: UnitTransition(state=UnitState.DONE),
        UnitEvent.FAILED: UnitTransition(state=UnitState.WAITING),
        UnitEvent.EXHAUSTED: UnitTransition(state=UnitState.POISON),
        # Takes back the count of `STARTED`: the attempt was never its own fault.
        UnitEvent.RETURNED: UnitTransition(state=UnitState.WAITING, attempts=-1),
        UnitEvent.JOB_ENDED: UnitTransition(state=UnitState.WAITING),
    },
}
"""What happens to units. Pairs that are not listed are ignored."""


def next_job(state: JobState, event: JobEvent) -> JobTransition:
    """The answer to an event that happens to a job in this state."""
    ignored = JobTransition(state=state, is_ignored=True)
    return JOB_TRANSITIONS.get(state, {}).get(event, ignored)


def next_unit(state: UnitState, event: UnitEvent) -> UnitTransition:
    """The answer to an event that happens to a unit in this state."""
    ignored = UnitTransition(state=state, is_ignored=True)
    return UNIT_TRANSITIONS.get(state, {}).get(event, ignored)


def unit_states_before(event: UnitEvent) -> frozenset[UnitState]:
    """The states in which an event is not ignored."""
    return frozenset(state for state in UnitState if not next_unit(state, event).is_ignored)


def failure(attempt: int, most_attempts: int | None) -> UnitEvent:
    """The event that a failed attempt is.

    Args:
        attempt: number of counted attempts, this one included.
        most_attempts: number of attempts after which a unit is given up; None if this attempt does not count.
    """
    if most_attempts is None:
        return UnitEvent.RETURNED
    return UnitEvent.EXHAUSTED if attempt >= most_attempts else UnitEvent.FAILED


def finished(row: UnitRow, result: JSONObject) -> UnitRow:
    """A running unit's row once its result is stored."""
    return replace(row, state=next_unit(row.state, UnitEvent.FINISHED).state, result=result)
