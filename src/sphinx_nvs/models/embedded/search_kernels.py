"""The reference decoder's search of the photos, compiled: costs of every plane, weighed, and the decision.

Both kernels are passages of `reference_decoder` as one loop over places without temporaries, for one target view; see
`row_bands` for `start` and `stop`.

Shapes: C photos, h w places of the search, D planes, F features.
"""

from __future__ import annotations

from typing import no_type_check

import numpy as np

from sphinx_nvs.models.planesweep.sampling_kernels import F32, LEAST
from sphinx_nvs.nn.row_bands import compiled, inlined


@inlined
@no_type_check
def _silu(x):
    """X / (1 + e^-x), by a rational approximation of the hyperbolic tangent that becomes vector instructions."""
    half = min(max(F32(0.5) * x, F32(-7.9)), F32(7.9))
    s = half * half
    top = F32(-2.76076847742355e-16) * s + F32(2.00018790482477e-13)
    top = (top * s + F32(-8.60467152213735e-11)) * s + F32(5.12229709037114e-08)
    top = (top * s + F32(1.48572235717979e-05)) * s + F32(6.37261928875436e-04)
    top = (top * s + F32(4.89352455891786e-03)) * half
    bottom = (F32(1.19825839466702e-06) * s + F32(1.18534705686654e-04)) * s + F32(2.26843463243900e-03)
    bottom = bottom * s + F32(4.89352518554385e-03)
    return F32(0.5) * x * (F32(1) + top / bottom)


@inlined
@no_type_check
def _hidden(costs, weight, bias, out):
    """One hidden feature of a row of places from their `COSTS` costs; written out, it becomes vector instructions."""
    for x in range(out.shape[0]):
        out[x] = (
            bias
            + weight[0] * costs[0, x]
            + weight[1] * costs[1, x]
            + weight[2] * costs[2, x]
            + weight[3] * costs[3, x]
            + weight[4] * costs[4, x]
            + weight[5] * costs[5, x]
            + weight[6] * costs[6, x]
            + weight[7] * costs[7, x]
            + weight[8] * costs[8, x]
            + weight[9] * costs[9, x]
            + weight[10] * costs[10, x]
            + weight[11] * costs[11, x]
            + weight[12] * costs[12, x]
            + weight[13] * costs[13, x]
            + weight[14] * costs[14, x]
            + weight[15] * costs[15, x]
            + weight[16] * costs[16, x]
        )
    for x in range(out.shape[0]):
        out[x] = _silu(out[x])


@inlined
@no_type_check
def _weighed(hidden, weight, bias, out):
    """One weighed cost of a row of places from their sixteen hidden features."""
    for x in range(out.shape[0]):
        out[x] = (
            bias
            + weight[0] * hidden[0, x]
            + weight[1] * hidden[1, x]
            + weight[2] * hidden[2, x]
            + weight[3] * hidden[3, x]
            + weight[4] * hidden[4, x]
            + weight[5] * hidden[5, x]
            + weight[6] * hidden[6, x]
            + weight[7] * hidden[7, x]
            + weight[8] * hidden[8, x]
            + weight[9] * hidden[9, x]
            + weight[10] * hidden[10, x]
            + weight[11] * hidden[11, x]
            + weight[12] * hidden[12, x]
            + weight[13] * hidden[13, x]
            + weight[14] * hidden[14, x]
            + weight[15] * hidden[15, x]
        )


