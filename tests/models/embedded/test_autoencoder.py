"""The embedded autoencoder: an orthonormal transform that keeps photos, and a correction that starts at nothing."""

import torch
from skimage.data import chelsea

from sphinx_nvs.models.embedded.autoencoder import BlockAutoencoder, block_basis

PHOTO = torch.from_numpy(chelsea()[:296, :448]).permute(2, 0, 1)[None].float() / 255


def psnr(a, b):
    return float(-10 * (a - b).square().mean().log10())


def test_the_basis_is_orthonormal():
    basis, std = block_basis()
    rows = basis.flatten(1)
    torch.testing.assert_close(rows @ rows.T, torch.eye(len(rows)), atol=1e-5, rtol=0)
    assert (std > 0).all()
    assert len(std) == BlockAutoencoder.latent_channels


@torch.no_grad()
def test_an_untrained_autoencoder_is_the_transform_and_keeps_a_photo():
    autoencoder = BlockAutoencoder()
    latents = autoencoder.encode(PHOTO)
    assert latents.shape == (1, 24, 37, 56)
    torch.testing.assert_close(autoencoder.decode(latents), ((autoencoder.synthesise(latents) + 1) / 2).clamp(0, 1))
    assert psnr(autoencoder.decode(latents), PHOTO) > 30


def test_encoding_what_was_synthesised_changes_nothing():
    autoencoder = BlockAutoencoder()
    latents = torch.randn(2, 24, 4, 6)
    again = autoencoder.encode((autoencoder.synthesise(latents) + 1) / 2)
    torch.testing.assert_close(again, latents, atol=1e-4, rtol=1e-4)


def test_latents_of_photos_have_like_scales():
    spread = BlockAutoencoder().encode(PHOTO).std((0, 2, 3))
    assert spread.max() / spread.min() < 20
    assert 0.05 < spread.mean() < 2
