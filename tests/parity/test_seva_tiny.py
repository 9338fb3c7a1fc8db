"""The tiny multi-view network's recorded tensors, reproduced from its weights."""

import torch

from sphinx_nvs.nn.timestep import sinusoid

TOLERANCE = 1e-5


def test_parameters_are_those_of_the_file(seva_tiny):
    assert sum(p.numel() for p in seva_tiny.unet.parameters()) == seva_tiny.info["n_params"]
    assert len(seva_tiny.unet.state_dict()) == seva_tiny.info["n_tensors"]


@torch.no_grad()
def test_time_embedding(seva_tiny, relative):
    waves = sinusoid(seva_tiny.tensors["in.t"], seva_tiny.unet.config.model_channels)
    assert relative(waves, seva_tiny.tensors["inter.sinusoid"]) < TOLERANCE
    assert relative(seva_tiny.unet.time_embed(waves), seva_tiny.tensors["inter.time_embed"]) < TOLERANCE


@torch.no_grad()
def test_every_block(seva_tiny, relative):
    unet, tensors = seva_tiny.unet, seva_tiny.tensors
    row, num_frames = seva_tiny.info["inter_frame_index"], seva_tiny.info["num_frames"]
    x, found, skips = tensors["in.x"], {}, []
    inputs = unet.row_inputs(x, tensors["in.t"], tensors["in.dense_y"], tensors["in.y"], num_frames)
    for index, stage in enumerate(unet.input_blocks):
        x = found[f"input_blocks.{index}"] = stage(x, inputs)
        skips.append(x)
    x = found["middle_block"] = unet.middle_block(x, inputs)
    for index, stage in enumerate(unet.output_blocks):
        x = found[f"output_blocks.{index}"] = stage(torch.cat([x, skips.pop()], 1), inputs)
    errors = {name: relative(value[row : row + 1], tensors[f"inter.{name}"]) for name, value in found.items()}
    assert max(errors.values()) < TOLERANCE, errors


@torch.no_grad()
def test_output(seva_tiny, relative):
    t = seva_tiny.tensors
    found = seva_tiny.unet(t["in.x"], t["in.t"], t["in.dense_y"], t["in.y"], seva_tiny.info["num_frames"])
    assert relative(found, t["out"]) < TOLERANCE
