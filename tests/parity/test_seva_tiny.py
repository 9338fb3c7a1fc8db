"""The tiny multi-view network's recorded tensors, reproduced from its weights."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from sphinx_nvs.models.unet import UNet, UNetConfig
from sphinx_nvs.nn.timestep import sinusoid

TOLERANCE = 1e-5


def tiny_config(params: dict) -> UNetConfig:
    depths = set(params["transformer_depth"])
    assert len(depths) == 1
    return UNetConfig(
        in_channels=params["in_channels"],
        out_channels=params["out_channels"],
        model_channels=params["model_channels"],
        channel_mult=tuple(params["channel_mult"]),
        num_res_blocks=params["num_res_blocks"],
        attention_resolutions=tuple(params["attention_resolutions"]),
        num_head_channels=params["num_head_channels"],
        transformer_depth=depths.pop(),
        context_dim=params["context_dim"],
        dense_in_channels=params["dense_in_channels"],
        joint=tuple(params["unflatten_names"]),
    )


def load_tiny(parity_dir: Path) -> tuple[dict, dict[str, torch.Tensor], UNet]:
    info = json.loads((parity_dir / "seva_tiny.json").read_text())
    tensors = load_file(parity_dir / "seva_tiny.safetensors")
    unet = UNet(tiny_config(info["params"]))
    weights = {k.removeprefix("weights."): v.float() for k, v in tensors.items() if k.startswith("weights.")}
    unet.load_state_dict(weights, strict=True)
    return info, tensors, unet.eval()


def relative(found: torch.Tensor, expected: torch.Tensor) -> float:
    return float((found.double() - expected.double()).norm() / expected.double().norm())


@pytest.fixture(scope="module")
def tiny(parity_dir):
    return load_tiny(parity_dir)


def test_parameters_are_those_of_the_file(tiny):
    info, _, unet = tiny
    assert sum(p.numel() for p in unet.parameters()) == info["n_params"]
    assert len(unet.state_dict()) == info["n_tensors"]


@torch.no_grad()
def test_time_embedding(tiny):
    _, tensors, unet = tiny
    waves = sinusoid(tensors["in.t"], unet.config.model_channels)
    assert relative(waves, tensors["inter.sinusoid"]) < TOLERANCE
    assert relative(unet.time_embed(waves), tensors["inter.time_embed"]) < TOLERANCE


@torch.no_grad()
def test_every_block(tiny):
    info, tensors, unet = tiny
    row, found = info["inter_frame_index"], {}
    x = tensors["in.x"]
    inputs = unet.row_inputs(x, tensors["in.t"], tensors["in.dense_y"], tensors["in.y"], info["num_frames"])
    skips = []
    for index, stage in enumerate(unet.input_blocks):
        x = found[f"input_blocks.{index}"] = stage(x, inputs)
        skips.append(x)
    x = found["middle_block"] = unet.middle_block(x, inputs)
    for index, stage in enumerate(unet.output_blocks):
        x = found[f"output_blocks.{index}"] = stage(torch.cat([x, skips.pop()], 1), inputs)
    errors = {name: relative(value[row : row + 1], tensors[f"inter.{name}"]) for name, value in found.items()}
    assert max(errors.values()) < TOLERANCE, errors


@torch.no_grad()
def test_output(tiny):
    info, tensors, unet = tiny
    found = unet(tensors["in.x"], tensors["in.t"], tensors["in.dense_y"], tensors["in.y"], info["num_frames"])
    assert relative(found, tensors["out"]) < TOLERANCE
