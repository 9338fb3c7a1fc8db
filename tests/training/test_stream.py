import numpy as np
import pytest
import torch

from sphinx_nvs.errors import InputError
from sphinx_nvs.procedural import make_world, texture_library
from sphinx_nvs.training import stream as streaming
from sphinx_nvs.training.packets import load_packet, make_packet, samples_from_packet, save_packet
from sphinx_nvs.training.samples import make_sample, save_samples
from sphinx_nvs.training.stream import Ring, Stream


@pytest.fixture(scope="module")
def packet():
    return make_packet(0, num_worlds=2, num_views=4)


@pytest.fixture(scope="module")
def textures():
    worlds = [make_world(seed, split="train", textured=False) for seed in range(4)]
    tiles = np.zeros((len(texture_library.catalogue()), texture_library.MIP_TEXELS), np.int32)
    for key in {key for world in worlds for key in world.tiles}:
        tiles[texture_library.catalogue()[key]] = texture_library.tile("train", *key)
    return torch.from_numpy(tiles)


def test_a_packet_survives_the_disk_and_renders_the_same(packet, textures, tmp_path):
    save_packet(packet, tmp_path / "p.safetensors")
    first, again = (samples_from_packet(p, textures, 32) for p in (packet, load_packet(tmp_path / "p.safetensors")))
    assert sum(len(samples) for samples in first) <= 2
    for a, b in zip(first, again, strict=True):
        assert a.key == b.key == (4, packet.num_context, 32)
        for name, part in a.tensors().items():
            assert torch.equal(part, getattr(b, name)), name


def test_a_packet_says_nothing_of_pixels(packet, textures):
    small, large = (samples_from_packet(packet, textures, size)[0] for size in (32, 64))
    shrunk = torch.nn.functional.avg_pool2d(large.rgb[0].float(), 2)
    assert (shrunk - small.rgb[0].float()).abs().mean() < 6
    assert torch.equal(small.c2w, large.c2w)
    torch.testing.assert_close(2 * small.K[..., :2, :], large.K[..., :2, :])


def test_a_ring_keeps_the_latest(packet, textures):
    samples = samples_from_packet(packet, textures, 32)[0]
    first, second = samples[torch.tensor([0])], samples[torch.tensor([1])]
    ring = Ring(first, 2)
    assert len(ring) == 1
    ring.put(second)
    ring.put(second)
    drawn = ring.draw(8, torch.Generator().manual_seed(0))
    assert len(ring) == 2
    assert all(torch.equal(picture, second.rgb[0]) for picture in drawn.rgb)


def test_a_stream_takes_packets_and_real_samples_and_deletes_them(textures, tmp_path):
    for seed in (0, 1):
        save_packet(make_packet(seed, num_worlds=2, num_views=4), tmp_path / f"worlds-{seed:07d}.safetensors")
    real = make_sample(3, num_views=4, size=32, real_share=1.0)
    save_samples([real], tmp_path / "real32-0000000.safetensors")
    stream = Stream(tmp_path, textures, 32, ring_bytes=10**6, fresh=1.0, render_share=1e9, real_share=1.0)
    stream.fill(1)
    drawn = stream.draw(4, torch.Generator().manual_seed(0))
    assert len(drawn) == 4
    figures = stream.refresh()
    assert (figures["packets"], figures["real"], stream.next_packet) == (2, 1, 2)
    assert torch.equal(stream.draw(1, torch.Generator().manual_seed(0)).rgb[0], real.rgb)
    assert not list(tmp_path.glob("*.safetensors"))
    stream.refresh()


def test_in_step_the_next_packet_is_waited_for_and_no_other_taken(textures, tmp_path, monkeypatch):
    save_packet(make_packet(1, num_worlds=2, num_views=4), tmp_path / "worlds-0000001.safetensors")
    monkeypatch.setattr(streaming, "_PATIENCE_S", 0.05)
    stream = Stream(tmp_path, textures, 32, ring_bytes=10**6, in_step=True)
    with pytest.raises(InputError, match=r"no worlds-0000000\.safetensors came; read the workers' logs"):
        stream.fill(1)
    following = Stream(tmp_path, textures, 32, ring_bytes=10**6, in_step=True, first=1)
    following.fill(1)
    assert following.next_packet == 2
