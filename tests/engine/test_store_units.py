"""Units in the store: a unit is finished once, after a bounded number of attempts, whenever the engine dies."""

import sys

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from store_fakes import add_job, open_world, unit_of

from sphinx_nvs.engine.types.jobs import EventKind, JobState, UnitState
from sphinx_nvs.engine.types.transitions import JobEvent, UnitEvent, next_unit

CAP = 3


@pytest.fixture
def store(tmp_path):
    opened, _ = open_world(tmp_path)
    yield opened
    opened.close()


def test_a_unit_is_finished_once(store):
    job = add_job(store)
    assert not store.finish_unit(job.id, 0, result={"by": "no attempt"}, now=1000)
    started = store.start_unit(job.id, 0)
    assert (started.state, started.attempt) == (UnitState.RUNNING, 1)
    assert store.finish_unit(job.id, 0, result={"by": "a"}, now=1001)
    assert not store.finish_unit(job.id, 0, result={"by": "a again"}, now=1002)
    (unit,) = store.units(job.id)
    assert (unit.state, unit.result) == (UnitState.DONE, {"by": "a"})
    assert store.start_unit(job.id, 0) is None


def test_a_unit_that_is_still_running_in_its_row_can_be_started_again(store):
    """Its failure may not have been written, e.g. because the disk was full."""
    job = add_job(store)
    assert [store.start_unit(job.id, 0).attempt for _ in range(2)] == [1, 2]


def test_the_last_attempt_that_fails_is_poison(store):
    job = add_job(store)
    for attempt in range(1, CAP + 1):
        assert store.start_unit(job.id, 0).attempt == attempt
        unit = store.give_up_unit(job.id, 0, error="no", most_attempts=CAP)
        assert unit.state is (UnitState.WAITING if attempt < CAP else UnitState.POISON)
    assert unit.error == "no"
    assert store.start_unit(job.id, 0) is None


def test_the_end_of_a_server_is_not_its_units_fault(store):
    job = add_job(store, units=2)
    for _ in range(5 * CAP):
        assert store.start_unit(job.id, 0).attempt == 1
        assert [unit.index for unit in store.release_units()] == [0]
    assert store.units(job.id)[0].state is UnitState.WAITING


def test_an_attempt_that_does_not_count_is_subtracted(store):
    job = add_job(store)
    for _ in range(5 * CAP):
        assert store.start_unit(job.id, 0).attempt == 1
        unit = store.give_up_unit(job.id, 0, error="no", most_attempts=None)
        assert (unit.state, unit.attempt, unit.error) == (UnitState.WAITING, 0, "no")


def test_giving_up_a_unit_that_is_not_running_changes_nothing(store):
    job = add_job(store)
    (before,) = store.units(job.id)
    assert store.give_up_unit(job.id, 0, error="no", most_attempts=1) == before
    assert store.units(job.id) == [before]


def test_results_and_their_events_are_one_transaction(store):
    job = add_job(store)
    store.start_unit(job.id, 0)
    with pytest.raises(Exception, match="serializable"):
        store.finish_unit(job.id, 0, result={"x": 1}, events=[(EventKind.PREVIEW_FRAME, {"x": object()})], now=1001)
    assert store.units(job.id)[0].state is UnitState.RUNNING
    assert len(store.events(job.id)) == 1


