"""What counts as uncertain, signal by signal."""

import re

import pytest
import torch

from sphinx_nvs.assess.uncertainty import UncertaintyConfig, blur_mask, uncertainty_map
from sphinx_nvs.errors import InputError
from sphinx_nvs.models.base import Render


def render(**changes):
    maps = {name: torch.ones(1, 32, 32) for name in ("alpha", "depth", "confidence")}
    maps |= {"disagreement": torch.zeros(1, 32, 32), "rgb": torch.full((1, 3, 32, 32), 0.5)}
    return Render(**(maps | changes))


def test_a_perfect_render_is_certain_everywhere():
    assert (uncertainty_map(render()) == 0).all()


@pytest.mark.parametrize(
    ("signal", "value", "switch"),
    [("alpha", 0.0, "use_alpha"), ("confidence", 0.0, "use_confidence"), ("disagreement", 1.0, "use_disagreement")],
)
def test_each_signal_raises_uncertainty_where_it_fails_and_can_be_switched_off(signal, value, switch):
    changed = getattr(render(), signal).clone()
    changed[0, 8:24, 8:24] = value
    failing = render(**{signal: changed})
    found = uncertainty_map(failing)
    assert (found[0, 8:24, 8:24] > 0.5).all()
    assert (found[0, :6] == 0).all()
    assert (uncertainty_map(failing, UncertaintyConfig(**{switch: False})) == 0).all()


def test_holes_are_less_certain_than_weak_matches():
    hole = uncertainty_map(render(alpha=torch.zeros(1, 32, 32)))
    weak = uncertainty_map(render(confidence=torch.zeros(1, 32, 32)))
    assert hole.min() == 1
    assert (weak < hole).all()


def test_islands_and_gaps_below_the_radius_disappear():
    alpha = torch.ones(1, 32, 32)
    alpha[0, 4, 4] = 0
    alpha[0, 16:28, 16:28] = 0
    alpha[0, 20, 20] = 1
    found = uncertainty_map(render(alpha=alpha), UncertaintyConfig(clean_radius=2))
    assert found[0, 4, 4] == 0
    assert (found[0, 16:28, 16:28] == 1).all()


def test_blur_marks_the_side_without_detail_and_sharp_its_complement():
    picture = torch.full((3, 32, 32), 0.5)
    noise = torch.rand(32, 16, generator=torch.Generator().manual_seed(0))
    picture[:, :, 16:] = noise
    blurry = blur_mask(picture)
    assert blurry[:, :12].all()
    assert blurry[:, 20:].float().mean() < 0.6
    off, on, inverse = (
        uncertainty_map(render(rgb=picture[None]), UncertaintyConfig(blur=side, clean_radius=0))[0]
        for side in ("off", "blurry", "sharp")
    )
    assert (off == 0).all()
    assert torch.equal(on == 1, blurry)
    assert torch.equal(inverse == 1, ~blurry)


def test_a_flat_picture_is_all_blurry():
    assert blur_mask(torch.full((3, 8, 8), 0.2)).all()


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"confidence_floor": 1.5}, "confidence_floor: it is 1.5; give a number in 0..1"),
        ({"disagreement_scale": 0.0}, "disagreement_scale: it is 0; give a number above 0"),
        ({"clean_radius": -1}, "clean_radius: it is -1; give 0 or more pixels"),
    ],
)
def test_impossible_settings_are_refused(change, sentence):
    with pytest.raises(InputError, match=f"^{re.escape(sentence)}$"):
        UncertaintyConfig(**change)
