"""`depth_consistency.support`, compiled: equal to its twin in plain torch up to rounding. See `row_bands`.

Shapes: V views, H W pixels.
"""

from __future__ import annotations

from typing import no_type_check

import numpy as np

from sphinx_nvs.models.planesweep.sampling_kernels import F32
from sphinx_nvs.nn.row_bands import compiled

_LOG2E = F32(1.4426950408889634)
_MOST = F32(100)
"""Exponent beyond which e^-x is nothing."""


@compiled
@no_type_check
def neighbours_support(start, stop, trust, depth, radius, stride, tolerance, total):
    """Sums over neighbours of their trust times e^-(difference of depth / tolerance)^2.

    Args:
        start, stop: views.
        trust: (V, H + 2 radius, W + 2 radius), zeros beyond the border.
        depth: the same, in units in which `tolerance` is.
        radius, stride: the neighbours of a pixel, in pixels.
        tolerance: difference of depth at which a neighbour's trust falls to 1/e.
        total: (V, H, W), zeros, to which the sums are added.
    """
    _, height, width = total.shape
    bits, mantissa = np.empty(width, np.int32), np.empty(width, np.float32)
    power = bits.view(np.float32)
    for v in range(start, stop):
        for y in range(height):
            for top in range(0, 2 * radius + 1, stride):
                for left in range(0, 2 * radius + 1, stride):
                    # e^-x = 2^n 2^f with whole n and f in [0, 1): 2^n by its bits, 2^f by a polynomial, so that the
                    # loops become vector instructions.
                    for x in range(width):
                        off = (depth[v, y + top, x + left] - depth[v, y + radius, x + radius]) / tolerance
                        z = -min(off * off, _MOST) * _LOG2E
                        n = np.floor(z)
                        f = z - n
                        series = F32(0.0096181) + f * F32(0.0013333)
                        series = F32(0.2402265) + f * (F32(0.0555041) + f * series)
                        mantissa[x] = F32(1) + f * (F32(0.6931472) + f * series)
                        bits[x] = np.int32((np.int32(n) + np.int32(127)) << 23) if n > F32(-126) else np.int32(0)
                    for x in range(width):
                        total[v, y, x] += trust[v, y + top, x + left] * (mantissa[x] * power[x])
