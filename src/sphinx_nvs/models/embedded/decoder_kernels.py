"""The reference decoder's work between its convolutions, compiled: warps, costs, weights and mixtures.

Each kernel is one of the decoder's passages in `reference_decoder` or `temporal_consistency`, written as one loop over
pixels without temporaries, for one target view; see `row_bands` for `start` and `stop`. Maps of blocks lie channels
last, as the convolutions on the CPU want them; their channels are those of `pixel_unshuffle`.

Shapes: C photos, H W pixels, h w places of the search, hb wb blocks, D planes.
"""

from __future__ import annotations

import math
from typing import no_type_check

import numpy as np
from numba import njit

BLOCK = 4
_F = np.float32
_LEAST = _F(1e-6)
_CUBIC = _F(-0.75)
"""The coefficient of `grid_sample`'s cubic convolution."""

compiled = njit(cache=True, nogil=True, error_model="numpy", fastmath={"contract", "nsz"}, inline="never")
inlined = njit(cache=True, nogil=True, error_model="numpy", fastmath={"contract", "nsz"}, inline="always")


@inlined
@no_type_check
def _grid(value, size):
    """A place in pixels as `grid_sample` wants it, bounded well outside of the photo."""
    return min(max(_F(2) * value / size - _F(1), _F(-3)), _F(3))


@inlined
@no_type_check
def _cubic(t):
    """Weights of the four taps around a place, `t` behind the second."""
    a, s = _CUBIC, _F(1) - t
    outer, after = t + _F(1), s + _F(1)
    return (
        ((a * outer - _F(5) * a) * outer + _F(8) * a) * outer - _F(4) * a,
        ((a + _F(2)) * t - (a + _F(3))) * t * t + _F(1),
        ((a + _F(2)) * s - (a + _F(3))) * s * s + _F(1),
        ((a * after - _F(5) * a) * after + _F(8) * a) * after - _F(4) * a,
    )


@inlined
@no_type_check
def _bicubic(image, x, y, out):
    """The three colours of `image` (H, W, 4) at a place, in units of its pixels; the border goes on outside."""
    height, width = image.shape[0], image.shape[1]
    left, top = math.floor(x), math.floor(y)
    wx, wy = _cubic(_F(x - left)), _cubic(_F(y - top))
    x0, y0 = int(left) - 1, int(top) - 1
    red, green, blue = _F(0), _F(0), _F(0)
    if x0 >= 0 and y0 >= 0 and x0 + 3 < width and y0 + 3 < height:
        for j in range(4):
            for i in range(4):
                weight = wy[j] * wx[i]
                red += weight * image[y0 + j, x0 + i, 0]
                green += weight * image[y0 + j, x0 + i, 1]
                blue += weight * image[y0 + j, x0 + i, 2]
    else:
        for j in range(4):
            row = min(max(y0 + j, 0), height - 1)
            for i in range(4):
                column = min(max(x0 + i, 0), width - 1)
                weight = wy[j] * wx[i]
                red += weight * image[row, column, 0]
                green += weight * image[row, column, 1]
                blue += weight * image[row, column, 2]
    out[0] = min(max(red, _F(0)), _F(1))
    out[1] = min(max(green, _F(0)), _F(1))
    out[2] = min(max(blue, _F(0)), _F(1))


