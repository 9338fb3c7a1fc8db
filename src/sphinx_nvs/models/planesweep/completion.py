"""Edge-aware completion of inverse depth: keeps confident values, extends planes into the rest.

Inverse depth is affine in the pixel on any plane, so its second differences vanish there. Minimise

    sum c rho(x - w) + g (k2 |D2 x|^2 + k1 |D1 x|^2)

over x, with confidence c, edge weights g = exp(-|dI| / sigma) of the grey image I, and a robust rho realised
by reweighting c / (1 + (x - w)^2 / s^2). Solved coarse to fine by Jacobi-preconditioned conjugate gradients;
all views at once, each with its own step lengths.

Shapes: V views, H W pixels.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from sphinx_nvs.models.planesweep import completion_kernels
from sphinx_nvs.nn.row_bands import in_bands

LEVELS = (16, 8, 4, 2, 1)
ROUNDS = 2  # of reweighting
SMALLEST = 3  # least side in pixels of a level
AXES = (-1, -2)


@dataclass(frozen=True, kw_only=True)
class CompletionConfig:
    """Weights of the energy; inverse depth is in units of its median.

    Args:
        bend: k2 at full size; it grows on coarser levels with the square of the pixel size.
        slope: k1, which keeps unseen regions from diverging.
        edge: grey-level step at which smoothness falls to 1/e.
        outlier: deviation at which a confident pixel's weight is halved.
        iterations: conjugate-gradient steps per level and round.
    """

    bend: float = 1.0
    slope: float = 1e-3
    edge: float = 0.05
    outlier: float = 0.03
    iterations: int = 60


def complete(
    inverse_depth: Float[Tensor, "V H W"],
    confidence: Float[Tensor, "V H W"],
    grey: Float[Tensor, "V H W"],
    config: CompletionConfig,
    *,
    compiled: bool = False,
) -> Float[Tensor, "V H W"]:
    """Completes `inverse_depth` to a smooth surface through its confident part, positive everywhere.

    Args:
        inverse_depth: inverse depths, > 0.
        confidence: weight of each pixel, > 0.
        grey: grey values of the views, [0, 1].
        config: weights of the energy.
        compiled: solve by compiled kernels, on the CPU.
    """
    solve = _compiled_gradients if compiled else _conjugate_gradients
    # Units of the median make the energy's weights independent of the scene's scale.
    unit = inverse_depth.flatten(1).median(1).values.view(-1, 1, 1)
    data = inverse_depth / unit
    # Extrapolated planes can cross zero or infinity; bounds near the data keep them plausible.
    low, high = 0.7 * float(data.min()), 1.3 * float(data.max())
    x = None
    for level in LEVELS:
        if min(data.shape[1:]) < SMALLEST * level:
            continue
        weight = _downsampled(confidence, level)
        # Weighted means: a confident pixel decides its block, however many doubtful ones it has beside it.
        target = _downsampled(confidence * data, level) / weight
        x = target if x is None else _upsampled(x, target.shape[1:])
        edges = _edge_weights(_downsampled(grey, level), config.edge)
        # Coarse levels cost little; the finest needs fewer rounds because it starts near its solution.
        iterations = config.iterations if level > 2 else config.iterations * level // 3
        for _ in range(ROUNDS):
            trust = weight / (1 + ((x - target) / config.outlier) ** 2)
            energy = _Energy(trust, edges, config.bend / level**2, config.slope)
            x = solve(energy, trust * target, x, iterations).clamp(low, high)
    return inverse_depth if x is None else x * unit


@dataclass(frozen=True)
class _Energy:
    """The quadratic form A of the energy: data, bend and slope terms."""

    trust: Float[Tensor, "V H W"]
    edges: tuple[Float[Tensor, "V H W"], Float[Tensor, "V H W"]]
    bend: float
    slope: float

    def apply(self, x: Float[Tensor, "V H W"]) -> Float[Tensor, "V H W"]:
        """The product A x."""
        out = self.trust * x
        for axis, edge in zip(AXES, self.edges, strict=True):
            length = x.shape[axis]
            step = _difference(x, axis)
            bend = self.bend * edge.narrow(axis, 1, length - 2) * _difference(step, axis)
            slope = self.slope * edge.narrow(axis, 0, length - 1) * step
            # The transpose of the differences: each term acts with opposite signs on the two pixels it compares.
            slope.narrow(axis, 0, length - 2).sub_(bend)
            slope.narrow(axis, 1, length - 2).add_(bend)
            out.narrow(axis, 0, length - 1).sub_(slope)
            out.narrow(axis, 1, length - 1).add_(slope)
        return out

    @property
    def preconditioner(self) -> Float[Tensor, "V H W"]:
        """An approximate inverse of A's diagonal, for a medium edge weight."""
        return 1 / (self.trust + 6 * self.bend + 4 * self.slope)


