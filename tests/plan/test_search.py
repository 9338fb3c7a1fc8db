import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from profile_helpers import LEVERS, SIGMAS, STARTS, STEPS, made_profile

from sphinx_nvs.plan.search import Costs, calls_cost, front, start_map, ways

COUNTS = st.lists(st.integers(0, 40), min_size=5, max_size=5).filter(any)
GRID = tuple(float(sigma) for sigma in SIGMAS)


def _found(counts, seed=0, *, looked=False, **costs):
    profile = made_profile(seed)
    costs = Costs(**({"fixed": 1.0, "sparse_base": 0.3, "sparse_slope": 0.9} | costs))
    return ways(np.array([counts]), profile.clusters[0], LEVERS, STARTS, SIGMAS, costs, looked=looked)


@given(counts=COUNTS, seed=st.integers(0, 50), looked=st.booleans())
def test_the_front_ascends_and_nothing_is_better_and_cheaper_than_it(counts, seed, looked):
    found = _found(counts, seed, looked=looked)
    best = front(found)
    for values in ([w.compute for w in best], [w.quality for w in best], [w.assured for w in best]):
        assert values == sorted(values)
    assert best[-1].quality == 1.0
    assert best[-1].levers is None
    for way in found:
        rivals = [b for b in best if b.compute <= way.compute]
        assert way in best or any(b.assured >= way.assured or b.quality > way.quality for b in rivals)


@given(counts=COUNTS, seed=st.integers(0, 50))
def test_no_way_costs_more_than_full_diffusion_and_a_look_is_paid_by_whoever_does_not_use_it(counts, seed):
    for way, looked in zip(_found(counts, seed), _found(counts, seed, looked=True), strict=True):
        assert way.compute <= 1.0 + STEPS
        starts_from_noise = way.refines and bool((way.choice[np.array([counts]) > 0] == 0).any())
        if way.refines:
            assert looked.compute == pytest.approx(way.compute + (0 if starts_from_noise else 1))
        else:
            assert (way.compute, looked.compute) == (0.0, 2.0)
            assert way.holds


def test_a_request_without_held_cells_is_judged_by_the_other_tables():
    for way in _found([10, 10, 10, 10, 10]):
        if way.levers is None or not way.refines:
            continue
        cluster = made_profile().clusters[0]
        table = (cluster.losses if way.holds else cluster.whole)[way.levers]
        loss = np.take_along_axis(table, way.choice[..., None], -1).mean()
        assert way.quality == pytest.approx(1 - loss)


@given(shares=st.lists(st.integers(0, 20), min_size=2, max_size=2), more=st.integers(0, 10))
def test_more_active_cells_never_cost_less(shares, more):
    costs = Costs(fixed=0.0, sparse_base=0.3, sparse_slope=0.9)
    for lever in LEVERS:
        less = calls_cost(lever, tuple(shares), STARTS, GRID, costs)
        assert calls_cost(lever, (shares[0] + more, shares[1]), STARTS, GRID, costs) >= less - 1e-9


def test_the_map_says_every_cells_start():
    way = next(w for w in _found([10, 10, 10, 10, 10]) if w.holds and w.refines)
    signal_bins = torch.tensor([[[0, 1], [3, 4]]])
    expected = [STARTS[int(way.choice[0, b])] for b in (0, 1, 3, 4)]
    assert start_map(way, torch.tensor([0]), signal_bins, STARTS).flatten().tolist() == expected
