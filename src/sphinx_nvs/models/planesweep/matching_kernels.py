"""Matching's loops over pixels and planes, compiled: the cost volume and its semi-global aggregation.

Each equals its twin in plain torch (`matching_cost`, `sgm`) up to rounding; see `row_bands` for `start` and `stop`.

Shapes: D planes, S sources of h x w pixels, H W pixels.
"""

from __future__ import annotations

from typing import no_type_check

import numpy as np

from sphinx_nvs.models.planesweep.matching_cost import FLAT, LUMA, OUT_OF_VIEW
from sphinx_nvs.models.planesweep.sampling_kernels import F32, LEAST
from sphinx_nvs.models.planesweep.sgm import EDGE_GAIN, MAX_EDGE
from sphinx_nvs.nn.row_bands import compiled, inlined

_RED, _GREEN, _BLUE = F32(LUMA[0]), F32(LUMA[1]), F32(LUMA[2])
_FLAT, _OUT, _GAIN, _EDGE = F32(FLAT), F32(OUT_OF_VIEW), F32(EDGE_GAIN), F32(MAX_EDGE)
_FAR = F32(1e9)
_ANEW = 8
"""Rows after which columns' sums are made anew."""


@inlined
@no_type_check
def _box_sums(sums, radius, box):
    """Sums of 2 radius + 1 neighbours; `sums` has `radius` zeros on both sides."""
    if radius == 3:
        # The usual case in one loop, without intermediate stores.
        for x in range(box.shape[0]):
            left = (sums[x] + sums[x + 1]) + (sums[x + 2] + sums[x + 3])
            box[x] = left + ((sums[x + 4] + sums[x + 5]) + sums[x + 6])
        return
    for x in range(box.shape[0]):
        box[x] = sums[x]
    for shift in range(1, 2 * radius + 1):
        for x in range(box.shape[0]):
            box[x] += sums[x + shift]


