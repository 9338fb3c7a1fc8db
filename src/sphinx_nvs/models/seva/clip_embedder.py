"""Image embeddings of CLIP's vision transformer ViT-H-14: SEVA's cross-attention token.

    y = W LayerNorm(ViT(preprocess(x))[class token]),   not normalised

Images are low-pass filtered to match their shrinking (a Gaussian of (factor - 1) / 2 pixels per axis), resized to
224x224 by bicubic interpolation with corners aligned, and normalised. The network is transformers' CLIP, imported when
one is created; weights come from local files in its layout, or in OpenCLIP's.
Reference: Learning Transferable Visual Models From Natural Language Supervision (Radford et al., 2021), as trained on
LAION-2B by OpenCLIP (Ilharco et al., 2021).

Shapes: V images, H W pixels, S pixels of the network's input, X channels of the embedding, k taps.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from sphinx_nvs.errors import InputError
from sphinx_nvs.json_types import JSONObject
from sphinx_nvs.models.registry.weight_files import (
    fill_from_file,
    fill_randomly,
    find_file,
    frozen,
    import_required,
    names_in,
    same_name,
    temporarily_on,
)

MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)

VIT_H_14: JSONObject = {
    "hidden_size": 1280,
    "intermediate_size": 5120,
    "projection_dim": 1024,
    "num_hidden_layers": 32,
    "num_attention_heads": 16,
    "image_size": 224,
    "patch_size": 14,
    "hidden_act": "gelu",
}
"""The network's configuration when no config.json gives one: 632 million parameters."""

FILES = ("model.safetensors", "open_clip_model.safetensors")
WANTED = "CLIP ViT-H-14 of laion2b_s32b_b79k (model.safetensors or open_clip_model.safetensors)"

OPEN_CLIP_TOP = {
    "class_embedding": "vision_model.embeddings.class_embedding",
    "positional_embedding": "vision_model.embeddings.position_embedding.weight",
    "conv1.weight": "vision_model.embeddings.patch_embedding.weight",
    "ln_pre.weight": "vision_model.pre_layrnorm.weight",
    "ln_pre.bias": "vision_model.pre_layrnorm.bias",
    "ln_post.weight": "vision_model.post_layernorm.weight",
    "ln_post.bias": "vision_model.post_layernorm.bias",
}
"""OpenCLIP's names outside the blocks, after `visual.`, and transformers'."""

OPEN_CLIP_BLOCK = {
    "ln_1": "layer_norm1",
    "ln_2": "layer_norm2",
    "attn.out_proj": "self_attn.out_proj",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
}
"""OpenCLIP's names inside a block, and transformers'."""


class ClipEmbedder:
    """Implements the `ImageEmbedder` protocol of `models.seva`.

    Args:
        model: transformers' `CLIPVisionModelWithProjection`, in evaluation mode.
        device: device on which it computes; a model stored elsewhere is copied there for the length of each call.
    """

    def __init__(self, model: Any, *, device: torch.device | str = "cpu") -> None:
        self.model, self.device = model, device

    @staticmethod
    def load(
        path: Path,
        *,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
        offload: bool = False,
    ) -> ClipEmbedder:
        """Loads local files; nothing is downloaded.

        Args:
            path: a safetensors file in transformers' or OpenCLIP's layout, or a folder with one and optionally a
                config.json with transformers' `vision_config`.
            device: device on which it computes.
            dtype: type in which it computes.
            offload: whether it stays on the CPU between calls.

        Raises:
            InputError: transformers is missing, or the file is not this network's.
        """
        file = find_file(path, FILES, WANTED)
        convert = from_open_clip if any(name.startswith("visual.") for name in names_in(file)) else _vision_only
        model = _on_meta(_config_beside(file))
        fill_from_file(model, file, dtype=dtype, device="cpu" if offload else device, wanted=WANTED, convert=convert)
        return ClipEmbedder(frozen(model), device=device)

    @staticmethod
    def random(
        *,
        seed: int = 0,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
        offload: bool = False,
        config: JSONObject | None = None,
    ) -> ClipEmbedder:
        """Random weights; `config` as for transformers' `CLIPVisionConfig`, or None for `VIT_H_14`."""
        model = _on_meta(config or VIT_H_14)
        fill_randomly(model, seed=seed, dtype=dtype, device="cpu" if offload else device)
        return ClipEmbedder(frozen(model), device=device)

    @torch.no_grad()
    def embed(self, images: Float[Tensor, "V 3 H W"]) -> Float[Tensor, "V X"]:
        """Embeds images in [0, 1] one at a time; returns float32 vectors on the compute device."""
        size = self.model.config.image_size
        with temporarily_on(self.model, self.device):
            parts = [preprocess(view.to(self.device), size) for view in images.float().split(1)]
            return torch.cat([self.model(part.to(self.model.dtype)).image_embeds.float() for part in parts])


