"""Jobs, their events and their pages."""

import dataclasses

import pytest
from store_fakes import add_job, finish, open_world, spec_of, unit_of

from sphinx_nvs.engine.types.jobs import EventKind, JobState, Quote, UnitState
from sphinx_nvs.engine.types.transitions import JobEvent
from sphinx_nvs.errors import InputError, OutputError

QUOTE = Quote(latency_s=2.0, latency_p95_s=3.0, wait_s=0.0, quality=1.0, active_share=0.5, reason="it is idle")
REQUEST = spec_of(views=3, quality=1.0, deadline_s=5.0, min_quality=0.25, seed=2**62, priority=-3, fps=30.0)


@pytest.fixture
def store(tmp_path):
    opened, _ = open_world(tmp_path)
    yield opened
    opened.close()


def test_a_job_comes_back_as_it_was_written(store):
    job = add_job(store, units=2, spec=REQUEST, key="again", expires_s=5000.0, quote=QUOTE)
    assert store.job(job.id) == job
    assert (job.spec, job.quote, job.key_id, job.idempotency_key) == (REQUEST, QUOTE, "k", "again")
    assert (job.state, job.level, job.created_s, job.expires_s) == (JobState.QUEUED, "none", 1000.0, 5000.0)
    assert store.units(job.id) == [dataclasses.replace(unit_of(i), job_id=job.id) for i in range(2)]


def test_whole_seconds_stay_floats_through_every_way_out(store):
    job = add_job(store, expires_s=2_000_000_000.0)
    ended = store.record(job.id, JobEvent.REFINED, now=1_700_000_000.0, quality=1.0)
    for row in (ended, store.job(job.id)):
        assert [type(x) for x in (row.created_s, row.finished_s, row.expires_s, row.quality)] == [float] * 4


def test_acceptance_stores_quote_and_position_in_the_same_transaction(store):
    add_job(store)
    job = add_job(store, quote=QUOTE)
    (event,) = store.events(job.id)
    assert (event.kind, event.at_s) == (EventKind.QUEUED, 1000.0)
    assert event.data == {"position": 1, "quote": dataclasses.asdict(QUOTE)}


def test_units_that_fail_to_be_written_take_the_job_with_them(store):
    with pytest.raises(Exception, match="UNIQUE"):
        store.create_job(
            spec_of(), key_id="k", units=[unit_of(1)] * 2, quote=None, idempotency_key=None, expires_s=None, now=1.0
        )
    assert store.list_jobs() == []
    assert store.events(add_job(store).id)[0].data["position"] == 0


def test_the_same_request_gives_the_same_job(store):
    job = add_job(store, key="r1")
    asked = {"units": [unit_of(0)], "quote": QUOTE, "expires_s": None, "now": 2000.0}
    again, is_new = store.create_job(spec_of(), key_id="k", idempotency_key="r1", **asked)
    assert (again, is_new) == (job, False)
    assert len(store.events(job.id)) == 1
    other, is_new = store.create_job(spec_of(), key_id="another", idempotency_key="r1", **asked)
    assert is_new
    assert other.id != job.id
    with pytest.raises(InputError) as caught:
        store.create_job(spec_of(seed=1), key_id="k", idempotency_key="r1", **asked)
    assert str(caught.value) == "idempotency_key: 'r1' was used for another request; give each request a key of its own"


def test_requests_without_a_key_are_never_the_same(store):
    assert add_job(store).id != add_job(store).id


def test_a_final_state_is_final(store):
    job = add_job(store)
    store.start_unit(job.id, 0)
    ended = store.record(job.id, JobEvent.CANCELLED, now=1001, events=[(EventKind.CANCELLED, {})])
    assert (ended.state, ended.finished_s) == (JobState.CANCELLED, 1001.0)
    assert store.units(job.id)[0].state is UnitState.WAITING
    assert store.record(job.id, JobEvent.REFINED, now=1002, events=[(EventKind.COMPLETED, {})]) is None
    assert store.add_events(job.id, [(EventKind.PROGRESS, {})], now=1002) == []
    assert not store.finish_unit(job.id, 0, result={}, now=1002)
    assert store.start_unit(job.id, 0) is None
    store.add_units(job.id, [unit_of(1)])
    assert len(store.units(job.id)) == 1
    assert store.job(job.id) == ended
    assert [event.kind for event in store.events(job.id)] == [EventKind.QUEUED, EventKind.CANCELLED]


def test_columns_that_are_not_given_stay(store):
    job = add_job(store)
    store.record(job.id, JobEvent.PREVIEWED, now=1001, quality=0.5, reason="busy")
    changed = store.record(job.id, JobEvent.PLANNED, now=1002)
    assert (changed.level, changed.quality, changed.reason) == ("preview", 0.5, "busy")
    assert changed.finished_s is None


def test_missing_jobs_are_none(store):
    assert store.job("job_x") is None
    assert store.units("job_x") == []
    assert store.record("job_x", JobEvent.GIVEN_UP, now=1) is None
    assert store.add_events("job_x", [(EventKind.PROGRESS, {})], now=1) == []
    with pytest.raises(InputError, match="unit 3: job 'job_x' has none of that index; request the job's units"):
        store.give_up_unit("job_x", 3, error="e", most_attempts=1)