@compiled
@no_type_check
def plane_costs(start, stop, image, grey, mean, variance, counts, sources, A, b, planes, radius, trunc, mix, costs):
    """`matching_cost.cost_volume`: the mean of the better half of the sources' costs.

    Args:
        start, stop: planes.
        image: (3, H, W), the reference view.
        grey, mean, variance, counts: (H, W), see `matching_cost.Patches`.
        sources: (S, h + 1, w + 1, 4), the last channel unused; the last row and column repeat those before.
        A, b: homographies to the sources, (S, 3, 3), (S, 3).
        planes: (D,) inverse depths.
        radius, trunc, mix: see `matching_cost.cost_volume`.
        costs: (D, H, W), written.
    """
    number, rows, columns = sources.shape[0], sources.shape[1] - 1, sources.shape[2] - 1
    height, width = grey.shape
    across, along = np.empty(width, np.int32), np.empty(width, np.int32)
    right, down, sample = np.empty(width, np.float32), np.empty(width, np.float32), np.empty((width, 4), np.float32)
    kept = (number + 1) // 2
    colour, warped = np.empty((height, width), np.float32), np.empty((height, width), np.float32)
    inside = np.empty((height, width), np.bool_)
    each = np.empty((number, height, width), np.float32)
    # Columns' sums, with zeros beyond the border.
    sums = np.zeros((3, width + 2 * radius), np.float32)
    box = np.empty((3, width), np.float32)
    for d in range(start, stop):
        plane = planes[d]
        for s in range(number):
            for y in range(height):
                qy = F32(y) + F32(0.5)
                u0, v0 = A[s, 0, 1] * qy + A[s, 0, 2] + b[s, 0] * plane, A[s, 1, 1] * qy + A[s, 1, 2] + b[s, 1] * plane
                z0 = A[s, 2, 1] * qy + A[s, 2, 2] + b[s, 2] * plane
                # In three loops, of which the first and the last become vector instructions.
                for x in range(width):
                    qx = F32(x) + F32(0.5)
                    depth = A[s, 2, 0] * qx + z0
                    scale = F32(1) / max(depth, LEAST)
                    u, v = (A[s, 0, 0] * qx + u0) * scale, (A[s, 1, 0] * qx + v0) * scale
                    inside[y, x] = (
                        (depth > F32(1e-4))
                        & (u > F32(0.5))
                        & (u < F32(columns) - F32(0.5))
                        & (v > F32(0.5))
                        & (v < F32(rows) - F32(0.5))
                    )
                    px = min(max(u - F32(0.5), F32(0)), F32(columns - 1))
                    py = min(max(v - F32(0.5), F32(0)), F32(rows - 1))
                    across[x], along[x] = np.int32(px), np.int32(py)
                    right[x], down[x] = px - F32(across[x]), py - F32(along[x])
                for x in range(width):
                    tx, ty = right[x], down[x]
                    w00, w01 = (F32(1) - ty) * (F32(1) - tx), (F32(1) - ty) * tx
                    w10, w11 = ty * (F32(1) - tx), ty * tx
                    # The last row and column repeat those before, so that every place has a neighbour.
                    above, below = sources[s, along[x]], sources[s, along[x] + 1]
                    first, second = above[across[x]], above[across[x] + 1]
                    third, fourth = below[across[x]], below[across[x] + 1]
                    for k in range(4):
                        sample[x, k] = w00 * first[k] + w01 * second[k] + w10 * third[k] + w11 * fourth[k]
                for x in range(width):
                    red, green, blue = sample[x, 0], sample[x, 1], sample[x, 2]
                    off = abs(red - image[0, y, x]) + abs(green - image[1, y, x]) + abs(blue - image[2, y, x])
                    colour[y, x] = min(off / F32(3) / trunc, F32(1))
                    warped[y, x] = _RED * red + _GREEN * green + _BLUE * blue
            # Columns' sums of the rows around a pixel: what enters is added and what leaves is subtracted, and they are
            # made anew every few rows, before rounding adds up.
            for y in range(height):
                fresh = y % _ANEW == 0
                if fresh:
                    sums[:] = F32(0)
                for row in range(max(y - radius, 0) if fresh else y + radius, min(y + radius + 1, height)):
                    for x in range(width):
                        value = warped[row, x]
                        sums[0, radius + x] += value
                        sums[1, radius + x] += value * value
                        sums[2, radius + x] += value * grey[row, x]
                if not fresh and y > radius:
                    row = y - radius - 1
                    for x in range(width):
                        value = warped[row, x]
                        sums[0, radius + x] -= value
                        sums[1, radius + x] -= value * value
                        sums[2, radius + x] -= value * grey[row, x]
                for k in range(3):
                    _box_sums(sums[k], radius, box[k])
                for x in range(width):
                    share = F32(1) / counts[y, x]
                    m = box[0, x] * share
                    var = max(box[1, x] * share - m * m, F32(0))
                    cov = box[2, x] * share - m * mean[y, x]
                    zncc = (cov + F32(0.5) * _FLAT) / np.sqrt((variance[y, x] + _FLAT) * (var + _FLAT))
                    cost = mix * colour[y, x] + (F32(1) - mix) * F32(0.8) * (F32(1) - zncc)
                    each[s, y, x] = min(max(cost, F32(0)), F32(1)) if inside[y, x] else _OUT
        if kept == 1:
            for y in range(height):
                for x in range(width):
                    least = each[0, y, x]
                    for s in range(1, number):
                        least = min(least, each[s, y, x])
                    costs[d, y, x] = least
        else:
            for y in range(height):
                for x in range(width):
                    total = F32(0)
                    # The least of what is left, as often as costs are kept.
                    for _ in range(kept):
                        best = 0
                        for s in range(1, number):
                            if each[s, y, x] < each[best, y, x]:
                                best = s
                        total += each[best, y, x]
                        each[best, y, x] = _FAR
                    costs[d, y, x] = total / F32(kept)


