"""SEVA from the user's checkpoint files, or the same networks with random weights.

Three files make up the model: the U-Net (`model.safetensors` is version 1.0, `modelv1.1.safetensors` 1.1; both hold the
same tensors), the autoencoder of Stable Diffusion 2.1, and CLIP ViT-H-14. Only local paths are read. With `offload` the
last two stay on the CPU and are copied to the device for the length of each call.
"""

from __future__ import annotations

from pathlib import Path

import torch

from sphinx_nvs.errors import InputError
from sphinx_nvs.models.registry.weight_files import fill_from_file, fill_randomly, find_file, frozen
from sphinx_nvs.models.seva.clip_embedder import ClipEmbedder
from sphinx_nvs.models.seva.seva_denoiser import IN_CHANNELS, LATENT_CHANNELS, Seva, SevaSettings
from sphinx_nvs.models.seva.vae import SD21, StableDiffusionVae
from sphinx_nvs.models.unet.network import SEVA, UNet, UNetConfig

FILES = ("modelv1.1.safetensors", "model.safetensors")
"""The U-Net's file names, in order of preference."""
WANTED = "SEVA's U-Net (model.safetensors or modelv1.1.safetensors)"

TINY = UNetConfig(
    in_channels=IN_CHANNELS,
    out_channels=LATENT_CHANNELS,
    model_channels=32,
    channel_mult=(1, 2, 2, 2),
    num_res_blocks=1,
    num_head_channels=16,
    context_dim=32,
)
"""The full size's layers with few channels, for tests and examples."""
TINY_VAE = {**SD21, "block_out_channels": (8, 8, 16, 16), "layers_per_block": 1, "norm_num_groups": 4}
TINY_CLIP = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "projection_dim": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "image_size": 28,
    "patch_size": 14,
    "hidden_act": "gelu",
}

DTYPES = (torch.float32, torch.bfloat16, torch.float16)
SIZES = ("full", "tiny")


def load_seva(
    unet: Path,
    vae: Path,
    clip: Path,
    *,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.bfloat16,
    settings: SevaSettings | None = None,
    offload: bool = False,
    config: UNetConfig = SEVA,
) -> Seva:
    """Loads the three files tensor by tensor: memory never holds a network twice.

    Args:
        unet: SEVA's safetensors file, or the folder that holds it.
        vae: the autoencoder's file or folder, see `StableDiffusionVae.load`.
        clip: the image embedder's file or folder, see `ClipEmbedder.load`.
        device: device on which the networks compute.
        dtype: type in which they compute, whatever the files hold: float32, bfloat16 or float16.
        settings: guidance and units.
        offload: whether autoencoder and embedder stay on the CPU between calls.
        config: configuration of the U-Net.

    Raises:
        InputError: a package is missing, the dtype is unsupported, or a file is not the expected network's.
    """
    _check_dtype(dtype)
    network = load_unet(unet, device=device, dtype=dtype, config=config)
    autoencoder = StableDiffusionVae.load(vae, device=device, dtype=dtype, offload=offload)
    embedder = ClipEmbedder.load(clip, device=device, dtype=dtype, offload=offload)
    return Seva(network, autoencoder, embedder, settings).eval()


def load_unet(
    path: Path, *, device: torch.device | str = "cpu", dtype: torch.dtype = torch.bfloat16, config: UNetConfig = SEVA
) -> UNet:
    """Loads the U-Net alone, from a file or a folder.

    Raises:
        InputError: the file is not this network's.
    """
    file = find_file(path, FILES, WANTED)
    with torch.device("meta"):
        network = UNet(config)
    fill_from_file(network, file, dtype=dtype, device=device, wanted=WANTED)
    return frozen(network)


def random_seva(
    *,
    seed: int = 0,
    size: str = "full",
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.bfloat16,
    settings: SevaSettings | None = None,
    offload: bool = False,
) -> Seva:
    """The model with random weights, to measure its cost and test its code without a checkpoint.

    Args:
        seed: seed of the weights.
        size: "full", or "tiny" for the same layers with a few channels each.
        device: device on which the networks compute.
        dtype: type in which they compute.
        settings: guidance and units.
        offload: whether autoencoder and embedder stay on the CPU between calls.

    Raises:
        InputError: a package is missing, or size or dtype is unsupported.
    """
    _check_dtype(dtype)
    if size not in SIZES:
        raise InputError("random_seva.size", f"it is '{size}'", "choose full or tiny")
    is_tiny = size == "tiny"
    with torch.device("meta"):
        network = UNet(TINY if is_tiny else SEVA)
    fill_randomly(network, seed=seed, dtype=dtype, device=device)
    autoencoder = StableDiffusionVae.random(
        seed=seed, device=device, dtype=dtype, offload=offload, config=TINY_VAE if is_tiny else None
    )
    embedder = ClipEmbedder.random(
        seed=seed, device=device, dtype=dtype, offload=offload, config=TINY_CLIP if is_tiny else None
    )
    return Seva(frozen(network), autoencoder, embedder, settings).eval()


def _check_dtype(dtype: torch.dtype) -> None:
    if dtype not in DTYPES:
        raise InputError("dtype", f"it is {dtype}", "choose float32, bfloat16 or float16")