def test_units_are_added_once(store):
    job = add_job(store)
    finish(store, job.id, 0, frames={"0": "f"})
    store.add_units(job.id, [unit_of(0), unit_of(1)])
    done, waiting = store.units(job.id)
    assert (done.state, done.result) == (UnitState.DONE, {"frames": {"0": "f"}})
    assert waiting.state is UnitState.WAITING


def test_events_ascend_over_all_jobs_and_are_never_numbered_again(store):
    first, second = add_job(store, expires_s=1500.0), add_job(store, expires_s=1500.0)
    for _ in range(3):
        for job in (first, second):
            store.add_events(job.id, [(EventKind.PROGRESS, {"done": 1}), (EventKind.PROGRESS, {"done": 2})], now=1001)
    numbers = [event.seq for job in (first, second) for event in store.events(job.id)]
    assert len(set(numbers)) == len(numbers) == 14
    for job in (first, second):
        seqs = [event.seq for event in store.events(job.id)]
        assert seqs == sorted(seqs)
        store.record(job.id, JobEvent.CANCELLED, now=1002)
    store.sweep(1600)
    assert store.job(second.id) is None
    assert store.events(add_job(store).id)[0].seq > max(numbers)


def test_events_are_read_after_a_number(store):
    job = add_job(store)
    added = store.add_events(job.id, [(EventKind.PROGRESS, {"done": i}) for i in range(5)], now=1001)
    assert store.events(job.id, after=added[1].seq) == added[2:]
    assert store.events(job.id, after=added[1].seq, limit=2) == added[2:4]
    assert store.events(job.id, after=added[-1].seq) == []


def test_listeners_get_committed_events_only(store):
    heard = []

    def listen(event):
        # A listener can read the event: the commit comes first.
        assert event in store.events(event.job_id)
        heard.append(event)

    stop = store.subscribe(listen)
    job = add_job(store)
    store.start_unit(job.id, 0)
    assert store.finish_unit(job.id, 0, result={}, events=[(EventKind.PREVIEW_FRAME, {})], now=1000)
    assert not store.finish_unit(job.id, 0, result={}, events=[(EventKind.FRAME_REFINED, {})], now=1000)
    assert [event.kind for event in heard] == [EventKind.QUEUED, EventKind.PREVIEW_FRAME]
    stop()
    store.add_events(job.id, [(EventKind.PROGRESS, {})], now=1001)
    assert len(heard) == 2


def test_a_failing_listener_does_not_affect_others(store, caplog):
    heard = []

    def fails(event):
        raise RuntimeError

    store.subscribe(fails)
    store.subscribe(heard.append)
    job = add_job(store)
    assert [event.job_id for event in heard] == [job.id]
    assert "a listener failed" in caplog.text


def test_pages_stay_as_they_are_while_jobs_are_added(store):
    jobs = [add_job(store, key_id="ab"[i % 2]).id for i in range(7)]
    first = store.list_jobs(limit=3)
    add_job(store)
    second = store.list_jobs(limit=3, before=first[-1].id)
    assert [job.id for job in [*first, *second]] == jobs[:0:-1]
    assert [job.id for job in store.list_jobs(key_id="b", limit=2, before=jobs[5])] == [jobs[3], jobs[1]]
    assert store.list_jobs(key_id="nobody") == []
    with pytest.raises(InputError, match="before: there is no job 'x'; leave it out to start with the newest"):
        store.list_jobs(before="x")


def test_jobs_are_listed_by_state_and_resumed_in_order(store):
    jobs = [add_job(store).id for _ in range(4)]
    store.record(jobs[1], JobEvent.GIVEN_UP, now=1001)
    store.record(jobs[2], JobEvent.PLANNED, now=1001)
    assert [job.id for job in store.list_jobs(state=JobState.QUEUED)] == [jobs[3], jobs[0]]
    assert [job.id for job in store.unfinished_jobs()] == [jobs[0], jobs[2], jobs[3]]


def test_a_full_disk_is_one_sentence_and_writes_nothing(store):
    job = add_job(store)
    with store._database.writing() as writing:
        pages = writing.conn.exec_driver_sql("PRAGMA page_count").scalar_one()
        writing.conn.exec_driver_sql(f"PRAGMA max_page_count={pages}")
    events = [(EventKind.PROGRESS, {"words": "x" * 100_000})]
    with pytest.raises(OutputError) as caught:
        store.add_events(job.id, events, now=1)
    assert str(caught.value) == "the store of jobs: the disk is full; free some space"
    assert len(store.events(job.id)) == 1


def test_a_preview_its_state_and_what_comes_after_it_are_stored_together_or_not_at_all(store):
    job = add_job(store)
    events = [(EventKind.PREVIEW_FRAME, {"index": 0})]
    asked = {"result": {"made": "it"}, "units": [unit_of(1), unit_of(2)], "events": events, "now": 1001}
    assert store.finish_preview(job.id, 0, **asked) is None
    assert (store.job(job.id).state, len(store.units(job.id))) == (JobState.QUEUED, 1)
    store.start_unit(job.id, 0)
    stored = store.finish_preview(job.id, 0, **asked)
    assert (stored.state, stored.level) == (JobState.PREVIEWED, "preview")
    assert stored == store.job(job.id)
    assert [unit.state for unit in store.units(job.id)] == [UnitState.DONE, UnitState.WAITING, UnitState.WAITING]
    assert [event.kind for event in store.events(job.id)] == [EventKind.QUEUED, EventKind.PREVIEW_FRAME]
    assert store.finish_preview(job.id, 0, **asked) is None
    assert len(store.events(job.id)) == 2
