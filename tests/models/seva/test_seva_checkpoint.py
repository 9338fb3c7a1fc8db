"""SEVA from files and with random weights, as parts and as a whole."""

from __future__ import annotations

from importlib.util import find_spec

import pytest
import torch
from safetensors.torch import save_file

from sphinx_nvs.errors import InputError
from sphinx_nvs.models.base import DenoiseCall, Render, SelectiveDenoiser
from sphinx_nvs.models.planesweep import PlaneSweep
from sphinx_nvs.models.seva.checkpoint import TINY, load_seva, load_unet, random_seva
from sphinx_nvs.models.seva.seva_denoiser import Seva
from sphinx_nvs.models.unet import selective
from sphinx_nvs.models.unet.network import UNet
from sphinx_nvs.pipeline.pipeline import Pipeline
from sphinx_nvs.procedural import procedural_views
from sphinx_nvs.sampling_params import SamplingParams
from sphinx_nvs.scene.scene import Scene

pytestmark = pytest.mark.skipif(
    not (find_spec("diffusers") and find_spec("transformers")),
    reason="diffusers and transformers are not installed (pip install 'sphinx-nvs[seva]')",
)

NUM_TARGETS = 3


@pytest.fixture(scope="module")
def seva() -> Seva:
    return random_seva(seed=1, size="tiny", dtype=torch.float32)


@pytest.fixture(scope="module")
def asked():
    """Two context views of a procedural scene, and cameras between them."""
    images, _, cameras, _ = procedural_views(3, NUM_TARGETS + 2, 64, 64)
    known, targets = [0, NUM_TARGETS + 1], list(range(1, NUM_TARGETS + 1))
    return Scene(name="procedural", images=images[known], cameras=cameras[known]), cameras[targets], images[targets]


def step(model: Seva, asked) -> torch.Tensor:
    """One guided step from renders that are the truth."""
    scene, targets, truth = asked
    maps = torch.ones(NUM_TARGETS, 64, 64)
    render = Render(rgb=truth, alpha=maps, depth=maps, confidence=maps, disagreement=maps)
    z_render = model.encode(truth)
    request = model.begin(model.condition(scene, targets, render, z_render))
    return model.denoise_calls([DenoiseCall(request=request, latents=z_render + 1, sigma=1.0)])[0]


def stored(unet: UNet, path):
    save_file({name: tensor.contiguous() for name, tensor in unet.state_dict().items()}, path)
    return path


def test_it_implements_the_protocol(seva):
    assert isinstance(seva, SelectiveDenoiser)


def test_a_stored_model_gives_the_same_bits(seva, asked, tmp_path):
    unet = stored(seva.unet, tmp_path / "modelv1.1.safetensors")
    seva.autoencoder.model.save_pretrained(tmp_path / "vae")
    seva.embedder.model.save_pretrained(tmp_path / "clip")
    found = load_seva(unet, tmp_path / "vae", tmp_path / "clip", dtype=torch.float32, config=TINY)
    assert torch.equal(step(found, asked), step(seva, asked))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_numbers_are_converted(seva, tmp_path, dtype):
    unet = load_unet(stored(seva.unet, tmp_path / "model.safetensors"), dtype=dtype, config=TINY)
    for name, values in seva.unet.to(dtype=torch.float32).state_dict().items():
        assert torch.equal(unet.state_dict()[name], values.to(dtype)), name


def test_a_folder_leads_to_the_later_version(seva, tmp_path):
    stored(seva.unet, tmp_path / "model.safetensors")
    later = random_seva(seed=2, size="tiny", dtype=torch.float32).unet
    stored(later, tmp_path / "modelv1.1.safetensors")
    found = load_unet(tmp_path, dtype=torch.float32, config=TINY)
    assert torch.equal(found.out[2].weight, later.out[2].weight)


def test_another_size_is_reported(seva, tmp_path):
    path = stored(seva.unet, tmp_path / "model.safetensors")
    with pytest.raises(InputError, match=r"it lacks .*this looks like SEVA's U-Net: give SEVA's U-Net"):
        load_unet(path)
    save_file({"input_blocks.0.0.weight": torch.zeros(1)}, path)
    with pytest.raises(InputError, match="this looks like Stable Diffusion's U-Net: give SEVA's U-Net"):
        load_unet(path)


def test_arguments_are_checked():
    with pytest.raises(InputError, match=r"it is torch\.int8; choose float32, bfloat16 or float16"):
        random_seva(size="tiny", dtype=torch.int8)
    with pytest.raises(InputError, match="it is 'big'; choose full or tiny"):
        random_seva(size="big")


def test_a_convolution_s_weight_is_in_memory_once():
    unet = random_seva(size="tiny", dtype=torch.bfloat16).unet
    weights = selective.SelectiveUNet(unet, 4).weights
    held = {parameter.data_ptr() for parameter in unet.parameters()}
    assert all(weight.data_ptr() in held for weight in weights.dense_weights.values())
    # The first convolution's is a part of its weight: the channels that vary.
    inner = [product for conv, product in weights.tap_products.items() if conv is not unet.input_blocks[0][0]]
    assert all(product.weight.data_ptr() in held for product in inner)
    assert all(linear.weight.data_ptr() in held and linear.packed is None for linear in weights.linears.values())


def test_slabs_of_feed_forwards_change_nothing(seva, asked, monkeypatch):
    whole = step(seva, asked)
    monkeypatch.setattr(selective, "FEED_FORWARD_ROWS", 7)
    torch.testing.assert_close(step(seva, asked), whole, rtol=1e-4, atol=1e-4)


def test_offloaded_parts_are_on_the_cpu_between_calls(asked):
    model = random_seva(size="tiny", dtype=torch.float32, offload=True)
    assert step(model, asked).isfinite().all()
    parts = (model.autoencoder.model, model.embedder.model)
    assert all(p.device.type == "cpu" and not p.is_inference() for part in parts for p in part.parameters())


def test_frames_end_to_end(asked):
    scene, targets, _ = asked
    model = random_seva(size="tiny", dtype=torch.bfloat16)
    pipeline = Pipeline(regressor=PlaneSweep(), denoiser=model, num_steps=3)
    prepared = pipeline.prepare(scene, targets)
    plan = pipeline.plan_prepared(prepared, SamplingParams(method="diffusion")).plan
    frames = pipeline.run_plan(prepared, plan, seed=4).frames
    assert frames.shape == (NUM_TARGETS, 3, 64, 64)
    assert frames.isfinite().all()
    assert frames.std() > 0.01
    assert torch.equal(pipeline.run_plan(prepared, plan, seed=4).frames, frames)
    assert not torch.equal(pipeline.run_plan(prepared, plan, seed=5).frames, frames)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["diffusion", "sphinx"])
def test_full_length_stays_finite(asked, method):
    scene, targets, _ = asked
    pipeline = Pipeline(regressor=PlaneSweep(), denoiser=random_seva(size="tiny", dtype=torch.bfloat16), num_steps=50)
    prepared = pipeline.prepare(scene, targets)
    frames = pipeline.run(pipeline.plan_prepared(prepared, SamplingParams(method=method, seed=4))).frames
    assert frames.isfinite().all()
    assert frames.std() > 0.01
