import pytest
import torch

from sphinx_nvs import presets
from sphinx_nvs.errors import InputError
from sphinx_nvs.geometry import Cameras
from sphinx_nvs.models.base import Denoiser, ReferenceDecoding, Regressor
from sphinx_nvs.models.embedded.denoiser import Nano
from sphinx_nvs.models.embedded.shipped import load_nano
from sphinx_nvs.models.placement import memory_bytes
from sphinx_nvs.models.planesweep import PlaneSweep
from sphinx_nvs.models.registry.resolution import HOME
from sphinx_nvs.pipeline.pipeline import Pipeline
from sphinx_nvs.plan.levers import NO_SAVINGS, RESEARCH
from sphinx_nvs.procedural import procedural_views
from sphinx_nvs.scene import Scene

SEVA = ("seva-mvsplat", "seva-planesweep")


@pytest.fixture(autouse=True)
def _untrained(monkeypatch, tmp_path):
    """No weights but the shipped ones, and those untrained."""
    monkeypatch.setattr("sphinx_nvs.presets.load_nano", Nano)
    monkeypatch.setenv(HOME, str(tmp_path / "home"))


def _refused(*args: object, **kwargs: object) -> str:
    with pytest.raises(InputError) as caught:
        presets.load_preset(*args, **kwargs)
    return str(caught.value)


@pytest.mark.parametrize("name", presets.SHIPPED)
def test_every_preset_meets_the_protocols(name):
    size = None if name == "embedded" else "tiny"
    pipeline = presets.load_preset(name, num_steps=7, random_weights=size)
    assert isinstance(pipeline.regressor, Regressor)
    assert isinstance(pipeline.denoiser, Denoiser)
    assert pipeline.num_steps == 7
    assert len(pipeline.denoiser.sigmas(pipeline.num_steps)) == 8


def test_the_default_is_the_embedded_pair():
    pipeline = presets.load_preset()
    assert (pipeline.regressor.name, pipeline.denoiser.name, pipeline.num_steps) == ("planesweep", "nano", 50)
    assert isinstance(pipeline.denoiser, ReferenceDecoding)
    assert pipeline.plan_config.temperature == 0.25


@pytest.mark.parametrize("name", SEVA)
def test_seva_samples_as_its_authors_do_and_plans_as_the_paper_does(name):
    pipeline = presets.load_preset(name, random_weights="tiny")
    assert pipeline.plan_config.temperature == 1.0
    assert not isinstance(pipeline.denoiser, ReferenceDecoding)
    assert pipeline.plan_config.levers == RESEARCH
    assert presets.load_preset(name, random_weights="tiny", exact=True).plan_config.levers == NO_SAVINGS
    assert (pipeline.denoiser.size_multiple, presets.preset_named(name).short_side) == (64, 576)


def test_unknown_preset_lists_the_known():
    assert _refused("seva") == "preset: there is no 'seva'; choose one of: embedded, seva-mvsplat, seva-planesweep"


def test_no_steps():
    assert _refused(num_steps=0) == "steps: it is 0; give at least 1"


def test_missing_weights_are_all_named_with_the_commands_that_get_them(tmp_path):
    folder = tmp_path / "home" / "models"
    assert _refused("seva-planesweep") == (
        f"the weights of seva-1.1, sd21-vae, clip-vit-h14: they are not in {folder}; "
        "get them: sphinx-nvs models pull seva-1.1 sd21-vae clip-vit-h14 --accept-licence"
    )
    message = _refused("seva-mvsplat", weights={"unet": "seva-1.0", "mvsplat": "mvsplat-acid"})
    assert message.startswith("the weights of mvsplat-acid, seva-1.0, sd21-vae, clip-vit-h14: they are not in ")
    assert "get them: sphinx-nvs models pull seva-1.0 sd21-vae clip-vit-h14 --accept-licence && " in message
    assert "&& sphinx-nvs models pull mvsplat-acid --from acid.ckpt (acid.ckpt is at https://" in message


@pytest.mark.parametrize(
    ("name", "options", "expected"),
    [
        (
            "seva-planesweep",
            {"random_weights": "small"},
            "random_weights: there is no 'small'; choose one of: full, tiny",
        ),
        ("embedded", {"random_weights": "tiny"}, "random_weights: the preset embedded ships its weights; leave it out"),
        (
            "seva-planesweep",
            {"random_weights": "tiny", "weights": {"unet": "seva-1.0"}},
            "random_weights: weights are given, too, for unet; leave one of them out",
        ),
        (
            "seva-planesweep",
            {"weights": {"mvsplat": "mvsplat-acid"}},
            "mvsplat: the preset seva-planesweep has no such part; its parts are: unet, vae, clip",
        ),
        ("embedded", {"weights": {"unet": "x"}}, "unet: the preset embedded has no such part; its parts are: none"),
        (
            "seva-planesweep",
            {"weights": {"unet": "sd21-vae"}},
            "unet: sd21-vae is the autoencoder of Stable Diffusion 2.1 base, which SEVA works in; "
            "name one of: seva-1.1, seva-1.0",
        ),
        (
            "seva-planesweep",
            {"weights": {"unet": "seva-2"}},
            "unet: 'seva-2' is no model and no file; name one of: seva-1.1, seva-1.0; or give a .safetensors file",
        ),
        (
            "embedded",
            {"dtype": "float16"},
            "preset embedded: it computes on the CPU in float32 or bfloat16; "
            "leave --device and --dtype out, or choose another preset",
        ),
        ("seva-planesweep", {"device": "tpu"}, "device: there is no 'tpu'; choose one of: auto, cpu, cuda"),
        (
            "seva-planesweep",
            {"dtype": "int8", "device": "cpu"},
            "dtype: there is no 'int8'; choose one of: auto, bfloat16, float16, float32",
        ),
        (
            "seva-planesweep",
            {"offload": True, "device": "cpu"},
            "offload: the models are in the CPU's memory already; leave it out, or choose device cuda",
        ),
    ],
)
def test_options_that_do_not_fit(name, options, expected):
    assert _refused(name, **options) == expected


