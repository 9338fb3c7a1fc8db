import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sphinx_nvs.evaluation.front import Point, best_within, hypervolume, pareto

points = st.lists(st.builds(Point, st.sampled_from("abc"), st.floats(0.5, 40), st.floats(-0.1, 0.3)), max_size=8)


def test_published_examples():
    """(1.8x, 5 %) alone gives 0.11, (3x, 2 %) alone 0.32, (4x, 2 %) with (6x, 5 %) 0.47."""
    assert hypervolume([Point("a", 1.8, 0.05)]) == pytest.approx(0.11, abs=0.005)
    assert hypervolume([Point("a", 3.0, 0.02)]) == pytest.approx(0.32, abs=0.005)
    assert hypervolume([Point("a", 4.0, 0.02), Point("b", 6.0, 0.05)]) == pytest.approx(0.47, abs=0.005)


def test_the_ends_of_the_scale():
    assert hypervolume([]) == 0
    assert hypervolume([Point("full-50", 1.0, 0.0)]) == 0
    assert hypervolume([Point("a", 16.0, 0.0)]) == pytest.approx(1)
    assert hypervolume([Point("a", 1000.0, -0.5)]) == pytest.approx(1)
    assert hypervolume([Point("a", 8.0, 0.11)]) == 0


@given(points, points)
def test_more_methods_never_make_it_smaller(some, more):
    assert hypervolume(some + more) >= hypervolume(some) - 1e-12
    assert 0 <= hypervolume(some) <= 1 + 1e-12


@given(points)
def test_it_is_the_integral_of_the_best_speedup(some):
    """Against a plain sum over 500 losses."""
    losses = [0.1 * (i + 0.5) / 500 for i in range(500)]
    heights = [math.log2(min(16.0, max(1.0, best_within(some, loss).speedup))) for loss in losses]
    assert hypervolume(some) == pytest.approx(sum(heights) / len(heights) / 4, abs=0.01)


@given(points)
def test_no_point_beats_a_point_of_the_front(some):
    front = pareto(some)
    for point in front:
        assert not any(q.loss <= point.loss and q.speedup > point.speedup for q in some)
        assert not any(q.loss < point.loss and q.speedup >= point.speedup for q in some)
    assert [p.speedup for p in front] == sorted(p.speedup for p in front)


def test_there_is_no_interpolation():
    some = [Point("full-50", 1.0, 0.0), Point("a", 3.0, 0.0199), Point("b", 9.0, 0.0201)]
    assert best_within(some, 0.02) == some[1]
    assert best_within(some, 0.05) == some[2]
    assert best_within([some[2]], 0.02) == Point("full-50", 1.0, 0.0)
