"""Sampling of images as `grid_sample` does it, for compiled kernels.

After a change here, delete the `__pycache__` of the kernels that call it: numba notices changes of a kernel's own file.
"""

from __future__ import annotations

import math
from typing import no_type_check

import numpy as np

from sphinx_nvs.nn.row_bands import inlined

F32 = np.float32
LEAST = F32(1e-6)
_CUBIC = F32(-0.75)
"""The coefficient of `grid_sample`'s cubic convolution."""


@inlined
@no_type_check
def place_in(value, size):
    """A place in pixels in the units of `grid_sample`, -1 to 1, bounded well outside of the image."""
    return min(max(F32(2) * value / size - F32(1), F32(-3)), F32(3))


@inlined
@no_type_check
def index_of(place, size):
    """A place in units of `grid_sample` as an index, whole at pixel centres."""
    return ((place + F32(1)) * size - F32(1)) * F32(0.5)


@inlined
@no_type_check
def _cubic(t):
    """Weights of the four taps around a place, `t` behind the second."""
    a, s = _CUBIC, F32(1) - t
    outer, after = t + F32(1), s + F32(1)
    return (
        ((a * outer - F32(5) * a) * outer + F32(8) * a) * outer - F32(4) * a,
        ((a + F32(2)) * t - (a + F32(3))) * t * t + F32(1),
        ((a + F32(2)) * s - (a + F32(3))) * s * s + F32(1),
        ((a * after - F32(5) * a) * after + F32(8) * a) * after - F32(4) * a,
    )


@inlined
@no_type_check
def bicubic(image, x, y, out):
    """The channels of `image` (H, W, 4) at index (x, y), in [0, 1]; the border goes on outside."""
    height, width = image.shape[0], image.shape[1]
    left, top = math.floor(x), math.floor(y)
    wx, wy = _cubic(F32(x - left)), _cubic(F32(y - top))
    x0, y0 = int(left) - 1, int(top) - 1
    inside = x0 >= 0 and y0 >= 0 and x0 + 3 < width and y0 + 3 < height
    for k in range(4):
        out[k] = F32(0)
    for j in range(4):
        row = y0 + j if inside else min(max(y0 + j, 0), height - 1)
        for i in range(4):
            column = x0 + i if inside else min(max(x0 + i, 0), width - 1)
            weight = wy[j] * wx[i]
            # All four channels, though the last is often unused: they are one vector.
            for k in range(4):
                out[k] += weight * image[row, column, k]
    for k in range(4):
        out[k] = min(max(out[k], F32(0)), F32(1))
