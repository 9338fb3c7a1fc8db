import json
import runpy
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
import torch

from sphinx_nvs import media
from sphinx_nvs.errors import InputError
from sphinx_nvs.models.embedded.decoder_inputs import planes_for
from sphinx_nvs.models.embedded.shipped import load_nano
from sphinx_nvs.procedural import procedural_views
from sphinx_nvs.scene import Capture, PosedView, read_capture, write_transforms
from sphinx_nvs.training.captures import (
    MEDIAN_DEPTH,
    MOST_TARGETS,
    choose_stretch,
    compressed,
    kept_depth,
    make_capture_sample,
    origin,
    sequence_depth,
    training_captures,
)
from sphinx_nvs.training.decoder import DecoderSample, decoder_loss, lesson, validate_decoder
from sphinx_nvs.training.pools import Mixture, StoredPool
from sphinx_nvs.training.samples import load_samples, save_samples

SCRIPT = Path(__file__).parents[2] / "scripts" / "train_pair.py"
VIEWS = 7


def in_memory(rgb, cameras):
    height, width = rgb.shape[-2:]
    views = tuple(
        PosedView(name=f"{i}", c2w=cameras.c2w[i], K=cameras.K[i], height=height, width=width, image=rgb[i])
        for i in range(len(rgb))
    )
    return Capture(name="room", views=views)


@pytest.fixture(scope="module")
def scene():
    """A sequence along a path, and its exact depth."""
    rgb, depth, cameras, _ = procedural_views(5, VIEWS, 96, 128, "room", split="val")
    return in_memory(rgb, cameras), depth, cameras


@pytest.fixture(scope="module")
def depth_of_photos(scene):
    return sequence_depth(scene[0])


@pytest.fixture(scope="module")
def folder(tmp_path_factory, scene):
    """Two captures on disk, one of them with its origin stated, one for validation."""
    root = tmp_path_factory.mktemp("captures")
    capture, _, cameras = scene
    for name in ("kitchen", "street"):
        names = [f"images/{i:04d}.png" for i in range(VIEWS)]
        for i, path in enumerate(names):
            media.write_png(root / name / path, capture.views[i].image)
        write_transforms(root / name / "transforms.json", cameras, names)
    (root / "kitchen" / "README").write_text("kitchen: a room\nsource repository: ours, commit 1\nlicence: CC0 1.0\n")
    (root / "splits.json").write_text(json.dumps({"kitchen": "train", "street": "val"}))
    return root


def test_confident_depth_of_neighbours_is_the_true_one(scene, depth_of_photos):
    capture, depth, _ = scene
    sure = depth_of_photos.confidence > 0.5
    assert capture.default_size(96, 8) == tuple(depth.shape[1:])
    planes = planes_for(1 / depth)
    beside = (depth_of_photos.inverse_depth - 1 / depth).abs() / (planes[1] - planes[0])
    assert float(sure.float().mean()) > 0.5
    assert float((beside[sure] < 1).float().mean()) > 0.8
    assert float((beside[~sure] < 1).float().mean()) < 0.7


def test_depth_is_computed_once(scene, depth_of_photos, tmp_path):
    found = kept_depth(scene[0], tmp_path)
    stamp = (tmp_path / "room.safetensors").stat().st_mtime_ns
    again = kept_depth(scene[0], tmp_path)
    assert (tmp_path / "room.safetensors").stat().st_mtime_ns == stamp
    for each in (found, again):
        assert torch.equal(each.inverse_depth, depth_of_photos.inverse_depth)
        assert torch.equal(each.confidence, depth_of_photos.confidence)


def test_a_sample_shows_the_photos_and_their_depth(scene, depth_of_photos):
    """Units are the sample's own; depth and cameras agree: photos warped by it meet the targets."""
    capture, _, _ = scene
    nano, met = load_nano(), []
    for seed in range(8):
        sample = make_capture_sample(nano, capture, depth_of_photos, seed, num_views=5, size=64)
        if seed == 0:
            again = make_capture_sample(nano, capture, depth_of_photos, seed, num_views=5, size=64)
            for field in fields(DecoderSample):
                assert torch.equal(getattr(sample, field.name), getattr(again, field.name)), field.name
        count = int(sample.num_context)
        assert 2 <= count < len(sample.rgb) <= count + MOST_TARGETS
        assert sample.rgb.shape[1:] == (3, 64, 64)
        sure = sample.depth_known >= 128
        assert float(sample.depth.float()[sure].median()) == pytest.approx(MEDIAN_DEPTH, rel=0.01)
        given = lesson(sample, range(len(sample.rendered)))
        assert torch.equal(given.known > 0, sure[count:])
        # Where depth is known, the next target seen through it looks the same.
        if given.warp.visible.any():
            seen = torch.nn.functional.grid_sample(given.truth[1:], given.warp.grid.float(), align_corners=False)
            met.append((seen - given.truth[:-1]).abs().mean(1)[given.warp.visible].median())
    assert len(met) >= 2
    assert float(torch.stack(met).max()) < 0.04


