"""Policies take turns on the same requests, each as often first."""

import asyncio
from dataclasses import replace

import pytest

from sphinx_nvs.load_testing.ab_comparison import Rounds, alternate, last_deadline, outline, real_policies, view_seconds
from sphinx_nvs.load_testing.load_generator import DISTANT_S, NOTHING
from sphinx_nvs.load_testing.simulation.arrivals import Arrival
from sphinx_nvs.load_testing.simulation.comparing import ADAPTIVE, FULL, PRICES
from sphinx_nvs.load_testing.simulation.simulate import Outcome, Run
from sphinx_nvs.load_testing.simulation.simulated_prices import read_prices

ROUNDS = Rounds(rounds=2)


class Sender:
    """Serves everything immediately; records requests."""

    def __init__(self):
        self.served = []

    async def send(self, arrivals, requests, *, until_s):
        assert until_s == max(arrival.at_s + arrival.deadline_s for arrival in arrivals)
        self.served.append((requests, [arrival.at_s for arrival in arrivals]))
        outcomes = [
            Outcome(arrival=a, quote=NOTHING, accepted=True, done_s=0.1, qualities=[(1.0, 1)]) for a in arrivals
        ]
        return Run(outcomes=outcomes, devices=1, end_s=20.0)


def test_rounds_are_bursts_for_this_machine():
    fast, slow = (ROUNDS.arrivals(view_s) for view_s in (0.1, 0.4))
    assert len(fast) == len(slow) == 2
    assert fast[0] != fast[1]
    assert 50 < len(fast[0]) < 100
    for quick, patient in zip(fast[0], slow[0], strict=True):
        assert patient.at_s == pytest.approx(4 * quick.at_s)
        assert patient.deadline_s == pytest.approx(4 * quick.deadline_s)
        assert patient.views == quick.views
    full_s = 0.4 * sum(arrival.views for arrival in slow[0])
    assert 2 < full_s / slow[0][-1].at_s < 3.5, "over capacity on average"
    burst = [arrival for arrival in slow[0] if arrival.at_s > 0.7 * 28 * 0.4 * 76 / 9]
    assert len(burst) > 0.85 * len(slow[0])
    assert len(replace(ROUNDS, period=9).arrivals(0.4)[0]) < 0.5 * len(slow[0])
    assert ROUNDS.arrivals(0.1) == fast
    assert replace(ROUNDS, seed=7).arrivals(0.1) != fast


def test_a_machine_is_timed_with_requests_of_every_length():
    class Timed:
        def __init__(self):
            self.asked = []

        async def seconds(self, request, times):
            self.asked.append((request["num_frames"], times))
            assert request["quality"] == request["min_quality"] == 1.0
            return [9.0, 0.5 + 0.25 * request["num_frames"], 0.1][:times]

    sender = Timed()
    seconds = asyncio.run(view_seconds(sender, ROUNDS))
    assert sender.asked == [(4, 1), (4, 3), (8, 3), (16, 3)]
    assert seconds == pytest.approx((3 * 1.5 + 4 * 2.5 + 2 * 4.5) / (3 * 4 + 4 * 8 + 2 * 16))


def test_a_round_is_over_when_nothing_can_become_good():
    early = Arrival(at_s=0.0, views=1, height=64, width=64, deadline_s=30.0)
    late = Arrival(at_s=20.0, views=1, height=64, width=64)
    assert last_deadline([early, late], 5.0) == 30.0
    assert last_deadline([early, late], 15.0) == 35.0


def test_the_expected_duration_is_printed():
    trace = [Arrival(at_s=at, views=1, height=64, width=64, deadline_s=24.0) for at in (1.0, 2.0)]
    said = outline([trace, trace], {"a": lambda arrival: {}}, 0.25)
    assert said == (
        "a view takes 0.25 s at full quality; 4 requests go out for each of 1 ways to serve, "
        "which takes 52 s at most for each\n"
    )


def test_all_policies_serve_the_same_trace_and_start_in_turn():
    policies = {"a": lambda arrival: {}, "b": lambda arrival: {}}
    traces = [[Arrival(at_s=float(at), views=1, height=64, width=64, deadline_s=24.0)] for at in (1, 2)]
    sender, messages = Sender(), []
    runs = asyncio.run(alternate(sender, traces, policies, messages.append))
    names = {requests: name for name, requests in policies.items()}
    assert [(names[requests], times) for requests, times in sender.served] == [
        ("a", [1.0]),
        ("b", [1.0]),
        ("b", [2.0]),
        ("a", [2.0]),
    ]
    assert [[o.arrival.at_s for o in run.outcomes] for run in runs.values()] == [[1.0, 27.0]] * 2
    assert runs["a"].end_s == 45.0
    assert messages[0] == "round 1 of 2, a: 1 of 1 good, 20 s\n"


def test_the_best_fixed_qualities_are_simulated():
    pricing = read_prices(PRICES).at(0.4)
    assert pricing.view_s == pytest.approx(0.4)
    chosen = list(real_policies(ROUNDS.arrivals(0.4)[:1], pricing, 0))
    assert chosen[:2] == [ADAPTIVE, FULL]
    assert [name.rsplit(" ", 1)[-1] for name in chosen[2:]] == ["fifo", "edf"]
    asked = real_policies([], pricing, 0, [0.9])
    assert list(asked)[2:] == ["fixed 0.9, fifo", "fixed 0.9, edf"]
    arrival = Arrival(at_s=0.0, views=1, height=64, width=64, deadline_s=3.0)
    assert asked["fixed 0.9, fifo"](arrival)["deadline_s"] == DISTANT_S
    assert asked["fixed 0.9, edf"](arrival)["deadline_s"] == 3.0
    assert asked[FULL](arrival)["min_quality"] == 1.0
