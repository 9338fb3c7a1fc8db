"""Networks that judge in the place of the embedded measures: asked rightly, loaded once, and never fetched unasked.

Neither their packages nor their weights are part of a test machine: stand-ins with their packages' interfaces are.
"""

import re
import sys
from types import SimpleNamespace

import pytest
import torch
from test_quality import PHOTO, cameras

from sphinx_nvs.assess import AssessConfig, assess, backends
from sphinx_nvs.assess.quality import image_quality
from sphinx_nvs.errors import InputError
from sphinx_nvs.models.base import Render
from sphinx_nvs.models.registry.installation import sha256_of
from sphinx_nvs.scene.scene import Scene


@pytest.fixture(autouse=True)
def nothing_loaded():
    yield
    backends._load_musiq.cache_clear()
    backends._load_clip.cache_clear()


class Musiq:
    """What `pyiqa.create_metric` returns: scores one picture at a time as `1 1`, here 100 times its sharpness."""

    def __init__(self):
        self.seen = []

    def __call__(self, image):
        assert image.shape[0] == 1
        assert image.min() >= 0
        assert image.max() <= 1
        self.seen.append(image.shape)
        return 100 * image_quality(image)[:, None]


@pytest.fixture
def pyiqa(monkeypatch, tmp_path):
    """A stand-in for the package, and its weights in its cache."""
    calls = []

    def create_metric(name, device):
        calls.append((name, device))
        return Musiq()

    monkeypatch.setitem(sys.modules, "pyiqa", SimpleNamespace(create_metric=create_metric))
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    weights = tmp_path / "pyiqa" / backends.MUSIQ_FILE
    weights.parent.mkdir()
    weights.write_bytes(b"weights")
    monkeypatch.setattr(backends, "MUSIQ_SHA256", sha256_of(weights))
    return SimpleNamespace(calls=calls, weights=weights)


class Clip:
    """What `open_clip.create_model` returns: embeds normalised squares into 512 numbers."""

    def __init__(self):
        self.seen = []

    def eval(self):
        return self

    def encode_image(self, squares):
        self.seen.append(squares)
        return 7 * squares.flatten(1)[:, :512]


@pytest.fixture
def open_clip(monkeypatch):
    """Stand-ins for the package and for the hub's cache, which holds the file `found.path` if that is set."""
    found = SimpleNamespace(path="/cache/open_clip_model.safetensors", model=Clip(), calls=[], asked=[])

    def create_model(name, pretrained, device):
        found.calls.append((name, pretrained, device))
        return found.model

    def try_to_load_from_cache(repo, file):
        found.asked.append((repo, file))
        return found.path

    monkeypatch.setitem(sys.modules, "open_clip", SimpleNamespace(create_model=create_model))
    monkeypatch.setitem(sys.modules, "huggingface_hub", SimpleNamespace(try_to_load_from_cache=try_to_load_from_cache))
    return found


def scene_and_render():
    scene = Scene(name="photo", images=PHOTO.repeat(2, 1, 1, 1), cameras=cameras([0.0, 1.0]))
    ones = torch.ones(1, 256, 256)
    return scene, Render(rgb=PHOTO, alpha=ones, depth=ones, confidence=ones, disagreement=0 * ones)


def test_musiq_scores_each_view_by_its_own_metric_and_is_loaded_once(pyiqa):
    images = torch.cat([PHOTO, PHOTO.flip(-1), PHOTO / 2])
    first, second = backends.musiq(images), backends.musiq(images)
    torch.testing.assert_close(first, 100 * image_quality(images))
    assert torch.equal(first, second)
    assert pyiqa.calls == [("musiq", torch.device("cpu"))]


def test_an_assessment_by_musiq_is_its_ratio(pyiqa):
    scene, render = scene_and_render()
    by_musiq, embedded = (assess(scene, cameras([0.5]), render, AssessConfig(metric=m)) for m in ("musiq", "embedded"))
    torch.testing.assert_close(by_musiq.quality, embedded.quality)
    assert len(pyiqa.calls) == 1


