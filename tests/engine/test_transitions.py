"""The transition tables: total, final states stay final, every effect happens once; no other file writes states."""

import ast
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import sphinx_nvs
from sphinx_nvs.engine.types.jobs import FINAL_STATES, EventKind, JobState, UnitKind, UnitRow, UnitState
from sphinx_nvs.engine.types.transitions import (
    JOB_TRANSITIONS,
    UNIT_TRANSITIONS,
    Effect,
    JobEvent,
    UnitEvent,
    failure,
    finished,
    next_job,
    next_unit,
    unit_states_before,
)

LEVELS = ("none", "preview", "final")
PROGRESS = (JobState.QUEUED, JobState.PREVIEWED, JobState.REFINING)


def run(events):
    """A new job's transitions, and its level at the end."""
    state, level, answers = JobState.QUEUED, "none", []
    for event in events:
        answers.append(next_job(state, event))
        state, level = answers[-1].state, answers[-1].level or level
    return answers, level


@pytest.mark.parametrize("event", JobEvent)
@pytest.mark.parametrize("state", JobState)
def test_every_job_state_answers_every_event(state, event):
    answer = next_job(state, event)
    assert answer.is_ignored == (state in FINAL_STATES)
    if answer.is_ignored:
        assert (answer.state, answer.level, answer.effects) == (state, None, frozenset())
    elif answer.state in FINAL_STATES:
        assert answer.effects == frozenset(Effect)
        assert EventKind(answer.state.value), "the stream has an event of the same name"
    else:
        assert answer.effects == frozenset()
        assert PROGRESS.index(answer.state) >= PROGRESS.index(state), "no way back"


def test_the_table_lists_the_unfinished_states_with_every_event():
    assert set(JOB_TRANSITIONS) == set(JobState) - FINAL_STATES
    assert all(set(row) == set(JobEvent) for row in JOB_TRANSITIONS.values())


@given(st.lists(st.sampled_from(JobEvent), max_size=12))
def test_a_job_ends_at_most_once_and_nothing_happens_after_it(events):
    answers, _ = run(events)
    effects = Counter(effect for answer in answers for effect in answer.effects)
    ends = [answer.state.is_final for answer in answers]
    assert effects == (Counter(Effect) if any(ends) else Counter())
    first = ends.index(True) if any(ends) else len(ends)
    assert all(answer.is_ignored and answer.state is answers[first].state for answer in answers[first + 1 :])
    assert not any(answer.is_ignored for answer in answers[: first + 1])


@given(st.lists(st.sampled_from(JobEvent), max_size=12))
def test_the_level_never_falls_and_tells_which_frames_there_are(events):
    levels = [run(events[:end])[1] for end in range(len(events) + 1)]
    assert levels == sorted(levels, key=LEVELS.index)
    answers, level = run(events)
    state = answers[-1].state if answers else JobState.QUEUED
    assert state not in (JobState.QUEUED, JobState.FAILED) or level == "none"
    assert state is not JobState.COMPLETED or level in ("preview", "final")


@pytest.mark.parametrize(
    ("events", "state", "level"),
    [
        ("previewed planned planned refined", JobState.COMPLETED, "final"),
        ("previewed planned given_up", JobState.COMPLETED, "preview"),
        ("previewed given_up", JobState.COMPLETED, "preview"),
        ("given_up", JobState.FAILED, "none"),
        ("cancelled refined", JobState.CANCELLED, "none"),
        ("previewed planned expired", JobState.EXPIRED, "preview"),
    ],
)
def test_sequences_of_events(events, state, level):
    answers, reached = run([JobEvent(event) for event in events.split()])
    assert (answers[-1].state, reached) == (state, level)


@pytest.mark.parametrize("event", UnitEvent)
@pytest.mark.parametrize("state", UnitState)
def test_every_unit_state_answers_every_event(state, event):
    answer = next_unit(state, event)
    assert answer.is_ignored == (event not in UNIT_TRANSITIONS.get(state, {}))
    assert answer.is_ignored == (state not in unit_states_before(event))
    if answer.is_ignored:
        assert (answer.state, answer.attempts) == (state, 0)
    assert not (state in (UnitState.DONE, UnitState.POISON) and not answer.is_ignored)


