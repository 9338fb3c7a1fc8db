"""The reference decoder's work between its convolutions, compiled: warps, weights and mixtures.

Each kernel is one of the decoder's passages in `reference_decoder` or `temporal_consistency`, written as one loop over
pixels without temporaries, for one target view; see `row_bands` for `start` and `stop`. Maps of blocks lie channels
last, as the convolutions on the CPU want them; their channels are those of `pixel_unshuffle`.

Shapes: C photos, H W pixels, hb wb blocks.
"""

from __future__ import annotations

from typing import no_type_check

import numpy as np

from sphinx_nvs.models.embedded.reference_decoder import BLOCK
from sphinx_nvs.models.planesweep.sampling_kernels import F32, LEAST, bicubic, index_of, place_in
from sphinx_nvs.nn.row_bands import compiled


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
    colour = np.empty(4, np.float32)
    for c in range(count):
        for by in range(start, stop):
            for i in range(BLOCK):
                y = by * BLOCK + i
                qy = F32(y) + F32(0.5)
                for x in range(width):
                    qx, w = F32(x) + F32(0.5), inverse_depth[y, x]
                    depth = A[c, 2, 0] * qx + A[c, 2, 1] * qy + A[c, 2, 2] + b[c, 2] * w
                    scale = max(depth, LEAST)
                    gx = place_in((A[c, 0, 0] * qx + A[c, 0, 1] * qy + A[c, 0, 2] + b[c, 0] * w) / scale, F32(columns))
                    gy = place_in((A[c, 1, 0] * qx + A[c, 1, 1] * qy + A[c, 1, 2] + b[c, 1] * w) / scale, F32(rows))
                    px = index_of(gx, F32(columns))
                    py = index_of(gy, F32(rows))
                    bicubic(photos[c], px, py, colour)
                    within = F32(1) if abs(gx) < F32(1) and abs(gy) < F32(1) and depth > F32(0) else F32(0)
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
    start,
    stop,
    judged,
    movement,
    nearness,
    sampled,
    inside,
    rendered,
    picture,
    signals,
    redrawn,
    redrawn_signals,
    warped,
    blocks,
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
                of_block[c] = F32(0)
            for i in range(BLOCK):
                y = by * BLOCK + i
                for j in range(BLOCK):
                    x, place = bx * BLOCK + j, i * BLOCK + j
                    best, shown = F32(-1e30), False
                    for c in range(count):
                        score = judged[c, by, bx, place] - nearness * movement[c, by, bx]
                        if inside[c, y, x] > 0:
                            shown = True
                        else:
                            score -= F32(1e4)
                        weights[c] = score
                        best = max(best, score)
                    total = F32(0)
                    for c in range(count):
                        weights[c] = np.exp(weights[c] - best)
                        total += weights[c]
                    red, green, blue = F32(0), F32(0), F32(0)
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
                        blocks[by, bx, k * 16 + place] = base - F32(0.5)
                        blocks[by, bx, (3 + k) * 16 + place] = F32(2) * (picture[k, y, x] - base)
                        blocks[by, bx, (6 + k) * 16 + place] = F32(2) * (warped[k, y, x] - base)
                        blocks[by, bx, (9 + k) * 16 + place] = signals[k, y, x]
                        blocks[by, bx, (12 + k) * 16 + place] = F32(2) * (redrawn[k, y, x] - base)
                        blocks[by, bx, (15 + k) * 16 + place] = redrawn_signals[k, y, x]
            for k in range(judged.shape[3] - 16):
                value = F32(0)
                for c in range(count):
                    value += judged[c, by, bx, 16 + k] * (of_block[c] / F32(16))
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
                    share = F32(1) / (e0 + e1 + e2 + e3)
                    for k in range(3):
                        value = share * (
                            e0 * rendered[k, y, x]
                            + e1 * picture[k, y, x]
                            + e2 * warped[k, y, x]
                            + e3 * redrawn[k, y, x]
                        )
                        value += fused[by, bx, (4 + k) * 16 + place] * F32(0.25)
                        frame[k, y, x] = min(max(value, F32(0)), F32(1))


