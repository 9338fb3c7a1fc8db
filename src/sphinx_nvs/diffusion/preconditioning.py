"""Conversion between a raw network and an estimate D(x; sigma) of the clean latents.

    D(x; sigma) = m + c_skip (x - m) + c_out F(c_in (x - m), t)

    noise prediction:  c_skip = 1,   c_out = -q,   c_in = 1 / sqrt(q^2 + 1),   t = k

q is the trained level nearest to sigma and k its index. m is an optional *centre*, an initial estimate of the image:
the network then diffuses the residual, and at high noise D tends to m instead of 0.
References: Elucidating the Design Space of Diffusion-Based Generative Models (Karras et al., 2022, table 1);
Stable Virtual Camera (SEVA; Zhou et al., 2025).
Shapes: N rows, C latent channels, h w cells.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, Num
from torch import Tensor

from sphinx_nvs.diffusion.sigmas import SigmaTable

Network = Callable[[Tensor, Tensor], Tensor]
"""F(scaled latents [N C h w], timesteps [N]) -> [N C h w]; conditioning is bound by the caller."""


@dataclass(frozen=True)
class Scalings:
    """The coefficients of D for each row, and the timestep passed to the network."""

    c_skip: Float[Tensor, "N"]
    c_out: Float[Tensor, "N"]
    c_in: Float[Tensor, "N"]
    timestep: Num[Tensor, "N"]


@runtime_checkable
class Preconditioning(Protocol):
    """How a network's raw output is converted to an estimate of the clean latents."""

    def scalings(self, sigma: Float[Tensor, "N"]) -> Scalings:
        """The coefficients at each row's noise level."""
        ...


@dataclass(frozen=True)
class NoisePrediction:
    """The network predicts unit noise at the levels of a table it was trained on (SEVA)."""

    table: SigmaTable

    def scalings(self, sigma: Float[Tensor, "N"]) -> Scalings:
        """The coefficients at the trained level nearest to each sigma; timesteps are integer indices."""
        index = self.table.nearest(sigma)
        q = self.table.sigmas.to(sigma)[index]
        return Scalings(torch.ones_like(q), -q, (q**2 + 1).rsqrt(), index)


def denoise(
    preconditioning: Preconditioning,
    network: Network,
    x: Float[Tensor, "N C h w"],
    sigma: float | Float[Tensor, "N"],
    centre: Float[Tensor, "N C h w"] | None = None,
) -> Float[Tensor, "N C h w"]:
    """D(x; sigma): one network call on noisy latents.

    Args:
        preconditioning: converts the network's output.
        network: F, with its conditioning bound.
        x: noisy latents x_0 + sigma eps.
        sigma: noise level of all rows, or of each.
        centre: the value the diffusion is centred on; None is 0.
    """
    scalings = preconditioning.scalings(per_row(sigma, x))
    offset = x if centre is None else x - centre
    raw = network(_spread(scalings.c_in) * offset, scalings.timestep)
    denoised = _spread(scalings.c_skip) * offset + _spread(scalings.c_out) * raw
    return denoised if centre is None else centre + denoised


def per_row(sigma: float | Float[Tensor, "N"], x: Float[Tensor, "N C h w"]) -> Float[Tensor, "N"]:
    """The noise level of each row of `x`, in its dtype and on its device."""
    return sigma.to(x) if isinstance(sigma, Tensor) else x.new_full((len(x),), sigma)


def insert_known(
    x: Float[Tensor, "N C h w"], known: Float[Tensor, "N C h w"], mask: Float[Tensor, "N 1 h w"]
) -> Float[Tensor, "N C h w"]:
    """Clean latents where mask is 1, `x` where it is 0: how SEVA passes known views to its network.

    It is applied before scaling, so the network receives known latents as c_in z, and D there starts from z. In the
    unconditional branch of guidance SEVA inserts nothing (mask 0). Further conditioning channels (`concat`,
    mask and rays) are appended to the scaled latents inside `network`.
    """
    return x * (1 - mask) + known * mask


def _spread(row: Float[Tensor, "N"]) -> Float[Tensor, "N 1 1 1"]:
    return row[:, None, None, None]
