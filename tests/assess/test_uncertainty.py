"""What counts as uncertain, signal by signal."""

import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage
from skimage import data, filters

from sphinx_nvs.assess.uncertainty import LUMA, UncertaintyConfig, blur_mask, signal_maps, uncertainty_map
from sphinx_nvs.errors import InputError
from sphinx_nvs.geometry import Cameras
from sphinx_nvs.models.base import Render

SIDE = 32
NAMES = ("alpha", "confidence", "disagreement")
ONLY = dict.fromkeys(("use_alpha", "use_confidence", "use_disagreement", "use_distance"), False)


def camera(x=0.0):
    c2w = torch.eye(4)[None].clone()
    c2w[0, 0, 3] = x
    return Cameras(c2w, torch.tensor([[[32.0, 0, 16], [0, 32, 16], [0, 0, 1]]]), SIDE, SIDE)


def render(**changes):
    maps = {name: torch.ones(1, SIDE, SIDE) for name in ("alpha", "depth", "confidence")}
    maps |= {"disagreement": torch.zeros(1, SIDE, SIDE), "rgb": torch.full((1, 3, SIDE, SIDE), 0.5)}
    return Render(**(maps | changes))


def uncertainty(found, config=None, *, context=None):
    return uncertainty_map(found, context or camera(), camera(), config)


def test_a_perfect_render_of_a_photos_own_view_is_certain_everywhere():
    assert (uncertainty(render()) == 0).all()


@pytest.mark.parametrize(
    ("signal", "value", "switch"),
    [("alpha", 0.0, "use_alpha"), ("confidence", 0.0, "use_confidence"), ("disagreement", 1.0, "use_disagreement")],
)
def test_each_signal_raises_uncertainty_where_it_fails_and_can_be_switched_off(signal, value, switch):
    changed = getattr(render(), signal).clone()
    changed[0, 8:24, 8:24] = value
    failing = render(**{signal: changed})
    found = uncertainty(failing)
    assert (found[0, 8:24, 8:24] > 0.5).all()
    assert (found[0, :6] == 0).all()
    assert (uncertainty(failing, UncertaintyConfig(**{switch: False})) == 0).all()


def test_what_only_far_photos_show_is_less_certain_and_that_can_be_switched_off():
    near, far = (uncertainty(render(), context=camera(x)).mean() for x in (0.05, 0.4))
    assert 0 < near < far < 1
    off = UncertaintyConfig(use_distance=False)
    assert (uncertainty(render(), off, context=camera(0.4)) == 0).all()


def test_holes_are_less_certain_than_weak_matches():
    hole = uncertainty(render(alpha=torch.zeros(1, SIDE, SIDE)))
    weak = uncertainty(render(confidence=torch.zeros(1, SIDE, SIDE)))
    assert hole.min() == 1
    assert (weak < hole).all()


def test_islands_and_gaps_below_the_radius_disappear():
    alpha = torch.ones(1, SIDE, SIDE)
    alpha[0, 4, 4] = 0
    alpha[0, 16:28, 16:28] = 0
    alpha[0, 20, 20] = 1
    found = uncertainty(render(alpha=alpha), UncertaintyConfig(clean_radius=2))
    assert found[0, 4, 4] == 0
    assert (found[0, 16:28, 16:28] == 1).all()
    raw = uncertainty(render(alpha=alpha), UncertaintyConfig(clean_radius=0))
    assert torch.equal(raw, 1 - alpha)


def test_blur_marks_the_side_without_detail_and_sharp_its_complement():
    picture = torch.full((3, SIDE, SIDE), 0.5)
    noise = torch.rand(SIDE, 16, generator=torch.Generator().manual_seed(0))
    picture[:, :, 16:] = noise
    blurry = blur_mask(picture)
    assert blurry[:, :12].all()
    assert blurry[:, 20:].float().mean() < 0.6
    off, on, inverse, hint = (
        uncertainty(render(rgb=picture[None]), UncertaintyConfig(**ONLY, blur=side, blur_weight=weight, clean_radius=0))
        for side, weight in (("off", 1.0), ("blurry", 1.0), ("sharp", 1.0), ("sharp", 0.25))
    )
    assert (off == 0).all()
    assert torch.equal(on[0] == 1, blurry)
    assert torch.equal(inverse[0] == 1, ~blurry)
    assert torch.equal(hint[0] == 0.25, ~blurry)