def preprocess(images: Float[Tensor, "V 3 H W"], size: int) -> Float[Tensor, "V 3 {size} {size}"]:
    """Converts images in [0, 1], of any size and aspect, to the network's input."""
    height, width = images.shape[-2:]
    if max(height, width) > size:
        images = _smoothed(images, (height / size, width / size))
    images = F.interpolate(images, (size, size), mode="bicubic", align_corners=True)
    mean, std = (images.new_tensor(values)[:, None, None] for values in (MEAN, STD))
    return (images - mean) / std


def from_open_clip(name: str, tensor: Tensor) -> Iterable[tuple[str, Tensor]]:
    """Renames OpenCLIP's image encoder to transformers' names; drops its text encoder."""
    prefix, _, rest = name.partition(".")
    if prefix != "visual":
        return
    if rest in OPEN_CLIP_TOP:
        yield OPEN_CLIP_TOP[rest], tensor
    elif rest == "proj":
        yield "visual_projection.weight", tensor.T
    elif rest.startswith("transformer.resblocks."):
        yield from _block_from_open_clip(rest.removeprefix("transformer.resblocks."), tensor)
    else:
        yield name, tensor


def _block_from_open_clip(rest: str, tensor: Tensor) -> Iterable[tuple[str, Tensor]]:
    """Renames `<block>.<part>.<weight or bias>`; OpenCLIP stores attention's three input projections in one tensor."""
    block, _, part = rest.partition(".")
    at = f"vision_model.encoder.layers.{block}"
    if part.startswith("attn.in_proj_"):
        kind = part.removeprefix("attn.in_proj_")
        for letter, third in zip("qkv", tensor.chunk(3), strict=True):
            yield f"{at}.self_attn.{letter}_proj.{kind}", third
    else:
        layer, _, kind = part.rpartition(".")
        yield f"{at}.{OPEN_CLIP_BLOCK.get(layer, layer)}.{kind}", tensor


def _vision_only(name: str, tensor: Tensor) -> Iterable[tuple[str, Tensor]]:
    """Keeps the image encoder of a whole CLIP in transformers' layout, without the obsolete position indices."""
    if name.startswith(("vision_model.", "visual_projection.")) and not name.endswith(".position_ids"):
        yield from same_name(name, tensor)


def _on_meta(config: JSONObject) -> Any:
    transformers = import_required("transformers")
    with torch.device("meta"):
        model = transformers.CLIPVisionModelWithProjection(transformers.CLIPVisionConfig(**config))
    embeddings = model.vision_model.embeddings
    # No file holds this buffer.
    embeddings.position_ids = torch.arange(embeddings.num_positions)[None]
    return model


def _config_beside(file: Path) -> JSONObject:
    """The image encoder's part of the config.json beside the file, if there is one.

    Raises:
        InputError: it is not JSON.
    """
    path = file.with_name("config.json")
    if not path.is_file():
        return VIT_H_14
    try:
        config = json.loads(path.read_text())
    except ValueError as error:
        raise InputError(str(path), f"it is not JSON ({error})", "download it again, or remove it") from error
    vision = config.get("vision_config", config)
    width = config.get("projection_dim", vision.get("projection_dim", VIT_H_14["projection_dim"]))
    return {**vision, "projection_dim": width}


def _smoothed(images: Float[Tensor, "V 3 H W"], factors: tuple[float, float]) -> Float[Tensor, "V 3 H W"]:
    """Gaussian blur, one axis after the other, with mirrored borders."""
    for axis, factor in zip((-2, -1), factors, strict=True):
        taps = _gaussian(factor).to(images)
        kernel = taps.view(1, 1, -1, 1) if axis == -2 else taps.view(1, 1, 1, -1)
        reach = len(taps) // 2
        pad = (0, 0, reach, reach) if axis == -2 else (reach, reach, 0, 0)
        images = F.conv2d(F.pad(images, pad, mode="reflect"), kernel.expand(3, -1, -1, -1), groups=3)
    return images


def _gaussian(factor: float) -> Float[Tensor, "k"]:
    """Low-pass weights for shrinking by `factor`; for enlarging, only the centre weight."""
    sigma = max((factor - 1) / 2, 0.001)
    reach = int(max(4 * sigma, 3)) // 2
    taps = torch.exp(-(torch.arange(-reach, reach + 1).double() ** 2) / (2 * sigma**2))
    return (taps / taps.sum()).float()
