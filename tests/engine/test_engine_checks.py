"""Each mistake of a request is one sentence."""

from dataclasses import replace

import pytest

from sphinx_nvs.engine.types.job_validation import Limits, cameras_of, check_spec
from sphinx_nvs.engine.types.jobs import JobSpec
from sphinx_nvs.errors import InputError

EYE4 = ((1.0, 0.0, 0.0, 0.0), (0.0, 1.0, 0.0, 0.0), (0.0, 0.0, 1.0, 0.0), (0.0, 0.0, 0.0, 1.0))
K = ((60.0, 0.0, 32.0), (0.0, 60.0, 32.0), (0.0, 0.0, 1.0))
SPEC = JobSpec(scene="s", c2w=(EYE4, EYE4), K=(K, K), width=64, height=64)
NAN4 = ((float("nan"), *EYE4[0][1:]), *EYE4[1:])

WRONG = {
    "cameras: there are 0; give 1 to 1000": {"c2w": (), "K": ()},
    "width: it is 31 pixels; give at least 32": {"width": 31},
    "height: it is 0 pixels; give at least 32": {"height": 0},
    "size: frames of 16384x16384 are 268435456 pixels; give at most 8294400, e.g. 3840x2160": {
        "width": 16384,
        "height": 16384,
    },
    "quality: it is 1.5; give a number in 0..1, e.g. 0.95": {"quality": 1.5},
    "quality: it is nan; give a number in 0..1, e.g. 0.95": {"quality": float("nan")},
    "min_quality: it is -0.1; give a number in 0..1, e.g. 0.95": {"min_quality": -0.1},
    "min_quality: it is 0.9, above the quality of 0.5; give one that is not above it": {
        "quality": 0.5,
        "min_quality": 0.9,
    },
    "deadline_s: it is 0; give seconds above 0, e.g. 2.5": {"deadline_s": 0.0},
    "deadline_s: it is inf; give seconds above 0, e.g. 2.5": {"deadline_s": float("inf")},
    "priority: it is 11; give a number in -10..10": {"priority": 11},
    "seed: it is -1; give a whole number from 0 to 2^63 - 1": {"seed": -1},
    "fps: it is 0; give a number in 1..240": {"fps": 0.0},
    "cameras: a matrix has another shape; give 4x4 poses and 3x3 intrinsics": {"K": (((1.0,),), K)},
    "cameras: 2 poses but 1 intrinsics; give one K per pose": {"K": (K,)},
    "pose of view 1: a value is NaN or infinite; give a finite 4x4 camera-to-world matrix": {"c2w": (EYE4, NAN4)},
}


def test_a_good_job_passes():
    check_spec(SPEC, Limits(), 32)
    assert len(cameras_of(SPEC)) == 2


@pytest.mark.parametrize("sentence", WRONG)
def test_each_mistake_is_one_sentence(sentence):
    with pytest.raises(InputError) as caught:
        check_spec(replace(SPEC, **WRONG[sentence]), Limits(), 32)
    assert str(caught.value) == sentence


def test_pixels_of_all_frames_together_are_limited():
    with pytest.raises(InputError, match="2 frames of 64x64 are 8192 pixels; request at most 8000"):
        check_spec(SPEC, Limits(max_pixels=8000), 32)


def test_limits_are_above_zero():
    with pytest.raises(InputError, match=r"limits\.ttl_s: it is 0; give a number above 0"):
        Limits(ttl_s=0.0)
