"""The renderer's loops over pixels, compiled: splatting, merging of layers, warping and mixing of colours.

Each equals its twin in plain torch (`splatting`, `warping`, `reconstruction`) up to rounding, without temporaries. See
`row_bands` for `start` and `stop`.

Shapes: C context views of h x w pixels, H W target pixels.
"""

from __future__ import annotations

import math
from typing import no_type_check

import numpy as np

from sphinx_nvs.models.planesweep.sampling_kernels import F32, LEAST, bicubic, index_of, place_in
from sphinx_nvs.models.planesweep.splatting import (
    COVERAGE_GAIN,
    MAX_EXCESS,
    MAX_MAGNIFICATION,
    MIN_MAGNIFICATION,
    REACH,
    STRONG_HIT,
)
from sphinx_nvs.nn.row_bands import compiled

_REACH, _STRONG, _MAX_EXCESS = F32(REACH), F32(STRONG_HIT), F32(MAX_EXCESS)
_SMALLEST, _LARGEST, _GAIN = F32(MIN_MAGNIFICATION), F32(MAX_MAGNIFICATION), F32(COVERAGE_GAIN)
_NOTHING = F32(25)
"""Exponent from which a weight is nothing: e^-25 is 1e-11."""


@compiled
@no_type_check
def splat_views(start, stop, inverse_depth, confidence, A, b, zoom, kernel_px, softness, sums):
    """`splatting.project` and `splatting.splat_torch` of every context view, before division by the weights.

    Args:
        start, stop: context views.
        inverse_depth, confidence: (C, h, w).
        A, b: homographies to the target, (C, 3, 3), (C, 3).
        zoom: (C,): the target's focal length over the context view's.
        kernel_px, softness: see `splatting.splat_torch`.
        sums: (C, 3, H, W), zeros, to which weights, weighted inverse depths and weighted confidences are added.
    """
    rows, columns = inverse_depth.shape[1], inverse_depth.shape[2]
    height, width = sums.shape[2], sums.shape[3]
    hits = np.empty((rows * columns, 5), np.float32)
    front = np.empty((height, width), np.float32)
    ex = np.empty(3, np.float32)
    for c in range(start, stop):
        front[:] = F32(0)
        number = 0
        for y in range(rows):
            qy = F32(y) + F32(0.5)
            for x in range(columns):
                qx, w = F32(x) + F32(0.5), inverse_depth[c, y, x]
                depth = A[c, 2, 0] * qx + A[c, 2, 1] * qy + A[c, 2, 2] + b[c, 2] * w
                scale = max(depth, LEAST)
                u = (A[c, 0, 0] * qx + A[c, 0, 1] * qy + A[c, 0, 2] + b[c, 0] * w) / scale
                v = (A[c, 1, 0] * qx + A[c, 1, 1] * qy + A[c, 1, 2] + b[c, 1] * w) / scale
                if not (depth > LEAST and u > F32(-2) and u < F32(width + 2) and v > F32(-2) and v < F32(height + 2)):
                    continue
                size = kernel_px * min(max(zoom[c] / scale, _SMALLEST), _LARGEST)
                precision, nearness = F32(1) / (size * size), w / scale
                hits[number, 0], hits[number, 1], hits[number, 2] = u, v, nearness
                hits[number, 3], hits[number, 4] = precision, confidence[c, y, x]
                number += 1
                x0, y0 = math.floor(u), math.floor(v)
                for row in range(max(y0 - 1, 0), min(y0 + 2, height)):
                    dy = F32(row) + F32(0.5) - v
                    ry = dy * dy * precision
                    for column in range(max(x0 - 1, 0), min(x0 + 2, width)):
                        dx = F32(column) + F32(0.5) - u
                        if ry + dx * dx * precision < _STRONG and nearness > front[row, column]:
                            front[row, column] = nearness
        for hit in range(number):
            u, v, w, precision, trust = hits[hit, 0], hits[hit, 1], hits[hit, 2], hits[hit, 3], hits[hit, 4]
            x0, y0 = math.floor(u), math.floor(v)
            # The kernel is separable: six exponentials instead of nine.
            for i in range(3):
                dx = F32(x0 - 1 + i) + F32(0.5) - u
                ex[i] = np.exp(F32(-0.5) * dx * dx * precision)
            for row in range(max(y0 - 1, 0), min(y0 + 2, height)):
                dy = F32(row) + F32(0.5) - v
                ry = dy * dy * precision
                ey = np.exp(F32(-0.5) * ry)
                for column in range(max(x0 - 1, 0), min(x0 + 2, width)):
                    dx = F32(column) + F32(0.5) - u
                    if ry + dx * dx * precision >= _REACH:
                        continue
                    weight = ey * ex[column - x0 + 1]
                    if front[row, column] > w:
                        behind = min(front[row, column] / w - F32(1), _MAX_EXCESS) / softness
                        if behind > _NOTHING:
                            continue
                        weight *= np.exp(-behind)
                    sums[c, 0, row, column] += weight
                    sums[c, 1, row, column] += weight * w
                    sums[c, 2, row, column] += weight * trust


