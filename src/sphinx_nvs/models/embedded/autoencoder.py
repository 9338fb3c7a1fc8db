"""The embedded autoencoder: a fixed block transform in, the same transform plus a learned correction out.

Photographs compact well under an orthonormal 8x8 cosine transform of opponent colours: keeping the C strongest of its
192 coefficients already reconstructs real photos at about 31 dB with C = 24, with nothing to train and an encoder
that is one strided convolution. What the cut leaves behind (blocking, lost chroma detail) is local, so a small
convolutional network at quarter resolution adds it back:

    z = s * (B x),      x_hat = B^T (z / s) + net(B^T (z / s), z)

B keeps the chosen rows of the transform. The scale s_k = sigma_k^(-1/2) sigma_0^(-1/2) goes half way to whitening:
coarse structure stays louder than texture, so that at a given noise level it is decided first.

Shapes: V images, H W pixels, C = 24 channels, h = H / 8, w = W / 8.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

FACTOR = 8
# Per opponent colour: channels kept, standard deviation of the mean coefficient and of an oscillating one at radius 1
# (falling off with 1 / radius). Measured on scikit-image's photos at 160 and 256 px, images in [-1, 1].
COLOURS = ((18, 4.4, 1.2), (3, 2.2, 0.29), (3, 0.65, 0.11))


def _cosine_basis() -> Float[Tensor, "8 8"]:
    """Rows: the orthonormal type-2 discrete cosine transform."""
    k = torch.arange(FACTOR, dtype=torch.float64).view(-1, 1)
    i = torch.arange(FACTOR, dtype=torch.float64) + 0.5
    rows = torch.cos(math.pi / FACTOR * k * i) * math.sqrt(2 / FACTOR)
    rows[0] /= math.sqrt(2)
    return rows


def _frequencies(count: int) -> list[tuple[int, int]]:
    """The `count` lowest (row, column) frequencies, by radius then by row."""
    pairs = [(u, v) for u in range(FACTOR) for v in range(FACTOR)]
    return sorted(pairs, key=lambda p: (p[0] ** 2 + p[1] ** 2, p[0]))[:count]


def block_basis() -> tuple[Float[Tensor, "C 3 8 8"], Float[Tensor, "C"]]:
    """Orthonormal analysis filters of all channels and their expected standard deviations."""
    cosine = _cosine_basis()
    # Luma and two chroma axes, orthogonal: brightness gets most of the channels, as eyes see detail mostly in it.
    opponent = torch.tensor([[1.0, 1, 1], [1, 0, -1], [1, -2, 1]], dtype=torch.float64)
    opponent = opponent / opponent.norm(dim=1, keepdim=True)
    filters, stds = [], []
    for colour, (count, mean_std, wave_std) in zip(opponent, COLOURS, strict=True):
        for u, v in _frequencies(count):
            filters.append(torch.einsum("c,i,j->cij", colour, cosine[u], cosine[v]))
            # Natural images have a 1/f spectrum: amplitudes fall with the inverse of the frequency.
            stds.append(wave_std / math.hypot(u, v) if u or v else mean_std)
    return torch.stack(filters).float(), torch.tensor(stds)


class ResidualBlock(nn.Module):
    """Two convolutions around an activation, added to the input."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(width, width, 3, padding=1)
        self.second = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Float[Tensor, "B F h w"]) -> Float[Tensor, "B F h w"]:
        """Maps of any size to maps of the same size."""
        return x + self.second(F.silu(self.first(F.silu(x))))


class BlockAutoencoder(nn.Module):
    """Images in [0, 1] to latents and back, factor 8, 24 channels.

    Args:
        width: channels of the correcting network.
        depth: its residual blocks.
    """

    factor = FACTOR
    latent_channels = sum(count for count, _, _ in COLOURS)

    basis: Tensor
    scale: Tensor

    def __init__(self, width: int = 64, depth: int = 3) -> None:
        super().__init__()
        basis, std = block_basis()
        # Not stored with the weights: they follow from the code, and a file could only disagree with it.
        self.register_buffer("basis", basis, persistent=False)
        self.register_buffer("scale", (std * std[0]).rsqrt().view(1, -1, 1, 1), persistent=False)
        self.enter = nn.Conv2d(3 * 16 + self.latent_channels, width, 3, padding=1)
        self.body = nn.Sequential(*(ResidualBlock(width) for _ in range(depth)))
        self.leave = nn.Conv2d(width, 3 * 16, 3, padding=1)
        # Zeros: before training, the decoder is exactly the transform's inverse.
        for parameter in self.leave.parameters():
            nn.init.zeros_(parameter)

    def encode(self, images: Float[Tensor, "V 3 H W"]) -> Float[Tensor, "V C h w"]:
        """Analysis: one strided convolution. H and W must be multiples of 8."""
        return F.conv2d(images * 2 - 1, self.basis, stride=FACTOR) * self.scale

    def synthesise(self, latents: Float[Tensor, "V C h w"]) -> Float[Tensor, "V 3 H W"]:
        """The transform's own inverse, without the learned correction, in [-1, 1] units."""
        return F.conv_transpose2d(latents / self.scale, self.basis, stride=FACTOR)

    def decode_raw(self, latents: Float[Tensor, "V C h w"]) -> Float[Tensor, "V 3 H W"]:
        """Synthesis plus correction, not clamped: the training target's counterpart. [0, 1] units."""
        plain = self.synthesise(latents)
        features = torch.cat([F.pixel_unshuffle(plain, 4), F.interpolate(latents, scale_factor=2.0)], 1)
        correction = self.leave(F.silu(self.body(self.enter(features))))
        return (plain + F.pixel_shuffle(correction, 4) + 1) / 2

    def decode(self, latents: Float[Tensor, "V C h w"]) -> Float[Tensor, "V 3 H W"]:
        """Latents to images clamped to [0, 1]."""
        return self.decode_raw(latents).clamp(0, 1)
