"""Units of work: every frame once, never more views than the window, nothing before its context frames."""

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sphinx_nvs.errors import InputError
from sphinx_nvs.geometry.cameras import Cameras
from sphinx_nvs.long_paths.units import plan_units

NAMES = ("gt", "gt-ltr", "gt-nearest", "nearest", "nearest-gt", "nearest-2", "interp", "interp-gt")


def line(count, begin=0.0, end=1.0):
    """Cameras side by side."""
    c2w = torch.eye(4, dtype=torch.float64).repeat(count, 1, 1)
    c2w[:, 0, 3] = torch.linspace(begin, end, count, dtype=torch.float64)
    return Cameras(c2w, torch.eye(3, dtype=torch.float64).expand(count, 3, 3), 8, 8)


@given(st.sampled_from(NAMES), st.integers(1, 12), st.integers(1, 400), st.integers(17, 24))
@settings(max_examples=60, deadline=None)
def test_laws_of_units(strategy, num_photos, num_targets, window):
    units = plan_units(line(num_photos), line(num_targets), window=window, strategy=strategy)
    assert [unit.index for unit in units] == list(range(len(units)))
    assert sorted(target for unit in units for target in unit.targets) == list(range(num_targets))
    made: dict[int, int] = {}
    for unit in units:
        assert len(unit.targets) > 0
        assert unit.num_views <= window + (num_photos if num_photos >= 9 else 0)
        assert unit.photos or unit.frames
        assert {made[frame] for frame in unit.frames} == set(unit.depends_on)
        made |= dict.fromkeys(unit.targets, unit.index)


@pytest.mark.parametrize("strategy", NAMES)
def test_a_path_that_fits_is_one_unit_with_all_photos(strategy):
    (unit,) = plan_units(line(2), line(7), window=9, strategy=strategy)
    assert (unit.kind, unit.photos, unit.frames, unit.targets) == ("chunk", (0, 1), (), tuple(range(7)))


@pytest.mark.parametrize("strategy", ["interp", "interp-gt", "nearest", "nearest-gt", "nearest-2"])
def test_chunks_of_the_second_pass_wait_for_anchors_alone(strategy):
    units = plan_units(line(2), line(40), window=9, strategy=strategy)
    anchors = {unit.index for unit in units if unit.kind == "anchors"}
    chunks = [unit for unit in units if unit.kind == "chunk"]
    assert len(chunks) > 2
    assert all(set(unit.depends_on) <= anchors for unit in chunks)


def test_gt_chunks_are_independent_and_gt_ltr_ones_wait_for_the_one_before():
    assert all(unit.depends_on == () for unit in plan_units(line(2), line(40), window=9, strategy="gt"))
    units = plan_units(line(2), line(40), window=9, strategy="gt-ltr")
    assert units[0].depends_on == ()
    assert [unit.depends_on[-1] for unit in units[1:]] == list(range(len(units) - 1))


def test_neighbouring_chunks_of_interp_share_an_anchor_and_reach_from_end_to_end():
    units = plan_units(line(2), line(40), window=9, strategy="interp")
    chunks = [unit for unit in units if unit.kind == "chunk"]
    assert chunks[0].frames[0] == 0
    assert chunks[-1].frames[-1] == 39
    for left, right in itertools.pairwise(chunks):
        assert left.frames[-1] == right.frames[0]
    for unit in chunks:
        assert unit.frames[0] < min(unit.targets) <= max(unit.targets) < unit.frames[-1]


def test_photos_are_in_every_chunk_of_gt_strategies_and_in_none_of_interp():
    for strategy, photos in (("interp", ()), ("interp-gt", (0, 1)), ("nearest-gt", (0, 1))):
        chunks = [u for u in plan_units(line(2), line(40), window=9, strategy=strategy) if u.kind == "chunk"]
        assert {unit.photos for unit in chunks} == {photos}


def test_many_photos_make_room_for_themselves():
    units = plan_units(line(12), line(90), window=21, strategy="interp-gt")
    assert max(unit.num_views for unit in units) <= 21 + 12
    assert sum(unit.kind == "anchors" for unit in units) == 1


def test_number_of_anchors_by_choice():
    units = plan_units(line(2), line(40), window=21, strategy="interp", num_anchors=10)
    assert units[0].targets == (0, 4, 9, 13, 17, 22, 26, 30, 35, 39)


def said(**options):
    with pytest.raises(InputError) as caught:
        plan_units(line(options.pop("photos", 2)), line(40), **options)
    return str(caught.value)


def test_what_cannot_be():
    assert said(strategy="zigzag") == (
        "chunks: there is no strategy 'zigzag'; choose one of "
        "gt, gt-ltr, gt-nearest, nearest, nearest-gt, nearest-K, interp, interp-gt"
    )
    assert said(window=1) == "window: it is 1; give at least 2 views"
    assert said(window=2, strategy="gt") == (
        "window: 2 views have no room for a target beside 2 known views; give at least 3, or choose another strategy"
    )
    assert said(window=8, photos=7, strategy="interp-gt") == (
        "window of interp-gt: 8 views have no room for a target beside two anchors and 7 photos; "
        "give at least 10, or choose interp"
    )
    assert said(window=9, strategy="interp", num_anchors=3) == (
        "anchors: two of them have 19 targets between, and a window of 9 views has room for 7 beside two anchors; "
        "give more anchors, or a window of at least 21"
    )
    assert said(num_anchors=1) == "anchors: 1 of 40 frames; give 2 to 40"
    assert said(num_anchors=41) == "anchors: 41 of 40 frames; give 2 to 40"
