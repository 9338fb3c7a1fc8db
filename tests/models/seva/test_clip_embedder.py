"""The image embedder: the same network from both public layouts, and preprocessing as in SEVA."""

from __future__ import annotations

import json
import math
from importlib.util import find_spec

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor

from sphinx_nvs.errors import InputError
from sphinx_nvs.models.seva.checkpoint import TINY_CLIP
from sphinx_nvs.models.seva.clip_embedder import MEAN, STD, VIT_H_14, ClipEmbedder, preprocess
from sphinx_nvs.models.seva.seva_denoiser import ImageEmbedder

pytestmark = pytest.mark.skipif(
    not find_spec("transformers"), reason="transformers is not installed (pip install 'sphinx-nvs[seva]')"
)

WIDTH, LAYERS, HEADS, PATCH, SIZE, OUT = (
    TINY_CLIP[name]
    for name in (
        "hidden_size",
        "num_hidden_layers",
        "num_attention_heads",
        "patch_size",
        "image_size",
        "projection_dim",
    )
)


def open_clip_tensors() -> dict[str, Tensor]:
    """A tiny random model by OpenCLIP's names, with tensors of its text encoder."""
    generator = torch.Generator().manual_seed(0)

    def draw(*size: int) -> Tensor:
        return torch.randn(size, generator=generator) * 0.2

    inner = TINY_CLIP["intermediate_size"]
    tensors = {
        "class_embedding": draw(WIDTH),
        "positional_embedding": draw((SIZE // PATCH) ** 2 + 1, WIDTH),
        "proj": draw(WIDTH, OUT),
        "conv1.weight": draw(WIDTH, 3, PATCH, PATCH),
        **{f"{norm}.{kind}": draw(WIDTH) for norm in ("ln_pre", "ln_post") for kind in ("weight", "bias")},
    }
    for layer in range(LAYERS):
        block = {
            **{f"{norm}.{kind}": draw(WIDTH) for norm in ("ln_1", "ln_2") for kind in ("weight", "bias")},
            "attn.in_proj_weight": draw(3 * WIDTH, WIDTH),
            "attn.in_proj_bias": draw(3 * WIDTH),
            "attn.out_proj.weight": draw(WIDTH, WIDTH),
            "attn.out_proj.bias": draw(WIDTH),
            "mlp.c_fc.weight": draw(inner, WIDTH),
            "mlp.c_fc.bias": draw(inner),
            "mlp.c_proj.weight": draw(WIDTH, inner),
            "mlp.c_proj.bias": draw(WIDTH),
        }
        tensors |= {f"transformer.resblocks.{layer}.{name}": tensor for name, tensor in block.items()}
    text = {"logit_scale": draw(1), "token_embedding.weight": draw(9, 8), "text_projection": draw(8, 8)}
    return {**{f"visual.{name}": tensor for name, tensor in tensors.items()}, **text}


def reference_transformer(images: Tensor, tensors: dict[str, Tensor]) -> Tensor:
    """The vision transformer as its paper and OpenCLIP's layout have it."""

    def at(name: str) -> Tensor:
        return tensors[f"visual.{name}"]

    def norm(x: Tensor, name: str) -> Tensor:
        return F.layer_norm(x, (WIDTH,), at(f"{name}.weight"), at(f"{name}.bias"), 1e-5)

    x = F.conv2d(images, at("conv1.weight"), stride=PATCH).flatten(2).transpose(1, 2)
    x = torch.cat([at("class_embedding").expand(len(x), 1, -1), x], 1) + at("positional_embedding")
    x = norm(x, "ln_pre")
    for layer in range(LAYERS):
        block = f"transformer.resblocks.{layer}"
        mixed = F.linear(norm(x, f"{block}.ln_1"), at(f"{block}.attn.in_proj_weight"), at(f"{block}.attn.in_proj_bias"))
        q, k, v = (part.unflatten(2, (HEADS, -1)).transpose(1, 2) for part in mixed.chunk(3, dim=2))
        weights = (q @ k.transpose(2, 3) / math.sqrt(WIDTH // HEADS)).softmax(-1)
        mixed = (weights @ v).transpose(1, 2).flatten(2)
        x = x + F.linear(mixed, at(f"{block}.attn.out_proj.weight"), at(f"{block}.attn.out_proj.bias"))
        inner = F.linear(norm(x, f"{block}.ln_2"), at(f"{block}.mlp.c_fc.weight"), at(f"{block}.mlp.c_fc.bias"))
        x = x + F.linear(F.gelu(inner), at(f"{block}.mlp.c_proj.weight"), at(f"{block}.mlp.c_proj.bias"))
    return norm(x[:, 0], "ln_post") @ at("proj")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder as on model hubs, in OpenCLIP's layout with transformers' config beside."""
    folder = tmp_path_factory.mktemp("clip")
    save_file(open_clip_tensors(), folder / "open_clip_model.safetensors")
    config = {"projection_dim": OUT, "vision_config": {**TINY_CLIP, "projection_dim": 7}}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


@pytest.fixture(scope="module")
def embedder(folder) -> ClipEmbedder:
    return ClipEmbedder.load(folder)


@pytest.fixture
def images() -> Tensor:
    return torch.rand(2, 3, 40, 70)


def test_it_implements_the_protocol(embedder):
    assert isinstance(embedder, ImageEmbedder)


def test_open_clip_s_layout_equals_the_reference(embedder, images):
    found = embedder.embed(images)
    assert found.shape == (2, OUT)
    torch.testing.assert_close(found, reference_transformer(preprocess(images, SIZE), open_clip_tensors()))


def test_transformers_layout(embedder, images, tmp_path):
    embedder.model.save_pretrained(tmp_path)
    assert torch.equal(ClipEmbedder.load(tmp_path).embed(images), embedder.embed(images))


def test_a_whole_clip_in_transformers_layout(embedder, images, tmp_path):
    embedder.model.save_pretrained(tmp_path)
    path = tmp_path / "model.safetensors"
    positions = torch.arange((SIZE // PATCH) ** 2 + 1)[None]
    extra = {"text_model.a": torch.zeros(1), "vision_model.embeddings.position_ids": positions}
    save_file({**load_file(path), **extra}, path)
    assert torch.equal(ClipEmbedder.load(path).embed(images), embedder.embed(images))


def test_half_precision_inside_single_outside(images):
    half = ClipEmbedder.random(config=TINY_CLIP, dtype=torch.bfloat16)
    single = ClipEmbedder.random(config=TINY_CLIP)
    assert half.embed(images).dtype == torch.float32
    assert half.model.dtype == torch.bfloat16
    assert single.model.vision_model.embeddings.position_ids.tolist() == [[0, 1, 2, 3, 4]]


def test_the_full_size_is_vit_h_14():
    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

    with torch.device("meta"):
        full = CLIPVisionModelWithProjection(CLIPVisionConfig(**VIT_H_14))
    assert sum(p.numel() for p in full.parameters()) == 632_076_800


def test_preprocessing_keeps_flat_colours():
    flat = torch.tensor([0.2, 0.5, 0.9])[:, None, None].expand(1, 3, 90, 61)
    expected = (flat[:, :, :1, :1] - torch.tensor(MEAN)[:, None, None]) / torch.tensor(STD)[:, None, None]
    torch.testing.assert_close(preprocess(flat, 28), expected.expand(1, 3, 28, 28), rtol=1e-4, atol=1e-5)


def test_preprocessing_smooths_before_shrinking():
    """Corners of a picture shrunk with corners aligned are those of the smoothed picture; checks one of them."""
    image = torch.rand(1, 3, 112, 56)
    sigma = {4: 1.5, 2: 0.5}
    weights = {}
    for factor, reach in ((4, 3), (2, 1)):
        taps = [math.exp(-(i**2) / (2 * sigma[factor] ** 2)) for i in range(-reach, reach + 1)]
        weights[factor] = torch.tensor(taps) / sum(taps)
    mirrored = F.pad(image, (1, 1, 3, 3), mode="reflect")[:, :, :7, :3]
    corner = (mirrored * weights[4][:, None] * weights[2]).sum((2, 3))
    found = preprocess(image, 28)[:, :, 0, 0] * torch.tensor(STD) + torch.tensor(MEAN)
    torch.testing.assert_close(found, corner, rtol=1e-4, atol=1e-5)


def test_preprocessing_enlarges_without_smoothing():
    image = torch.rand(1, 3, 10, 14)
    found = preprocess(image, 28) * torch.tensor(STD)[:, None, None] + torch.tensor(MEAN)[:, None, None]
    torch.testing.assert_close(found[:, :, 0, 0], image[:, :, 0, 0])
    torch.testing.assert_close(found[:, :, -1, -1], image[:, :, -1, -1])


def test_wrong_files_are_reported(tmp_path):
    path = tmp_path / "model.safetensors"
    save_file({"encoder.conv_in.weight": torch.zeros(1)}, path)
    with pytest.raises(InputError, match="this looks like a Stable Diffusion autoencoder: give CLIP ViT-H-14"):
        ClipEmbedder.load(path)
    (tmp_path / "config.json").write_text("[")
    with pytest.raises(InputError, match=r"config\.json: it is not JSON"):
        ClipEmbedder.load(path)
