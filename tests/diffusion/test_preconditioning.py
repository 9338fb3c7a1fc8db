import math

import pytest
import torch

from sphinx_nvs.diffusion.preconditioning import EDM, NoisePrediction, denoise, insert_known, per_row
from sphinx_nvs.diffusion.sigmas import SigmaTable
from sphinx_nvs.errors import InputError


def latents(rows=3):
    return torch.randn(rows, 4, 5, 6, dtype=torch.float64)


def test_a_perfect_noise_predictor_finds_the_clean_latents():
    table = SigmaTable.seva()
    clean, noise = latents(), latents()
    index = torch.tensor([3, 500, 999])
    sigma = table.sigmas.double()[index]
    seen = []

    def network(x, timestep):
        seen.extend([x, timestep])
        return noise

    noisy = clean + sigma[:, None, None, None] * noise
    torch.testing.assert_close(denoise(NoisePrediction(table), network, noisy, sigma), clean)
    assert torch.equal(seen[1], index)
    torch.testing.assert_close(seen[0], noisy / (sigma**2 + 1).sqrt()[:, None, None, None])


def test_noise_prediction_snaps_to_the_table():
    table = SigmaTable(torch.tensor([1.0, 2.0, 4.0], dtype=torch.float64))
    scalings = NoisePrediction(table).scalings(torch.tensor([2.4, 3.1], dtype=torch.float64))
    assert scalings.timestep.tolist() == [1, 2]
    assert scalings.c_out.tolist() == [-2.0, -4.0]


def test_edm_returns_the_posterior_mean_for_a_zero_network():
    # The posterior mean of data N(m, d^2), with a network that returns zero.
    sigma, centre, x = torch.tensor([0.1, 1.0, 50.0]).double(), latents(), latents()
    found = denoise(EDM(sigma_data=0.5), lambda x, timestep: torch.zeros_like(x), x, sigma, centre)
    share = (0.25 / (sigma**2 + 0.25))[:, None, None, None]
    torch.testing.assert_close(found, centre + share * (x - centre))


def test_edm_gives_inputs_and_targets_unit_variance():
    torch.manual_seed(1)
    edm, sigma = EDM(sigma_data=0.3), torch.tensor([0.02, 0.3, 7.0]).double()
    scalings = edm.scalings(sigma)
    clean = 0.3 * torch.randn(100_000, 3, dtype=torch.float64)
    noisy = clean + sigma * torch.randn_like(clean)
    fed, asked = scalings.c_in * noisy, (clean - scalings.c_skip * noisy) / scalings.c_out
    torch.testing.assert_close(fed.std(0), torch.ones(3).double(), atol=0.02, rtol=0)
    torch.testing.assert_close(asked.std(0), torch.ones(3).double(), atol=0.02, rtol=0)
    torch.testing.assert_close(edm.loss_weight(sigma), scalings.c_out**-2)


def test_edm_timesteps_are_log_sigma():
    scalings = EDM(sigma_data=1.0, timestep_scale=10.0).scalings(torch.tensor([1.0, math.e**2]))
    torch.testing.assert_close(scalings.timestep, torch.tensor([0.0, 20.0]))


def test_centring_shifts_everything():
    edm, x, centre, sigma = EDM(sigma_data=0.5), latents(), latents(), 0.7

    def network(x, timestep):
        return x.sin()

    moved = denoise(edm, network, x + centre, sigma, centre)
    torch.testing.assert_close(moved, centre + denoise(edm, network, x, sigma))


def test_one_sigma_serves_all_rows():
    assert per_row(0.5, latents(3)).tolist() == [0.5, 0.5, 0.5]
    rows = per_row(torch.tensor([1.0, 2.0, 3.0]), latents(3))
    assert rows.tolist() == [1.0, 2.0, 3.0]
    assert rows.dtype == torch.float64


def test_known_latents_replace_where_the_mask_is_one():
    x, known = latents(2), latents(2)
    mask = torch.tensor([1.0, 0.0], dtype=torch.float64).view(2, 1, 1, 1).expand(2, 1, 5, 6)
    found = insert_known(x, known, mask)
    assert torch.equal(found[0], known[0])
    assert torch.equal(found[1], x[1])


def test_sigma_data_must_be_positive():
    with pytest.raises(InputError) as error:
        EDM(sigma_data=0.0)
    assert str(error.value) == "EDM.sigma_data: it is 0; give a positive standard deviation"
