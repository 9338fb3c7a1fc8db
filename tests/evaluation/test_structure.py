import pytest
import torch
from metrics_helpers import photo

from sphinx_nvs.errors import InputError
from sphinx_nvs.evaluation.structure import flip, ms_ssim, scales_for


@pytest.mark.parametrize(
    ("height", "width", "scales"), [(10, 99, 0), (11, 11, 1), (44, 60, 3), (128, 128, 4), (160, 300, 4), (176, 176, 5)]
)
def test_small_pictures_have_fewer_scales(height, width, scales):
    assert scales_for(height, width) == scales


@pytest.mark.parametrize("side", [24, 64, 128, 176])
def test_equal_pictures_score_one_at_every_number_of_scales(side):
    pytest.importorskip("torchmetrics")
    assert float(ms_ssim(photo(side), photo(side))) == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize(("side", "exponent"), [(176, 0.1333), (128, 0.2363 / 0.8667)])
def test_ms_ssim_of_two_greys_is_the_luminance_term_of_the_coarsest_scale(side, exponent):
    pytest.importorskip("torchmetrics")
    a, b = 0.4, 0.6
    luminance = (2 * a * b + 1e-4) / (a * a + b * b + 1e-4)
    greys = (torch.full((1, 3, side, side), value) for value in (a, b))
    assert float(ms_ssim(*greys)) == pytest.approx(luminance**exponent, abs=5e-4)


def test_blur_and_noise_lower_ms_ssim():
    pytest.importorskip("torchmetrics")
    truth = photo()
    noise = torch.randn(truth.shape, generator=torch.Generator().manual_seed(1))
    values = [float(ms_ssim(truth + amount * noise, truth)) for amount in (0.0, 0.05, 0.2)]
    assert values[0] > values[1] > values[2]


def test_too_small_an_image_is_an_error():
    with pytest.raises(InputError, match=r"images: they are 8x8 pixels; give at least 11 a side for MS-SSIM"):
        ms_ssim(torch.zeros(1, 3, 8, 8), torch.zeros(1, 3, 8, 8))


def test_flip_of_equal_pictures_is_nothing_and_black_on_white_nearly_all():
    pytest.importorskip("flip_evaluator")
    black, white = torch.zeros(1, 3, 32, 32), torch.ones(1, 3, 32, 32)
    assert float(flip(white, white)[0]) == 0
    values, maps = flip(black, white)
    # The largest error FLIP knows is that between blue and green; black on white is close to it.
    assert 0.9 < float(values) <= 1
    assert maps.shape == (1, 32, 32)


def test_flip_shows_where():
    pytest.importorskip("flip_evaluator")
    truth = photo(96)
    damaged = truth.clone()
    damaged[..., 8:40, 8:40] = 1 - damaged[..., 8:40, 8:40]
    _, maps = flip(damaged, truth)
    assert float(maps[0, 8:40, 8:40].mean()) > 10 * float(maps[0, 60:, 60:].mean())
