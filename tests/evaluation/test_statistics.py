import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sphinx_nvs.evaluation.statistics import (
    FEWEST,
    REPLICATES,
    bootstrap_means,
    interval,
    mean_with_interval,
    resamples,
)


@pytest.mark.parametrize("scenes", [5, 40])
def test_the_spread_of_replicates_is_the_closed_form(scenes):
    """Standard deviation of the bootstrap mean: sqrt((n - 1) / n) s / sqrt(n); 2000 replicates know it to some 3 %."""
    values = np.random.default_rng(1).normal(size=scenes)
    expected = math.sqrt((scenes - 1) / scenes) * values.std(ddof=1) / math.sqrt(scenes)
    assert bootstrap_means(values).std() == pytest.approx(expected, rel=0.06)


def test_a_normal_samples_interval_is_the_closed_form():
    """With many scenes the percentile interval tends to mean +- 1.96 standard errors."""
    values = np.random.default_rng(2).normal(3.0, 2.0, size=400)
    found = mean_with_interval(values.tolist())
    error = values.std() / math.sqrt(len(values))
    assert found["mean"] == pytest.approx(values.mean())
    assert found["low"] == pytest.approx(values.mean() - 1.96 * error, abs=0.12 * error)
    assert found["high"] == pytest.approx(values.mean() + 1.96 * error, abs=0.12 * error)


def test_intervals_have_about_their_nominal_coverage():
    """60 samples of 25 scenes: 95 % intervals of the mean miss it in at most a few."""
    generator = np.random.default_rng(3)
    covered = 0
    for _ in range(60):
        found = mean_with_interval(generator.exponential(size=25).tolist())
        covered += found["low"] <= 1.0 <= found["high"]
    assert 48 <= covered <= 60


@given(st.lists(st.floats(-1e3, 1e3), min_size=FEWEST, max_size=8), st.floats(0.1, 10), st.floats(-5, 5))
def test_intervals_follow_scale_and_offset(values, scale, offset):
    plain = mean_with_interval(values)
    moved = mean_with_interval([scale * value + offset for value in values])
    for name in ("mean", "low", "high"):
        assert moved[name] == pytest.approx(scale * plain[name] + offset, abs=1e-6)


def test_equal_scenes_leave_nothing_uncertain():
    found = mean_with_interval([0.25] * 6)
    assert (found["low"], found["mean"], found["high"]) == (0.25, 0.25, 0.25)


def test_scenes_without_a_value_do_not_count_and_few_have_no_interval():
    assert mean_with_interval([1.0, math.nan, 3.0]) == {"mean": 2.0, "low": None, "high": None, "scenes": 2}
    assert mean_with_interval([math.nan]) == {"mean": None, "low": None, "high": None, "scenes": 0}
    assert mean_with_interval([1.0, math.nan, 3.0, 5.0])["scenes"] == 3


def test_draws_are_shared_so_that_differences_are_paired():
    a = np.random.default_rng(4).normal(size=12)
    b = a + 0.5
    assert np.array_equal(resamples(12), resamples(12))
    assert resamples(12).shape == (REPLICATES, 12)
    assert (bootstrap_means(b) - bootstrap_means(a)).tolist() == pytest.approx([0.5] * REPLICATES)


def test_replicates_that_drew_nothing_are_left_out():
    assert interval(np.array([math.nan, 1.0, 1.0])) == (1.0, 1.0)
