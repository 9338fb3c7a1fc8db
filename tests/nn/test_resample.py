import pytest
import torch
import torch.nn.functional as F

from sphinx_nvs.nn.resample import Downsample, Upsample, halved_sizes


@pytest.mark.parametrize("size", [(8, 8), (7, 5), (1, 3)])
def test_sizes_are_those_of_the_strided_convolution(size):
    x = torch.randn(1, 4, *size)
    down = Downsample(4)
    sizes = halved_sizes(*size, levels=3)
    assert sizes == [size, tuple(down(x).shape[-2:]), tuple(down(down(x)).shape[-2:])]


def test_even_enlargement_repeats_each_cell():
    up, x = Upsample(4), torch.randn(2, 4, 3, 5)
    doubled = x.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
    torch.testing.assert_close(up(x, (6, 10)), up.conv(doubled))


def test_odd_enlargement_is_the_even_one_without_its_last_row_and_column():
    up, x = Upsample(4), torch.randn(2, 4, 37, 5)
    doubled = F.interpolate(x, scale_factor=2.0, mode="nearest")
    torch.testing.assert_close(up(x, (73, 9)), up.conv(doubled[..., :73, :9]))
