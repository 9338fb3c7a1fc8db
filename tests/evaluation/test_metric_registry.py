import math

import pytest
import torch
from metrics_helpers import photo

from sphinx_nvs.errors import InputError
from sphinx_nvs.evaluation import weights
from sphinx_nvs.evaluation.registry import METRICS, available, metric, not_computed, notes_for
from sphinx_nvs.evaluation.structure import scales_for


def test_every_metric_is_available_or_reported_as_missing():
    names = {m.name for m in available()} | set(not_computed())
    assert names == {m.name for m in METRICS}
    assert not {m.name for m in available()} & set(not_computed())
    assert {"psnr", "rmse", "ssim"} <= {m.name for m in available()}


def test_missing_weights_are_named(monkeypatch, tmp_path):
    monkeypatch.setenv(weights.HOME, str(tmp_path))
    lacking = not_computed(["lpips_alex", "lpips_vgg", "dists"])
    assert lacking == dict.fromkeys(("lpips_alex", "lpips_vgg", "dists"), "not computed: weights missing")


@pytest.mark.parametrize("chosen", available(), ids=lambda m: m.name)
def test_damage_is_a_loss_whichever_way_is_better(chosen):
    truth = photo(64)
    noise = torch.randn(truth.shape, generator=torch.Generator().manual_seed(1))
    slight, strong = (float(chosen.score((truth + a * noise).clamp(0, 1), truth).values) for a in (0.02, 0.1))
    assert chosen.loss(strong, slight) > 0
    assert chosen.loss(slight, strong) < 0
    assert chosen.loss(slight, slight) == 0


@pytest.mark.parametrize("chosen", [m for m in available() if m.name in ("psnr", "rmse", "ssim", "flip", "lpips_alex")])
def test_a_region_holds_only_its_own_error(chosen):
    truth = photo(64).expand(2, -1, -1, -1)
    image = truth.clone()
    image[..., :24, :24] = image[..., :24, :24].flip(-1)
    scores = chosen.score(image, truth)
    damaged, clean = torch.zeros(2, 64, 64, dtype=torch.bool), torch.zeros(2, 64, 64, dtype=torch.bool)
    damaged[:, :24, :24], clean[:, 48:, 48:] = True, True
    assert chosen.loss(chosen.over(scores, damaged), chosen.over(scores, clean) or 1e-9) > 0
    assert chosen.over(scores, torch.zeros_like(clean)) is None


def test_rmse_and_psnr_of_a_small_region():
    truth, image = torch.zeros(1, 3, 16, 16), torch.zeros(1, 3, 16, 16)
    image[..., :8] = 0.5
    region = torch.ones(1, 16, 16, dtype=torch.bool)
    rmse, psnr = metric("rmse"), metric("psnr")
    assert rmse.over(rmse.score(image, truth), region) == pytest.approx(math.sqrt(0.125))
    assert psnr.over(psnr.score(image, truth), region) == pytest.approx(-10 * math.log10(0.125))
    left = region.clone()
    left[..., 8:] = False
    assert rmse.over(rmse.score(image, truth), left) == pytest.approx(0.5)


def test_small_pictures_are_noted():
    assert notes_for(256, 256) == []
    assert scales_for(128, 192) == 4
    assert "4 of its 5 scales at 192x128" in notes_for(128, 192)[0]


def test_an_unknown_metric_is_an_error():
    with pytest.raises(InputError, match=r"metric: there is no 'lpips'; choose one of psnr, rmse"):
        available(["lpips"])