def test_clip_sees_normalised_squares_and_gives_a_unit_vector(open_clip):
    images = torch.cat([PHOTO, 1 - PHOTO])[..., :200]
    found = backends.clip_descriptor(images)
    assert found.shape == (512,)
    assert abs(float(found.norm()) - 1) < 1e-5
    (squares,) = open_clip.model.seen
    assert squares.shape == (2, 3, 224, 224)
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (backends.MEAN, backends.STD))
    assert float((squares * std + mean).min()) >= -1e-5
    assert float((squares * std + mean).max()) <= 1 + 1e-5
    assert open_clip.calls == [("ViT-B-32-quickgelu", open_clip.path, "cpu")]
    assert open_clip.asked == [(backends.CLIP_REPO, backends.CLIP_FILE)]


def test_a_scene_s_descriptor_is_clip_s_where_configured(open_clip):
    scene, render = scene_and_render()
    found = assess(scene, cameras([0.5]), render, AssessConfig(descriptor="clip"))
    torch.testing.assert_close(found.descriptor, backends.clip_descriptor(scene.images))
    assert len(assess(scene, cameras([0.5]), render).descriptor) == 48


@pytest.mark.parametrize(
    ("config", "module", "sentence"),
    [
        ({"metric": "musiq"}, "pyiqa", "metric: 'musiq' needs the package pyiqa, which cannot be imported"),
        ({"descriptor": "clip"}, "open_clip", "descriptor: 'clip' needs the package open_clip, which cannot be"),
    ],
)
def test_a_missing_package_is_an_error_with_the_command(monkeypatch, config, module, sentence):
    monkeypatch.setitem(sys.modules, module, None)
    scene, render = scene_and_render()
    with pytest.raises(InputError, match=f"^{re.escape(sentence)}") as error:
        assess(scene, cameras([0.5]), render, AssessConfig(**config))
    assert error.value.hint == "run: pip install 'sphinx-nvs[iqa]'"


def test_musiq_without_weights_is_an_error_with_the_command_and_downloads_nothing(pyiqa):
    pyiqa.weights.unlink()
    with pytest.raises(InputError) as error:
        backends.musiq(PHOTO)
    folder = pyiqa.weights.parent
    assert str(error.value) == (
        f"metric: 'musiq' needs {pyiqa.weights}, which is not there; fetch it once: "
        f"hf download chaofengc/IQA-PyTorch-Weights musiq_koniq_ckpt-e95806b9.pth --local-dir {folder}"
    )
    assert not pyiqa.calls


def test_a_pickle_that_is_not_musiqs_is_never_loaded(pyiqa):
    pyiqa.weights.write_bytes(b"something else")
    with pytest.raises(InputError, match=r"^metric: sha256 of .* should be; remove it and fetch it again: hf download"):
        backends.musiq(PHOTO)
    assert not pyiqa.calls


def test_clip_without_weights_is_an_error_with_the_command_and_downloads_nothing(open_clip):
    open_clip.path = None
    with pytest.raises(InputError) as error:
        backends.clip_descriptor(PHOTO)
    assert str(error.value) == (
        "descriptor: 'clip' needs open_clip_model.safetensors of timm/vit_base_patch32_clip_224.openai, which is not "
        "in the hub's cache; "
        "fetch it once: hf download timm/vit_base_patch32_clip_224.openai open_clip_model.safetensors"
    )
    assert not open_clip.calls


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"metric": "niqe"}, "metric: it is 'niqe'; choose one of embedded, musiq"),
        ({"descriptor": "dino"}, "descriptor: it is 'dino'; choose one of embedded, clip"),
        ({"benchmark_power": 0.0}, "benchmark_power: it is 0; give a number above 0"),
        ({"distrust_weight": 1.5}, "distrust_weight: it is 1.5; give a number in 0..1"),
    ],
)
def test_impossible_settings_are_refused(change, sentence):
    with pytest.raises(InputError, match=f"^{re.escape(sentence)}$"):
        AssessConfig(**change)
