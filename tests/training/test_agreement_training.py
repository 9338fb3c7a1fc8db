import json
from dataclasses import fields, replace

import pytest
import torch

from sphinx_nvs.models.embedded.shipped import load_nano
from sphinx_nvs.models.embedded.temporal_consistency import Agreement, seen_beside
from sphinx_nvs.training.agreement import (
    AgreementSample,
    agreement_loss,
    make_agreement_sample,
    path_lesson,
    train_agreement,
    validate_agreement,
)
from sphinx_nvs.training.decoder import flicker, lesson, make_decoder_sample
from sphinx_nvs.training.samples import load_samples, save_samples
from sphinx_nvs.training.state import Schedule


@pytest.fixture(scope="module")
def decoder_samples():
    nano = load_nano()
    made = [make_decoder_sample(nano, seed, num_views=6, size=64) for seed in range(3)]
    return [sample for sample in made if sample is not None]


@pytest.fixture(scope="module")
def samples(decoder_samples):
    return [make_agreement_sample(load_nano().reference, sample) for sample in decoder_samples]


def test_a_sample_is_what_the_decoder_makes_and_survives_the_disk(decoder_samples, samples, tmp_path):
    save_samples(samples, tmp_path / "a.safetensors")
    loaded = load_samples(tmp_path / "a.safetensors", AgreementSample)
    assert len(loaded) == len(samples) >= 2
    for field in fields(AgreementSample):
        assert torch.equal(getattr(loaded[1], field.name), getattr(samples[1], field.name)), field.name
    decoder = load_nano().reference
    given = lesson(decoder_samples[0], range(len(samples[0].frames)), decoder)
    with torch.inference_mode():
        frames = decoder(given.picture, given.inputs).frames.clamp(0, 1)
    assert float((samples[0].frames.float() / 255 - frames).abs().max()) < 2 / 255


def test_a_mirrored_path_keeps_its_geometry(samples):
    sample = samples[0]
    plain = path_lesson(sample)
    seen = {False: 0, True: 0}
    for seed in range(12):
        given = path_lesson(sample, torch.Generator().manual_seed(seed))
        mirrored = not torch.equal(given.warp.visible, plain.warp.visible)
        seen[mirrored] += 1
        truth = {"frames": given.truth, "inverse_depth": 1 / sample.depth.float()}
        truth["inverse_depth"] = truth["inverse_depth"].flip(-1) if mirrored else truth["inverse_depth"]
        beside, alike = seen_beside(replace(given.path, **truth), 0)
        shared = alike[1, 0] > 0.5
        assert float((beside[1] - given.truth[0]).abs().mean(0)[shared].median()) < 0.03
    assert min(seen.values()) > 0


def test_what_flickers_costs_and_highlights_do_not(samples):
    class Shifted(Agreement):
        def __init__(self, shifts):
            super().__init__()
            self.shifts = shifts

        def forward(self, path, view):
            return truth[view] + self.shifts[view]

    given = path_lesson(samples[0])
    truth = given.truth
    count = len(truth)
    steady, flickering = [0.05] * count, [0.05 * (-1) ** view for view in range(count)]

    def losses(weight):
        return [float(agreement_loss(Shifted(s), given, motion_weight=weight)) for s in (steady, flickering)]

    still, moving = losses(0.0), losses(1.0)
    assert still[0] == pytest.approx(still[1], rel=1e-3)
    assert moving[0] == pytest.approx(still[0], rel=1e-3)
    assert moving[1] - still[1] == pytest.approx(0.1, rel=1e-3)


def test_it_learns_and_resumes_to_the_same_weights_on_any_number_of_threads(samples, tmp_path):
    def trained(folder, workers, cut):
        torch.manual_seed(0)
        schedule = Schedule(steps=4, batch=2, warmup=1, learning_rate=1e-3)
        network = Agreement()
        if cut:
            train_agreement(network, samples, schedule, folder, deadline_s=0.0, workers=workers)
            network = Agreement()
        return train_agreement(network, samples, schedule, folder, deadline_s=600.0, workers=workers).averaged

    straight = trained(tmp_path / "a", workers=1, cut=False)
    resumed = trained(tmp_path / "b", workers=2, cut=True)
    for key, value in straight.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[key]), key
    torch.manual_seed(0)
    assert not torch.equal(Agreement().own.weight, straight.own.weight)


def test_a_few_updates_bring_frames_nearer_to_the_truth_with_less_flicker_and_are_logged(samples, tmp_path):
    torch.manual_seed(0)
    given, figures = path_lesson(samples[0]), []
    run = train_agreement(
        Agreement(),
        samples[:1],
        Schedule(steps=50, batch=1, warmup=5, learning_rate=1e-3),
        tmp_path,
        deadline_s=600.0,
        on_log=lambda run: figures.append(validate_agreement(run.model, samples[:1])),
    )
    line = json.loads((tmp_path / "curve.jsonl").read_text())
    assert (line["step"], run.step) == (50, 50)
    assert figures[-1]["after_db"] > figures[-1]["before_db"]
    with torch.inference_mode():
        frames = torch.stack([run.model(given.path, view) for view in range(len(given.truth))])
    before, after = (float(flicker(shown - given.truth, given.warp)) for shown in (given.path.frames, frames))
    assert after < 0.95 * before


def test_one_view_alone_can_be_looked_at(decoder_samples):
    nano = load_nano()
    alone = make_agreement_sample(nano.reference, make_decoder_sample(nano, 1, num_views=3, size=64))
    assert torch.isfinite(agreement_loss(nano.agreement, path_lesson(alone)))
    assert validate_agreement(nano.agreement, [alone])["after_reprojection_ratio"] == 0


@pytest.fixture
def pool_refused(train_pair, tmp_path):
    """What `agreement-pool` says of what it cannot take, and that it leaves no samples behind."""

    def refused(*arguments):
        said = train_pair("agreement-pool", "--folder", tmp_path / "out", *arguments)
        assert not list(tmp_path.glob("out/*"))
        return said

    return refused


def test_a_pool_of_nothing_is_refused(pool_refused, tmp_path):
    (tmp_path / "empty").mkdir()
    said = pool_refused("--pool", tmp_path / "empty")
    assert "it holds no samples; make them with decoder-pool or agreement-pool" in said


def test_a_pool_of_another_kind_is_refused(pool_refused, samples, tmp_path):
    (tmp_path / "pool").mkdir()
    save_samples(samples, tmp_path / "pool" / "a.safetensors")
    said = pool_refused("--pool", tmp_path / "pool")
    assert "a.safetensors: its samples have no rgb; name a pool of DecoderSamples" in said


def test_no_shards_are_refused(pool_refused, tmp_path):
    said = pool_refused("--pool", tmp_path, "--count", "0")
    assert "--count: 0 shards are none; give 1 or more, or leave it out for all" in said


def test_the_run_of_another_network_is_refused(pool_refused, samples, decoder_samples, tmp_path):
    (tmp_path / "pool").mkdir()
    save_samples(decoder_samples, tmp_path / "pool" / "a.safetensors")
    schedule = Schedule(steps=1, batch=1, warmup=1)
    train_agreement(Agreement(), samples, schedule, tmp_path / "run", deadline_s=0.0, workers=1)
    said = pool_refused("--pool", tmp_path / "pool", "--reference", tmp_path / "run")
    assert "does not fit; resume with the network it was made with" in said
