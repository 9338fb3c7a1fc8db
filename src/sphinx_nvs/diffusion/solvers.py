"""Solvers of the probability-flow ODE that advance one step per call; their history is an explicit value.

    dx / dsigma = (x - D(x; sigma)) / sigma,        in l = -ln sigma:   dx / dl = D - x

Over a step of h = ln(sigma / sigma') nats the linear part is solved exactly and only D must be approximated:

    x' = e^-h x + (1 - e^-h) D~,  first order: D~ = D,  second order: D~ = D + h / (2 h_before) (D - D_before)

The first-order step is Euler's. References: Elucidating the Design Space of Diffusion-Based Generative Models
(Karras et al., 2022, algorithm 1); DPM-Solver++ (Lu et al., 2022, algorithm 2, data prediction, 2M).
Shapes: V views, C latent channels, h w cells, S steps, L = S+1 noise levels.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float
from torch import Tensor


@dataclass(frozen=True)
class History:
    """The previous step's data that a multistep solver needs.

    Args:
        denoised: the estimate used by that step.
        sigma: its noise level.
        valid: cells where `denoised` belongs to the cell's own trajectory; None means all.
    """

    denoised: Float[Tensor, "V C h w"]
    sigma: float
    valid: Bool[Tensor, "V 1 h w"] | None = None

    def within(self, cells: Bool[Tensor, "V 1 h w"]) -> History:
        """The same history, restricted to `cells`: all others restart at first order."""
        return replace(self, valid=cells if self.valid is None else self.valid & cells)


@runtime_checkable
class Solver(Protocol):
    """One step of the ODE; holds settings and no trajectory state."""

    def step(
        self,
        x: Float[Tensor, "V C h w"],
        denoised: Float[Tensor, "V C h w"],
        sigma: float,
        sigma_next: float,
        history: History | None,
    ) -> tuple[Float[Tensor, "V C h w"], History]:
        """Advances x from noise level `sigma` to `sigma_next`.

        Args:
            x: the state at `sigma`.
            denoised: D(x; sigma).
            sigma: positive.
            sigma_next: below `sigma`; at 0 the result is `denoised`, bit for bit.
            history: the value returned by the previous step, possibly restricted by `History.within`; None at the
                start.

        Returns:
            The state at `sigma_next`, and the history for the next step, valid everywhere.
        """
        ...


@dataclass(frozen=True)
class Euler:
    """First order: the estimate is constant over the step."""

    def step(
        self,
        x: Float[Tensor, "V C h w"],
        denoised: Float[Tensor, "V C h w"],
        sigma: float,
        sigma_next: float,
        history: History | None,
    ) -> tuple[Float[Tensor, "V C h w"], History]:
        """See `Solver.step`; `history` is unused."""
        return with_constant_estimate(x, denoised, sigma, sigma_next), History(denoised, sigma)


@dataclass(frozen=True)
class Multistep:
    """Second order with one network call per step: DPM-Solver++(2M) extrapolates the estimate in log sigma.

    Cells without valid history, and the last step to 0 (infinitely many nats long), use first order.
    """

    def step(
        self,
        x: Float[Tensor, "V C h w"],
        denoised: Float[Tensor, "V C h w"],
        sigma: float,
        sigma_next: float,
        history: History | None,
    ) -> tuple[Float[Tensor, "V C h w"], History]:
        """See `Solver.step`."""
        guess = denoised
        if history is not None and sigma_next > 0:
            guess = extrapolated(denoised, sigma, sigma_next, history)
        return with_constant_estimate(x, guess, sigma, sigma_next), History(denoised, sigma)


def with_constant_estimate(
    x: Float[Tensor, "V C h w"], denoised: Float[Tensor, "V C h w"], sigma: float, sigma_next: float
) -> Float[Tensor, "V C h w"]:
    """The exact solution for a constant estimate: x - denoised shrinks by sigma_next / sigma."""
    # Also avoids 0 * (x - denoised), which would turn an infinite x into NaN.
    if sigma_next == 0:
        return denoised
    return denoised + (sigma_next / sigma) * (x - denoised)


def extrapolated(
    denoised: Float[Tensor, "V C h w"], sigma: float, sigma_next: float, history: History
) -> Float[Tensor, "V C h w"]:
    """The estimate extrapolated half a step ahead, linearly in log sigma; only where history is valid."""
    # h / (2 h_before): the estimate at the middle of the step, on the line through the last two estimates.
    ratio = math.log(sigma / sigma_next) / (2 * math.log(history.sigma / sigma))
    guess = denoised + ratio * (denoised - history.denoised)
    return guess if history.valid is None else torch.where(history.valid, guess, denoised)


def churned(
    x: Float[Tensor, "V C h w"], sigma: float, offset: float, noise: Float[Tensor, "V C h w"]
) -> tuple[Float[Tensor, "V C h w"], float]:
    """The state at a slightly higher noise level, and that level, sigma + offset.

    SEVA's sampler does this before every step with an offset of 1e-6; `noise` has unit variance. It is computed in the
    precision of `x`, as there: at large sigma the offset vanishes in float32 rounding.
    """
    level = x.new_tensor(sigma)
    raised = level + offset
    return x + noise * (raised**2 - level**2).sqrt(), float(raised)


@dataclass(frozen=True)
class Step:
    """One step of `trajectory`: the estimate it used, and the state it reached."""

    denoised: Float[Tensor, "V C h w"]
    x: Float[Tensor, "V C h w"]


def trajectory(
    denoise: Callable[[Tensor, float], Tensor],
    x: Float[Tensor, "V C h w"],
    sigmas: Float[Tensor, "L"],
    solver: Solver,
    *,
    offset: float = 0.0,
    noise: Float[Tensor, "S V C h w"] | None = None,
) -> Iterator[Step]:
    """Plain sampling, one step per iteration.

    Args:
        denoise: D(x, sigma).
        x: the state at sigmas[0].
        sigmas: descending noise levels, positive except for a last 0, which is optional.
        solver: computes each step.
        offset: raises each step's noise level first (see `churned`), with the step's share of `noise`.
        noise: unit noise of each step; required with an offset, ignored without.
    """
    if offset and noise is None:
        raise ValueError(f"noise must be given with offset, got offset={offset} and noise=None")
    history: History | None = None
    levels = [float(sigma) for sigma in sigmas]
    for step, (sigma, sigma_next) in enumerate(pairwise(levels)):
        if noise is not None and offset:
            x, sigma = churned(x, sigma, offset, noise[step])
        denoised = denoise(x, sigma)
        x, history = solver.step(x, denoised, sigma, sigma_next, history)
        yield Step(denoised, x)


def sample(
    denoise: Callable[[Tensor, float], Tensor],
    x: Float[Tensor, "V C h w"],
    sigmas: Float[Tensor, "L"],
    solver: Solver,
    *,
    offset: float = 0.0,
    noise: Float[Tensor, "S V C h w"] | None = None,
) -> Float[Tensor, "V C h w"]:
    """The last state of `trajectory`."""
    for step in trajectory(denoise, x, sigmas, solver, offset=offset, noise=noise):
        x = step.x
    return x
