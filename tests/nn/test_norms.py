import torch

from sphinx_nvs.nn.norms import group_norm


def test_each_group_is_normalised_over_its_channels_and_cells():
    norm = group_norm(8, 4)
    x = 3 + 2 * torch.randn(2, 8, 5, 6)
    grouped = norm(x).view(2, 4, -1)
    torch.testing.assert_close(grouped.mean(-1), torch.zeros(2, 4), atol=1e-5, rtol=0)
    torch.testing.assert_close(grouped.std(-1, correction=0), torch.ones(2, 4), atol=1e-4, rtol=0)


def test_statistics_of_half_precision_inputs_are_single_precision():
    # In bfloat16 itself a mean of 100 over 4096 cells would be off by whole units.
    norm = group_norm(2, 1)
    x = (100 + torch.randn(1, 2, 64, 64)).bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = norm(x)
    torch.testing.assert_close(found.float(), norm(x.float()), atol=0.02, rtol=0.01)
