import json
import runpy
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest
import torch

from sphinx_nvs.models.embedded.decoder_inputs import NUM_PLANES, places
from sphinx_nvs.models.embedded.reference_decoder import ReferenceDecoder
from sphinx_nvs.models.embedded.shipped import load_card, load_nano
from sphinx_nvs.training.decoder import (
    DecoderSample,
    _depth_loss,
    decoder_loss,
    exposed,
    exposed_apart,
    lesson,
    make_decoder_sample,
    train_decoder,
    validate_decoder,
    varied,
)
from sphinx_nvs.training.samples import load_samples, save_samples
from sphinx_nvs.training.state import Schedule

SCRIPT = Path(__file__).parents[2] / "scripts" / "train_pair.py"


@pytest.fixture(scope="module")
def samples():
    nano = load_nano()
    made = [make_decoder_sample(nano, seed, num_views=5, size=64) for seed in range(4)]
    return [sample for sample in made if sample is not None]


def test_a_sample_is_the_same_again_and_survives_the_disk(samples, tmp_path):
    again = make_decoder_sample(load_nano(), 0, num_views=5, size=64)
    save_samples(samples, tmp_path / "a.safetensors")
    loaded = load_samples(tmp_path / "a.safetensors", DecoderSample)
    assert len(loaded) == len(samples) >= 3
    for field in fields(DecoderSample):
        assert torch.equal(getattr(again, field.name), getattr(samples[0], field.name)), field.name
        assert torch.equal(getattr(loaded[1], field.name), getattr(samples[1], field.name)), field.name


def test_a_mirrored_lesson_keeps_its_geometry(samples):
    seen = {False: 0, True: 0}
    plain = lesson(samples[0], [0, 1])
    for seed in range(12):
        given = varied(plain, torch.Generator().manual_seed(seed))
        mirrored = not torch.equal(given.inverse_depth, plain.inverse_depth)
        seen[mirrored] += 1
        assert torch.equal(given.photo_inverse_depth, plain.photo_inverse_depth) is not mirrored
        among_photos = given.inputs.of_photo(1)
        for inputs, inverse_depth, truth in (
            (given.inputs, given.inverse_depth, given.truth),
            (among_photos, given.photo_inverse_depth[1:2], given.inputs.photos[1:2]),
        ):
            views = len(truth)
            grid, inside = places(inputs, inverse_depth.view(1, views, 1, -1), 64, 64, 1)
            photo = inputs.photos[:1].expand(views, -1, -1, -1)
            warped = torch.nn.functional.grid_sample(photo, grid[0].view(views, 64, 64, 2), align_corners=False)
            error = (warped - truth).abs().mean(1).flatten(1)[inside[0, :, 0] > 0]
            assert float(error.median()) < 0.05
    assert min(seen.values()) > 0


def test_photos_are_exposed_apart_as_more_or_less_light_would():
    linear = torch.rand(4, 3, 8, 8, generator=torch.Generator().manual_seed(1)) * 2
    photos, kept = (-torch.expm1(-linear)).sqrt(), 0
    for seed in range(40):
        exposed = exposed_apart(photos.clone(), torch.Generator().manual_seed(seed))
        if torch.equal(exposed, photos):
            kept += 1
            continue
        light = -torch.log1p(-exposed.square()) / linear
        gain = light.mean((2, 3), keepdim=True)
        torch.testing.assert_close(light, gain.expand_as(light), atol=1e-3, rtol=1e-3)
        assert 0.3 < float(gain.min()) < float(gain.max()) < 3
        assert float(gain.mean(1).std()) > 0
    assert 20 <= kept <= 35


def test_a_lesson_under_other_light_is_the_same_lesson(samples):
    plain = lesson(samples[0], [0, 1])
    darker = exposed(plain, 0.5)
    for dark, light in ((darker.truth, plain.truth), (darker.inputs.photos, plain.inputs.photos)):
        torch.testing.assert_close((1 - dark.square()).square(), 1 - light.square())
    assert torch.equal(darker.inputs.A, plain.inputs.A)


def test_the_true_surface_costs_least(samples):
    given = lesson(samples[0], [0])
    planes = given.inputs.planes
    place = ((given.inverse_depth - planes[0]) / (planes[1] - planes[0])).clamp(0, NUM_PLANES - 1)[:, None]
    index = torch.arange(NUM_PLANES).view(1, -1, 1, 1)

    def loss(shift):
        logits = -((index - place - shift) ** 2)
        return float(_depth_loss(logits, given.inverse_depth, planes, given.known))

    assert loss(0) < min(loss(-1), loss(1)) < min(loss(-3), loss(3))


def test_it_learns_and_resumes_to_the_same_weights_on_any_number_of_threads(samples, tmp_path):
    def trained(folder, workers, cut):
        torch.manual_seed(0)
        schedule = Schedule(steps=2, batch=2, warmup=1, learning_rate=1e-3)
        options = {"schedule": schedule, "folder": folder, "workers": workers, "views": 2}
        decoder = ReferenceDecoder()
        if cut:
            train_decoder(decoder, samples, deadline_s=0.0, **options)
            decoder = ReferenceDecoder()
        return train_decoder(decoder, samples, deadline_s=600.0, **options).averaged

    straight = trained(tmp_path / "a", workers=1, cut=False)
    resumed = trained(tmp_path / "b", workers=2, cut=True)
    for key, value in straight.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[key]), key
    torch.manual_seed(0)
    fresh = ReferenceDecoder()
    assert not torch.equal(fresh.fuse_out.weight, straight.fuse_out.weight)


