import json
import math

import pytest
import torch

from sphinx_nvs.models.embedded.autoencoder import BlockAutoencoder
from sphinx_nvs.models.embedded.denoiser import NETWORKS, SIGMA_MAX, SIGMA_MIN, Nano
from sphinx_nvs.training.batches import batch_from_samples
from sphinx_nvs.training.pair import denoising_loss, draw_sigmas, measure_spread, train_autoencoder, train_denoiser
from sphinx_nvs.training.samples import make_sample
from sphinx_nvs.training.state import Schedule
from sphinx_nvs.training.validation import validate


def test_the_denoiser_learns_and_resumes_to_the_same_weights(pool, tmp_path):
    def trained(folder, cut):
        torch.manual_seed(0)
        nano = Nano()
        nano.spread.copy_(measure_spread(nano, pool.each()))
        schedule = Schedule(steps=4, batch=1, warmup=1, learning_rate=1e-3)
        if cut:
            train_denoiser(nano, pool, schedule, folder, deadline_s=0.0)
            nano = Nano()
        return train_denoiser(nano, pool, schedule, folder, log_every=1).averaged

    straight, resumed = trained(tmp_path / "a", cut=False), trained(tmp_path / "b", cut=True)
    for key, value in straight.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[key]), key
    lines = [json.loads(line) for line in (tmp_path / "a" / "curve.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2, 3, 4]
    assert not torch.equal(straight.unet.out[2].weight, torch.zeros_like(straight.unet.out[2].weight))


def test_the_loss_of_an_untrained_network_is_the_goals_own_size(samples):
    nano = Nano()
    batch = batch_from_samples(nano, samples)
    with torch.no_grad():
        loss = denoising_loss(nano, batch, torch.Generator().manual_seed(0))
        ones = denoising_loss(nano, batch, torch.Generator().manual_seed(0), lambda x, *_: torch.ones_like(x[:, :24]))
    assert 0.05 < float(loss) < 20
    assert float(ones) != pytest.approx(float(loss))


def test_a_compiled_network_is_called_instead_though_it_has_no_length(samples):
    class Wrapped:
        calls = 0

        def __call__(self, x, timesteps, dense, context, num_frames):
            self.calls += 1
            return x[:, :24] * 0

        def __len__(self):
            raise TypeError("no length")

    network = Wrapped()
    nano = Nano()
    denoising_loss(nano, batch_from_samples(nano, samples), torch.Generator().manual_seed(0), network)
    assert network.calls == 1


def test_noise_levels_straddle_what_holes_are_decided_at():
    sigmas = draw_sigmas(4000, torch.Generator().manual_seed(0), "cpu")
    assert sigmas.min() >= SIGMA_MIN
    assert sigmas.max() <= SIGMA_MAX
    assert 0.3 < float(sigmas.log().median().exp()) < 0.9
    assert math.log(10) < float(sigmas.log().quantile(0.84) - sigmas.log().quantile(0.16))


@pytest.mark.parametrize("name", sorted(NETWORKS))
def test_every_network_fits_the_package_and_any_number_of_frames(name):
    nano = Nano(NETWORKS[name])
    assert 2 * sum(p.numel() for p in nano.parameters()) < 40e6
    x = torch.zeros(3, nano.unet.config.in_channels, 8, 8)
    out = nano.unet(x, torch.ones(3), torch.zeros(3, 6, 8, 8), None, 3)
    assert out.shape == (3, 24, 8, 8)


def test_the_autoencoders_correction_lowers_its_error(tmp_path):
    torch.manual_seed(0)
    sample = make_sample(5, num_views=4, size=32, real_share=0.0)
    pictures = sample.rgb.float() / 255
    plain = BlockAutoencoder()
    with torch.no_grad():
        before = (plain.decode_raw(plain.encode(pictures)) - pictures).square().mean()
    schedule = Schedule(steps=60, batch=4, warmup=5, learning_rate=2e-3, ema=0.9)
    trained = train_autoencoder(plain, lambda count, generator: pictures[:count], schedule, tmp_path).averaged
    with torch.no_grad():
        after = (trained.decode_raw(trained.encode(pictures)) - pictures).square().mean()
    assert after < 0.97 * before


def test_validation_reports_every_region(pool):
    figures = validate(Nano().eval(), list(pool.each())[:1], num_steps=2)
    names = ("render", "autoencoder", "sample", "one_step")
    expected = {f"{name}_{region}_db" for name in names for region in ("unseen", "seen", "whole")}
    assert set(figures) == {*expected, "sample_sharpness", "one_step_sharpness"}
    assert all(5 < value < 100 for key, value in figures.items() if key.endswith("_db"))
    assert figures["autoencoder_whole_db"] > figures["sample_whole_db"]