@compiled
@no_type_check
def search_costs(
    start, stop, features, A, b, size, stride, planes, target, seen, rendered, own, confidence, costs
):
    """`ReferenceDecoder._costs` of one view.

    Args:
        start, stop: rows of places.
        features: (C, h', w', 12): eight features and three colours of the photos' places; the last channel unused.
        A, b: homographies (C, 3, 3), (C, 3).
        size: photos' (width, height) in pixels.
        stride: pixels a place.
        planes: (D,) inverse depths.
        target: (h, w, 8) features of the target.
        seen, rendered: (3, h, w).
        own, confidence: (h, w).
        costs: (17, D, h, w), written.
    """
    count, height, width = features.shape[0], features.shape[1], features.shape[2]
    columns = target.shape[1]
    step = planes[1] - planes[0]
    sample = np.empty(12, np.float32)
    shown_colours = np.empty((count, 3), np.float32)
    rays = np.empty((count, 3), np.float32)
    for y in range(start, stop):
        qy = (_F(y) + _F(0.5)) * stride
        for x in range(columns):
            qx = (_F(x) + _F(0.5)) * stride
            for c in range(count):
                for k in range(3):
                    rays[c, k] = A[c, k, 0] * qx + A[c, k, 1] * qy + A[c, k, 2]
            for d in range(planes.shape[0]):
                plane = planes[d]
                number = 0
                m0, m1, m2, m3, m4, m5 = _F(0), _F(0), _F(0), _F(0), _F(0), _F(0)
                b0, b1, b2, b3 = _F(-1e4), _F(-1e4), _F(-1e4), _F(-1e4)
                l4, l5 = _F(1e4), _F(1e4)
                c0, c1, c2 = _F(0), _F(0), _F(0)
                for c in range(count):
                    depth = rays[c, 2] + b[c, 2] * plane
                    # As the inverse: one division for both coordinates.
                    scale = _F(1) / max(depth, _LEAST)
                    gx = _grid((rays[c, 0] + b[c, 0] * plane) * scale, size[0])
                    gy = _grid((rays[c, 1] + b[c, 1] * plane) * scale, size[1])
                    if not (abs(gx) < _F(1) and abs(gy) < _F(1) and depth > _F(0)):
                        continue
                    px = min(max(((gx + _F(1)) * _F(width) - _F(1)) * _F(0.5), _F(0)), _F(width - 1))
                    py = min(max(((gy + _F(1)) * _F(height) - _F(1)) * _F(0.5), _F(0)), _F(height - 1))
                    x0, y0 = int(px), int(py)
                    tx, ty = px - _F(x0), py - _F(y0)
                    x1, y1 = min(x0 + 1, width - 1), min(y0 + 1, height - 1)
                    w00, w01 = (_F(1) - ty) * (_F(1) - tx), (_F(1) - ty) * tx
                    w10, w11 = ty * (_F(1) - tx), ty * tx
                    for k in range(12):
                        sample[k] = (
                            w00 * features[c, y0, x0, k]
                            + w01 * features[c, y0, x1, k]
                            + w10 * features[c, y1, x0, k]
                            + w11 * features[c, y1, x1, k]
                        )
                    a0 = sample[0] * target[y, x, 0] + sample[1] * target[y, x, 1]
                    a1 = sample[2] * target[y, x, 2] + sample[3] * target[y, x, 3]
                    a2 = sample[4] * target[y, x, 4] + sample[5] * target[y, x, 5]
                    a3 = sample[6] * target[y, x, 6] + sample[7] * target[y, x, 7]
                    red, green, blue = sample[8], sample[9], sample[10]
                    a4 = (abs(red - seen[0, y, x]) + abs(green - seen[1, y, x]) + abs(blue - seen[2, y, x])) / _F(3)
                    a5 = (
                        abs(red - rendered[0, y, x]) + abs(green - rendered[1, y, x]) + abs(blue - rendered[2, y, x])
                    ) / _F(3)
                    m0, m1, m2, m3, m4, m5 = m0 + a0, m1 + a1, m2 + a2, m3 + a3, m4 + a4, m5 + a5
                    b0, b1, b2, b3 = max(b0, a0), max(b1, a1), max(b2, a2), max(b3, a3)
                    l4, l5 = min(l4, a4), min(l5, a5)
                    shown_colours[number, 0] = red
                    shown_colours[number, 1] = green
                    shown_colours[number, 2] = blue
                    c0, c1, c2 = c0 + red, c1 + green, c2 + blue
                    number += 1
                spread = _F(0)
                if number > 0:
                    share = _F(1) / _F(number)
                    c0, c1, c2 = c0 * share, c1 * share, c2 * share
                    for k in range(number):
                        r, g, u = shown_colours[k, 0] - c0, shown_colours[k, 1] - c1, shown_colours[k, 2] - c2
                        spread += r * r + g * g + u * u
                    spread = spread * share / _F(3)
                    costs[0, d, y, x], costs[1, d, y, x] = m0 * share, m1 * share
                    costs[2, d, y, x], costs[3, d, y, x] = m2 * share, m3 * share
                    costs[4, d, y, x], costs[5, d, y, x] = m4 * share, m5 * share
                    costs[6, d, y, x], costs[7, d, y, x] = b0, b1
                    costs[8, d, y, x], costs[9, d, y, x] = b2, b3
                    costs[10, d, y, x], costs[11, d, y, x] = l4, l5
                    costs[13, d, y, x] = _F(1)
                else:
                    for k in range(10):
                        costs[k, d, y, x] = _F(0)
                    costs[10, d, y, x], costs[11, d, y, x], costs[13, d, y, x] = _F(1), _F(1), _F(0)
                costs[12, d, y, x] = _F(number) / _F(count)
                costs[14, d, y, x] = np.sqrt(spread + _LEAST)
                near = max(_F(1) - abs(own[y, x] - plane) / (_F(1.5) * step), _F(0))
                costs[15, d, y, x] = near
                costs[16, d, y, x] = near * confidence[y, x]


