"""The autoencoder's wrapper against the library's own network, and the layouts of its weights."""

from __future__ import annotations

import json
import re
from importlib.util import find_spec

import pytest
import torch
from safetensors.torch import load_file, save_file

from sphinx_nvs.errors import InputError
from sphinx_nvs.models.seva.checkpoint import TINY_VAE
from sphinx_nvs.models.seva.seva_denoiser import Autoencoder
from sphinx_nvs.models.seva.vae import SD21, StableDiffusionVae

pytestmark = pytest.mark.skipif(
    not find_spec("diffusers"), reason="diffusers is not installed (pip install 'sphinx-nvs[seva]')"
)


@pytest.fixture(scope="module")
def vae() -> StableDiffusionVae:
    return StableDiffusionVae.random(seed=1, config=TINY_VAE)


@pytest.fixture
def images() -> torch.Tensor:
    return torch.rand(3, 3, 32, 48)


@pytest.fixture
def folder(vae, tmp_path):
    """As diffusers itself stores it."""
    vae.model.save_pretrained(tmp_path)
    return tmp_path


def test_it_implements_the_protocol(vae):
    assert isinstance(vae, Autoencoder)


def test_latents_are_the_posterior_s_scaled_mean(vae, images):
    mean, _ = vae.model.quant_conv(vae.model.encoder(2 * images - 1)).chunk(2, dim=1)
    found = vae.encode(images)
    assert found.shape == (3, 4, 4, 6)
    torch.testing.assert_close(found, 0.18215 * mean)


def test_images_are_the_decoder_s_in_the_unit_range(vae, images):
    latents = torch.randn(3, 4, 4, 6)
    found = vae.decode(latents)
    assert found.shape == images.shape
    expected = vae.model.decoder(vae.model.post_quant_conv(latents / 0.18215)) / 2 + 0.5
    torch.testing.assert_close(found, expected)


def test_images_per_call_change_nothing(vae, images):
    together = StableDiffusionVae(vae.model, images_per_call=2)
    torch.testing.assert_close(together.encode(images), vae.encode(images))
    latents = torch.randn(3, 4, 4, 6)
    torch.testing.assert_close(together.decode(latents), vae.decode(latents))
    with pytest.raises(InputError, match="images_per_call: it is 0; give at least 1"):
        StableDiffusionVae(vae.model, images_per_call=0)


def test_half_precision_inside_single_outside(images):
    half = StableDiffusionVae.random(seed=1, config=TINY_VAE, dtype=torch.bfloat16)
    assert half.encode(images).dtype == torch.float32
    assert next(half.model.parameters()).dtype == torch.bfloat16


def test_a_folder_of_diffusers(vae, folder, images):
    assert torch.equal(StableDiffusionVae.load(folder).encode(images), vae.encode(images))


def test_the_folder_of_a_whole_pipeline(vae, tmp_path, images):
    vae.model.save_pretrained(tmp_path / "vae")
    assert torch.equal(StableDiffusionVae.load(tmp_path).encode(images), vae.encode(images))


def test_attention_by_its_old_names(vae, folder, images):
    path = folder / "diffusion_pytorch_model.safetensors"
    old = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    tensors = {}
    for name, tensor in load_file(path).items():
        for ours, theirs in old.items():
            name = name.replace(f".attentions.0.{ours}.", f".attentions.0.{theirs}.")
        tensors[name] = tensor
    assert "encoder.mid_block.attentions.0.proj_attn.weight" in tensors
    save_file(tensors, path)
    loaded = StableDiffusionVae.load(path)
    assert torch.equal(loaded.decode(loaded.encode(images)), vae.decode(vae.encode(images)))


def test_the_full_size_is_stable_diffusion_s(tmp_path):
    from diffusers import AutoencoderKL

    with torch.device("meta"):
        full = AutoencoderKL.from_config(SD21)
    assert sum(p.numel() for p in full.parameters()) == 83_653_863


def test_wrong_files_are_reported(folder, tmp_path):
    path = folder / "config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps({**config, "latent_channels": 16}))
    found = f"{path}: it has 16 latent channels and factor 8, SEVA takes 4 and 8; give the autoencoder of"
    with pytest.raises(InputError, match=re.escape(found)):
        StableDiffusionVae.load(folder)
    path.write_text("{")
    with pytest.raises(InputError, match=r"config\.json: it is not JSON"):
        StableDiffusionVae.load(folder)
    save_file({"visual.proj": torch.zeros(1)}, tmp_path / "clip.safetensors")
    path.unlink()
    with pytest.raises(InputError, match="this looks like an OpenCLIP model: give the autoencoder of Stable Diffusion"):
        StableDiffusionVae.load(tmp_path / "clip.safetensors")