def test_signals_join_as_independent_doubts():
    picture = torch.rand(1, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(1))
    found = render(**{name: torch.full((1, SIDE, SIDE), 0.5) for name in NAMES}, rgb=picture)
    config = UncertaintyConfig(clean_radius=0)
    maps = signal_maps(found, camera(0.1), camera(), config)
    assert list(maps) == ["alpha", "confidence", "disagreement", "distance", "blur"]
    expected = 1 - torch.stack([1 - value for value in maps.values()]).prod(0)
    torch.testing.assert_close(uncertainty(found, config, context=camera(0.1)), expected)
    assert signal_maps(found, camera(), camera(), UncertaintyConfig(**ONLY, blur="off")) == {}


@given(st.lists(st.floats(0, 1), min_size=3, max_size=3), st.sampled_from(NAMES))
def test_worse_signals_never_lower_uncertainty(values, signal):
    better = render(**{k: torch.full((1, SIDE, SIDE), v) for k, v in zip(NAMES, values, strict=True)})
    value = getattr(better, signal)
    worse = replace(better, **{signal: (value + 1) / 2 if signal == "disagreement" else value / 2})
    assert (uncertainty(worse) >= uncertainty(better) - 1e-6).all()


def test_a_flat_picture_is_all_blurry():
    assert blur_mask(torch.full((3, 8, 8), 0.2)).all()


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"confidence_floor": 1.5}, "confidence_floor: it is 1.5; give a number in 0..1"),
        ({"blur_weight": -0.5}, "blur_weight: it is -0.5; give a number in 0..1"),
        ({"disagreement_scale": 0.0}, "disagreement_scale: it is 0; give a number above 0"),
        ({"distance_scale": -1.0}, "distance_scale: it is -1; give a number above 0"),
        ({"blur": "smooth"}, "blur: it is 'smooth'; choose one of off, blurry, sharp"),
        ({"clean_radius": -1}, "clean_radius: it is -1; give 0 or more pixels"),
    ],
)
def test_impossible_settings_are_refused(change, sentence):
    with pytest.raises(InputError, match=f"^{re.escape(sentence)}$"):
        UncertaintyConfig(**change)


@pytest.mark.parametrize("radius", [1, 2, 3])
def test_cleaning_closes_and_opens_as_scipy_does(radius):
    alpha = torch.rand(1, SIDE, SIDE)
    config = UncertaintyConfig(**{**ONLY, "use_alpha": True}, blur="off", clean_radius=radius)
    found = uncertainty(render(alpha=alpha), config)
    side = {"size": 2 * radius + 1, "mode": "nearest"}
    wanted = ndimage.grey_opening(ndimage.grey_closing((1 - alpha[0]).numpy(), **side), **side)
    assert torch.equal(found[0], torch.from_numpy(wanted))


@pytest.mark.parametrize("crop", [(slice(0, 64), slice(0, 64)), (slice(100, 137), slice(150, 201))])
def test_blur_is_split_as_scipy_and_scikit_image_do(crop):
    picture = torch.from_numpy(data.astronaut()[crop]).permute(2, 0, 1) / 255
    grey = np.tensordot(np.array(LUMA, dtype=np.float32), picture.numpy(), axes=1)
    detail = ndimage.gaussian_filter(np.abs(ndimage.laplace(grey, mode="mirror")), 1.0)
    wanted = torch.from_numpy(detail <= filters.threshold_otsu(detail))
    assert (blur_mask(picture) != wanted).sum() <= 1