@compiled
@no_type_check
def search_costs(
    start,
    stop,
    features,
    A,
    b,
    size,
    stride,
    planes,
    target,
    seen,
    rendered,
    own,
    confidence,
    weight_in,
    bias_in,
    weight_out,
    bias_out,
    stacked,
):
    """`ReferenceDecoder._costs` of one view, and the two layers that weigh them.

    Args:
        start, stop: rows of places.
        features: (C, h' + 1, w' + 1, 16): eight features and three colours of the photos' places, the rest unused; the
            last row and column repeat those before.
        A, b: homographies (C, 3, 3), (C, 3).
        size: photos' (width, height) in pixels.
        stride: pixels a place.
        planes: (D,) inverse depths.
        target: (h, w, F) features of the target, of which the first eight are compared with photos'.
        seen, rendered: (3, h, w).
        own, confidence: (h, w).
        weight_in, bias_in, weight_out, bias_out: (16, 17), (16,), (4, 16), (4,).
        stacked: (h, w, 4 D + F), written: the weighed costs of all planes, channel by channel, and the features.
    """
    count, height, width = features.shape[0], features.shape[1] - 1, features.shape[2] - 1
    places, depths = target.shape[1], planes.shape[0]
    column, row = np.empty(places, np.int32), np.empty(places, np.int32)
    right, down = np.empty(places, np.float32), np.empty(places, np.float32)
    sample = np.empty(16, np.float32)
    # Of every photo: whether it shows the place, four agreements, three colours.
    shown = np.empty((count, places), np.float32)
    sampled = np.empty((count, 7, places), np.float32)
    costs, hidden = np.empty((17, places), np.float32), np.empty((16, places), np.float32)
    weighed = np.empty((4, depths, places), np.float32)
    step = F32(1) / (F32(1.5) * (planes[1] - planes[0]))
    to_column, to_row = F32(width) / size[0], F32(height) / size[1]
    for y in range(start, stop):
        qy = (F32(y) + F32(0.5)) * stride
        for d in range(depths):
            plane = planes[d]
            for c in range(count):
                u0, v0 = A[c, 0, 1] * qy + A[c, 0, 2] + b[c, 0] * plane, A[c, 1, 1] * qy + A[c, 1, 2] + b[c, 1] * plane
                z0 = A[c, 2, 1] * qy + A[c, 2, 2] + b[c, 2] * plane
                # In three loops, of which the first and the last become vector instructions.
                for x in range(places):
                    qx = (F32(x) + F32(0.5)) * stride
                    depth = A[c, 2, 0] * qx + z0
                    scale = F32(1) / max(depth, LEAST)
                    u, v = (A[c, 0, 0] * qx + u0) * scale, (A[c, 1, 0] * qx + v0) * scale
                    within = (u > F32(0)) & (u < size[0]) & (v > F32(0)) & (v < size[1]) & (depth > F32(0))
                    shown[c, x] = F32(1) if within else F32(0)
                    px = min(max(u * to_column - F32(0.5), F32(0)), F32(width - 1))
                    py = min(max(v * to_row - F32(0.5), F32(0)), F32(height - 1))
                    column[x], row[x] = np.int32(px), np.int32(py)
                    right[x], down[x] = px - F32(column[x]), py - F32(row[x])
                for x in range(places):
                    if shown[c, x] == F32(0):
                        for k in range(7):
                            sampled[c, k, x] = F32(0)
                        continue
                    tx, ty = right[x], down[x]
                    w00, w01 = (F32(1) - ty) * (F32(1) - tx), (F32(1) - ty) * tx
                    w10, w11 = ty * (F32(1) - tx), ty * tx
                    above, below = features[c, row[x]], features[c, row[x] + 1]
                    first, second = above[column[x]], above[column[x] + 1]
                    third, fourth = below[column[x]], below[column[x] + 1]
                    for k in range(16):
                        sample[k] = w00 * first[k] + w01 * second[k] + w10 * third[k] + w11 * fourth[k]
                    for k in range(4):
                        sampled[c, k, x] = (
                            sample[2 * k] * target[y, x, 2 * k] + sample[2 * k + 1] * target[y, x, 2 * k + 1]
                        )
                    for k in range(3):
                        sampled[c, 4 + k, x] = sample[8 + k]
            for x in range(places):
                number = F32(0)
                m0, m1, m2, m3, m4, m5 = F32(0), F32(0), F32(0), F32(0), F32(0), F32(0)
                b0, b1, b2, b3 = F32(-1e4), F32(-1e4), F32(-1e4), F32(-1e4)
                l4, l5 = F32(1e4), F32(1e4)
                c0, c1, c2 = F32(0), F32(0), F32(0)
                for c in range(count):
                    within = shown[c, x]
                    far = F32(1e4) * (F32(1) - within)
                    a0, a1, a2, a3 = sampled[c, 0, x], sampled[c, 1, x], sampled[c, 2, x], sampled[c, 3, x]
                    red, green, blue = sampled[c, 4, x], sampled[c, 5, x], sampled[c, 6, x]
                    a4 = abs(red - seen[0, y, x]) + abs(green - seen[1, y, x]) + abs(blue - seen[2, y, x])
                    a5 = abs(red - rendered[0, y, x]) + abs(green - rendered[1, y, x]) + abs(blue - rendered[2, y, x])
                    a4, a5 = a4 * F32(1 / 3), a5 * F32(1 / 3)
                    m0, m1, m2, m3 = m0 + a0, m1 + a1, m2 + a2, m3 + a3
                    m4, m5 = m4 + a4 * within, m5 + a5 * within
                    b0, b1, b2, b3 = max(b0, a0 - far), max(b1, a1 - far), max(b2, a2 - far), max(b3, a3 - far)
                    l4, l5 = min(l4, a4 + far), min(l5, a5 + far)
                    c0, c1, c2, number = c0 + red, c1 + green, c2 + blue, number + within
                some = F32(1) if number > F32(0) else F32(0)
                share = F32(1) / max(number, F32(1))
                c0, c1, c2 = c0 * share, c1 * share, c2 * share
                spread = F32(0)
                for c in range(count):
                    r, g, u = sampled[c, 4, x] - c0, sampled[c, 5, x] - c1, sampled[c, 6, x] - c2
                    spread += (r * r + g * g + u * u) * shown[c, x]
                costs[0, x], costs[1, x] = m0 * share, m1 * share
                costs[2, x], costs[3, x] = m2 * share, m3 * share
                costs[4, x], costs[5, x] = m4 * share, m5 * share
                costs[6, x], costs[7, x] = b0 * some, b1 * some
                costs[8, x], costs[9, x] = b2 * some, b3 * some
                costs[10, x] = l4 if number > F32(0) else F32(1)
                costs[11, x] = l5 if number > F32(0) else F32(1)
                costs[12, x], costs[13, x] = number / F32(count), some
                costs[14, x] = np.sqrt(spread * share * F32(1 / 3) + LEAST)
                near = max(F32(1) - abs(own[y, x] - plane) * step, F32(0))
                costs[15, x], costs[16, x] = near, near * confidence[y, x]
            for j in range(16):
                _hidden(costs, weight_in[j], bias_in[j], hidden[j])
            for j in range(4):
                _weighed(hidden, weight_out[j], bias_out[j], weighed[j, d])
        for x in range(places):
            for j in range(4):
                for d in range(depths):
                    stacked[y, x, j * depths + d] = weighed[j, d, x]
            for k in range(target.shape[2]):
                stacked[y, x, 4 * depths + k] = target[y, x, k]


@compiled
@no_type_check
def decide(start, stop, probability, planes, inverse_depth, sureness):
    """`reference_decoder.decided`, of probabilities.

    Args:
        start, stop: rows of places.
        probability: (D, h, w) of each plane.
        planes: (D,) inverse depths.
        inverse_depth, sureness: (h, w), written.
    """
    depths, _, width = probability.shape
    best, place = np.empty(width, np.float32), np.empty(width, np.int32)
    for y in range(start, stop):
        for x in range(width):
            best[x], place[x] = probability[0, y, x], np.int32(0)
        for d in range(1, depths):
            for x in range(width):
                value = probability[d, y, x]
                more = value > best[x]
                best[x] = value if more else best[x]
                place[x] = np.int32(d) if more else place[x]
        for x in range(width):
            near, total = F32(0), F32(0)
            # Around the likeliest plane only: the mean of two distant peaks would be a depth where there is nothing.
            for d in range(max(place[x] - 2, 0), min(place[x] + 3, depths)):
                near += probability[d, y, x]
                total += probability[d, y, x] * planes[d]
            sureness[y, x] = near
            inverse_depth[y, x] = total / max(near, LEAST)
