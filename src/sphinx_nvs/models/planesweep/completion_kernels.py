"""The solver of `completion`, compiled: equal to its twin in plain torch up to rounding. See `row_bands`.

Shapes: V views, H W pixels.
"""

from __future__ import annotations

from typing import no_type_check

import numpy as np

from sphinx_nvs.models.planesweep.sampling_kernels import F32
from sphinx_nvs.nn.row_bands import compiled, inlined

_TINY = F32(1e-20)


@inlined
@no_type_check
def _multiply(x, trust, across, down, bend, slope, flux, before, out):
    """`out`: the product of the energy's quadratic form with `x`; `flux` and `before` are scratch rows."""
    height, width = x.shape
    for y in range(height):
        for k in range(width):
            out[y, k] = trust[y, k] * x[y, k]
    # What flows from each pixel to the next along an axis: its own term, and those of the bends on both sides.
    for y in range(height):
        for k in range(width - 1):
            flux[k] = slope * across[y, k] * (x[y, k + 1] - x[y, k])
        for k in range(width - 2):
            flux[k] -= bend * across[y, k + 1] * (x[y, k + 2] - F32(2) * x[y, k + 1] + x[y, k])
        for k in range(1, width - 1):
            flux[k] += bend * across[y, k] * (x[y, k + 1] - F32(2) * x[y, k] + x[y, k - 1])
        for k in range(width - 1):
            out[y, k] -= flux[k]
        for k in range(1, width):
            out[y, k] += flux[k - 1]
    for k in range(width):
        before[k] = F32(0)
    for y in range(height - 1):
        for k in range(width):
            flux[k] = slope * down[y, k] * (x[y + 1, k] - x[y, k])
        if y < height - 2:
            for k in range(width):
                flux[k] -= bend * down[y + 1, k] * (x[y + 2, k] - F32(2) * x[y + 1, k] + x[y, k])
        if y > 0:
            for k in range(width):
                flux[k] += bend * down[y, k] * (x[y + 1, k] - F32(2) * x[y, k] + x[y - 1, k])
        for k in range(width):
            out[y, k] += before[k] - flux[k]
            before[k] = flux[k]
    for k in range(width):
        out[height - 1, k] += before[k]


@inlined
@no_type_check
def _dot(a, b, sums):
    """Sum of products; `sums` is a scratch row, since sums by columns become vector instructions."""
    height, width = a.shape
    for k in range(width):
        sums[k] = F32(0)
    for y in range(height):
        for k in range(width):
            sums[k] += a[y, k] * b[y, k]
    total = 0.0
    for k in range(width):
        total += sums[k]
    return F32(total)


@compiled
@no_type_check
def conjugate_gradients(start, stop, trust, across, down, bend, slope, iterations, rhs, x):
    """`completion._conjugate_gradients` of every view.

    Args:
        start, stop: views.
        trust: (V, H, W), see `completion._Energy`.
        across, down: (V, H, W), its edge weights along rows and columns.
        bend, slope: see `completion._Energy`.
        iterations: number of steps.
        rhs: (V, H, W), the right-hand side.
        x: (V, H, W), where the steps start; written.
    """
    _, height, width = x.shape
    residual, direction = np.empty((height, width), np.float32), np.empty((height, width), np.float32)
    image, z = np.empty((height, width), np.float32), np.empty((height, width), np.float32)
    flux, before, sums = np.empty(width, np.float32), np.empty(width, np.float32), np.empty(width, np.float32)
    added = F32(6) * bend + F32(4) * slope
    for v in range(start, stop):
        solution, weight = x[v], trust[v]
        _multiply(solution, weight, across[v], down[v], bend, slope, flux, before, image)
        for y in range(height):
            for k in range(width):
                residual[y, k] = rhs[v, y, k] - image[y, k]
                z[y, k] = residual[y, k] / (weight[y, k] + added)
                direction[y, k] = z[y, k]
        rz = _dot(residual, z, sums)
        for _ in range(iterations):
            _multiply(direction, weight, across[v], down[v], bend, slope, flux, before, image)
            step = rz / max(_dot(direction, image, sums), _TINY)
            for y in range(height):
                for k in range(width):
                    solution[y, k] += step * direction[y, k]
                    residual[y, k] -= step * image[y, k]
                    z[y, k] = residual[y, k] / (weight[y, k] + added)
            previous = rz
            rz = _dot(residual, z, sums)
            turn = rz / max(previous, _TINY)
            for y in range(height):
                for k in range(width):
                    direction[y, k] = z[y, k] + turn * direction[y, k]