def test_samples_do_not_depend_on_the_units_of_a_capture(scene, depth_of_photos):
    capture, _, cameras = scene
    rgb = torch.stack([view.image for view in capture.views])
    moved = cameras.c2w.clone()
    moved[:, :3, 3] = 1000 * moved[:, :3, 3] + torch.tensor([4e5, -3e5, 2e4], dtype=torch.float64)
    elsewhere = in_memory(rgb, type(cameras)(moved, cameras.K, cameras.height, cameras.width))
    nano = load_nano()
    one = make_capture_sample(nano, capture, depth_of_photos, 2, size=64)
    other = make_capture_sample(nano, elsewhere, sequence_depth(elsewhere), 2, size=64)
    torch.testing.assert_close(one.c2w, other.c2w, atol=1e-3, rtol=1e-3)
    known = (one.depth_known >= 128) & (other.depth_known >= 128)
    assert float((one.depth.float() / other.depth.float() - 1).abs()[known].median()) < 1e-3


def test_places_of_unknown_depth_teach_the_search_nothing(scene, depth_of_photos):
    sample = make_capture_sample(load_nano(), scene[0], depth_of_photos, 2, num_views=5, size=64)
    decoder = load_nano().reference.requires_grad_(True)
    nothing = torch.zeros_like(sample.depth_known)
    parts = {f.name: getattr(sample, f.name) for f in fields(DecoderSample)}
    unknown = lesson(DecoderSample(**{**parts, "depth_known": nothing}), [0])
    wrong = lesson(DecoderSample(**{**parts, "depth_known": nothing, "depth": 3 * sample.depth}), [0])
    known = lesson(sample, [0])
    with torch.no_grad():
        losses = [float(decoder_loss(decoder, given)) for given in (unknown, wrong, known)]
    assert losses[0] == losses[1] < losses[2]


def test_validation_counts_surfaces_only_where_they_are_known(scene, depth_of_photos):
    sample = make_capture_sample(load_nano(), scene[0], depth_of_photos, 2, num_views=5, size=64)
    figures = validate_decoder(load_nano().reference, [sample])
    assert 0 < figures["photo_off"] < 1
    assert figures["frame_whole_db"] > 10


def test_stretches_lie_within_the_sequence_and_are_mostly_short():
    spans = []
    for seed in range(200):
        generator = torch.Generator().manual_seed(seed)
        views = choose_stretch(36, 5, generator)
        assert views == sorted(set(views))
        assert views[0] >= 0
        assert views[-1] < 36
        spans.append(views[-1] - views[0])
        assert choose_stretch(5, 5, generator) == [0, 1, 2, 3, 4]
    assert float(np.median(spans)) <= 8
    assert max(spans) > 12


def test_some_photos_are_compressed_once_more():
    photos, kept = torch.rand(2, 3, 32, 32), 0
    for seed in range(40):
        after = compressed(photos, torch.Generator().manual_seed(seed))
        kept += int(torch.equal(after, photos))
        assert after.shape == photos.shape
        assert float((after - photos).abs().mean()) < 0.25
    assert 20 <= kept <= 36


def test_captures_are_chosen_by_split_and_those_for_measuring_never_train(folder, tmp_path):
    assert [path.name for path in training_captures(folder, "train")] == ["kitchen"]
    assert [path.name for path in training_captures(folder, "val")] == ["street"]
    measured = tmp_path / "measured" / "hall"
    measured.mkdir(parents=True)
    (measured / "transforms.json").write_bytes((folder / "kitchen" / "transforms.json").read_bytes())
    assert [path.name for path in training_captures(tmp_path / "measured", "train")] == ["hall"]
    (measured / "train_test_split_2.json").write_text('{"train_ids": [0, 6], "test_ids": [3]}')
    with pytest.raises(InputError, match="none is for split train"):
        training_captures(tmp_path / "measured", "train")
    with pytest.raises(InputError, match="none is for split train"):
        training_captures(tmp_path / "nowhere", "train")


def test_the_captures_of_the_benchmarks_never_train(captures_dir):
    with pytest.raises(InputError, match="none is for split train"):
        training_captures(captures_dir, "train")