@given(st.lists(st.sampled_from(UnitEvent), max_size=20))
def test_a_unit_is_done_at_most_once_and_attempts_never_fall_below_zero(events):
    state, attempts, results = UnitState.WAITING, 0, 0
    for event in events:
        answer = next_unit(state, event)
        results += answer.state is UnitState.DONE and not answer.is_ignored
        state, attempts = answer.state, attempts + answer.attempts
        assert attempts >= 0
        assert results == (state is UnitState.DONE)


def test_a_unit_fails_until_its_last_attempt():
    assert [failure(attempt, 3) for attempt in (1, 2, 3, 4)] == [UnitEvent.FAILED] * 2 + [UnitEvent.EXHAUSTED] * 2
    assert failure(9, None) is UnitEvent.RETURNED


def test_a_finished_row_has_its_result():
    row = UnitRow(job_id="j", index=0, kind=UnitKind.REGRESSION, targets=(0,), state=UnitState.RUNNING)
    assert (finished(row, {"x": 1}).state, finished(row, {"x": 1}).result) == (UnitState.DONE, {"x": 1})


# No other file writes a state ---------------------------------------------------------------------------------------

WRITERS = {
    "engine/store/job_rows.py:apply": "what the table answers",
    "engine/store/job_rows.py:insert_job": "a new job's first state, the default of `JobRow`",
    "engine/store/unit_rows.py:apply": "what the table answers",
    "engine/store/row_codec.py:job_from": "what the database holds",
    "engine/store/row_codec.py:unit_from": "what the database holds",
    "engine/store/row_codec.py:row_from_unit": "what the row holds",
    "engine/store/row_codec.py:scene_from": "what the database holds, of a scene that is posed",
    "engine/store/row_codec.py:row_from_scene": "what the row holds, of a scene that is posed",
}
"""The functions that may write a state, and where they have it from."""

READERS = {
    "engine/store/store.py:JobStore:list_jobs": "a filter",
    "engine/metrics.py:Metrics:job_ended": "a metric's label",
}
"""The functions that name a state without writing one."""

NOT_WRITING = {"extra"}
"""Names that a dictionary with a state may be given to: fields of log lines."""


def state_writers(source, name):
    """Functions in which something is given a state: `state=...`, `{"state": ...}` or `x.state = ...`."""

    def visit(node, where):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            where = f"{where}:{node.name}"
        if isinstance(node, ast.Assign | ast.keyword):
            targets = [node.arg] if isinstance(node, ast.keyword) else [getattr(t, "id", "") for t in node.targets]
            if set(targets) & NOT_WRITING:
                return
        is_named = isinstance(node, ast.keyword) and node.arg == "state"
        is_key = isinstance(node, ast.Dict) and any(
            isinstance(k, ast.Constant) and k.value == "state" for k in node.keys
        )
        is_set = isinstance(node, ast.Attribute) and node.attr == "state" and isinstance(node.ctx, ast.Store)
        if is_named or is_key or is_set:
            found.append(where)
        for child in ast.iter_child_nodes(node):
            visit(child, where)

    found = []
    visit(ast.parse(source), name)
    return found


def test_only_the_table_chooses_states():
    root = Path(sphinx_nvs.__file__).parent
    paths = [path for path in sorted((root / "engine").rglob("*.py")) if "migrations" not in path.parts]
    found = {w for path in paths for w in state_writers(path.read_text(), path.relative_to(root).as_posix())}
    found = {writer for writer in found if not writer.startswith("engine/types/transitions.py")}
    assert found == WRITERS.keys() | READERS.keys()


@pytest.mark.parametrize(
    "source",
    [
        "def f(row): return replace(row, state=JobState.FAILED)",
        "def f(row): row.state = JobState.FAILED",
        "def f(conn): update(conn, {'state': 'failed'})",
    ],
)
def test_a_state_that_is_written_elsewhere_is_found(source):
    assert state_writers(source, "x.py") == ["x.py:f"]
