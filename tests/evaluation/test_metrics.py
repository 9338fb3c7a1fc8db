import json
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sphinx_nvs.errors import InputError
from sphinx_nvs.evaluation.image_metrics import BEST_PSNR_DB, ViewMetrics, mean_metrics, measure, psnr, ssim


def pictures(seed: int = 0) -> torch.Tensor:
    return torch.rand(2, 3, 24, 32, generator=torch.Generator().manual_seed(seed))


@given(st.floats(0.01, 0.5))
def test_psnr_of_a_constant_offset(offset):
    truth = torch.full((1, 3, 16, 16), 0.5)
    assert float(psnr(truth - offset, truth)) == pytest.approx(-20 * math.log10(offset), abs=1e-4)


def test_equal_images_have_the_best_finite_score():
    both = pictures()
    views = measure(both, both)
    assert [v.psnr_db for v in views] == [BEST_PSNR_DB, BEST_PSNR_DB]
    assert [v.ssim for v in views] == pytest.approx([1, 1])
    json.dumps([v.psnr_db for v in views], allow_nan=False)


def test_more_noise_scores_less():
    truth = pictures()
    noise = torch.randn(truth.shape, generator=torch.Generator().manual_seed(1))
    some, more = measure(truth + 0.02 * noise, truth), measure(truth + 0.1 * noise, truth)
    assert all(a.psnr_db > b.psnr_db and a.ssim > b.ssim for a, b in zip(some, more, strict=True))


def test_views_are_measured_apart():
    truth, images = pictures(), pictures()
    images[1] = images[1].flip(-1)
    first, second = measure(images, truth)
    assert first.psnr_db == BEST_PSNR_DB
    assert second.psnr_db < 20


def test_ssim_window_is_gaussian_of_eleven_pixels():
    """A single wrong pixel is seen from five pixels away and not from six."""
    truth = torch.rand(1, 3, 23, 23, generator=torch.Generator().manual_seed(0))
    damaged = truth.clone()
    damaged[..., 11, 11] = 1 - damaged[..., 11, 11]
    for crop, equal in ((slice(0, 11), True), (slice(1, 12), False)):
        value = float(ssim(damaged[..., crop, crop], truth[..., crop, crop])[0])
        assert (value == pytest.approx(1, abs=1e-9)) is equal


def test_values_outside_the_range_are_clamped_as_a_file_would():
    truth = torch.ones(1, 3, 16, 16)
    assert float(psnr(truth + 1, truth)) == BEST_PSNR_DB


def test_mean():
    mean = mean_metrics([ViewMetrics(psnr_db=20.0, ssim=0.5), ViewMetrics(psnr_db=30.0, ssim=0.7)])
    assert (mean.psnr_db, mean.ssim) == pytest.approx((25, 0.6))


def test_too_small_for_ssim():
    with pytest.raises(InputError) as caught:
        ssim(torch.zeros(1, 3, 8, 16), torch.zeros(1, 3, 8, 16))
    assert str(caught.value) == "images: they are 16x8 pixels; give at least 11 a side for SSIM"
