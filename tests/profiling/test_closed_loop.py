"""Results of the planner's own plans correct its predictions."""

import numpy as np
import pytest

from sphinx_nvs.profiling.closed_loop import Outcome, _composed, lever_factors


def _outcomes(predicted, delivered):
    return [
        Outcome(asked=0.9, levers=0, partly=True, predicted=float(p), delivered=float(d))
        for p, d in zip(predicted, delivered, strict=True)
    ]


def _corrected(knots, loss):
    x, y = zip(*knots, strict=True)
    return float(np.interp(loss, x, y))


def test_two_corrections_are_composed():
    predicted = np.linspace(0.01, 0.4, 60)
    knots = _composed(((0.0, 0.0), (0.5, 0.25), (1.0, 0.5)), _outcomes(predicted, 3 * predicted))
    for loss in (0.05, 0.1, 0.3, 0.6):
        assert _corrected(knots, loss) == pytest.approx(3 * 0.5 * loss, rel=1e-4)


def test_corrections_stay_monotone_whatever_was_delivered():
    rng = np.random.default_rng(3)
    predicted = rng.uniform(0.0, 0.4, 80)
    knots = _composed(((0.0, 0.0), (0.2, 0.3), (0.4, 0.3)), _outcomes(predicted, rng.uniform(0.0, 0.5, 80)))
    x, y = (np.array(values) for values in zip(*knots, strict=True))
    assert (np.diff(x) > 0).all()
    assert (np.diff(y) >= 0).all()
    assert knots[0] == (0.0, 0.0)


def test_without_outcomes_nothing_changes():
    first = ((0.0, 0.0), (0.5, 0.25), (1.0, 0.5))
    knots = _composed(first, [])
    for loss in (0.1, 0.5, 0.9):
        assert _corrected(knots, loss) == pytest.approx(_corrected(first, loss), abs=1e-6)


def test_each_lever_set_has_its_own_factor():
    rng = np.random.default_rng(5)
    true = np.array([0.7, 1.0, 1.4])
    rows = [
        Outcome(asked=0.9, levers=int(lever), partly=True, predicted=float(p), delivered=float(1.1 * true[lever] * p))
        for p, lever in zip(rng.uniform(0.01, 0.4, 300), rng.integers(0, 3, 300), strict=True)
    ]
    factors = lever_factors(rows, 4)
    assert factors[:3] / factors[1] == pytest.approx(true, rel=0.05)
    assert factors[3] == pytest.approx(1.0)


def test_few_outcomes_change_a_factor_little():
    rows = _outcomes([0.1] * 50, [0.1] * 50)
    rows += [Outcome(asked=0.9, levers=1, partly=True, predicted=0.1, delivered=0.2)]
    assert 1.0 < lever_factors(rows, 2)[1] < 1.5


def test_with_negligible_losses_all_factors_are_one():
    assert lever_factors(_outcomes([0.0, 0.001], [0.0, 0.001]), 2) == pytest.approx([1.0, 1.0])