@compiled
@no_type_check
def sample_photos(start, stop, photos, A, b, inverse_depth, rendered, picture, sampled, inside, blocks):
    """Photos seen through a depth, and the blocks that their weighing network reads; rows of blocks.

    Args:
        start, stop: rows of blocks.
        photos: (C, H', W', 4), the last channel unused.
        A, b: homographies (C, 3, 3), (C, 3).
        inverse_depth: (H, W).
        rendered, picture: (3, H, W).
        sampled: (C, H, W, 3), written.
        inside: (C, H, W), written: 1 where the photo shows the place.
        blocks: (C, hb, wb, 7 * 16 + 2), written but for the last two channels.
    """
    count, rows, columns = photos.shape[0], photos.shape[1], photos.shape[2]
    width = inverse_depth.shape[1]
    colour = np.empty(3, np.float32)
    for c in range(count):
        for by in range(start, stop):
            for i in range(BLOCK):
                y = by * BLOCK + i
                qy = _F(y) + _F(0.5)
                for x in range(width):
                    qx, w = _F(x) + _F(0.5), inverse_depth[y, x]
                    depth = A[c, 2, 0] * qx + A[c, 2, 1] * qy + A[c, 2, 2] + b[c, 2] * w
                    scale = max(depth, _LEAST)
                    gx = _grid((A[c, 0, 0] * qx + A[c, 0, 1] * qy + A[c, 0, 2] + b[c, 0] * w) / scale, _F(columns))
                    gy = _grid((A[c, 1, 0] * qx + A[c, 1, 1] * qy + A[c, 1, 2] + b[c, 1] * w) / scale, _F(rows))
                    px = ((gx + _F(1)) * _F(columns) - _F(1)) * _F(0.5)
                    py = ((gy + _F(1)) * _F(rows) - _F(1)) * _F(0.5)
                    _bicubic(photos[c], px, py, colour)
                    within = _F(1) if abs(gx) < _F(1) and abs(gy) < _F(1) and depth > _F(0) else _F(0)
                    inside[c, y, x] = within
                    place = i * BLOCK + x % BLOCK
                    bx = x // BLOCK
                    for k in range(3):
                        sampled[c, y, x, k] = colour[k]
                        blocks[c, by, bx, k * 16 + place] = colour[k] - rendered[k, y, x]
                        blocks[c, by, bx, (3 + k) * 16 + place] = colour[k] - picture[k, y, x]
                    blocks[c, by, bx, 96 + place] = within


