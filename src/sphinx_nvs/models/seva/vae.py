"""Stable Diffusion 2.1's autoencoder as SEVA uses it: latents are the posterior's scaled mean.

    z = 0.18215 mean(x'),   x = (decode(z / 0.18215) + 1) / 2,   x' = 2 x - 1

The network is diffusers' `AutoencoderKL`, imported when one is created. Weights come from local files in its layout,
with the attention layers' current or former names (query, key, value and proj_attn).
Reference: High-Resolution Image Synthesis with Latent Diffusion Models (Rombach et al., 2022).

Shapes: V images, H W pixels, h w latent cells (H / 8, W / 8).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
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
    temporarily_on,
)

SCALE = 0.18215
LATENT_CHANNELS = 4

SD21: JSONObject = {
    "in_channels": 3,
    "out_channels": 3,
    "latent_channels": LATENT_CHANNELS,
    "block_out_channels": (128, 256, 512, 512),
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "layers_per_block": 2,
    "norm_num_groups": 32,
    "sample_size": 768,
    "scaling_factor": SCALE,
}
"""The network's configuration when no config.json gives one: 84 million parameters."""

FILES = ("diffusion_pytorch_model.safetensors", "vae/diffusion_pytorch_model.safetensors")
WANTED = "the autoencoder of Stable Diffusion 2.1 in diffusers' layout (vae/diffusion_pytorch_model.safetensors)"

OLD_ATTENTION = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}


class StableDiffusionVae:
    """Implements the `Autoencoder` protocol of `models.seva`.

    Args:
        model: diffusers' `AutoencoderKL`, in evaluation mode, of factor 8 and 4 channels.
        device: device on which it computes; a model stored elsewhere is copied there for the length of each call.
        images_per_call: number of images per network call; memory grows with it.

    Raises:
        InputError: less than one image per call.
    """

    def __init__(self, model: Any, *, device: torch.device | str = "cpu", images_per_call: int = 1) -> None:
        if images_per_call < 1:
            raise InputError("StableDiffusionVae.images_per_call", f"it is {images_per_call}", "give at least 1")
        self.model, self.device, self.images_per_call = model, device, images_per_call

    @staticmethod
    def load(
        path: Path,
        *,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
        offload: bool = False,
        images_per_call: int = 1,
    ) -> StableDiffusionVae:
        """Loads local files; nothing is downloaded.

        Args:
            path: a safetensors file, or a folder with one and optionally a config.json (or a whole pipeline's folder).
            device: device on which it computes.
            dtype: type in which it computes.
            offload: whether it stays on the CPU between calls.
            images_per_call: number of images per network call; memory grows with it.

        Raises:
            InputError: diffusers is missing, or the file is not this network's.
        """
        file = find_file(path, FILES, WANTED)
        model = _on_meta(_config_beside(file))
        fill_from_file(
            model, file, dtype=dtype, device="cpu" if offload else device, wanted=WANTED, convert=_renamed_attention
        )
        return StableDiffusionVae(frozen(model), device=device, images_per_call=images_per_call)

    @staticmethod
    def random(
        *,
        seed: int = 0,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
        offload: bool = False,
        images_per_call: int = 1,
        config: JSONObject | None = None,
    ) -> StableDiffusionVae:
        """Random weights; `config` as for diffusers' `AutoencoderKL`, or None for `SD21`."""
        model = _on_meta(config or SD21)
        fill_randomly(model, seed=seed, dtype=dtype, device="cpu" if offload else device)
        return StableDiffusionVae(frozen(model), device=device, images_per_call=images_per_call)

    @torch.no_grad()
    def encode(self, images: Float[Tensor, "V 3 H W"]) -> Float[Tensor, "V 4 h w"]:
        """Encodes images in [0, 1] into scaled latents, float32 on the compute device."""
        # The mean and not a draw: the same photo must have the same latents in every request.
        return self._chunked(lambda part: SCALE * self.model.encode(2 * part - 1).latent_dist.mean, images)

    @torch.no_grad()
    def decode(self, latents: Float[Tensor, "V 4 h w"]) -> Float[Tensor, "V 3 H W"]:
        """Decodes scaled latents into images that may leave [0, 1], float32 on the compute device."""
        return self._chunked(lambda part: (self.model.decode(part / SCALE).sample + 1) / 2, latents)

    def _chunked(self, work: Callable[[Tensor], Tensor], inputs: Tensor) -> Tensor:
        dtype = next(self.model.parameters()).dtype
        with temporarily_on(self.model, self.device):
            parts = inputs.split(self.images_per_call)
            return torch.cat([work(part.to(device=self.device, dtype=dtype)).float() for part in parts])


def _on_meta(config: JSONObject) -> Any:
    autoencoder = import_required("diffusers.models.autoencoders.autoencoder_kl").AutoencoderKL
    # Without memory: the file's tensors take the places of the parameters, which need no random start.
    with torch.device("meta"):
        return autoencoder.from_config(config)


def _config_beside(file: Path) -> JSONObject:
    """The config.json beside the file, if there is one.

    Raises:
        InputError: it is not JSON, or describes another kind of autoencoder.
    """
    path = file.with_name("config.json")
    if not path.is_file():
        return SD21
    try:
        config = json.loads(path.read_text())
    except ValueError as error:
        raise InputError(str(path), f"it is not JSON ({error})", "download it again, or remove it") from error
    channels, factor = config.get("latent_channels"), 2 ** (len(config.get("block_out_channels", ())) - 1)
    if (channels, factor) != (LATENT_CHANNELS, 8):
        found = f"it has {channels} latent channels and factor {factor:g}, SEVA takes {LATENT_CHANNELS} and 8"
        raise InputError(str(path), found, f"give {WANTED}")
    return config


def _renamed_attention(name: str, tensor: Tensor) -> Iterable[tuple[str, Tensor]]:
    """Renames the attention layers to the names that diffusers has used since 2023."""
    if ".attentions." in name:
        *path, part, kind = name.split(".")
        name = ".".join([*path, OLD_ATTENTION.get(part, part), kind])
    yield name, tensor