def test_memory_for_features(monkeypatch):
    monkeypatch.setattr(presets, "memory_bytes", lambda device: 20e9)
    assert presets.load_preset().cache_bytes == 10e9
    assert presets.load_preset(cache_gb=3).cache_bytes == 3e9
    assert _refused("embedded", cache_gb=-1) == "cache_gb: it is -1; give a number of gigabytes from 0"


def test_memory_of_this_machine_is_known():
    assert memory_bytes(torch.device("cpu")) == memory_bytes(torch.device("cpu")) > 1e8


def test_cuda_without_a_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    expected = "device: PyTorch finds no CUDA GPU here; choose cpu, or fix the driver"
    assert _refused("seva-planesweep", device="cuda") == expected


@pytest.mark.parametrize(("asked", "found"), [("auto", torch.float32), ("bfloat16", torch.bfloat16)])
@pytest.mark.parametrize(("name", "size"), [("seva-planesweep", "tiny"), ("embedded", None)])
def test_number_type(name, size, asked, found):
    denoiser = presets.load_preset(name, random_weights=size, device="cpu", dtype=asked).denoiser
    assert next(denoiser.unet.parameters()).dtype == found


@pytest.fixture(scope="module")
def room():
    """A scene and two targets between its context views."""
    rgb, _, cameras, _ = procedural_views(3, 4, 64, 64, split="val")
    return Scene(name="val-3", images=rgb[[0, 3]], cameras=cameras[[0, 3]]), cameras[[1, 2]]


def test_bfloat16_is_near_single_precision(room, monkeypatch):
    monkeypatch.setattr(presets, "load_nano", load_nano)
    scene, targets = room
    exact, near = (presets.load_preset(dtype=dtype, num_steps=6) for dtype in ("float32", "bfloat16"))
    frames = [pipeline(scene, targets, method="diffusion", seed=1).frames for pipeline in (exact, near)]
    assert float((frames[0] - frames[1]).abs().mean()) < 0.01
    assert not frames[0].equal(frames[1])


def test_compiled_kernels_are_optional_and_a_missing_compiler_is_an_error(monkeypatch):
    assert presets.load_preset(compile=True).denoiser.compiled
    assert not presets.load_preset().denoiser.compiled

    def missing():
        raise InputError("compile", "this machine has no C++ compiler", "install one")

    monkeypatch.setattr(presets, "check_compiler", missing)
    assert _refused("embedded", compile=True).startswith("compile: this machine has no C++ compiler")


def test_weights_go_to_the_loaders_as_paths(monkeypatch, tmp_path):
    given = {}
    monkeypatch.setattr(presets, "resolve_all", lambda specs: {part: tmp_path / str(specs[part]) for part in specs})
    monkeypatch.setattr(
        "sphinx_nvs.models.seva.checkpoint.load_seva",
        lambda *paths, **options: given.update(paths=paths, **options) or Nano(),
    )
    pipeline = presets.load_preset("seva-planesweep", weights={"unet": "mine"}, device="cpu", dtype="float16")
    assert given == {
        "paths": (tmp_path / "mine", tmp_path / "sd21-vae", tmp_path / "clip-vit-h14"),
        "device": torch.device("cpu"),
        "dtype": torch.float16,
        "offload": False,
    }
    assert isinstance(pipeline.regressor, PlaneSweep)
    assert type(pipeline) is Pipeline


def test_cards_of_a_preset_follow_the_users_choice():
    names = [card.name for card in presets.preset_cards("seva-mvsplat", {"unet": "seva-1.0", "vae": "my.safetensors"})]
    assert names == ["mvsplat-re10k", "seva-1.0", "sd21-vae", "clip-vit-h14"]
    assert [card.name for card in presets.preset_cards("embedded")] == ["embedded"]


@pytest.mark.parametrize("method", ["regression", "diffusion"])
def test_frames_of_untrained_models_are_watermarked(room, method):
    scene, targets = room
    pipeline = presets.load_preset("seva-planesweep", random_weights="tiny", num_steps=2)
    plain = Pipeline(regressor=pipeline.regressor, denoiser=pipeline.denoiser, num_steps=2)
    frames = pipeline(scene, targets, method=method).frames
    bare = plain(scene, targets, method=method).frames
    band = (frames != bare).any(1).any(2)
    assert band[:, 28:36].all()
    assert not band[:, :8].any()
    assert float(frames[:, :, 24:40].amax()) > 0.9, "no ink"
    assert isinstance(targets, Cameras)