class Units(RuleBasedStateMachine):
    """An engine that starts, finishes, fails and restarts, beside a model of what must be so."""

    @initialize()
    def open(self):
        self.folder = next(FOLDERS)
        self.store, _ = open_world(self.folder)
        self.now, self.results = 1000.0, {}
        self.jobs = [add_job(self.store, units=2, now=self.now).id for _ in range(2)]

    units = st.sampled_from([(0, 0), (1, 0), (1, 1)])

    def unit(self, place):
        """A unit's row as it is stored."""
        return next(row for row in self.store.units(self.jobs[place[0]]) if row.index == place[1])

    @rule(place=units)
    def start(self, place):
        before = self.unit(place)
        if before.attempt >= CAP:
            return  # The engine gives up a unit after its last attempt: only that checks the cap.
        row = self.store.start_unit(self.jobs[place[0]], place[1])
        answer = next_unit(before.state, UnitEvent.STARTED)
        assert (row is None) == (answer.is_ignored or self.is_over(place))
        if row is not None:
            assert (row.state, row.attempt) == (UnitState.RUNNING, before.attempt + 1)

    @rule(place=units)
    def finish(self, place):
        before, result, self.now = self.unit(place), {"at": self.now}, self.now + 1
        events = [(EventKind.FRAME_REFINED, {"index": place[1]})]
        job = self.store.finish_unit(self.jobs[place[0]], place[1], result=result, events=events, now=self.now)
        assert (job is not None) == (before.state is UnitState.RUNNING and not self.is_over(place))
        if job is not None:
            assert place not in self.results, "finished twice"
            self.results[place] = result

    @rule(place=units, counts=st.booleans())
    def give_up(self, place, counts):
        before = self.unit(place)
        cap = CAP if counts else None
        after = self.store.give_up_unit(self.jobs[place[0]], place[1], error="no", most_attempts=cap)
        assert (after != before) == (before.state is UnitState.RUNNING)

    @rule()
    def restart(self):
        self.store.close()
        self.store, _ = open_world(self.folder)
        assert all(row.state is UnitState.WAITING for row in self.store.release_units())

    @precondition(lambda self: not self.is_over((0, 0)))
    @rule()
    def cancel_the_first(self):
        self.store.record(self.jobs[0], JobEvent.CANCELLED, now=self.now, events=[(EventKind.CANCELLED, {})])

    def is_over(self, place):
        """Whether the job has ended."""
        return self.store.job(self.jobs[place[0]]).state.is_final

    @invariant()
    def each_unit_is_in_one_state_and_done_once(self):
        for job, job_id in enumerate(self.jobs):
            for row in self.store.units(job_id):
                result = self.results.get((job, row.index))
                assert (row.state is UnitState.DONE) == (result is not None)
                assert row.result == result
                assert 0 <= row.attempt <= CAP
                assert row.state is not UnitState.POISON or row.attempt == CAP
                assert row.state is not UnitState.RUNNING or not self.is_over((job, row.index))

    @invariant()
    def finished_frames_have_one_event(self):
        for job, job_id in enumerate(self.jobs):
            events = [event.data for event in self.store.events(job_id) if event.kind is EventKind.FRAME_REFINED]
            done = {place[1] for place in self.results if place[0] == job}
            assert sorted(data["index"] for data in events) == sorted(done)

    def teardown(self):
        if hasattr(self, "store"):
            self.store.close()


FOLDERS = iter(())


def run_units(folder, examples, steps):
    """Runs the state machine, each example in a folder of its own."""
    sys.modules[__name__].FOLDERS = (folder / str(number) for number in range(sys.maxsize))
    Units.TestCase.settings = settings(
        max_examples=examples,
        stateful_step_count=steps,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    Units.TestCase("runTest").debug()


def test_units_keep_their_laws(tmp_path):
    run_units(tmp_path, 8, 30)


@pytest.mark.slow
def test_units_keep_their_laws_for_long(tmp_path):
    run_units(tmp_path, 40, 80)


def test_units_are_added_by_number(store):
    job = add_job(store)
    store.add_units(job.id, [unit_of(2), unit_of(1)])
    assert [unit.index for unit in store.units(job.id)] == [0, 1, 2]


def test_the_last_unit_completes_its_job_in_the_same_transaction(store):
    job = add_job(store, units=2)
    for index, quality in ((0, None), (1, 0.9)):
        store.start_unit(job.id, index)
        events = [(EventKind.FRAME_REFINED, {}), (EventKind.COMPLETED, {})][: 1 + index]
        row = store.finish_unit(job.id, index, result={}, events=events, quality=quality, now=1001 + index)
        assert row == store.job(job.id)
    assert (row.state, row.level, row.quality, row.finished_s) == (JobState.COMPLETED, "final", 0.9, 1002.0)
    assert store.events(job.id)[-1].kind is EventKind.COMPLETED
    assert store.finish_unit(job.id, 1, result={}, quality=0.5, now=1003) is None
    assert store.job(job.id).quality == 0.9
