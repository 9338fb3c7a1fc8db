from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from profile_helpers import LEVERS, SIGMAS, STARTS, STEPS, made_profile

from sphinx_nvs.plan import ComputePlan, economised
from sphinx_nvs.plan.levers import Levers
from sphinx_nvs.plan.search import IDLE, Costs, calls_cost, front, start_map, ways

COUNTS = st.lists(st.integers(0, 40), min_size=5, max_size=5).filter(any)


def _found(counts, seed=0, *, called=False, **costs):
    profile = made_profile(seed)
    costs = Costs(**({"fixed": 1.0, "sparse_base": 0.3, "sparse_slope": 0.9} | costs))
    return ways(np.array([[counts]]), profile.clusters[0], LEVERS, STARTS, SIGMAS, costs, called=called)


@settings(deadline=None)
@given(counts=COUNTS, seed=st.integers(0, 50), called=st.booleans())
def test_the_front_ascends_and_nothing_is_better_and_cheaper_than_it(counts, seed, called):
    found = _found(counts, seed, called=called)
    best = front(found)
    for values in ([w.compute for w in best], [w.quality for w in best]):
        assert values == sorted(values)
    assert best[-1].quality == 1.0
    assert best[-1].levers is None
    for way in found:
        rivals = [b for b in best if b.compute <= way.compute]
        assert way in best or any(b.quality >= way.quality for b in rivals)


@settings(deadline=None)
@given(counts=COUNTS, seed=st.integers(0, 50))
def test_no_way_costs_more_than_full_diffusion_and_ways_without_the_probe_s_call_pay_for_it(counts, seed):
    plain, called = (
        {(way.levers, way.choice.tobytes()): way for way in _found(counts, seed, called=called)}
        for called in (False, True)
    )
    assert len(plain.keys() & called.keys()) > 2
    for key in plain.keys() & called.keys():
        way, after = plain[key], called[key]
        assert way.compute <= 1.0 + STEPS
        starts_from_noise = way.refines and bool((way.choice[np.array([counts]) > 0] == 0).any())
        if way.refines:
            assert after.compute == pytest.approx(way.compute + (0 if starts_from_noise else 1))
        else:
            assert (way.compute, after.compute) == (0.0, 2.0 - IDLE)
            assert way.holds


PRICED = {"decoding": (0.2, 2.0)}


def _two_views(**costs):
    counts = np.array([[[10, 0, 0, 0, 0]], [[0, 0, 0, 0, 10]]])
    levers = (*LEVERS, Levers(network=False, decoding="survey"))
    (cluster,) = made_profile().clusters
    tables = {name: (*getattr(cluster, name), getattr(cluster, name)[0]) for name in ("whole", "losses")}
    costs = Costs(**({"fixed": 1.0, "sparse_base": 0.3, "sparse_slope": 0.9} | costs))
    return counts, ways(counts, replace(cluster, **tables), levers, STARTS, SIGMAS, costs)


def test_where_decoding_costs_something_the_view_that_gains_most_is_decoded_alone():
    _, free = _two_views()
    assert all(way.views.all() for way in free if way.refines)
    _, priced = _two_views(**PRICED)
    alone = [way for way in priced if way.refines and way.views.sum() == 1]
    assert alone
    assert all(way.views[1] for way in alone)
    assert all(way.holds for way in alone)


def test_a_view_less_costs_half_of_decoding_and_keeps_its_render():
    counts, priced = _two_views(**PRICED)
    whole = {way.levers: way for way in priced if way.refines and way.views.all() and not way.holds}
    for way in priced:
        if not way.refines or way.views.all() or way.levers not in whole or (way.choice[counts[1] > 0] != 0).any():
            continue
        lever = (*LEVERS, Levers(network=False, decoding="survey"))[way.levers]
        decoding = PRICED["decoding"][{"survey": 0, "search": 1}[lever.decoding]]
        assert way.compute <= whole[way.levers].compute - decoding / 2 + 1e-9
        bins = torch.tensor([[[0, 0]], [[4, 4]]])
        starts = start_map(way, torch.zeros_like(bins), bins, STARTS)
        assert (starts[0] == STARTS[-1]).all()
        assert (starts[1] == 0).all()


def test_cells_are_held_for_time_and_where_refining_them_does_harm():
    (cluster,) = made_profile().clusters
    harm = cluster.whole[0].copy()
    harm[:, 1, 0] = 2 * harm[:, 1, -1]
    cluster = replace(cluster, whole=(harm,), losses=(harm,))
    counts, costs = np.array([[[10, 10, 10, 10, 10]]]), {"fixed": 1.0, "sparse_base": 0.1, "sparse_slope": 0.9}
    single, many = Levers(width_nats=99.0, end_sigma=0.05), LEVERS[0]
    chosen = {}
    for name, lever in (("single", single), ("many", many)):
        found = ways(counts, cluster, (lever,), STARTS, SIGMAS, Costs(**costs))
        chosen[name] = {tuple(way.choice[0]) for way in found if way.refines and way.levers == 0}
    # The second bin is held, or starts late.
    assert chosen["single"] <= {(0, 2, 0, 0, 0), (0, 1, 0, 0, 0), (1, 1, 1, 1, 1), (0, 0, 0, 0, 0)}
    assert chosen["single"] & {(0, 2, 0, 0, 0), (0, 1, 0, 0, 0)}
    assert len(chosen["many"]) > 3


