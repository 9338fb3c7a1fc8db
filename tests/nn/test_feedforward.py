import torch
import torch.nn.functional as F

from sphinx_nvs.nn.feedforward import GEGLU, FeedForward


def test_second_half_gates_the_first():
    layer, x = GEGLU(6, 4), torch.randn(3, 5, 6)
    projected = F.linear(x, layer.proj.weight, layer.proj.bias)
    gate = projected[..., 4:]
    exact_gelu = gate * 0.5 * (1 + torch.erf(gate / 2**0.5))
    torch.testing.assert_close(layer(x), projected[..., :4] * exact_gelu)


def test_tokens_do_not_mix():
    layer, x = FeedForward(6, 4), torch.randn(3, 5, 6)
    torch.testing.assert_close(layer(x)[:, 2], layer(x[:, 2]))
