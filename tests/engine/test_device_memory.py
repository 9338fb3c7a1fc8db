"""What a device remembers stays within its bytes, the least used is forgotten first."""

from dataclasses import dataclass

import torch
from hypothesis import given
from hypothesis import strategies as st

from sphinx_nvs.engine.device.context_cache import CachingDenoiser, digest_of, with_context_cache
from sphinx_nvs.engine.device.lru import Memory, num_bytes


def floats(count):
    return torch.zeros(count)


def test_a_cached_value_is_not_computed_again():
    memory, made = Memory(limit_bytes=100.0), []
    for _ in range(3):
        assert len(memory.get("a", lambda: made.append(1) or floats(5))) == 5
    assert (len(made), memory.used_bytes) == (1, 20)


def test_the_least_recently_used_value_is_removed_first():
    memory = Memory(limit_bytes=100.0)
    for key in "abcde":
        memory.put(key, floats(5))
    memory.get("a", lambda: floats(0))
    memory.put("f", floats(5))
    assert [key in memory for key in "abcdef"] == [True, False, True, True, True, True]


def test_a_value_that_is_too_large_is_not_cached():
    memory = Memory(limit_bytes=100.0)
    assert len(memory.get("large", lambda: floats(26))) == 26
    assert "large" not in memory
    assert memory.used_bytes == 0


def test_a_cache_without_room():
    memory = Memory(limit_bytes=0.0)
    memory.put("a", floats(1))
    assert "a" not in memory


def test_clear():
    memory = Memory(limit_bytes=100.0)
    memory.put("a", floats(1))
    memory.clear()
    assert ("a" in memory, memory.used_bytes) == (False, 0)


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 40)), max_size=30))
def test_the_bound_holds(puts):
    memory = Memory(limit_bytes=200.0)
    for key, count in puts:
        memory.put(key, floats(count))
        assert memory.used_bytes <= 200
        assert (key in memory) == (4 * count <= 200)


@dataclass
class Branch:
    left: object
    right: object


def test_bytes_are_those_of_all_tensors_once():
    x = torch.zeros(4, 10)
    assert num_bytes(x) == 160
    assert num_bytes([x, x[1:], x.T]) == 160
    assert num_bytes(Branch({"a": x}, (torch.zeros(3), "text", 5, None))) == 172
    loop = Branch(x, None)
    loop.right = loop
    assert num_bytes(loop) == 160


def test_photos_are_identified_by_content_and_shape():
    a = torch.rand(2, 3, 4, 4)
    assert digest_of(a) == digest_of(a.clone())
    assert digest_of(a) != digest_of(a.flip(0))
    assert digest_of(a) != digest_of(a.view(1, 6, 4, 4)[:, :3])
    assert digest_of(torch.zeros(2, 3, 4, 2)) != digest_of(torch.zeros(2, 3, 2, 4))


def test_a_denoiser_without_context_keys_is_not_wrapped():
    denoiser = Unable()
    assert with_context_cache(denoiser, Memory(limit_bytes=1.0)) is denoiser


class Unable:
    """The smallest denoiser that satisfies the protocol."""

    name, factor, size_multiple, latent_channels = "unable", 8, 8, 4

    def encode(self, images): ...
    def decode(self, latents): ...
    def sigmas(self, num_steps): ...
    def condition(self, scene, targets, render, z_render, *, reference=None): ...
    def denoise(self, latents, sigma, conditioning): ...


def test_one_that_can_is_itself_in_all_else():
    class Able(Unable):
        def encode_context(self, images): ...

    wrapped = with_context_cache(Able(), Memory(limit_bytes=1.0))
    assert isinstance(wrapped, CachingDenoiser)
    assert (wrapped.name, wrapped.factor) == ("unable", 8)
