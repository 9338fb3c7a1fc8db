"""Leases: whatever owners do, and whenever they die, a unit is finished once and tried so often at most."""

import sys

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from store_fakes import add_job, open_world, unit_of

from sphinx_nvs.engine.store import unit_rows as statements
from sphinx_nvs.engine.types.jobs import EventKind, JobState, UnitState

CAP, LEASE_S = 3, 10.0
OWNERS = st.sampled_from(["a", "b"])


@pytest.fixture
def store(tmp_path):
    opened, _ = open_world(tmp_path)
    yield opened
    opened.close()


def test_a_unit_has_one_owner_at_a_time(store):
    job = add_job(store)
    mine = store.lease_unit(job.id, 0, owner="a", until_s=1030, now=1000)
    assert (mine.state, mine.attempt, mine.lease_owner, mine.lease_until_s) == (UnitState.LEASED, 1, "a", 1030.0)
    assert store.lease_unit(job.id, 0, owner="b", until_s=1040, now=1029.9) is None
    theirs = store.lease_unit(job.id, 0, owner="b", until_s=1060, now=1030)
    assert (theirs.attempt, theirs.lease_owner) == (2, "b")
    assert not store.finish_unit(job.id, 0, owner="a", result={"by": "a"}, now=1031)
    assert store.finish_unit(job.id, 0, owner="b", result={"by": "b"}, now=1031)
    assert not store.finish_unit(job.id, 0, owner="b", result={"by": "b again"}, now=1032)
    (unit,) = store.units(job.id)
    assert (unit.state, unit.result, unit.lease_owner, unit.lease_until_s) == (UnitState.DONE, {"by": "b"}, None, None)
    assert store.lease_unit(job.id, 0, owner="a", until_s=1060, now=1032) is None


def test_heartbeats_prolong_what_has_not_run_out(store):
    job = add_job(store, units=3)
    for index, (owner, until_s) in enumerate([("a", 1030), ("a", 1010), ("b", 1030)]):
        store.lease_unit(job.id, index, owner=owner, until_s=until_s, now=1000)
    assert store.renew("a", 1050, now=1020) == 1
    assert [unit.lease_until_s for unit in store.units(job.id)] == [1050.0, 1010.0, 1030.0]


def test_a_lease_that_runs_out_is_nobodys_with_the_reason(store):
    job = add_job(store)
    store.lease_unit(job.id, 0, owner="a", until_s=1030, now=1000)
    assert store.expire_leases(1029, CAP) == []
    (unit,) = store.expire_leases(1030, CAP)
    assert (unit.state, unit.error, unit.lease_owner) == (UnitState.WAITING, statements.LEASE_LOST, None)
    assert store.renew("a", 1060, now=1031) == 0


@pytest.mark.parametrize("ending", ["give up", "expire", "release"])
def test_the_last_attempt_that_fails_is_poison(store, ending):
    job = add_job(store)
    for attempt in range(1, CAP + 1):
        assert store.lease_unit(job.id, 0, owner="a", until_s=1030, now=1000).attempt == attempt
        if ending == "give up":
            store.give_up_unit(job.id, 0, owner="a", error="no", most_attempts=CAP, now=1001)
        elif ending == "expire":
            store.expire_leases(1030, CAP)
        else:
            store.release("a", now=1001, most_attempts=CAP)
        (unit,) = store.units(job.id)
        assert unit.state is (UnitState.WAITING if attempt < CAP else UnitState.POISON)
    assert unit.error == ("no" if ending == "give up" else statements.LEASE_LOST)
    assert store.lease_unit(job.id, 0, owner="a", until_s=1030, now=1002) is None


def test_the_end_of_a_server_is_not_its_units_fault(store):
    job = add_job(store, units=2)
    for _ in range(5 * CAP):
        assert store.lease_unit(job.id, 0, owner="a", until_s=1030, now=1000).attempt == 1
        assert [unit.index for unit in store.release("a", now=1001)] == [0]
    assert store.units(job.id)[0].state is UnitState.WAITING