@compiled
@no_type_check
def merge_layers(start, stop, sums, nearness, softness, covered, confident, hole, merged):
    """`reconstruction._merge` of splatted views.

    Args:
        start, stop: rows.
        sums: (C, 3, H, W), see `splat_views`.
        nearness: (C,) weights of the context views.
        softness: relative depth range within which layers are averaged.
        covered, confident, hole: see `reconstruction`.
        merged: (3, H, W), written: inverse depth, confidence, alpha.
    """
    count, width = sums.shape[0], sums.shape[3]
    w, trust, alpha = np.empty(count, np.float32), np.empty(count, np.float32), np.empty(count, np.float32)
    for y in range(start, stop):
        for x in range(width):
            front, any_front, open_share = F32(0), F32(0), F32(1)
            for c in range(count):
                mass = sums[c, 0, y, x]
                norm = max(mass, LEAST)
                w[c], trust[c] = sums[c, 1, y, x] / norm, sums[c, 2, y, x] / norm
                alpha[c] = F32(1) - np.exp(-_GAIN * mass) if mass > F32(0) else F32(0)
                open_share *= F32(1) - alpha[c]
                if alpha[c] > covered:
                    any_front = max(any_front, w[c])
                    if trust[c] > confident:
                        front = max(front, w[c])
            # Where no layer is confident, the nearest surface of any confidence is the front.
            front = front if front > F32(0) else any_front
            total, depth, certainty = F32(0), F32(0), F32(0)
            for c in range(count):
                if alpha[c] <= F32(0):
                    continue
                weight = alpha[c] * (F32(0.03) + trust[c]) * nearness[c]
                if front > w[c]:
                    behind = min(front / max(w[c], F32(1e-12)) - F32(1), F32(10)) / softness
                    weight = weight * np.exp(-behind) if behind < _NOTHING else F32(0)
                total += weight
                depth += weight * w[c]
                certainty += weight * trust[c]
            if total >= hole:
                merged[0, y, x], merged[1, y, x] = depth / total, certainty / total
                merged[2, y, x] = min(max(F32(1) - open_share, F32(0)), F32(1))
            else:
                merged[0, y, x], merged[1, y, x], merged[2, y, x] = F32(0), F32(0), F32(0)


@compiled
@no_type_check
def warp_and_mix(start, stop, photos, inverse_depth, A, b, target, softness, nearness, seen, rgb, disagreement, trust):
    """`warping.warp_to_target` and `reconstruction._blend`.

    Args:
        start, stop: rows of the target.
        photos: (C, h, w, 4), the last channel unused.
        inverse_depth: (C, h, w).
        A, b: homographies from the target to the context views, (C, 3, 3), (C, 3).
        target: (H, W) inverse depths of the target.
        softness: see `warping.warp_to_target`.
        nearness: (C,) weights of the context views.
        seen: summed visibility from which a pixel keeps its own colour.
        rgb: (3, H, W), written.
        disagreement, trust: (H, W), written.
    """
    count, rows, columns, width = photos.shape[0], photos.shape[1], photos.shape[2], target.shape[1]
    colours, visible = np.empty((count, 4), np.float32), np.empty(count, np.float32)
    for y in range(start, stop):
        qy = F32(y) + F32(0.5)
        for x in range(width):
            qx, w = F32(x) + F32(0.5), target[y, x]
            total, most, weights = F32(0), F32(0), F32(0)
            red, green, blue = F32(0), F32(0), F32(0)
            for c in range(count):
                depth = A[c, 2, 0] * qx + A[c, 2, 1] * qy + A[c, 2, 2] + b[c, 2] * w
                scale = max(depth, LEAST)
                gx = place_in((A[c, 0, 0] * qx + A[c, 0, 1] * qy + A[c, 0, 2] + b[c, 0] * w) / scale, F32(columns))
                gy = place_in((A[c, 1, 0] * qx + A[c, 1, 1] * qy + A[c, 1, 2] + b[c, 1] * w) / scale, F32(rows))
                px, py = index_of(gx, F32(columns)), index_of(gy, F32(rows))
                bicubic(photos[c], px, py, colours[c])
                # Nearest: at the edge of an object a mean of two depths would occlude neither side.
                nx, ny = (
                    int(min(max(np.rint(px), F32(0)), F32(columns - 1))),
                    int(min(max(np.rint(py), F32(0)), F32(rows - 1))),
                )
                within = abs(gx) < F32(1) and abs(gy) < F32(1) and depth > F32(0)
                shown = F32(0)
                if within:
                    excess = min(max(depth / w * inverse_depth[c, ny, nx] - F32(1), F32(0)), _MAX_EXCESS) / softness
                    shown = F32(1) if excess <= F32(0) else np.exp(-excess)
                visible[c] = shown
                total += shown
                most = max(most, shown)
                # Small floors: first views that contain the point but do not see it, then all views.
                weight = (shown + (F32(1e-4) if within else F32(0)) + F32(1e-6)) * nearness[c]
                weights += weight
                red += weight * colours[c, 0]
                green += weight * colours[c, 1]
                blue += weight * colours[c, 2]
            rgb[0, y, x], rgb[1, y, x], rgb[2, y, x] = red / weights, green / weights, blue / weights
            trust[y, x] = min(total / seen, F32(1))
            apart = F32(0)
            if most > seen:
                share = F32(1) / max(total, seen)
                r, g, u = F32(0), F32(0), F32(0)
                for c in range(count):
                    r += visible[c] * share * colours[c, 0]
                    g += visible[c] * share * colours[c, 1]
                    u += visible[c] * share * colours[c, 2]
                for c in range(count):
                    off = abs(colours[c, 0] - r) + abs(colours[c, 1] - g) + abs(colours[c, 2] - u)
                    apart += visible[c] * share * off / F32(3)
            disagreement[y, x] = min(F32(2) * apart, F32(1))