@compiled
@no_type_check
def weigh_photos(
    start, stop, judged, movement, nearness, sampled, inside, rendered, picture, signals, redrawn, redrawn_signals,
    warped, blocks,
):
    """Photos weighed and mixed, and the blocks that the fusing network reads; rows of blocks.

    Args:
        start, stop: rows of blocks.
        judged: (C, hb, wb, 16 + 16): scores of a block's pixels, and features.
        movement: (C, hb, wb), what lowers the scores, `nearness` times.
        nearness: see `reference_decoder.NEARNESS`.
        sampled, inside: see `sample_photos`.
        rendered, picture, signals, redrawn, redrawn_signals: (3, H, W).
        warped: (3, H, W), written.
        blocks: (hb, wb, 18 * 16 + 1 + 16), written but for the channel after the blocks'.
    """
    count, width = sampled.shape[0], sampled.shape[2]
    weights = np.empty(count, np.float32)
    of_block = np.empty(count, np.float32)
    for by in range(start, stop):
        for bx in range(width // BLOCK):
            for c in range(count):
                of_block[c] = _F(0)
            for i in range(BLOCK):
                y = by * BLOCK + i
                for j in range(BLOCK):
                    x, place = bx * BLOCK + j, i * BLOCK + j
                    best, shown = _F(-1e30), False
                    for c in range(count):
                        score = judged[c, by, bx, place] - nearness * movement[c, by, bx]
                        if inside[c, y, x] > 0:
                            shown = True
                        else:
                            score -= _F(1e4)
                        weights[c] = score
                        best = max(best, score)
                    total = _F(0)
                    for c in range(count):
                        weights[c] = np.exp(weights[c] - best)
                        total += weights[c]
                    red, green, blue = _F(0), _F(0), _F(0)
                    for c in range(count):
                        weight = weights[c] / total
                        of_block[c] += weight
                        red += weight * sampled[c, y, x, 0]
                        green += weight * sampled[c, y, x, 1]
                        blue += weight * sampled[c, y, x, 2]
                    if not shown:
                        red, green, blue = rendered[0, y, x], rendered[1, y, x], rendered[2, y, x]
                    warped[0, y, x], warped[1, y, x], warped[2, y, x] = red, green, blue
                    for k in range(3):
                        base = rendered[k, y, x]
                        blocks[by, bx, k * 16 + place] = base - _F(0.5)
                        blocks[by, bx, (3 + k) * 16 + place] = _F(2) * (picture[k, y, x] - base)
                        blocks[by, bx, (6 + k) * 16 + place] = _F(2) * (warped[k, y, x] - base)
                        blocks[by, bx, (9 + k) * 16 + place] = signals[k, y, x]
                        blocks[by, bx, (12 + k) * 16 + place] = _F(2) * (redrawn[k, y, x] - base)
                        blocks[by, bx, (15 + k) * 16 + place] = redrawn_signals[k, y, x]
            for k in range(judged.shape[3] - 16):
                value = _F(0)
                for c in range(count):
                    value += judged[c, by, bx, 16 + k] * (of_block[c] / _F(16))
                blocks[by, bx, 18 * 16 + 1 + k] = value


@compiled
@no_type_check
def mix_sources(start, stop, fused, rendered, picture, warped, redrawn, frame):
    """The frame, in [0, 1]: four pictures mixed pixel by pixel, and a correction; rows of blocks.

    Args:
        start, stop: rows of blocks.
        fused: (hb, wb, 7 * 16): scores of the four, corrections of three colours.
        rendered, picture, warped, redrawn: (3, H, W).
        frame: (3, H, W), written.
    """
    width = frame.shape[2]
    for by in range(start, stop):
        for bx in range(width // BLOCK):
            for i in range(BLOCK):
                y = by * BLOCK + i
                for j in range(BLOCK):
                    x, place = bx * BLOCK + j, i * BLOCK + j
                    s0, s1 = fused[by, bx, place], fused[by, bx, 16 + place]
                    s2, s3 = fused[by, bx, 32 + place], fused[by, bx, 48 + place]
                    best = max(max(s0, s1), max(s2, s3))
                    e0, e1, e2, e3 = np.exp(s0 - best), np.exp(s1 - best), np.exp(s2 - best), np.exp(s3 - best)
                    share = _F(1) / (e0 + e1 + e2 + e3)
                    for k in range(3):
                        value = share * (
                            e0 * rendered[k, y, x]
                            + e1 * picture[k, y, x]
                            + e2 * warped[k, y, x]
                            + e3 * redrawn[k, y, x]
                        )
                        value += fused[by, bx, (4 + k) * 16 + place] * _F(0.25)
                        frame[k, y, x] = min(max(value, _F(0)), _F(1))


@compiled
@no_type_check
def see_beside(
    start, stop, view, others, exists, A, b, frames, inverse_depth, rendered, signals, same_depth, reach,
    seen, alike, apart, blocks, known,
):
    """`temporal_consistency.seen_beside` of a view, and the blocks that the networks read; rows of blocks.

    Args:
        start, stop: rows of blocks.
        view: which one.
        others, exists: (2,): the views before and after, and whether there are any.
        A, b: homographies to them (2, 3, 3), (2, 3).
        frames: (V, H, W, 4), the last channel unused.
        inverse_depth: (V, H, W).
        rendered, signals: (3, H, W).
        same_depth, reach: see `temporal_consistency`.
        seen: (2, H, W, 3), written.
        alike, apart: (2, H, W), written: likeness of the surfaces, difference of the colours.
        blocks: (2, hb, wb, 4 * 16), written.
        known: (hb, wb, 9 * 16), written.
    """
    height, width = inverse_depth.shape[1], inverse_depth.shape[2]
    colour = np.empty(3, np.float32)
    for by in range(start, stop):
        for i in range(BLOCK):
            y = by * BLOCK + i
            qy = _F(y) + _F(0.5)
            for x in range(width):
                qx, bx, place = _F(x) + _F(0.5), x // BLOCK, i * BLOCK + x % BLOCK
                w = inverse_depth[view, y, x]
                for k in range(3):
                    known[by, bx, k * 16 + place] = frames[view, y, x, k] - _F(0.5)
                    known[by, bx, (3 + k) * 16 + place] = _F(2) * (rendered[k, y, x] - frames[view, y, x, k])
                    known[by, bx, (6 + k) * 16 + place] = signals[k, y, x]
                for n in range(2):
                    other = others[n]
                    at = A[n, 2, 0] * qx + A[n, 2, 1] * qy + A[n, 2, 2] + b[n, 2] * w
                    depth = max(at, _LEAST)
                    gx = _grid((A[n, 0, 0] * qx + A[n, 0, 1] * qy + A[n, 0, 2] + b[n, 0] * w) / depth, _F(width))
                    gy = _grid((A[n, 1, 0] * qx + A[n, 1, 1] * qy + A[n, 1, 2] + b[n, 1] * w) / depth, _F(height))
                    ux, uy = (gx + _F(1)) * _F(0.5) * _F(width), (gy + _F(1)) * _F(0.5) * _F(height)
                    px, py = ux - _F(0.5), uy - _F(0.5)
                    _bicubic(frames[other], px, py, colour)
                    cx = min(max(px, _F(0)), _F(width - 1))
                    cy = min(max(py, _F(0)), _F(height - 1))
                    x0, y0 = int(cx), int(cy)
                    tx, ty = cx - _F(x0), cy - _F(y0)
                    x1, y1 = min(x0 + 1, width - 1), min(y0 + 1, height - 1)
                    there = (_F(1) - ty) * (
                        (_F(1) - tx) * inverse_depth[other, y0, x0] + tx * inverse_depth[other, y0, x1]
                    ) + ty * ((_F(1) - tx) * inverse_depth[other, y1, x0] + tx * inverse_depth[other, y1, x1])
                    similar = _F(0)
                    if exists[n] and abs(gx) < _F(1) and abs(gy) < _F(1) and at > _F(0):
                        mx, my = (b[n, 0] - ux * b[n, 2]) / depth, (b[n, 1] - uy * b[n, 2]) / depth
                        far = same_depth * w * np.sqrt(mx * mx + my * my) / reach
                        off = (w / depth / max(there, _F(1e-9)) - _F(1)) / same_depth
                        similar = np.exp(-off * off - far * far)
                    alike[n, y, x] = similar
                    difference = _F(0)
                    for k in range(3):
                        seen[n, y, x, k] = colour[k]
                        delta = colour[k] - frames[view, y, x, k]
                        difference += abs(delta)
                        blocks[n, by, bx, k * 16 + place] = _F(2) * delta
                    apart[n, y, x] = difference / _F(3)
                    blocks[n, by, bx, 48 + place] = similar


@compiled
@no_type_check
def mix_neighbours(start, stop, own, each, seen, alike, apart, frame, calm, same_colour, mixed):
    """A frame mixed with what its neighbours show of it, in [0, 1]; rows of blocks.

    Args:
        start, stop: rows of blocks.
        own: (hb, wb, 4 * 16): the frame's own score, corrections of three colours.
        each: (2, hb, wb, 16): the neighbours' scores.
        seen, alike, apart: see `see_beside`; `apart` is smoothed.
        frame: (H, W, 4).
        calm, same_colour: see `temporal_consistency`.
        mixed: (3, H, W), written.
    """
    width = mixed.shape[2]
    for by in range(start, stop):
        for i in range(BLOCK):
            y = by * BLOCK + i
            for x in range(width):
                bx, place = x // BLOCK, i * BLOCK + x % BLOCK
                s0 = own[by, bx, place]
                d1, d2 = apart[0, y, x] / same_colour, apart[1, y, x] / same_colour
                # Logarithms of no likeness at all are bounded, as a neighbour's weight must not be a NaN.
                s1 = each[0, by, bx, place] + np.log(max(alike[0, y, x], _F(1e-12))) + calm * np.exp(-d1 * d1)
                s2 = each[1, by, bx, place] + np.log(max(alike[1, y, x], _F(1e-12))) + calm * np.exp(-d2 * d2)
                best = max(s0, max(s1, s2))
                e0, e1, e2 = np.exp(s0 - best), np.exp(s1 - best), np.exp(s2 - best)
                share = _F(1) / (e0 + e1 + e2)
                for k in range(3):
                    value = share * (e0 * frame[y, x, k] + e1 * seen[0, y, x, k] + e2 * seen[1, y, x, k])
                    value += (_F(1) - e0 * share) * own[by, bx, (1 + k) * 16 + place] * _F(0.25)
                    mixed[k, y, x] = min(max(value, _F(0)), _F(1))


@compiled
@no_type_check
def box_means(start, stop, maps, means):
    """Means over 5x5 pixels, fewer at the border; rows of pixels.

    Args:
        start, stop: rows.
        maps: (n, H, W).
        means: likewise, written.
    """
    number, height, width = maps.shape
    column = np.empty(width, np.float32)
    for n in range(number):
        for y in range(start, stop):
            top, bottom = max(y - 2, 0), min(y + 3, height)
            for x in range(width):
                column[x] = _F(0)
            for row in range(top, bottom):
                for x in range(width):
                    column[x] += maps[n, row, x]
            for x in range(width):
                left, right = max(x - 2, 0), min(x + 3, width)
                total = _F(0)
                for k in range(left, right):
                    total += column[k]
                means[n, y, x] = total / _F((bottom - top) * (right - left))