def test_an_attempt_that_is_given_back_was_none(store):
    job = add_job(store)
    for _ in range(5 * CAP):
        assert store.lease_unit(job.id, 0, owner="a", until_s=1030, now=1000).attempt == 1
        unit = store.give_up_unit(job.id, 0, owner="a", error="no", most_attempts=None, now=1001)
        assert (unit.state, unit.attempt, unit.error) == (UnitState.WAITING, 0, "no")


def test_giving_up_what_is_anothers_changes_nothing(store):
    job = add_job(store)
    before = store.lease_unit(job.id, 0, owner="a", until_s=1030, now=1000)
    assert store.give_up_unit(job.id, 0, owner="b", error="no", most_attempts=1, now=1001) == before


def test_results_and_their_events_are_one_transaction(store):
    job = add_job(store)
    store.lease_unit(job.id, 0, owner="a", until_s=1030, now=1000)
    with pytest.raises(Exception, match="serializable"):
        store.finish_unit(
            job.id, 0, owner="a", result={"x": 1}, events=[(EventKind.PREVIEW_FRAME, {"x": object()})], now=1001
        )
    assert store.units(job.id)[0].state is UnitState.LEASED
    assert len(store.events(job.id)) == 1


class Leases(RuleBasedStateMachine):
    """Owners that lease, die, come back and lie, beside a model of what must be so."""

    @initialize()
    def open(self):
        self.folder = next(FOLDERS)
        self.store, _ = open_world(self.folder)
        self.now, self.finishers, self.leased = 1000.0, {}, {}
        self.jobs = [add_job(self.store, units=2, now=self.now).id for _ in range(2)]

    units = st.sampled_from([(0, 0), (1, 0), (1, 1)])

    def unit(self, place):
        """Its row as it is stored."""
        return next(row for row in self.store.units(self.jobs[place[0]]) if row.index == place[1])

    @rule(place=units, owner=OWNERS)
    def lease(self, place, owner):
        before = self.unit(place)
        if before.lease_owner == owner and before.attempt >= CAP:
            return  # An engine gives up what it holds before it takes it again: only that looks at the cap.
        until_s = self.now + LEASE_S
        row = self.store.lease_unit(self.jobs[place[0]], place[1], owner=owner, until_s=until_s, now=self.now)
        is_free = before.state is UnitState.WAITING or (
            before.state is UnitState.LEASED and (before.lease_owner == owner or before.lease_until_s <= self.now)
        )
        assert (row is not None) == (is_free and not self.is_over(place))
        if row is not None:
            assert (row.lease_owner, row.attempt) == (owner, before.attempt + 1)

    @rule(place=units, owner=OWNERS)
    def finish(self, place, owner):
        before = self.unit(place)
        by = f"{owner} at {self.now}"
        job = self.store.finish_unit(
            self.jobs[place[0]],
            place[1],
            owner=owner,
            result={"by": by},
            events=[(EventKind.FRAME_REFINED, {"index": place[1]})],
            now=self.now,
        )
        is_done = job is not None
        assert is_done == (before.lease_owner == owner and not self.is_over(place))
        if is_done:
            assert place not in self.finishers, "finished twice"
            self.finishers[place] = by

    @rule(place=units, owner=OWNERS)
    def give_up(self, place, owner):
        before = self.unit(place)
        after = self.store.give_up_unit(
            self.jobs[place[0]], place[1], owner=owner, error="no", most_attempts=CAP, now=self.now
        )
        assert (after != before) == (before.lease_owner == owner)

    @rule(owner=OWNERS)
    def beat(self, owner):
        self.store.renew(owner, self.now + LEASE_S, now=self.now)

    @rule(owner=OWNERS, is_blamed=st.booleans())
    def release(self, owner, is_blamed):
        for row in self.store.release(owner, now=self.now, most_attempts=CAP if is_blamed else None):
            assert row.state in (UnitState.WAITING, UnitState.POISON)

    @rule(seconds=st.sampled_from([1.0, 4.0, 11.0]))
    def wait(self, seconds):
        self.now += seconds
        # As a sweeper does; whoever leases late takes it before.
        self.store.expire_leases(self.now, CAP)

    @rule()
    def reopen(self):
        self.store.close()
        self.store, _ = open_world(self.folder)

    @precondition(lambda self: not self.is_over((0, 0)))
    @rule()
    def cancel_the_first(self):
        self.store.set_state(self.jobs[0], JobState.CANCELLED, now=self.now, events=[(EventKind.CANCELLED, {})])

    def is_over(self, place):
        """Whether the job was ended."""
        return self.store.job(self.jobs[place[0]]).state.is_final

    @invariant()
    def each_unit_is_in_one_state_and_done_by_one(self):
        for job, job_id in enumerate(self.jobs):
            for row in self.store.units(job_id):
                by = self.finishers.get((job, row.index))
                assert (row.state is UnitState.DONE) == (by is not None)
                assert row.result == (None if by is None else {"by": by})
                assert (row.state is UnitState.LEASED) == (row.lease_owner is not None)
                assert 0 <= row.attempt <= CAP
                assert row.state is not UnitState.POISON or row.attempt == CAP

    @invariant()
    def finished_frames_are_told_once(self):
        for job, job_id in enumerate(self.jobs):
            told = [event.data for event in self.store.events(job_id) if event.kind is EventKind.FRAME_REFINED]
            done = {place[1] for place in self.finishers if place[0] == job}
            assert sorted(data["index"] for data in told) == sorted(done)

    def teardown(self):
        if hasattr(self, "store"):
            self.store.close()