def test_a_few_updates_lower_the_loss_and_are_logged(tmp_path):
    samples = [make_decoder_sample(load_nano(), 0, num_views=4, size=32)]
    torch.manual_seed(0)
    decoder = ReferenceDecoder()
    figures = []
    run = train_decoder(
        decoder,
        samples,
        Schedule(steps=50, batch=1, warmup=5, learning_rate=1e-3),
        tmp_path,
        deadline_s=600.0,
        views=1,
        on_log=lambda run: figures.append(validate_decoder(run.model, samples)),
    )
    torch.manual_seed(0)
    untrained = validate_decoder(ReferenceDecoder(), samples)
    line = json.loads((tmp_path / "curve.jsonl").read_text())
    assert (line["step"], run.step) == (50, 50)
    assert line["loss"] > 0
    assert figures[-1]["frame_whole_db"] > untrained["frame_whole_db"]
    assert figures[-1]["render_whole_db"] == untrained["render_whole_db"]


def test_views_of_usual_size_can_be_learned_from():
    """On one thread of a CPU with AMX a bfloat16 product of just this many places ended the process."""
    sample, decoder = make_decoder_sample(load_nano(), 330001), ReferenceDecoder()
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        decoder_loss(decoder, lesson(sample, range(3))).backward()
    finally:
        torch.set_num_threads(threads)
    assert sample.rgb.shape[-1] == 128
    gradients = {name: parameter.grad for name, parameter in decoder.named_parameters()}
    assert all(gradient.isfinite().all() for gradient in gradients.values())


@pytest.mark.parametrize("wrong", [("--size", "100"), ("--size", "0"), ("--views", "2")])
def test_a_pool_of_impossible_samples_is_refused(wrong, train_pair, tmp_path):
    said = train_pair("decoder-pool", "--folder", tmp_path / "pool", *wrong)
    assert said.startswith(f"train_pair: {wrong[0]}: {wrong[1]} ")
    assert not (tmp_path / "pool").exists()


def test_what_goes_on_from_shipped_weights_counts_their_training(samples, train_pair, tmp_path):
    (tmp_path / "pool").mkdir()
    save_samples(samples, tmp_path / "pool" / "a.safetensors")
    words = ["--run", tmp_path / "run", "--init", "shipped", "--pool", tmp_path / "pool", "--val", tmp_path / "pool"]
    said = train_pair("decoder", *words, "--val-count", "1", "--steps", "2", "--lpips-weight", "0")
    assert said is None
    average, steps, hours = runpy.run_path(str(SCRIPT))["average_of"](tmp_path / "run")
    card = load_card()
    assert steps == card["steps"]["reference"] + 2
    assert hours == pytest.approx(card["training_hours"]["reference"], abs=0.05)
    for name, shipped in load_nano().reference.state_dict().items():
        assert torch.allclose(average[name], shipped, atol=0.01), name


@pytest.fixture
def run_folder(samples, tmp_path):
    """A run that has not made an update yet."""
    torch.manual_seed(0)
    train_decoder(ReferenceDecoder(), samples, Schedule(steps=1, batch=1), tmp_path / "run", deadline_s=0.0)
    return tmp_path / "run"


@pytest.fixture
def blended(train_pair):
    return lambda run, folder, share: train_pair("blend", "--reference", run, "--share", share, "--folder", folder)


def test_a_run_is_blended_with_the_shipped_weights(blended, run_folder, tmp_path):
    assert blended(run_folder, tmp_path / "mean", 0.25) is None
    average_of = runpy.run_path(str(SCRIPT))["average_of"]
    (trained, *trained_for), (mixed, *counted) = average_of(run_folder), average_of(tmp_path / "mean")
    assert counted == trained_for
    for name, weights in load_nano().reference.state_dict().items():
        assert torch.allclose(mixed[name].float(), 0.75 * weights + 0.25 * trained[name], atol=2e-3), name


def test_a_blend_that_is_none_or_would_cost_a_run_is_refused(blended, run_folder, tmp_path):
    before = {path: path.read_bytes() for path in run_folder.rglob("*") if path.is_file()}
    said = blended(run_folder, tmp_path / "mean", 1.5)
    assert said == "train_pair: --share: 1.5 is no share; give the run's, from 0 to 1"
    assert not (tmp_path / "mean").exists()
    said = blended(run_folder, run_folder, 0.5)
    assert said == f"train_pair: --folder: {run_folder} holds a run already; give a new folder for the mean"
    assert {path: path.read_bytes() for path in run_folder.rglob("*") if path.is_file()} == before


def test_a_decoder_is_scored_on_a_pool(samples, tmp_path):
    (tmp_path / "pool").mkdir()
    save_samples(samples, tmp_path / "pool" / "a.safetensors")
    command = [sys.executable, str(SCRIPT), "score", "--pool", str(tmp_path / "pool"), "--count", "1", "--threads", "1"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    expected = validate_decoder(load_nano().reference, samples[:1])
    assert json.loads(done.stderr) == pytest.approx(expected, abs=0.02)
