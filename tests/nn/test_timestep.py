import math

import pytest
import torch

from sphinx_nvs.nn.timestep import sinusoid


def test_values_at_zero_and_first_frequency():
    waves = sinusoid(torch.tensor([0, 3]), 8)
    assert waves[0].tolist() == [1.0] * 4 + [0.0] * 4
    assert float(waves[1, 0]) == pytest.approx(math.cos(3))
    assert float(waves[1, 4]) == pytest.approx(math.sin(3))


def test_slowest_frequency_approaches_one_over_the_period():
    waves = sinusoid(torch.tensor([50.0], dtype=torch.float64), 2000, max_period=100.0)
    assert waves.dtype == torch.float64
    assert float(waves[0, 999]) == pytest.approx(math.cos(50 / 100 ** (999 / 1000)))


def test_continuous_timesteps_lie_between_whole_ones():
    a, b, c = sinusoid(torch.tensor([10.0, 10.5, 11.0]), 64)
    assert (b - a).norm() < (c - a).norm()
    assert not torch.equal(a, b)


def test_odd_width_is_refused():
    with pytest.raises(ValueError, match="dim must be even, got 7"):
        sinusoid(torch.tensor([1]), 7)