@compiled
@no_type_check
def see_beside(
    start,
    stop,
    view,
    others,
    exists,
    A,
    b,
    frames,
    inverse_depth,
    rendered,
    signals,
    same_depth,
    reach,
    seen,
    alike,
    apart,
    blocks,
    known,
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
    colour = np.empty(4, np.float32)
    for by in range(start, stop):
        for i in range(BLOCK):
            y = by * BLOCK + i
            qy = F32(y) + F32(0.5)
            for x in range(width):
                qx, bx, place = F32(x) + F32(0.5), x // BLOCK, i * BLOCK + x % BLOCK
                w = inverse_depth[view, y, x]
                for k in range(3):
                    known[by, bx, k * 16 + place] = frames[view, y, x, k] - F32(0.5)
                    known[by, bx, (3 + k) * 16 + place] = F32(2) * (rendered[k, y, x] - frames[view, y, x, k])
                    known[by, bx, (6 + k) * 16 + place] = signals[k, y, x]
                for n in range(2):
                    other = others[n]
                    at = A[n, 2, 0] * qx + A[n, 2, 1] * qy + A[n, 2, 2] + b[n, 2] * w
                    depth = max(at, LEAST)
                    gx = place_in((A[n, 0, 0] * qx + A[n, 0, 1] * qy + A[n, 0, 2] + b[n, 0] * w) / depth, F32(width))
                    gy = place_in((A[n, 1, 0] * qx + A[n, 1, 1] * qy + A[n, 1, 2] + b[n, 1] * w) / depth, F32(height))
                    ux, uy = (gx + F32(1)) * F32(0.5) * F32(width), (gy + F32(1)) * F32(0.5) * F32(height)
                    px, py = ux - F32(0.5), uy - F32(0.5)
                    bicubic(frames[other], px, py, colour)
                    cx = min(max(px, F32(0)), F32(width - 1))
                    cy = min(max(py, F32(0)), F32(height - 1))
                    x0, y0 = int(cx), int(cy)
                    tx, ty = cx - F32(x0), cy - F32(y0)
                    x1, y1 = min(x0 + 1, width - 1), min(y0 + 1, height - 1)
                    there = (F32(1) - ty) * (
                        (F32(1) - tx) * inverse_depth[other, y0, x0] + tx * inverse_depth[other, y0, x1]
                    ) + ty * ((F32(1) - tx) * inverse_depth[other, y1, x0] + tx * inverse_depth[other, y1, x1])
                    similar = F32(0)
                    if exists[n] and abs(gx) < F32(1) and abs(gy) < F32(1) and at > F32(0):
                        mx, my = (b[n, 0] - ux * b[n, 2]) / depth, (b[n, 1] - uy * b[n, 2]) / depth
                        far = same_depth * w * np.sqrt(mx * mx + my * my) / reach
                        off = (w / depth / max(there, F32(1e-9)) - F32(1)) / same_depth
                        similar = np.exp(-off * off - far * far)
                    alike[n, y, x] = similar
                    difference = F32(0)
                    for k in range(3):
                        seen[n, y, x, k] = colour[k]
                        delta = colour[k] - frames[view, y, x, k]
                        difference += abs(delta)
                        blocks[n, by, bx, k * 16 + place] = F32(2) * delta
                    apart[n, y, x] = difference / F32(3)
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
                s1 = each[0, by, bx, place] + np.log(max(alike[0, y, x], F32(1e-12))) + calm * np.exp(-d1 * d1)
                s2 = each[1, by, bx, place] + np.log(max(alike[1, y, x], F32(1e-12))) + calm * np.exp(-d2 * d2)
                best = max(s0, max(s1, s2))
                e0, e1, e2 = np.exp(s0 - best), np.exp(s1 - best), np.exp(s2 - best)
                share = F32(1) / (e0 + e1 + e2)
                for k in range(3):
                    value = share * (e0 * frame[y, x, k] + e1 * seen[0, y, x, k] + e2 * seen[1, y, x, k])
                    value += (F32(1) - e0 * share) * own[by, bx, (1 + k) * 16 + place] * F32(0.25)
                    mixed[k, y, x] = min(max(value, F32(0)), F32(1))


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
                column[x] = F32(0)
            for row in range(top, bottom):
                for x in range(width):
                    column[x] += maps[n, row, x]
            for x in range(width):
                left, right = max(x - 2, 0), min(x + 3, width)
                total = F32(0)
                for k in range(left, right):
                    total += column[k]
                means[n, y, x] = total / F32((bottom - top) * (right - left))
