"""Device mix-ups, found without the device: fake tensors know where they would lie, and refuse to be mixed.

The other device is `meta`, since a build for CPUs cannot index even fake tensors of a GPU.
"""

from contextlib import nullcontext

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from sphinx_nvs.models.embedded.denoiser import Nano
from sphinx_nvs.procedural import batch as batched
from sphinx_nvs.procedural.texture_library import MIP_TEXELS
from sphinx_nvs.training import pair
from sphinx_nvs.training.batches import augmented, batch_from_samples
from sphinx_nvs.training.packets import make_packet
from sphinx_nvs.training.pair import denoising_loss
from sphinx_nvs.training.samples import Samples, oracle_samples

ELSEWHERE = "meta"


def there(like):
    return torch.zeros(like.shape, dtype=like.dtype, device=ELSEWHERE)


@pytest.fixture
def nano():
    return Nano().to(ELSEWHERE)


@pytest.fixture
def fake():
    # The network's own parameters need not be fake: on `meta` they hold nothing either.
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        yield mode


def fake_samples(num_views=5, num_context=2, size=32, count=2):
    pictures = (torch.zeros(count, num_views, 3, size, size, dtype=torch.uint8, device=ELSEWHERE) for _ in range(3))
    rgb, render, signals = pictures
    return Samples(
        rgb=rgb,
        render=render,
        signals=signals,
        c2w=torch.zeros(count, num_views, 4, 4, device=ELSEWHERE),
        K=torch.zeros(count, num_views, 3, 3, device=ELSEWHERE),
        depth_unit=torch.ones(count, device=ELSEWHERE),
        num_context=num_context,
    )


def test_mixed_devices_are_noticed(fake):
    with pytest.raises(RuntimeError, match="same device"):
        torch.zeros(2, device=ELSEWHERE) + torch.zeros(2)


@pytest.mark.parametrize("drop", [0, 1])
def test_an_update_stays_on_its_device(nano, fake, drop, monkeypatch):
    monkeypatch.setattr(pair, "in_bfloat16", lambda *_: nullcontext())
    batch = batch_from_samples(nano, augmented(fake_samples(), None, drop))
    loss = denoising_loss(nano, batch, None)
    assert batch.features.device.type == loss.device.type == ELSEWHERE
    loss.backward()
    assert nano.unet.out[2].weight.grad.device.type == ELSEWHERE


def test_making_samples_stays_on_its_device(monkeypatch):
    packet = make_packet(0, num_worlds=2, num_views=4)
    plain = batched._nearer.__wrapped__
    monkeypatch.setattr(batched, "_nearer", lambda kind, fused: plain(kind, False))
    # What depends on values, fake tensors cannot know.
    monkeypatch.setattr(torch.Tensor, "nonzero", lambda x: torch.zeros(7, x.ndim, dtype=torch.long, device=x.device))
    with FakeTensorMode(allow_non_fake_inputs=True):
        parts = {name: there(part) for name, part in packet.worlds.tensors().items()}
        textures = torch.zeros(3, MIP_TEXELS, dtype=torch.int32, device=ELSEWHERE)
        c2w, K = there(packet.c2w), there(packet.K)
        worlds = batched.WorldBatch(kinds=packet.worlds.kinds, **parts)
        rgb, depth = batched.render_worlds(worlds, textures, c2w, K, 16, 16, supersample=2)
        samples = oracle_samples(rgb, depth, c2w, K, 2, None)
    made = (rgb, depth, *samples.tensors().values())
    assert {part.device.type for part in made} == {ELSEWHERE}
