"""Packed products equal plain ones, and their rows do not depend on each other."""

from functools import partial

import pytest
import torch
from torch import nn

from sphinx_nvs.nn.packed_linear import PackedLinear


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize(
    "made",
    [partial(nn.Linear, 32, 24), partial(nn.Linear, 32, 24, bias=False), partial(nn.Conv2d, 32, 24, 1)],
    ids=["linear", "without bias", "pointwise"],
)
def test_it_equals_the_layer(made, dtype):
    # A layer that is made here has the weights of the seed.
    layer = made().to(dtype).requires_grad_(False)
    x = torch.randn(17, 32).to(dtype)
    plain = torch.nn.functional.linear(x, layer.weight.flatten(1), layer.bias)
    packed = PackedLinear.of(layer)
    torch.testing.assert_close(packed(x), plain, rtol=1e-5 if dtype == torch.float32 else 1e-2, atol=1e-5)
    assert packed(x[:0]).shape == (0, 24)


def test_another_bias_replaces_the_layers_own():
    layer, other, x = nn.Linear(32, 24).requires_grad_(False), torch.randn(24), torch.randn(5, 32)
    found = PackedLinear.of(layer)(x, other)
    torch.testing.assert_close(found, torch.nn.functional.linear(x, layer.weight, other), rtol=1e-5, atol=1e-5)


def test_rows_do_not_depend_on_their_number():
    packed, x = PackedLinear(torch.randn(64, 128)), torch.randn(333, 128)
    whole = packed(x)
    for first, last in ((0, 1), (7, 120), (300, 333)):
        assert torch.equal(packed(x[first:last].contiguous()), whole[first:last])
