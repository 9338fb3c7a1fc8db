"""Grids of noise levels at which a sampler evaluates the network.

    x_sigma = x_0 + sigma * eps                                          (variance exploding form)
    DDPM:    sigma_k = sqrt((1 - abar_k) / abar_k) * exp(shift),  abar_k = prod_{j<=k} (1 - beta_j)
    Karras:  sigma_i = (a^(1/rho) + i/(S-1) (b^(1/rho) - a^(1/rho)))^rho,  from a = sigma_max to b = sigma_min

References: Denoising Diffusion Probabilistic Models (Ho et al., 2020); Elucidating the Design Space of
Diffusion-Based Generative Models (Karras et al., 2022, eq. 5); for the shift, Stable Virtual Camera (SEVA;
Zhou et al., 2025). A distance between noise levels is measured in nats: |ln sigma_a - ln sigma_b|.
Shapes: K entries of a table, S steps, L = S+1 levels of a grid, which is descending and ends in 0.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from sphinx_nvs.errors import InputError


@dataclass(frozen=True)
class SigmaTable:
    """The noise levels a network was trained at; its timestep is an index into them.

    Args:
        sigmas: ascending and positive.
    """

    sigmas: Float[Tensor, "K"]

    @staticmethod
    def seva() -> SigmaTable:
        """SEVA's training levels: DDPM's, shifted by 2.4 nats; sigma from 0.015 to 85."""
        return SigmaTable(ddpm_sigmas(log_shift=2.4))

    def grid(self, num_steps: int) -> Float[Tensor, "L"]:
        """The S = `num_steps` levels of `timesteps`, then 0."""
        return torch.cat([self.sigmas[self.timesteps(num_steps)], self.sigmas.new_zeros(1)])

    def timesteps(self, num_steps: int) -> Int[Tensor, "S"]:
        """Evenly spaced indices from the noisiest down, ending one stride above index 0.

        Raises:
            InputError: `num_steps` is not in 1..K.
        """
        count = len(self.sigmas)
        check_steps(num_steps, most=count)
        # Integer arithmetic, rounded up, as SEVA's own sampler does: the same indices for every number of steps,
        # without floating point.
        return torch.tensor([count - 1 - -(-(count - 1) * step // num_steps) for step in range(num_steps)])

    def nearest(self, sigma: Float[Tensor, "*B"]) -> Int[Tensor, "*B"]:
        """Index of the level with the smallest absolute distance; the lower one if two tie."""
        table = self.sigmas.to(sigma)
        above = torch.searchsorted(table, sigma.contiguous()).clamp(1, len(table) - 1)
        return above - (sigma - table[above - 1] <= table[above] - sigma).to(above.dtype)


def ddpm_sigmas(
    num_timesteps: int = 1000,
    *,
    linear_start: float = 5e-6,
    linear_end: float = 0.012,
    log_shift: float = 0.0,
) -> Float[Tensor, "K"]:
    """Ascending levels of a DDPM whose sqrt(beta) is linear, scaled by exp(`log_shift`); float32."""
    # In float64: a product of a thousand factors would lose digits in float32.
    abar = alphas_cumprod(num_timesteps, linear_start=linear_start, linear_end=linear_end)
    return (((1 - abar) / abar).sqrt() * math.exp(log_shift)).float()


def alphas_cumprod(
    num_timesteps: int = 1000, *, linear_start: float = 5e-6, linear_end: float = 0.012
) -> Float[Tensor, "K"]:
    """The remaining share of signal variance at each timestep, float64; sqrt(beta) is linear."""
    ends = math.sqrt(linear_start), math.sqrt(linear_end)
    return torch.cumprod(1 - torch.linspace(*ends, num_timesteps, dtype=torch.float64) ** 2, dim=0)


def karras_grid(num_steps: int, *, sigma_min: float, sigma_max: float, rho: float = 7.0) -> Float[Tensor, "L"]:
    """Levels that are denser near `sigma_min` the larger `rho` is; float64.

    Raises:
        InputError: `num_steps` is below 1, or not 0 < sigma_min < sigma_max.
    """
    check_steps(num_steps)
    check_range(sigma_min, sigma_max)
    ramp = torch.linspace(0, 1, num_steps, dtype=torch.float64)
    top, bottom = sigma_max ** (1 / rho), sigma_min ** (1 / rho)
    return _ended((top + ramp * (bottom - top)) ** rho)


def thinned(sigmas: Float[Tensor, "L"], width: float) -> Float[Tensor, "L2"]:
    """Removes levels from a grid as long as no gap exceeds `width` nats; keeps both ends and 0.

    Raises:
        InputError: `width` is not positive.
    """
    check_width(width)
    levels = [float(sigma) for sigma in sigmas[:-1]]
    kept = [0]
    for index in range(1, len(levels) - 1):
        # A level can go only if the gap to its successor, too, stays within the width.
        if math.log(levels[kept[-1]] / levels[index + 1]) > width:
            kept.append(index)
    return sigmas[sorted({*kept, len(levels) - 1, len(levels)})]


def check_steps(num_steps: int, most: int | None = None) -> None:
    """Raises InputError unless `num_steps` is at least 1 and, if `most` is given, at most that."""
    if num_steps < 1 or (most is not None and num_steps > most):
        hint = "give at least 1" if most is None else f"give 1 to {most}"
        raise InputError("num_steps", f"it is {num_steps}", hint)


def check_range(sigma_min: float, sigma_max: float) -> None:
    """Raises InputError unless 0 < sigma_min < sigma_max."""
    if not 0 < sigma_min < sigma_max:
        raise InputError("sigma_min, sigma_max", f"{sigma_min:g}, {sigma_max:g}", "give 0 < sigma_min < sigma_max")


def check_width(width: float) -> None:
    """Raises InputError unless the width is positive."""
    if width <= 0:
        raise InputError("width", f"it is {width:g} nats", "give a positive distance in log sigma")


def _ended(levels: Float[Tensor, "S"]) -> Float[Tensor, "L"]:
    return torch.cat([levels, levels.new_zeros(1)])
