"""The numba version of `compositing.composite_torch`: one pass over the Gaussians per band of rows.

A band's pixels fit into the cache, and only the Gaussians are sorted, not their fragments.
"""

from __future__ import annotations

import math
from typing import no_type_check

import numpy as np
import torch
from jaxtyping import Float
from numba import njit
from torch import Tensor

from sphinx_nvs.models.gaussians.compositing import Limits, Splats

BAND_ROWS = 32


@njit(cache=True, nogil=True, error_model="numpy")
@no_type_check
def _composite(means2d, conic, opacities, boxes, values, max_alpha, min_alpha, min_transmittance, out, passed):
    """Adds weights times values to `out` [H W C]; `passed` [H W] ends as +-T, negative once a pixel is saturated."""
    half = np.float32(0.5)  # float32 throughout: a Python float would promote the inner loop to double precision
    one = np.float32(1)
    height, channels = out.shape[0], out.shape[2]
    for top in range(0, height, BAND_ROWS):
        bottom = min(top + BAND_ROWS, height)
        for i in range(means2d.shape[0]):
            for y in range(max(boxes[i, 2], top), min(boxes[i, 3] + 1, bottom)):
                dy = np.float32(y) + half - means2d[i, 1]
                cross = conic[i, 1] * dy
                square = half * conic[i, 2] * dy * dy
                for x in range(boxes[i, 0], boxes[i, 1] + 1):
                    T = passed[y, x]
                    if T < 0:
                        continue
                    dx = np.float32(x) + half - means2d[i, 0]
                    alpha = opacities[i] * np.float32(math.exp(-(half * conic[i, 0] * dx + cross) * dx - square))
                    if alpha < min_alpha:
                        continue
                    alpha = min(alpha, max_alpha)
                    remaining = T * (one - alpha)
                    if remaining < min_transmittance:
                        passed[y, x] = -T
                        continue
                    weight = alpha * T
                    for c in range(channels):
                        out[y, x, c] += weight * values[i, c]
                    passed[y, x] = remaining


def composite_numba(
    splats: Splats, height: int, width: int, limits: Limits
) -> tuple[Float[Tensor, "C H W"], Float[Tensor, "H W"]]:
    """See `compositing.composite_torch`; CPU tensors, computed in float32."""
    arrays = (splats.means2d, splats.conic, splats.opacities)
    means2d, conic, opacities = (t.float().contiguous().numpy() for t in arrays)
    boxes, values = splats.boxes.int().contiguous().numpy(), splats.values.float().contiguous().numpy()
    out = np.zeros((height, width, values.shape[1]), np.float32)
    passed = np.ones((height, width), np.float32)
    cuts = (np.float32(x) for x in (limits.max_alpha, limits.min_alpha, limits.min_transmittance))
    _composite(means2d, conic, opacities, boxes, values, *cuts, out, passed)
    return torch.from_numpy(out).permute(2, 0, 1), torch.from_numpy(1 - np.abs(passed))
