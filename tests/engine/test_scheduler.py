"""Laws of the scheduler: floors, one device a unit, no starvation, recovery, determinism."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scheduler_world import World, request_of, requests

from sphinx_nvs.engine.scheduler.scheduler import Scheduler
from sphinx_nvs.engine.scheduler.types import Phase, SchedulerConfig
from sphinx_nvs.engine.types.messages import DeviceReady
from sphinx_nvs.errors import InputError

DISTURBANCES = st.sampled_from(["none", "none", "none", "cancel", "crash", "refuse"])
SCRIPTS = st.lists(st.tuples(st.sampled_from([0.0, 0.01, 0.3, 2.0]), requests(), DISTURBANCES), min_size=1, max_size=8)
CONFIGS = st.sampled_from(
    [
        SchedulerConfig(),
        SchedulerConfig(packing=True, pack_below=0.9, max_held=2),
        SchedulerConfig(max_held=1, preview_share=0.0, refinement_share=0.0, late_share=0.05),
    ]
)


def play(script, devices, config, *, asks=False):
    """Sends requests with disturbances until all jobs have ended. `asks` requests quotes in between."""
    world = World(devices, config=config)
    for number, (gap, fields, disturbance) in enumerate(script):
        world.until(world.now + gap)
        if asks:
            other = request_of("other", world.now, views=9, deadline_s=2.0)
            world.scheduler.quote(world.now, other)
            world.scheduler.would_admit(world.now, other)
            world.scheduler.snapshot(world.now)
        world.admit(request_of(f"job-{number}", world.now, **fields))
        if disturbance == "cancel":
            world.cancel(f"job-{number // 2}")
        elif disturbance == "crash":
            world.crash(number % devices)
        elif disturbance == "refuse":
            world.refuse(number % devices)
    world.finish()
    return world


@settings(deadline=None, max_examples=40)
@given(SCRIPTS, st.integers(1, 3), CONFIGS)
def test_every_job_ends_after_any_disturbance(script, devices, config):
    """The world checks every command on the way: floors, one device a unit, order, nothing made twice."""
    world = play(script, devices, config)
    assert not world.left
    seen = world.scheduler.snapshot(world.now)
    assert (seen.jobs, seen.backlog_s, seen.pressure) == (0, 0.0, 0.0)
    assert all(device.held == () and not device.is_busy for device in seen.devices)


@settings(deadline=None, max_examples=8)
@given(SCRIPTS, st.integers(1, 3), CONFIGS)
def test_the_same_calls_lead_to_the_same_decisions_and_quotes_change_nothing(script, devices, config):
    first = play(script, devices, config)
    assert play(script, devices, config).decisions == first.decisions
    assert play(script, devices, config, asks=True).decisions == first.decisions


@settings(deadline=None, max_examples=30)
@given(SCRIPTS, requests(), st.floats(0.05, 60), st.floats(0, 60))
def test_a_later_deadline_is_never_refused_where_an_earlier_one_is_accepted(script, fields, deadline, more):
    world = World(2, config=SchedulerConfig(reject_late=True))
    for number, (gap, queued, _) in enumerate(script):
        world.until(world.now + gap)
        world.admit(request_of(f"job-{number}", world.now, **queued))

    def accepts(deadline_s):
        request = request_of("new", world.now, **{**fields, "deadline_s": deadline_s})
        return world.scheduler.would_admit(world.now, request).accepted

    assert accepts(deadline) <= accepts(deadline + more)


@settings(deadline=None, max_examples=20)
@given(requests(), st.lists(st.floats(0.05, 100), min_size=2, max_size=5), st.integers(0, 6))
def test_a_later_deadline_never_lowers_the_quality_of_an_idle_server(fields, deadlines, others):
    world = World(1)
    for number in range(others):
        world.admit(request_of(f"job-{number}", world.now, views=3, deadline_s=5.0))
    world.finish()
    quotes = [
        world.scheduler.quote(world.now, request_of("new", world.now, **{**fields, "deadline_s": deadline}))
        for deadline in sorted(deadlines)
    ]
    assert [quote.quality for quote in quotes] == sorted(quote.quality for quote in quotes)


@pytest.mark.parametrize("speed", [0.5, 1.0, 3.0])
def test_quality_goes_down_in_a_burst_and_comes_back_to_the_top(speed):
    world = World(1, speed=speed)
    for number in range(40):
        world.admit(request_of(f"job-{number}", world.now, quality=1.0, min_quality=0.5, deadline_s=25.0))
    world.finish()
    lowered = [d.degraded for n in range(40) for d in world.begun(f"job-{n}") if d.degraded]
    assert len(lowered) > 20
    assert any("load" in degraded.why for degraded in lowered)

    world.until(world.now + 5.0)
    world.admit(request_of("after", world.now, quality=1.0))
    world.admit(request_of("in time", world.now, quality=1.0, deadline_s=120.0))
    world.finish()
    for name in ("after", "in time"):
        assert [(d.quality, d.degraded) for d in world.begun(name)] == [(1.0, None)]


def test_quality_rises_again_while_a_burst_is_worked_off():
    world = World(1)
    for number in range(30):
        deadline = 5.0 + 0.9 * number if number < 20 else 120.0
        world.admit(request_of(f"job-{number}", quality=1.0, min_quality=0.5, deadline_s=deadline))
    world.finish()
    qualities = [world.begun(f"job-{number}")[0].quality for number in range(30)]
    assert max(qualities[5:15]) < min(qualities[20:])


def test_a_device_is_free_at_the_first_decision_after_a_cancellation():
    world = World(1)
    world.admit(request_of("long", views=8, quality=1.0))
    while world.busy[0].phase is not Phase.STEP:
        world.step()
    world.cancel("long")
    before = len(world.decisions)
    world.step()
    assert [d.phase for _, d in world.decisions[before:]] == [Phase.DROP]
    world.step()
    assert world.scheduler.snapshot(world.now).devices[0].held == ()
    assert not world.busy


def test_an_urgent_job_goes_first_at_the_next_step():
    world = World(1)
    world.admit(request_of("batch", views=8, quality=1.0))
    while world.busy[0].phase is not Phase.STEP:
        world.step()
    world.admit(request_of("urgent", world.now, views=1, quality=0.9, deadline_s=1.8))
    world.step()
    assert world.busy[0].unit[0] == "urgent"
    world.finish()
    assert world.ended == ["urgent", "batch"]
    assert len(world.begun("batch")) == 1, "it went on where it was"


def test_deadlines_come_before_fairness():
    """A key that was served a lot is still first when only its deadline is near."""
    world = World(1)
    for number in range(3):
        world.admit(request_of(f"before-{number}", key="greedy", quality=1.0))
    world.finish()
    world.admit(request_of("calm", world.now, key="modest", views=8, quality=1.0))
    world.admit(request_of("near", world.now, key="greedy", quality=0.9, deadline_s=1.2))
    world.finish()
    assert world.ended[-2:] == ["near", "calm"]


def test_one_key_with_many_jobs_does_not_keep_another_waiting():
    world = World(1)
    for number in range(12):
        world.admit(request_of(f"many-{number}", key="many", quality=1.0))
    world.until(1.0)
    world.admit(request_of("single", world.now, key="single", quality=1.0))
    world.finish()
    assert world.ended.index("single") <= 2


def test_priority_decides_among_equals():
    world = World(1)
    for name, priority in (("first", 0), ("low", -5), ("high", 5)):
        world.admit(request_of(name, quality=1.0, priority=priority))
    world.finish()
    assert world.ended.index("high") < world.ended.index("low")


def test_late_jobs_get_their_floor_and_their_share():
    world = World(1, config=SchedulerConfig(late_share=0.2))
    world.admit(request_of("lost", views=8, quality=1.0, min_quality=0.9, deadline_s=0.1))
    for number in range(40):
        world.admit(request_of(f"job-{number}", quality=0.95, deadline_s=200.0))
    world.finish()
    (begun,) = world.begun("lost")
    assert (begun.quality, begun.within_s) == (0.9, None)
    assert "cannot be met" in begun.degraded.why
    assert world.ended.index("lost") < 35


def test_previews_come_first_unless_something_is_urgent():
    world = World(1)
    world.admit(request_of("first", views=8, quality=1.0))
    for number in range(3):
        world.admit(request_of(f"job-{number}", quality=1.0))
    world.finish()
    phases = [d.phase for _, d in world.decisions[:6]]
    assert phases.count(Phase.REGRESS) >= 3


def test_sparse_units_of_one_size_share_a_step():
    config = SchedulerConfig(packing=True, pack_below=0.5)
    world = World(1, config=config)
    for number in range(3):
        world.admit(request_of(f"job-{number}", quality=0.9))
    world.finish()
    assert max(len(d.units) for _, d in world.decisions if d.phase is Phase.STEP) == 3
    assert len(world.ended) == 3


def test_a_restored_job_continues_after_its_finished_units():
    scheduler = Scheduler(SchedulerConfig(), 1)
    scheduler.update(0.0, DeviceReady(device=0, name="fake"))
    request = request_of("old", views=20, split_already=True, quality=0.9)
    assert len(request.units) > 3
    scheduler.restore(0.0, request, done_units=(0, 1))
    (decision,) = scheduler.schedule(0.0)
    assert (decision.phase, decision.unit) == (Phase.BEGIN, ("old", 2))
    scheduler.restore(0.0, request_of("done", views=4, split_already=True), done_units=(0, 1))
    assert scheduler.snapshot(0.0).jobs == 1


def test_a_full_queue_refuses_and_says_when_to_retry():
    world = World(1, config=SchedulerConfig(max_queue=2))
    for number in range(2):
        assert world.admit(request_of(f"job-{number}", quality=1.0)).accepted
    refused = world.admit(request_of("third", quality=1.0))
    assert not refused.accepted
    assert refused.sentence == "the queue is full: 2 jobs are not finished; try again later"
    assert refused.retry_after_s >= 1


def test_a_key_has_its_own_bound():
    world = World(1, config=SchedulerConfig(max_queue_per_key=1))
    assert world.admit(request_of("one", key="a")).accepted
    refused = world.admit(request_of("two", key="a"))
    assert refused.sentence == "this key has 1 unfinished jobs; wait for one of them to end"
    assert world.admit(request_of("three", key="b")).accepted


def test_what_cannot_be_met_is_quoted_honestly_and_rejected_if_so_configured():
    hopeless = {"quality": 1.0, "min_quality": 1.0, "deadline_s": 0.5, "views": 8}
    taken = World(1).admit(request_of("job", **hopeless))
    assert taken.accepted
    assert taken.quote.latency_s > 0.5
    refused = World(1, config=SchedulerConfig(reject_late=True)).admit(request_of("job", **hopeless))
    assert refused.sentence == "deadline_s: 0.5 s cannot be met even at min_quality; allow more time"
    assert refused.retry_after_s > 1


def test_a_quote_is_close_on_an_idle_device():
    world = World(1)
    quote = world.admit(request_of("job", quality=1.0)).quote
    world.finish()
    assert quote.latency_s == pytest.approx(world.now, rel=0.4)
    assert quote.latency_p95_s > quote.latency_s
    assert (quote.quality, quote.wait_s) == (1.0, 0.0)


def test_a_job_enters_once_and_with_its_preview():
    scheduler = Scheduler(SchedulerConfig(), 1)
    scheduler.admit(0.0, request_of("job"))
    with pytest.raises(ValueError, match="job job was added already"):
        scheduler.admit(0.0, request_of("job"))
    without = request_of("bare", split_already=True)
    with pytest.raises(ValueError, match="no regression unit"):
        scheduler.admit(0.0, type(without)(**{**vars(without), "units": without.units[1:]}))


def test_reports_without_a_running_command_change_nothing():
    world = World(1)
    world.admit(request_of("job", quality=0.9))
    _, report = world.model.carry_out(world.busy[0], world.requests)
    world.scheduler.update(0.0, report, 0)
    before = world.scheduler.snapshot(0.0)
    world.scheduler.update(0.0, report, 0)
    world.scheduler.update(0.0, report)
    world.scheduler.check()
    assert world.scheduler.snapshot(0.0) == before


@pytest.mark.parametrize(
    ("field", "value", "sentence"),
    [
        ("max_queue", 0, "scheduler.max_queue"),
        ("late_share", 1.0, "scheduler.late_share"),
        ("preview_share", -0.1, "scheduler.preview_share"),
    ],
)
def test_settings_out_of_range_are_named(field, value, sentence):
    with pytest.raises(InputError, match=sentence):
        SchedulerConfig(**{field: value})


def test_some_time_must_be_left():
    with pytest.raises(InputError, match="nothing is left"):
        SchedulerConfig(headroom=0.6, late_share=0.5)
