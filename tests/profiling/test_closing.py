"""What the planner's own plans deliver corrects what it expects."""

import numpy as np
import pytest

from sphinx_nvs.profiling.closing import Outcome, _composed


def _outcomes(predicted, delivered):
    return [
        Outcome(asked=0.9, partly=True, predicted=float(p), delivered=float(d))
        for p, d in zip(predicted, delivered, strict=True)
    ]


def _corrected(knots, loss):
    x, y = zip(*knots, strict=True)
    return float(np.interp(loss, x, y))


def test_two_corrections_become_one():
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