@compiled
@no_type_check
def scan_directions(start, stop, cost, grey, small_step, big_step, totals):
    """The path costs of `sgm.aggregate`: four directions down the image, or the four up.

    Args:
        start, stop: 0 to 1 scans downwards, 1 to 2 upwards.
        cost: (H, W, D).
        grey: (H, W).
        small_step, big_step: see `sgm.aggregate`.
        totals: (1 or 2, H, W, D), zeros, to which sums over the directions are added; with two, each scan has its own.
    """
    height, width, depth = cost.shape
    # A margin of one column and one plane on both sides saves the inner loops their questions.
    before = np.empty((3, width + 2, depth + 2), np.float32)
    after = np.empty((3, width + 2, depth + 2), np.float32)
    beside, least_before = np.empty(depth + 2, np.float32), np.zeros((3, width + 2), np.float32)
    least_after = np.zeros((3, width + 2), np.float32)
    new, joined = np.empty(depth, np.float32), np.empty(depth, np.float32)
    for way in range(start, stop):
        before[:], after[:] = F32(0), F32(0)
        for k in range(3):
            for x in range(width + 2):
                before[k, x, 0] = before[k, x, depth + 1] = _FAR
                after[k, x, 0] = after[k, x, depth + 1] = _FAR
        least_before[:], least_after[:] = F32(0), F32(0)
        step = 1 if way == 0 else -1
        for line in range(height):
            y = line if way == 0 else height - 1 - line
            above = y - step
            beside[:] = F32(0)
            beside[0] = beside[depth + 1] = _FAR
            least_beside = F32(0)
            for at in range(width):
                x = at if way == 0 else width - 1 - at
                here, total = cost[y, x], totals[min(way, totals.shape[0] - 1), y, x]
                # Along the line first; where it starts, all costs before are 0, and so is what a step costs.
                jump = big_step
                if at > 0:
                    edge = abs(grey[y, x] - grey[y, x - step])
                    jump = big_step / min(F32(1) + _GAIN * edge, _EDGE)
                limit, least = least_beside + jump, _FAR
                for d in range(depth):
                    stepped = min(beside[d], beside[d + 2]) + small_step
                    path = here[d] + (min(min(beside[d + 1], limit), stepped) - least_beside)
                    new[d] = path
                    joined[d] = path
                    least = min(least, path)
                for d in range(depth):
                    beside[d + 1] = new[d]
                least_beside = least
                for k in range(3):
                    # From the line before: one pixel back, straight, one ahead.
                    source = x + 1 - (k - 1)
                    jump = big_step
                    if line > 0:
                        origin = min(max(source - 1, 0), width - 1)
                        edge = abs(grey[y, x] - grey[above, origin])
                        jump = big_step / min(F32(1) + _GAIN * edge, _EDGE)
                    low = least_before[k, source]
                    limit, least = low + jump, _FAR
                    previous, current = before[k, source], after[k, x + 1]
                    for d in range(depth):
                        stepped = min(previous[d], previous[d + 2]) + small_step
                        path = here[d] + (min(min(previous[d + 1], limit), stepped) - low)
                        current[d + 1] = path
                        joined[d] += path
                        least = min(least, path)
                    least_after[k, x + 1] = least
                for d in range(depth):
                    total[d] += joined[d]
            before, after = after, before
            least_before, least_after = least_after, least_before
            # Paths restart at the border: what lies beyond costs nothing.
            for k in range(3):
                before[k, 0, 1 : depth + 1] = before[k, width + 1, 1 : depth + 1] = F32(0)
                least_before[k, 0] = least_before[k, width + 1] = F32(0)


@compiled
@no_type_check
def best_planes(start, stop, totals, planes, far, inverse_depth, distinctness):
    """`sgm.best_inverse_depth` of the mean path costs.

    Args:
        start, stop: rows.
        totals: see `scan_directions`.
        planes: (D,) evenly spaced inverse depths, three or more.
        far: see `sgm.FAR_PLANES`.
        inverse_depth, distinctness: (H, W), written.
    """
    _, _, width, depth = totals.shape
    cost = np.empty(depth, np.float32)
    step = planes[1] - planes[0]
    for y in range(start, stop):
        for x in range(width):
            for d in range(depth):
                cost[d] = totals[0, y, x, d]
            for n in range(1, totals.shape[0]):
                for d in range(depth):
                    cost[d] += totals[n, y, x, d]
            least = _FAR
            for d in range(depth):
                cost[d] *= F32(0.125)
                least = min(least, cost[d])
            index = 0
            while cost[index] > least:
                index += 1
            rival = _FAR
            for d in range(index - far):
                rival = min(rival, cost[d])
            for d in range(index + far + 1, depth):
                rival = min(rival, cost[d])
            offset = F32(0)
            # At the first and last plane a parabola lacks a neighbour.
            if 0 < index < depth - 1:
                low, here, high = cost[index - 1], cost[index], cost[index + 1]
                offset = (low - high) / max(F32(2) * (low - F32(2) * here + high), LEAST)
                offset = min(max(offset, F32(-0.5)), F32(0.5))
            inverse_depth[y, x] = planes[0] + (F32(index) + offset) * step
            clear = F32(1) if rival >= _FAR else (rival - least) / (rival + F32(0.05))
            distinctness[y, x] = min(max(clear, F32(0)), F32(1))
