"""The one value of quality, deadline and seed: its defaults, its ranges, and what is left of a deadline."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sphinx_nvs.errors import InputError
from sphinx_nvs.sampling_params import DEFAULT_QUALITY, MAX_SEED, NO_TIME_S, SamplingParams


def test_quality_has_a_default_unless_a_deadline_decides():
    assert SamplingParams().quality == DEFAULT_QUALITY
    assert SamplingParams(min_quality=0.99).quality == 0.99
    assert SamplingParams(deadline_s=3.0).quality is None
    assert SamplingParams(deadline_s=3.0, quality=0.9).quality == 0.9


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"method": "magic"}, "method: 'magic' is unknown; choose one of sphinx, diffusion, regression"),
        ({"quality": 1.2}, "quality: it is 1.2; give a number in 0..1, e.g. 0.95"),
        ({"quality": float("nan")}, "quality: it is nan; give a number in 0..1, e.g. 0.95"),
        ({"min_quality": -0.5}, "min_quality: it is -0.5; give a number in 0..1, e.g. 0.95"),
        ({"deadline_s": 0.0}, "deadline_s: it is 0; give seconds above 0, e.g. 2.5"),
        ({"deadline_s": float("inf")}, "deadline_s: it is inf; give seconds above 0, e.g. 2.5"),
        ({"deadline_s": float("nan")}, "deadline_s: it is nan; give seconds above 0, e.g. 2.5"),
        ({"seed": -1}, "seed: it is -1; give a whole number from 0 to 2^63 - 1"),
        ({"seed": MAX_SEED + 1}, "seed: it is 9223372036854775808; give a whole number from 0 to 2^63 - 1"),
        (
            {"quality": 0.5, "min_quality": 0.8},
            "min_quality: it is 0.8, above the quality of 0.5; give one that is not above it",
        ),
    ],
)
def test_a_number_outside_its_range_is_one_sentence(fields, sentence):
    with pytest.raises(InputError) as caught:
        SamplingParams(**fields)
    assert str(caught.value) == sentence


@given(deadline_s=st.floats(1e-6, 1e6), elapsed_s=st.floats(0, 2e6))
def test_elapsed_time_shortens_a_deadline_and_a_passed_one_leaves_none(deadline_s, elapsed_s):
    left = SamplingParams(deadline_s=deadline_s, seed=5).after(elapsed_s)
    assert left.deadline_s == max(deadline_s - elapsed_s, NO_TIME_S)
    assert (left.seed, left.quality) == (5, None)


def test_without_a_deadline_time_changes_nothing():
    params = SamplingParams(quality=0.7)
    assert params.after(100.0) is params
