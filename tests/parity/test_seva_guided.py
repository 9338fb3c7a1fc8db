"""The guided denoiser as a whole, at every state that the recorded sampling run went through."""

import json

import pytest
import torch
from safetensors.torch import load_file

from sphinx_nvs.geometry.cameras import Cameras
from sphinx_nvs.models.base import DenoiseCall
from sphinx_nvs.models.seva.seva_denoiser import Seva, SevaConditioning, SevaSettings

TOLERANCE = 1e-4


class Nothing:
    """In the place of autoencoder and embedder: the recorded run begins after them."""

    encode = decode = embed = staticmethod(torch.clone)


@pytest.fixture(scope="module")
def golden(parity_dir):
    info = json.loads((parity_dir / "seva_sampler.json").read_text())
    return info, load_file(parity_dir / "seva_sampler.safetensors")


@pytest.fixture(scope="module")
def seva(golden, seva_tiny):
    info, _ = golden
    settings = SevaSettings(
        guidance_scale=info["cfg_scale"], guidance_scale_min=info["cfg_min"], camera_scale=info["camera_scale"]
    )
    return Seva(seva_tiny.unet, Nothing(), Nothing(), settings)


@pytest.fixture(scope="module")
def order(golden):
    """The recorded rows with the known ones first: the network does not see where a row is."""
    _, tensors = golden
    return tensors["traj.input_mask"].argsort(descending=True, stable=True)


def states(tensors):
    """What the sampler denoised at each step, and at which noise level: nudged up, as the original does."""
    sigmas = tensors["traj.sigmas"]
    x = tensors["traj.noise"] * (1 + sigmas[0] ** 2).sqrt()
    for step, sigma in enumerate(sigmas[:-1]):
        nudged = sigma + 1e-6
        yield x + tensors["traj.eps"][step] * (nudged**2 - sigma**2).sqrt(), float(nudged)
        x = tensors["traj.guider1.x_after"][step]


def conditioned(seva, tensors, order, x, sigma):
    """The recorded conditioning, with the noise on known rows that makes their line meet the recorded state."""
    num_context = int(tensors["traj.input_mask"].sum())
    known = order[:num_context]
    z_context = tensors["traj.cond.replace"][known, :-1]
    cameras = Cameras(tensors["traj.c2w"][order], tensors["traj.K"][order], 1, 1)
    return SevaConditioning(
        z_context=z_context,
        eps_context=(x[known] - z_context) / sigma,
        plucker=tensors["traj.cond.dense_vector"][order],
        token=tensors["traj.cond.crossattn"][0, 0],
        scale=seva.guidance_scale(cameras, num_context),
    )


def test_features_are_the_recorded_ones(golden, seva, order):
    _, tensors = golden
    conditioning = conditioned(seva, tensors, order, *next(states(tensors)))
    for found, branch in zip(conditioning.features(), ("cond", "uncond"), strict=True):
        assert torch.equal(found, tensors[f"traj.{branch}.concat"][order])
    for found, branch in zip(conditioning.contexts(), ("cond", "uncond"), strict=True):
        assert torch.equal(found, tensors[f"traj.{branch}.crossattn"])
    torch.testing.assert_close(conditioning.scale, tensors["traj.guider1.scale"][order[conditioning.num_context :]])


def test_estimates_are_the_recorded_ones(golden, seva, order, relative):
    _, tensors = golden
    for step, (x, sigma) in enumerate(states(tensors)):
        conditioning = conditioned(seva, tensors, order, x, sigma)
        targets = order[conditioning.num_context :]
        expected = tensors["traj.guider1.denoised"][step][targets]
        call = DenoiseCall(request=seva.begin(conditioning), latents=x[targets], sigma=sigma)
        assert relative(seva.denoise(x[targets], sigma, conditioning), expected) < TOLERANCE, step
        assert relative(seva.denoise_calls([call])[0], expected) < TOLERANCE, step