def test_without_a_network_there_are_no_calls_to_pay_for():
    counts, priced = _two_views(**PRICED)
    made = [way for way in priced if way.levers == len(LEVERS)]
    assert made
    for way in made:
        active = (counts[way.views] * (way.choice == 0)).sum() / counts.sum()
        assert way.compute == pytest.approx(1.0 + 0.2 * way.views.mean() + IDLE * active)


def test_some_cells_may_continue_from_the_probe():
    found = _found([10, 10, 10, 10, 10], called=True, sparse_base=0.05)
    made = [way for way in found if way.levers == 0]
    going_on = [way for way in made if (way.choice == 0).any() and not (way.choice == 1).any()]
    assert {int((way.choice == 2).sum()) for way in going_on} <= set(range(5))
    assert len(going_on) > 2


def test_one_call_for_all_cells_is_the_probe_itself_and_cheaper_than_one_for_some():
    single, costs = (Levers(width_nats=99.0, end_sigma=0.05),), Costs(fixed=1.0, sparse_base=0.1, sparse_slope=0.9)
    counts = np.array([[[10, 10, 10, 10, 10]]])
    found = ways(counts, made_profile().clusters[0], single, STARTS, SIGMAS, costs, called=True)
    from_noise = [way for way in found if way.levers == 0 and way.refines and not (way.choice == 1).any()]
    whole = [way for way in from_noise if not way.holds]
    assert len(whole) == 1
    assert all(found[0].compute < whole[0].compute < way.compute for way in from_noise if way.holds)
    assert [way for way in front(found) if way.compute < 1.0 + STEPS] == [found[0], *whole]


def test_a_cluster_has_a_table_for_every_share_of_held_cells():
    (cluster,) = made_profile().clusters
    whole, losses = cluster.whole[1], cluster.losses[1]
    np.testing.assert_array_equal(cluster.table(1, 0.0), whole)
    np.testing.assert_allclose(cluster.table(1, 1.0)[..., :-1], losses[..., :-1])
    np.testing.assert_allclose(cluster.table(1, 1.0)[..., -1], whole[..., -1], err_msg="nothing is refined beside it")
    np.testing.assert_allclose(cluster.table(1, 0.5)[..., :-1], ((whole + losses) / 2)[..., :-1])
    np.testing.assert_allclose(cluster.table(1, 0.5)[..., -1], losses[..., -1])


def test_quality_is_that_of_the_table_for_the_share_of_held_cells():
    seen = set()
    for way in _found([10, 10, 10, 10, 10]):
        if way.levers is None:
            continue
        held = float((way.choice == 2).mean())
        table = made_profile().clusters[0].table(way.levers, held)
        assert way.active == pytest.approx(1 - held)
        assert way.quality == pytest.approx(1 - np.take_along_axis(table, way.choice[..., None], -1).mean())
        seen.add(held)
    assert len(seen) > 2


def test_refining_a_single_cell_does_not_change_what_the_others_are_worth():
    (cluster,) = made_profile().clusters
    # Held cells look better among refined ones.
    losses = tuple(np.concatenate([t[..., :-1], 0.5 * t[..., -1:]], axis=-1) for t in cluster.losses)
    cluster = replace(cluster, losses=losses)
    counts = np.array([[[100_000, 0, 0, 0, 1]]])
    costs = Costs(fixed=1.0, sparse_base=0.3, sparse_slope=0.9)
    found = ways(counts, cluster, LEVERS, STARTS, SIGMAS, costs)
    single = [way for way in found if 0 < way.active < 1e-4]
    assert single
    for way in single:
        assert way.quality == pytest.approx(found[0].quality, abs=1e-3)


@given(first=st.floats(0.01, 0.5), later=st.floats(0, 0.2), more=st.floats(0, 0.2))
def test_more_active_cells_never_cost_less(first, later, more):
    costs = Costs(fixed=0.0, sparse_base=0.3, sparse_slope=0.9)
    for lever in LEVERS:
        less, greater = (
            calls_cost(lever, (share, later, 1 - share - later), STARTS, SIGMAS, costs)
            for share in (first, first + more)
        )
        assert greater >= less - 1e-9


def test_a_search_counts_calls_as_the_plan_that_comes_of_it():
    costs = Costs(fixed=0.0, sparse_base=0.3, sparse_slope=0.9)
    cells = torch.tensor([0] * 3 + [4] * 2 + [STEPS] * 5).view(1, 2, 5)
    for lever in LEVERS:
        plan = economised(ComputePlan(start_step=cells, sigmas=SIGMAS), lever)
        expected = 0.0
        for step in range(plan.num_steps):
            share = float(plan.active(step).double().mean())
            whole = 1 - 0.02 * (1 - share)
            expected += whole if step in plan.dense_steps else min(whole, 0.3 + 0.9 * share)
        assert calls_cost(lever, (0.3, 0.2, 0.5), STARTS, SIGMAS, costs) == pytest.approx(expected)


def test_the_map_says_every_cells_start():
    way = next(w for w in _found([10, 10, 10, 10, 10]) if w.holds and w.refines)
    signal_bins = torch.tensor([[[0, 1], [3, 4]]])
    expected = [STARTS[int(way.choice[0, b])] for b in (0, 1, 3, 4)]
    score_bins = torch.zeros_like(signal_bins)
    assert start_map(way, score_bins, signal_bins, STARTS).flatten().tolist() == expected