def test_origins_come_from_readmes(folder):
    assert origin(folder / "kitchen") == {"source": "ours, commit 1", "licence": "CC0 1.0"}
    assert origin(folder / "street") == {"source": "not stated", "licence": "not stated"}


@pytest.fixture(scope="module")
def pool(folder, tmp_path_factory):
    made = tmp_path_factory.mktemp("pool") / "photos"
    command = [sys.executable, str(SCRIPT), "capture-pool", "--captures", str(folder), "--folder", str(made)]
    command += ["--count", "4", "--each", "2", "--size", "64", "--views", "4"]
    subprocess.run(command, check=True, capture_output=True)
    return made


def test_a_pool_of_captures_resumes_and_names_its_sources(folder, pool, train_pair):
    shards = sorted(pool.glob("*.safetensors"))
    assert [path.name for path in shards] == ["train-0000000-kitchen.safetensors", "train-0000002-kitchen.safetensors"]
    assert json.loads((pool / "sources.json").read_text()) == {"kitchen": origin(folder / "kitchen")}
    stamps = [path.stat().st_mtime_ns for path in shards]
    shards[1].unlink()
    words = ("capture-pool", "--captures", folder, "--folder", pool)
    assert train_pair(*words, "--count", 4, "--each", 2, "--size", 64, "--views", 4) is None
    assert shards[0].stat().st_mtime_ns == stamps[0]
    assert len(load_samples(shards[1], DecoderSample)) == 2


def test_a_run_learns_from_photos_and_scenes_and_its_sources_are_kept(train_pair, pool, tmp_path):
    scenes = tmp_path / "scenes"
    scenes.mkdir()
    save_samples(load_samples(next(iter(pool.glob("*.safetensors"))), DecoderSample)[:1], scenes / "a.safetensors")
    run = tmp_path / "run"
    words = ("decoder", "--run", run, "--init", "shipped", "--steps", "1", "--batch", "1", "--threads", "1")
    words += ("--pool", scenes, "--val", scenes, "--photos", pool, "--photo-val", pool)
    words += ("--lpips-weight", "0", "--speck-weight", "1", "--val-count", "1", "--photo-val-count", "1")
    assert train_pair(*words) is None
    figures = json.loads((run / "curve.jsonl").read_text().splitlines()[-1])
    assert figures["photo_frame_whole_db"] > 10
    assert set(figures) >= {"frame_speck_rate", "photo_unseen_off"}
    assert runpy.run_path(str(SCRIPT))["origins_of"](run) == json.loads((pool / "sources.json").read_text())
    assert train_pair(*words, "--photo-share", "2").startswith("train_pair: --photo-share: 2.0;")


def test_a_pool_takes_in_shards_as_they_appear_and_a_mixture_keeps_its_shares(pool, tmp_path, monkeypatch):
    first, second = (load_samples(path, DecoderSample) for path in sorted(pool.glob("*.safetensors")))
    with pytest.raises(InputError, match="holds no samples"):
        StoredPool(tmp_path, DecoderSample)
    save_samples(first, tmp_path / "a.safetensors")
    growing, all_of_it = StoredPool(tmp_path, DecoderSample), StoredPool(pool, DecoderSample)
    save_samples(second, tmp_path / "b.safetensors")
    generator = torch.Generator().manual_seed(0)
    growing.draw(generator)
    assert len(growing) == 2
    monkeypatch.setattr("sphinx_nvs.training.pools.FRESH_S", 0.0)
    drawn = [growing.draw(generator) for _ in range(16)]
    assert len(growing) == len(all_of_it) == 4
    for sample in (*first, *second):
        assert any(torch.equal(sample.rgb, each.rgb) and torch.equal(sample.K, each.K) for each in drawn)


class _Counting:
    """A pool that counts how often it is drawn from."""

    def __init__(self):
        self.count = 0

    def draw(self, generator):
        self.count += 1


def test_a_mixture_keeps_its_shares():
    pools, generator = (_Counting(), _Counting()), torch.Generator().manual_seed(0)
    mixture = object.__new__(Mixture)
    mixture.pools, mixture.shares = pools, torch.tensor([3.0, 1.0])
    for _ in range(200):
        mixture(generator)
    assert 130 < pools[0].count < 170


def test_the_card_counts_the_captures_and_says_nothing_without():
    data_of = runpy.run_path(str(SCRIPT))["data_of"]
    assert data_of({}) == ""
    two = {name: {"source": "ours", "licence": "CC0 1.0"} for name in ("hall", "garden")}
    assert "saw 2 posed photo sequences" in data_of(two)


def test_photos_are_read_as_captures(folder):
    assert len(read_capture(folder / "kitchen")) == VIEWS
