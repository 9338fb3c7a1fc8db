"""Tours through cameras: the shortest where that can be tried out, a good one where there are many."""

from itertools import pairwise, permutations

import pytest
import torch
from geometry_strategies import arc, generator
from hypothesis import given
from hypothesis import strategies as st

from sphinx_nvs.geometry.tours import along_tour, tour


def between(places):
    return torch.cdist(places, places)


def length(order, distances):
    return sum(float(distances[a, b]) for a, b in pairwise(order))


@given(seed=st.integers(0, 10_000), count=st.integers(3, 7))
def test_a_few_places_are_visited_by_the_shortest_way_unless_theirs_is_hardly_longer(seed, count):
    distances = between(torch.rand(count, 3, generator=generator(seed), dtype=torch.float64))
    shortest = min(length(order, distances) for order in permutations(range(count)))
    given_length = length(range(count), distances)
    order = tour(distances)
    assert sorted(order) == list(range(count))
    if shortest < 0.79 * given_length:
        assert length(order, distances) == pytest.approx(shortest)
        assert order[0] < order[-1]
    elif shortest > 0.81 * given_length:
        assert order == list(range(count))


@given(seed=st.integers(0, 10_000))
def test_many_places_on_a_line_are_visited_along_it(seed):
    shuffled = torch.randperm(14, generator=generator(seed))
    places = torch.zeros(14, 3, dtype=torch.float64)
    places[:, 0] = shuffled
    order = tour(between(places))
    along = [int(shuffled[i]) for i in order]
    assert along in (list(range(14)), list(range(13, -1, -1)))


@given(seed=st.integers(0, 10_000))
def test_no_piece_of_a_long_tour_is_better_turned_round(seed):
    distances = between(torch.rand(12, 3, generator=generator(seed), dtype=torch.float64))
    order = tour(distances)
    if order == list(range(12)):
        return
    for i in range(12):
        for j in range(i + 1, 12):
            turned = [*order[:i], *order[i : j + 1][::-1], *order[j + 1 :]]
            assert length(order, distances) <= length(turned, distances) + 1e-9


def test_one_or_two_cameras_stay():
    assert [tour(torch.zeros(count, count)) for count in (1, 2)] == [[0], [0, 1]]


def test_cameras_of_a_path_come_back_in_their_order():
    views = arc(6)
    assert along_tour(views) is views
    shuffled = views[[3, 0, 5, 1, 4, 2]]
    sorted_again = along_tour(shuffled)
    assert torch.equal(sorted_again.c2w, views.c2w) or torch.equal(sorted_again.c2w, views.c2w.flip(0))
