import math

import pytest
import torch

from sphinx_nvs.diffusion.sigmas import (
    SigmaTable,
    alphas_cumprod,
    ddpm_sigmas,
    karras_grid,
    thinned,
)
from sphinx_nvs.errors import InputError


def gaps(grid):
    """Widths in nats between the positive levels of a grid."""
    return (grid[:-2] / grid[1:-1]).log()


def test_ddpm_levels_follow_from_their_betas():
    first_beta = torch.tensor(5e-6, dtype=torch.float64)
    torch.testing.assert_close(1 - alphas_cumprod()[0], first_beta)
    sigmas = ddpm_sigmas(log_shift=2.4)
    assert float(sigmas[0]) == pytest.approx(math.exp(2.4) * math.sqrt(5e-6 / (1 - 5e-6)), rel=1e-5)
    assert (sigmas.diff() > 0).all()


def test_seva_grid_of_fifty_has_the_known_levels():
    grid = SigmaTable.seva().grid(50)
    found = [float(grid[step]) for step in (0, 10, 20, 30, 40, 49, 50)]
    assert found == pytest.approx([84.916, 29.98, 13.53, 6.339, 2.258, 0.1634, 0.0], rel=5e-4)


@pytest.mark.parametrize("num_steps", [1, 3, 7, 50, 999, 1000])
def test_timesteps_are_the_truncated_even_spacing(num_steps):
    expected = [int(999 - 999 * step / num_steps + 1e-9) for step in range(num_steps)]
    assert SigmaTable.seva().timesteps(num_steps).tolist() == expected


def test_nearest_is_the_smallest_distance():
    table = SigmaTable.seva()
    sigma = torch.cat([table.sigmas[::97], torch.logspace(-3, 3, 200)])
    distance = (sigma[:, None] - table.sigmas).abs()
    found = table.nearest(sigma)
    assert torch.equal(distance.gather(1, found[:, None])[:, 0], distance.amin(dim=1))


def test_nearest_of_a_tie_is_the_lower():
    table = SigmaTable(torch.tensor([1.0, 2.0, 4.0]))
    assert table.nearest(torch.tensor([1.5, 3.0, 0.0, 9.0])).tolist() == [0, 1, 0, 2]


def test_nearest_takes_any_shape():
    assert SigmaTable.seva().nearest(torch.tensor(3.0)).shape == ()
    assert SigmaTable.seva().nearest(torch.ones(2, 3)).shape == (2, 3)


def test_karras_grid_is_linear_in_the_root():
    grid = karras_grid(9, sigma_min=0.02, sigma_max=80.0, rho=7.0)
    assert [float(grid[0]), float(grid[-2]), float(grid[-1])] == pytest.approx([80.0, 0.02, 0.0])
    root = grid[:-1] ** (1 / 7)
    torch.testing.assert_close(root.diff(), root.diff()[0].expand(8))


@pytest.mark.parametrize("width", [0.2, 0.4, 1.0])
def test_thinned_keeps_ends_and_only_merges(width):
    grid = SigmaTable.seva().grid(50)
    thin = thinned(grid, width)
    assert len(thin) < len(grid)
    assert {float(s) for s in thin} <= {float(s) for s in grid}
    assert [float(s) for s in (thin[0], *thin[-2:])] == [float(s) for s in (grid[0], *grid[-2:])]
    widest_there_was = gaps(grid)[torch.isin(grid[:-2], thin)].max()
    assert float(gaps(thin).max()) <= max(width, float(widest_there_was)) + 1e-6


def test_thinned_cannot_be_thinned_again():
    thin = thinned(SigmaTable.seva().grid(50), 0.4)
    assert torch.equal(thinned(thin, 0.4), thin)


def test_a_grid_wider_than_the_limit_is_unchanged():
    grid = karras_grid(5, sigma_min=0.01, sigma_max=80.0)
    assert torch.equal(thinned(grid, 0.1), grid)
    assert torch.equal(thinned(grid[-2:], 0.1), grid[-2:])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: SigmaTable.seva().grid(0), "num_steps: it is 0; give 1 to 1000"),
        (lambda: SigmaTable.seva().grid(1001), "num_steps: it is 1001; give 1 to 1000"),
        (
            lambda: karras_grid(0, sigma_min=0.1, sigma_max=1.0),
            "num_steps: it is 0; give at least 1",
        ),
        (
            lambda: karras_grid(5, sigma_min=2.0, sigma_max=1.0),
            "sigma_min, sigma_max: 2, 1; give 0 < sigma_min < sigma_max",
        ),
        (
            lambda: thinned(SigmaTable.seva().grid(5), 0.0),
            "width: it is 0 nats; give a positive distance in log sigma",
        ),
    ],
)
def test_errors_are_sentences(call, message):
    with pytest.raises(InputError) as error:
        call()
    assert str(error.value) == message