def _conjugate_gradients(
    energy: _Energy, rhs: Float[Tensor, "V H W"], x: Float[Tensor, "V H W"], iterations: int
) -> Float[Tensor, "V H W"]:
    """Runs a fixed number of preconditioned steps from `x`."""
    inverse_diagonal = energy.preconditioner
    residual = rhs - energy.apply(x)
    z = inverse_diagonal * residual
    direction, rz = z, _dot(residual, z)
    # A fixed number and no test of convergence: the same work for the same size, and no wait for the device.
    for _ in range(iterations):
        image = energy.apply(direction)
        step = rz / _dot(direction, image).clamp_min(1e-20)
        x = x + step * direction
        residual = residual - step * image
        z = inverse_diagonal * residual
        rz, previous = _dot(residual, z), rz
        direction = z + rz / previous.clamp_min(1e-20) * direction
    return x


def _compiled_gradients(
    energy: _Energy, rhs: Float[Tensor, "V H W"], x: Float[Tensor, "V H W"], iterations: int
) -> Float[Tensor, "V H W"]:
    """The same by compiled kernels."""
    solution = x.clone(memory_format=torch.contiguous_format)
    of_energy = energy.trust, *energy.edges, energy.bend, energy.slope
    in_bands(completion_kernels.conjugate_gradients, len(x), *of_energy, iterations, rhs, solution, fewest=1)
    return solution


def _dot(a: Float[Tensor, "V H W"], b: Float[Tensor, "V H W"]) -> Float[Tensor, "V 1 1"]:
    return (a * b).sum((1, 2), keepdim=True)


def _edge_weights(grey: Float[Tensor, "V H W"], sigma: float) -> tuple[Float[Tensor, "V H W"], Float[Tensor, "V H W"]]:
    """Smoothness weight per axis: low where the grey value steps before or after the pixel."""
    weights = []
    for axis in AXES:
        step = torch.zeros_like(grey)
        step.narrow(axis, 0, grey.shape[axis] - 1).copy_(_difference(grey, axis).abs())
        # Never 0: a pixel fenced in by edges on all sides would have no solution of its own.
        weights.append(torch.exp(-(step + step.roll(1, axis)) / (2 * sigma)).clamp_min(0.01))
    return weights[0], weights[1]


def _downsampled(x: Float[Tensor, "V H W"], level: int) -> Float[Tensor, "V h w"]:
    """Means over blocks of `level` pixels; blocks cut by the border average the pixels they have."""
    return F.avg_pool2d(x[:, None], level, ceil_mode=True, count_include_pad=False)[:, 0] if level > 1 else x


def _upsampled(x: Float[Tensor, "V h w"], size: torch.Size) -> Float[Tensor, "V H W"]:
    return F.interpolate(x[:, None], size=tuple(size), mode="bilinear", align_corners=False)[:, 0]


def _difference(x: Tensor, axis: int) -> Tensor:
    """x[i+1] - x[i] along an axis, one entry shorter."""
    length = x.shape[axis] - 1
    return x.narrow(axis, 1, length) - x.narrow(axis, 0, length)
