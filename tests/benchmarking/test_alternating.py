"""Policies take turns on the same requests, each as often first."""

import asyncio
from dataclasses import replace

import pytest

from sphinx_nvs.benchmarking.alternating import Rounds, alternate, real_policies
from sphinx_nvs.benchmarking.sending import NOTHING
from sphinx_nvs.engine.simulation.arrivals import Arrival
from sphinx_nvs.engine.simulation.comparing import ADAPTIVE, FULL, PRICES
from sphinx_nvs.engine.simulation.prices import read_prices
from sphinx_nvs.engine.simulation.simulate import Outcome, Run

ROUNDS = Rounds(rounds=2, seconds=20.0, rest_s=5.0)


class Sender:
    """Serves everything at once; notes who asked for what."""

    def __init__(self):
        self.served = []

    async def send(self, arrivals, wishes, *, until_s):
        assert until_s == 25.0
        self.served.append((wishes, [arrival.at_s for arrival in arrivals]))
        outcomes = [
            Outcome(arrival=a, quote=NOTHING, accepted=True, done_s=0.1, qualities=[(1.0, 1)]) for a in arrivals
        ]
        return Run(outcomes=outcomes, devices=1, end_s=20.0)


def test_rounds_are_bursts_for_this_machine():
    fast, slow = (ROUNDS.arrivals(view_s) for view_s in (0.1, 0.4))
    assert len(fast) == len(slow) == 2
    assert fast[0] != fast[1]
    counts = [sum(map(len, rounds)) for rounds in (fast, slow)]
    assert counts[0] > 2 * counts[1] > 20
    assert all(arrival.at_s < 20.0 for trace in fast for arrival in trace)
    assert ROUNDS.arrivals(0.1) == fast
    assert replace(ROUNDS, seed=7).arrivals(0.1) != fast


def test_everybody_serves_the_same_and_begins_in_turn():
    policies = {"a": lambda arrival: {}, "b": lambda arrival: {}}
    traces = [[Arrival(at_s=1.0, views=1, height=64, width=64)], [Arrival(at_s=2.0, views=1, height=64, width=64)]]
    sender, told = Sender(), []
    runs = asyncio.run(alternate(sender, traces, policies, ROUNDS, told.append))
    names = {wishes: name for name, wishes in policies.items()}
    assert [(names[wishes], times) for wishes, times in sender.served] == [
        ("a", [1.0]),
        ("b", [1.0]),
        ("b", [2.0]),
        ("a", [2.0]),
    ]
    assert [[o.arrival.at_s for o in run.outcomes] for run in runs.values()] == [[1.0, 27.0]] * 2
    assert runs["a"].end_s == 45.0
    assert told[0] == "round 1 of 2, a: 1 of 1 good, 20 s\n"


def test_the_best_fixed_qualities_are_simulated():
    pricing = read_prices(PRICES).at(0.4)
    assert pricing.view_s == pytest.approx(0.4)
    chosen = list(real_policies(ROUNDS.arrivals(0.4), pricing, 0))
    assert chosen[:2] == [ADAPTIVE, FULL]
    assert [name.rsplit(" ", 1)[-1] for name in chosen[2:]] == ["fifo", "edf"]
    asked = real_policies([], pricing, 0, [0.9])
    assert list(asked)[2:] == ["fixed 0.9, fifo", "fixed 0.9, edf"]
    arrival = Arrival(at_s=0.0, views=1, height=64, width=64, deadline_s=3.0)
    assert "deadline_s" not in asked["fixed 0.9, fifo"](arrival)
    assert asked["fixed 0.9, edf"](arrival)["deadline_s"] == 3.0
    assert asked[FULL](arrival)["min_quality"] == 1.0
