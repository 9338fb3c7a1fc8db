"""What several golden-data tests share: the recorded tiny multi-view network."""

import json
from dataclasses import dataclass, replace

import pytest
import torch
from safetensors.torch import load_file

from sphinx_nvs.models.unet.network import UNet, UNetConfig


@dataclass(frozen=True)
class TinySeva:
    info: dict
    tensors: dict[str, torch.Tensor]
    unet: UNet


def config_from_params(params: dict) -> UNetConfig:
    config = UNetConfig(
        in_channels=params["in_channels"],
        out_channels=params["out_channels"],
        model_channels=params["model_channels"],
        channel_mult=tuple(params["channel_mult"]),
        num_res_blocks=params["num_res_blocks"],
        attention_resolutions=tuple(params["attention_resolutions"]),
        num_head_channels=params["num_head_channels"],
        transformer_depth=tuple(params["transformer_depth"]),
        context_dim=params["context_dim"],
        dense_in_channels=params["dense_in_channels"],
        joint=(),
    )
    # The original ignores names of places that have no transformer.
    named = set(params["unflatten_names"])
    return replace(config, joint=tuple(place for place in config.transformer_places if place in named))


@pytest.fixture(scope="session")
def seva_tiny(parity_dir) -> TinySeva:
    """The tiny network with its recorded weights, in evaluation mode, float32."""
    info = json.loads((parity_dir / "seva_tiny.json").read_text())
    tensors = load_file(parity_dir / "seva_tiny.safetensors")
    unet = UNet(config_from_params(info["params"]))
    weights = {k.removeprefix("weights."): v.float() for k, v in tensors.items() if k.startswith("weights.")}
    unet.load_state_dict(weights, strict=True)
    return TinySeva(info, tensors, unet.eval())


@pytest.fixture(scope="session")
def relative():
    """Relative error in the 2-norm, for use as relative(found, expected)."""

    def error(found: torch.Tensor, expected: torch.Tensor) -> float:
        return float((found.double() - expected.double()).norm() / expected.double().norm())

    return error
