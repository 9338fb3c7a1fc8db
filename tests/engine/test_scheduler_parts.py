"""The scheduler's parts one by one: prices that learn, ladders, shares, and the analysis on hand-made queues."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scheduler_world import WINDOW, prices_of, request_of

from sphinx_nvs.engine.scheduler.demand import DeviceCapacity
from sphinx_nvs.engine.scheduler.fairness import ArrivalRate, Claim, Served
from sphinx_nvs.engine.scheduler.feasibility import analyse, start_times
from sphinx_nvs.engine.scheduler.job_entries import Job, Standing, Urgency
from sphinx_nvs.engine.scheduler.price_correction import CLAMP, TOP, Correction, Ladder
from sphinx_nvs.engine.scheduler.price_correction import WINDOW as MEMORY
from sphinx_nvs.engine.scheduler.types import SchedulerConfig
from sphinx_nvs.load_testing.simulation.simulate import split_units


def job_of(order, *, views=4, due=10.0, floor=0.0, asked=1.0, priority=0, is_soft=False, previewed=True):
    """A job in the state, all of its units known."""
    name = f"job-{order}"
    request = request_of(name, views=views, min_quality=floor, priority=priority)
    ladder = Ladder.of(prices_of(views), floor, asked)
    job = Job(request=request, order=order, ladder=ladder, asked=asked, due=due, is_soft=is_soft)
    job.add(split_units(name, views, WINDOW))
    if previewed:
        job.preview.standing = Standing.DONE
        job.changed()
    return job


def capacity(devices=1, **changes):
    """Devices that take what is predicted."""
    values = {"now": 0.0, "refinement": 1.0, "plan": 1.0, "preview": 1.0, "waits_late": False}
    return DeviceCapacity(devices=devices, arriving=ArrivalRate(15.0), **{**values, **changes})


def test_one_slow_measurement_changes_nothing():
    correction = Correction()
    for _ in range(10):
        correction.learn(1.0, 1.0)
    correction.learn(1.0, 50.0)
    assert correction.factor == 1.0


@given(st.lists(st.floats(0.001, 1000), max_size=60))
def test_a_correction_is_bounded_and_forgets(ratios):
    correction = Correction()
    for ratio in ratios:
        correction.learn(1.0, ratio)
        assert CLAMP[0] <= correction.factor <= CLAMP[1]
    for _ in range(MEMORY):
        correction.learn(2.0, 3.0)
    assert correction.factor == 1.5


def test_nothing_is_learnt_without_a_prediction():
    correction = Correction()
    for _ in range(40):
        correction.learn(0.0, 5.0)
    assert (correction.factor, correction.spread(0.95, 2.5)) == (1.0, 2.5)


@given(st.floats(0, 1), st.floats(0, 1))
def test_a_ladder_runs_from_the_floor_to_the_requested_quality(floor, asked):
    ladder = Ladder.of(prices_of(4), floor, asked)
    qualities = [rung.quality for rung in ladder.rungs]
    assert (qualities[0], qualities[-1]) == (floor, max(floor, asked))
    assert qualities == sorted(set(qualities))
    assert list(ladder.seconds_by_level) == sorted(ladder.seconds_by_level)
    assert (ladder.place(0), ladder.place(TOP)) == (0, len(qualities) - 1)


def test_the_best_rung_within_a_time_is_found_by_its_95th_percentile():
    ladder = Ladder.of(prices_of(5), 0.8, 1.0)
    assert [ladder.within(t) for t in (0.1, 0.27, 0.4, 2.5, 2.7)] == [None, 0, 1, 3, 4]


@given(st.lists(st.tuples(st.floats(0.01, 1), st.booleans()), min_size=1, max_size=60))
def test_a_waiting_class_gets_its_share(commands):
    """For all loads, a class gets at least share * T - turn - one command each way, if it is given its turns."""
    claim, total, own = Claim(share=0.25, turn_s=0.5), 0.0, 0.0
    for seconds, wanted in commands:
        on_class = wanted or claim.is_turn
        claim.spend(seconds, on_class=on_class, waits=True)
        total, own = total + seconds, own + seconds * on_class
    assert own >= 0.25 * total - 0.5 - 1.0


def test_nothing_is_due_to_a_class_that_does_not_wait():
    claim = Claim(share=0.5, turn_s=0.5)
    claim.spend(10.0, on_class=False, waits=True)
    assert claim.is_turn
    claim.spend(10.0, on_class=False, waits=False)
    assert not claim.is_turn


def test_a_new_key_starts_at_the_least_served():
    served = Served()
    served.enter("a")
    served.add("a", 100.0)
    served.enter("b")
    served.add("b", 1.0)
    assert (served.of("a"), served.of("b")) == (100.0, 101.0)
    served.leave("a")
    assert served.of("a") == 0.0


def test_arriving_work_is_forgotten_and_can_be_withdrawn():
    arriving = ArrivalRate(10.0)
    arriving.add(0.0, 4.0)
    soon, late = arriving.expected(0.0, np.array([1.0, 1e9]))
    assert 0 < soon < late == pytest.approx(4.0)
    assert arriving.expected(10.0, np.array([1e9]))[0] == pytest.approx(4.0 / np.e)
    arriving.add(10.0, 3.0)
    arriving.withdraw(0.0, 4.0)
    assert arriving.expected(10.0, np.array([1e9]))[0] == pytest.approx(3.0)


def test_jobs_start_on_the_device_that_is_free_first():
    assert start_times([3.0, 1.0, 1.0, 5.0], 2) == [0.0, 0.0, 1.0, 2.0]


def test_with_enough_time_all_jobs_are_at_the_top_level():
    jobs = [job_of(i, due=100.0 + i) for i in range(5)]
    seen = analyse(jobs, capacity(), SchedulerConfig())
    assert seen.level.tolist() == [TOP] * 5
    assert not seen.is_late.any()
    assert seen.urgency.tolist() == [Urgency.NONE] * 5
    assert seen.seconds.sum() == pytest.approx(5 * 1.6)


def test_levels_fall_together_and_never_descend_along_the_deadlines():
    jobs = [job_of(i, due=3.0 + 0.1 * i) for i in range(5)] + [job_of(5, due=500.0)]
    seen = analyse(jobs, capacity(), SchedulerConfig())
    assert not seen.is_late.any()
    assert seen.level[0] < TOP
    assert seen.level.tolist() == sorted(seen.level.tolist())
    assert seen.level[5] == TOP, "a tight deadline does not lower what comes long after it"


def test_as_few_as_possible_are_late():
    """Of jobs that cannot all make it, the one with most work is late: all others are on time."""
    jobs = [job_of(i, due=1.0, floor=0.9) for i in range(3)] + [job_of(3, views=8, due=0.9, floor=0.95)]
    seen = analyse(jobs, capacity(), SchedulerConfig())
    assert seen.is_late.tolist() == [False, False, False, True]


def test_priority_weighs_when_not_all_can_be_on_time():
    jobs = [job_of(i, due=0.4, floor=0.9, priority=priority) for i, priority in enumerate((0, 10, -10))]
    seen = analyse(jobs, capacity(), SchedulerConfig())
    assert not seen.is_late[1]
    assert seen.is_late[2]


def test_an_own_deadline_bounds_the_level_even_with_many_devices():
    seen = analyse([job_of(0, due=0.7)], capacity(devices=8), SchedulerConfig())
    assert not seen.is_late[0]
    assert seen.seconds[0] < 0.7 < 1.6


def test_more_arriving_work_lowers_the_level():
    config = SchedulerConfig()
    jobs = [job_of(i, due=8.0) for i in range(3)]
    calm = analyse(jobs, capacity(), config)
    busy = capacity()
    busy.arriving.add(0.0, 30.0)
    assert analyse(jobs, busy, config).level[0] < calm.level[0]


def test_an_empty_queue_has_an_empty_analysis():
    assert len(analyse([], capacity(), SchedulerConfig()).level) == 0


def test_urgent_are_those_without_slack():
    jobs = [job_of(0, due=1.5), job_of(1, due=100.0)]
    seen = analyse(jobs, capacity(), SchedulerConfig())
    assert seen.urgency.tolist() == [Urgency.SHARED, Urgency.NONE]
    assert analyse(jobs, capacity(devices=2), SchedulerConfig()).urgency.tolist() == [Urgency.OWN, Urgency.NONE]
