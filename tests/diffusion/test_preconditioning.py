import torch

from sphinx_nvs.diffusion.preconditioning import NoisePrediction, denoise, insert_known, per_row
from sphinx_nvs.diffusion.sigmas import SigmaTable


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


def test_centring_shifts_everything():
    noise, x, centre, sigma = NoisePrediction(SigmaTable.seva()), latents(), latents(), 0.7

    def network(x, timestep):
        return x.sin()

    moved = denoise(noise, network, x + centre, sigma, centre)
    torch.testing.assert_close(moved, centre + denoise(noise, network, x, sigma))


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
