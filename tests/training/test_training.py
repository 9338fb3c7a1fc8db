"""Training: samples are reproducible, batches keep geometry, loops learn and resume."""

import json

import pytest
import torch

from sphinx_nvs.geometry import Cameras
from sphinx_nvs.models.autoencoder import BlockAutoencoder
from sphinx_nvs.models.nano import Nano
from sphinx_nvs.training.batches import Pool, example_from_sample
from sphinx_nvs.training.pair import Schedule, measure_spread, train_autoencoder, train_denoiser
from sphinx_nvs.training.samples import load_samples, make_sample, save_samples
from sphinx_nvs.training.validation import validate


@pytest.fixture(scope="module")
def pool(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pool")
    samples = [make_sample(seed, num_views=4, size=32, real_share=0.0) for seed in range(3)]
    save_samples([s for s in samples if s is not None], folder / "a.safetensors")
    return Pool(folder)


def test_a_sample_is_the_same_every_time_and_survives_the_disk(tmp_path):
    first, again = (make_sample(5, num_views=4, size=32, real_share=0.0) for _ in range(2))
    save_samples([first], tmp_path / "s.safetensors")
    loaded = load_samples(tmp_path / "s.safetensors")[0]
    for name in ("rgb", "render", "signals", "c2w", "K", "depth_unit", "num_context"):
        assert torch.equal(getattr(first, name), getattr(again, name))
        assert torch.equal(getattr(first, name), getattr(loaded, name))
    context = int(first.num_context)
    assert torch.equal(first.render[:context], first.rgb[:context])
    assert not torch.equal(first.render[context:], first.rgb[context:])


def test_splits_share_no_scene():
    train, test = (make_sample(5, split, num_views=4, size=32, real_share=0.0) for split in ("train", "test"))
    assert not torch.equal(train.rgb, test.rgb)


def test_mirroring_keeps_points_where_their_pixels_are(pool):
    from sphinx_nvs.training.batches import _mirrored

    sample = next(iter(pool.each()))
    rgb = sample.rgb.float()
    flipped, _, _, c2w, K = _mirrored(rgb, rgb, rgb, sample.c2w.double(), sample.K.double())
    cameras = Cameras(c2w, K, 32, 32)
    point = sample.c2w[0].double() @ torch.tensor([0.3, 0.1, 2.0, 1.0], dtype=torch.float64)
    mirrored = point * torch.tensor([-1.0, 1, 1, 1], dtype=torch.float64)
    for view in range(2):
        plain = sample.K[view].double() @ (torch.linalg.inv(sample.c2w[view].double()) @ point)[:3]
        there = cameras.K[view] @ (cameras.w2c[view] @ mirrored)[:3]
        u, u_mirrored = float(plain[0] / plain[2]), float(there[0] / there[2])
        assert u + u_mirrored == pytest.approx(32, abs=1e-4)
        assert float(plain[1] / plain[2]) == pytest.approx(float(there[1] / there[2]), abs=1e-4)
    assert torch.equal(flipped.flip(-1), rgb)


def test_an_example_has_the_truth_in_latents_and_drops_targets(pool):
    sample = next(iter(pool.each()))
    nano = Nano()
    context = int(sample.num_context)
    whole = example_from_sample(nano, sample, None)
    torch.testing.assert_close(whole.truth, nano.encode(sample.rgb[context:].float() / 255))
    dropped = example_from_sample(nano, sample, torch.Generator().manual_seed(0), drop=1)
    assert len(dropped.truth) == len(whole.truth) - 1


def test_the_denoiser_learns_and_resumes_to_the_same_weights(pool, tmp_path):
    def trained(folder, cut):
        torch.manual_seed(0)
        nano = Nano()
        nano.spread.copy_(measure_spread(nano, pool))
        schedule = Schedule(steps=6, batch=1, warmup=1, learning_rate=1e-3)
        if cut:
            train_denoiser(nano, pool, schedule, folder, deadline_s=0.0)
            nano = Nano()
        return train_denoiser(nano, pool, schedule, folder, log_every=1)

    straight, resumed = trained(tmp_path / "a", cut=False), trained(tmp_path / "b", cut=True)
    for key, value in straight.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[key]), key
    lines = [json.loads(line) for line in (tmp_path / "a" / "curve.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2, 3, 4, 5, 6]
    assert not torch.equal(straight.unet.out[2].weight, torch.zeros_like(straight.unet.out[2].weight))


def test_the_autoencoders_correction_lowers_its_error(tmp_path):
    torch.manual_seed(0)
    sample = make_sample(5, num_views=4, size=32, real_share=0.0)
    pictures = sample.rgb.float() / 255
    plain = BlockAutoencoder()
    with torch.no_grad():
        before = (plain.decode_raw(plain.encode(pictures)) - pictures).square().mean()
    schedule = Schedule(steps=60, batch=4, warmup=5, learning_rate=2e-3, ema=0.9)
    trained = train_autoencoder(plain, lambda count, generator: pictures[:count], schedule, tmp_path)
    with torch.no_grad():
        after = (trained.decode_raw(trained.encode(pictures)) - pictures).square().mean()
    assert after < 0.97 * before


def test_validation_reports_every_region(pool):
    figures = validate(Nano().eval(), list(pool.each())[:1], num_steps=2)
    assert set(figures) == {
        f"{name}_{region}_db" for name in ("render", "sample", "one_step") for region in ("unseen", "seen", "whole")
    }
    assert all(5 < value < 100 for value in figures.values())
