"""The numba version of `splatting.splat_torch`: the same sums, point by point, without temporaries."""

from __future__ import annotations

import math
from typing import no_type_check

import numpy as np
import torch
from numba import njit

from sphinx_nvs.models.planesweep.splatting import COVERAGE_GAIN, MAX_EXCESS, REACH, STRONG_HIT, Layer, Points

_HALF = np.float32(0.5)
_REACH = np.float32(REACH)
_STRONG_HIT = np.float32(STRONG_HIT)
_MAX_EXCESS = np.float32(MAX_EXCESS)


@njit(cache=True, nogil=True, error_model="numpy")
@no_type_check
def _find_front(u, v, w, precision, front):
    """First pass: the nearest inverse depth of all strong hits, per pixel."""
    height, width = front.shape
    for i in range(u.shape[0]):
        x0, y0 = math.floor(u[i]), math.floor(v[i])
        for y in range(max(y0 - 1, 0), min(y0 + 2, height)):
            dy = np.float32(y) + _HALF - v[i]
            ry = dy * dy * precision[i]
            for x in range(max(x0 - 1, 0), min(x0 + 2, width)):
                dx = np.float32(x) + _HALF - u[i]
                r2 = ry + dx * dx * precision[i]
                if r2 < _STRONG_HIT and w[i] > front[y, x]:
                    front[y, x] = w[i]


@njit(cache=True, nogil=True, error_model="numpy")
@no_type_check
def _accumulate(u, v, w, precision, confidence, front, softness, sums):
    """Second pass: weighted sums of (1, inverse depth, confidence) over the hits near the front surface."""
    height, width = front.shape
    for i in range(u.shape[0]):
        x0, y0 = math.floor(u[i]), math.floor(v[i])
        for y in range(max(y0 - 1, 0), min(y0 + 2, height)):
            dy = np.float32(y) + _HALF - v[i]
            ry = dy * dy * precision[i]
            for x in range(max(x0 - 1, 0), min(x0 + 2, width)):
                dx = np.float32(x) + _HALF - u[i]
                r2 = ry + dx * dx * precision[i]
                if r2 < _REACH:
                    excess = min(max(front[y, x] / w[i] - np.float32(1), np.float32(0)), _MAX_EXCESS)
                    weight = np.exp(-_HALF * r2 - excess / softness)
                    sums[0, y, x] += weight
                    sums[1, y, x] += weight * w[i]
                    sums[2, y, x] += weight * confidence[i]


def splat_numba(points: Points, size: tuple[int, int], kernel_px: float, depth_softness: float) -> Layer:
    """See `splatting.splat_torch`; CPU tensors only."""
    u, v, w, confidence = (t.numpy() for t in (points.u, points.v, points.inverse_depth, points.confidence))
    precision = (1 / (kernel_px * points.magnification).square()).numpy()
    front, sums = np.zeros(size, np.float32), np.zeros((3, *size), np.float32)
    _find_front(u, v, w, precision, front)
    _accumulate(u, v, w, precision, confidence, front, np.float32(depth_softness), sums)
    mass, inverse_depth, weighted_confidence = torch.from_numpy(sums)
    norm = mass.clamp_min(1e-6)
    return Layer(inverse_depth / norm, weighted_confidence / norm, 1 - torch.exp(-COVERAGE_GAIN * mass))
