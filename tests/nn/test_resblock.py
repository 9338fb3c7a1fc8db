import torch
import torch.nn.functional as F

from sphinx_nvs.nn.resblock import ResBlock


def block(channels=8, out_channels=8):
    return ResBlock(channels, out_channels, emb_channels=12, dense_channels=3, groups=4)


def inputs(channels=8):
    return torch.randn(2, channels, 5, 6), torch.randn(2, 12), torch.randn(2, 3, 5, 6)


def test_modulation_sits_between_activation_and_first_convolution():
    layer, (x, emb, dense) = block(), inputs()
    scale, shift = F.conv2d(dense, *layer.dense_emb_layers[0].parameters()).split(8, dim=1)
    h = F.silu(F.group_norm(x, 4)) * (1 + scale) + shift
    h = layer.in_layers[2](h) + layer.emb_layers[1](F.silu(emb))[:, :, None, None]
    expected = x + layer.out_layers[3](F.silu(F.group_norm(h, 4)))
    torch.testing.assert_close(layer(x, emb, dense), expected)


def test_width_changes_through_a_1x1_skip():
    layer, (x, emb, dense) = block(8, 12), inputs()
    for parameter in layer.out_layers[3].parameters():
        torch.nn.init.zeros_(parameter)
    torch.testing.assert_close(layer(x, emb, dense), layer.skip_connection(x))