FOLDERS = iter(())


def keep_their_laws(folder, examples, steps):
    """Runs the machine in folders of its own."""
    sys.modules[__name__].FOLDERS = (folder / str(number) for number in range(sys.maxsize))
    Leases.TestCase.settings = settings(
        max_examples=examples,
        stateful_step_count=steps,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    Leases.TestCase("runTest").debug()


def test_leases_keep_their_laws(tmp_path):
    keep_their_laws(tmp_path, 8, 30)


@pytest.mark.slow
def test_leases_keep_their_laws_for_long(tmp_path):
    keep_their_laws(tmp_path, 40, 80)


def test_units_of_another_process_are_passed_over_in_postgresql():
    from sqlalchemy.dialects import postgresql

    text = str(statements.free_unit("j", 0, "a", 1.0).compile(dialect=postgresql.dialect()))
    assert text.endswith("FOR UPDATE OF units SKIP LOCKED")


def test_units_are_added_by_number(store):
    job = add_job(store)
    store.add_units(job.id, [unit_of(2), unit_of(1)])
    assert [unit.index for unit in store.units(job.id)] == [0, 1, 2]


def test_the_last_unit_completes_its_job_in_the_same_transaction(store):
    job = add_job(store, units=2)
    for index, quality in ((0, None), (1, 0.9)):
        store.lease_unit(job.id, index, owner="a", until_s=2000, now=1000)
        told = [(EventKind.FRAME_REFINED, {}), (EventKind.COMPLETED, {})][: 1 + index]
        row = store.finish_unit(job.id, index, owner="a", result={}, events=told, quality=quality, now=1001 + index)
        assert row == store.job(job.id)
    assert (row.state, row.level, row.quality, row.finished_s) == (JobState.COMPLETED, "final", 0.9, 1002.0)
    assert store.events(job.id)[-1].kind is EventKind.COMPLETED
    assert store.finish_unit(job.id, 1, owner="a", result={}, quality=0.5, now=1003) is None
    assert store.job(job.id).quality == 0.9
