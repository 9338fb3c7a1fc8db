"""Texture patterns: each maker turns a random generator into one seamless sRGB tile.

A maker composes noise, cells, grids and palettes (see `noise`) and returns `T T 3` float32 in [0, 1]. Tiles
of whole objects (a facade, a row of books) repeat too.
"""

from __future__ import annotations

import numpy as np

from sphinx_nvs.procedural.noise import (
    TILE,
    Grey,
    Image,
    cells,
    colour,
    earthy,
    grid,
    mix,
    ramp,
    smoothstep,
    spectral_noise,
)
from sphinx_nvs.procedural.seeds import uniform


def plaster(rng: np.random.Generator) -> Image:
    """Painted plaster: one colour, slow stains and fine grain."""
    base = colour(rng, (0.03, 0.45), (0.55, 0.95))
    stains, grain = spectral_noise(rng, 1.8), spectral_noise(rng, 0.5)
    tone = 1 + uniform(rng, 0.1, 0.5) * (stains - 0.5) + uniform(rng, 0.05, 0.25) * (grain - 0.5)
    return np.clip(base * tone[..., None], 0, 1).astype(np.float32)


def concrete(rng: np.random.Generator) -> Image:
    """Grey concrete with pores and weathering."""
    tone = 0.6 * spectral_noise(rng, 1.4) + 0.4 * spectral_noise(rng, 0.3)
    pores = smoothstep(0.78, 0.9, spectral_noise(rng, 0.9, 12))
    base = ramp(tone, colour(rng, (0, 0.15), (0.2, 0.4)), colour(rng, (0, 0.12), (0.65, 0.9)))
    return mix(base, base * 0.5, pores)


def marble(rng: np.random.Generator) -> Image:
    """Veined stone: a sine folded by turbulence."""
    across, down = grid()
    waves = int(rng.integers(1, 4)) * across + int(rng.integers(0, 4)) * down
    veins = np.abs(np.sin(np.pi * (2 * waves + uniform(rng, 1.5, 4) * spectral_noise(rng, 2.1))))
    light, dark = colour(rng, (0, 0.25), (0.75, 0.95)), colour(rng, (0, 0.5), (0.1, 0.5))
    return ramp(veins ** uniform(rng, 0.3, 0.8), dark, light, light * 0.95)


def planks(rng: np.random.Generator) -> Image:
    """Timber boards of random tone with grain along them."""
    across, down = grid()
    rows = int(rng.integers(3, 8))
    row = np.floor(down * rows).astype(int)
    shift = rng.uniform(0, 1, rows)[row]
    board = 2 * row + np.floor((across + shift) % 1 * 2).astype(int)
    tone = rng.uniform(-0.25, 0.25, 2 * rows)[board]
    grain = spectral_noise(rng, 1.2, 2, (1.0, 12.0))
    image = ramp(np.clip(0.15 + 0.7 * grain + tone, 0, 1), earthy(rng) * 0.5, earthy(rng))
    gap = np.minimum(_edge(down * rows) / rows, _edge((across + shift) * 2) / 2)
    return mix(image * 0.35, image, smoothstep(0.001, 0.007, gap))


def wood(rng: np.random.Generator) -> Image:
    """One piece of wood: growth rings distorted by noise."""
    down = grid()[1]
    rings = int(rng.integers(3, 9)) * down + uniform(rng, 0.5, 2.5) * spectral_noise(rng, 2.0, 1, (1.0, 2.0))
    saw = rings % 1
    position = 0.7 * np.where(saw < 0.8, saw / 0.8, (1 - saw) / 0.2) + 0.3 * spectral_noise(rng, 1.0, 2, (1.0, 10.0))
    base = earthy(rng)
    return ramp(position, np.clip(base * 1.25, 0, 1), base, base * 0.55)


def bricks(rng: np.random.Generator) -> Image:
    """Bricks in running bond, each of its own tone, with mortar."""
    rows, columns = 2 * int(rng.integers(3, 7)), int(rng.integers(3, 6))
    across, down = grid()
    row = np.floor(down * rows).astype(int)
    along = across * columns + 0.5 * (row % 2)
    column = np.floor(along).astype(int) % columns
    tone = rng.uniform(0, 1, (rows, columns))[row, column]
    face = ramp(
        np.clip(tone * 0.6 + 0.5 * spectral_noise(rng, 0.8), 0, 1),
        earthy(rng) * 0.7,
        earthy(rng),
        colour(rng),
    )
    mortar = colour(rng, (0, 0.1), (0.4, 0.85)) * (0.7 + 0.5 * spectral_noise(rng, 0.4))[..., None]
    edge = np.minimum(_edge(down * rows) / rows, _edge(along) / columns) + 0.006 * (spectral_noise(rng, 0.8) - 0.5)
    return mix(mortar, face, smoothstep(0.006, 0.012, edge))


def tiles(rng: np.random.Generator) -> Image:
    """Square tiles in two or three colours, with grout."""
    count = int(rng.choice([2, 4, 6, 8]))
    across, down = grid()
    row, column = np.floor(down * count).astype(int), np.floor(across * count).astype(int)
    palette = np.stack([colour(rng, (0, 0.6), (0.2, 0.95)) for _ in range(3)])
    checks, random = (row + column) % 2, rng.integers(0, 3, (count, count))[row, column]
    image = palette[checks if rng.uniform() < 0.6 else random]
    tone = rng.uniform(0.85, 1.1, (count, count))[row, column] + 0.3 * (spectral_noise(rng, 1.4) - 0.5)
    grout = colour(rng, (0, 0.1), (0.2, 0.8))
    edge = np.minimum(_edge(down * count), _edge(across * count)) / count
    return mix(grout, np.clip(image * tone[..., None], 0, 1), smoothstep(0.004, 0.01, edge))


def stripes(rng: np.random.Generator) -> Image:
    """Stripes of random widths, slightly wavy."""
    across, down = grid()
    position = (across + 0.03 * spectral_noise(rng, 2.2) + int(rng.integers(0, 2)) * down) % 1
    borders = np.sort(rng.uniform(0, 1, int(rng.integers(4, 14))))
    palette = np.stack([colour(rng) for _ in range(4)])
    band = np.searchsorted(borders, position) % len(borders) % 4
    return np.clip(palette[band] * (0.9 + 0.2 * spectral_noise(rng, 0.6))[..., None], 0, 1).astype(np.float32)


def wallpaper(rng: np.random.Generator) -> Image:
    """A repeated motif (a flower of petals and rings) on a plain ground."""
    across, down = grid()
    count = int(rng.integers(3, 7))
    x, y = (
        (across * count + 0.5 * (np.floor(down * count) % 2) * (count % 2 == 0)) % 1 - 0.5,
        down * count % 1 - 0.5,
    )
    angle, radius = np.arctan2(y, x), np.hypot(x, y)
    petals = 0.28 + uniform(rng, 0.03, 0.12) * np.cos(int(rng.integers(3, 9)) * angle)
    ground, flower, heart = (colour(rng, (0.05, 0.6), (0.35, 0.95)) for _ in range(3))
    image = mix(
        mix(flower, ground, smoothstep(-0.02, 0.02, radius - petals)),
        heart,
        1 - smoothstep(0.08, 0.12, radius),
    )
    return np.clip(image * (0.9 + 0.2 * spectral_noise(rng, 1.0))[..., None], 0, 1).astype(np.float32)


def terrazzo(rng: np.random.Generator) -> Image:
    """Chips or cobbles: Voronoi cells of random colours with dark or pale joints."""
    index, inside = cells(rng, int(rng.integers(30, 250)))
    count = int(index.max()) + 1
    chips = ramp(rng.uniform(0, 1, count), colour(rng), earthy(rng), colour(rng, (0, 0.2)))
    tone = (0.75 + 0.5 * spectral_noise(rng, 1.0))[..., None]
    joint = colour(rng, (0, 0.2), (0.1, 0.8))
    return np.clip(mix(joint, chips[index] * tone, smoothstep(0.05, 0.2, inside)), 0, 1)


def fabric(rng: np.random.Generator) -> Image:
    """Woven cloth, plaid or plain."""
    across, down = grid()
    first, second, third = (colour(rng, (0.15, 0.8), (0.2, 0.9)) for _ in range(3))
    bands = np.stack([_bands(rng, across), _bands(rng, down)]).mean(0)
    threads = int(rng.integers(24, 48))
    weave = 0.85 + 0.15 * np.sin(2 * np.pi * threads * across) * np.sin(2 * np.pi * threads * down)
    shade = weave * (0.85 + 0.3 * spectral_noise(rng, 0.7))
    return np.clip(ramp(bands, first, second, third) * shade[..., None], 0, 1).astype(np.float32)


def patches(rng: np.random.Generator) -> Image:
    """Blotches of a few colours: camouflage, lichen, peeling paint."""
    steps = int(rng.integers(3, 6))
    noise = spectral_noise(rng, uniform(rng, 1.2, 1.9))
    palette = np.stack([colour(rng, (0.1, 0.6)) for _ in range(steps)])
    band = np.clip(np.floor((noise - 0.2) / 0.6 * steps), 0, steps - 1).astype(int)
    return np.clip(palette[band] * (0.8 + 0.4 * spectral_noise(rng, 0.7))[..., None], 0, 1).astype(np.float32)


def metal(rng: np.random.Generator) -> Image:
    """Brushed metal, with rust on some."""
    brushed = 0.4 + 0.6 * spectral_noise(rng, 0.7, 1, (1.0, 16.0))
    image = colour(rng, (0, 0.25), (0.5, 0.9)) * brushed[..., None]
    rust = smoothstep(uniform(rng, 0.5, 0.9), 1.0, spectral_noise(rng, 1.5)) * (0.5 + spectral_noise(rng, 0.5))
    return np.clip(mix(image, np.array([0.45, 0.22, 0.1], np.float32), rust), 0, 1)


def foliage(rng: np.random.Generator) -> Image:
    """Leaves and grass: overlapping cells in greens."""
    image = np.full((TILE, TILE, 3), 0.08, np.float32)
    for layer in range(2):
        index, inside = cells(rng, 150 + 150 * layer)
        count = int(index.max()) + 1
        tint = np.stack(
            [rng.uniform(0.15, 0.6, count), rng.uniform(0.35, 0.75, count), rng.uniform(0.05, 0.3, count)], -1
        )
        shown = rng.uniform(0, 1, count)[index] > 0.35
        leaf = tint[index].astype(np.float32) * (0.6 + 0.4 * layer) * (0.6 + inside)[..., None]
        image = np.where((shown & (inside > 0.08))[..., None], leaf, image)
    return np.clip(image, 0, 1).astype(np.float32)


def facade(rng: np.random.Generator) -> Image:
    """A house front: rows of windows on a wall."""
    wall = (bricks, plaster, concrete, plaster)[int(rng.integers(4))](rng)
    rows, columns = int(rng.integers(2, 4)), int(rng.integers(2, 5))
    across, down = grid()
    x, y = across * columns % 1, down * rows % 1
    half_width, half_height = uniform(rng, 0.18, 0.35), uniform(rng, 0.25, 0.38)
    frame_distance = np.maximum(np.abs(x - 0.5) - half_width, np.abs(y - 0.5) - half_height)
    cell = np.floor(down * rows).astype(int), np.floor(across * columns).astype(int)
    glass = colour(rng, (0.1, 0.4), (0.15, 0.5)) * rng.uniform(0.5, 1.6, (rows, columns))[cell][..., None]
    glass = glass * (1.3 - 0.6 * y)[..., None]
    bars = np.minimum(np.abs(x - 0.5), np.abs(y - 0.5 + uniform(rng, 0, 0.15)))
    frame = colour(rng, (0, 0.4), (0.3, 0.95))
    window = mix(frame, glass, smoothstep(0.012, 0.025, bars))
    front = mix(frame, wall, smoothstep(0.035, 0.05, frame_distance))
    return np.clip(mix(window, front, smoothstep(-0.012, 0.0, frame_distance)), 0, 1)


def books(rng: np.random.Generator) -> Image:
    """Spines of books on a shelf, with title bands."""
    borders = np.cumsum(rng.uniform(0.02, 0.07, 60))
    borders = np.concatenate([borders[borders < 0.97], [1.0]])
    across, down = grid()
    book = np.searchsorted(borders, across)
    count = len(borders)
    spine = np.stack([colour(rng, (0.1, 0.85), (0.15, 0.9)) for _ in range(count)])
    title = np.stack([colour(rng, (0, 0.5), (0.6, 1.0)) for _ in range(count)])
    low = rng.uniform(0.1, 0.7, count)
    band = (down > low[book]) & (down < (low + rng.uniform(0.05, 0.25, count))[book])
    image = np.where(band[..., None], title[book], spine[book])
    left = np.concatenate([[0.0], borders[:-1]])[book]
    round_shade = smoothstep(0.0, 0.012, np.minimum(across - left, borders[book] - across)) * 0.7 + 0.3
    above = down < rng.uniform(0.0, 0.12, count)[book]
    shade = np.where(above, 0.15, round_shade) * (0.85 + 0.3 * spectral_noise(rng, 0.8))
    return np.clip(image * shade[..., None], 0, 1).astype(np.float32)


def poster(rng: np.random.Generator) -> Image:
    """A picture of random discs, bars and polygons over a gradient."""
    across, down = grid()
    image = mix(colour(rng), colour(rng), (across if rng.uniform() < 0.5 else down))
    for _ in range(int(rng.integers(5, 16))):
        image = mix(image, colour(rng, (0.2, 0.95), (0.1, 1.0)), _shape(rng, across, down))
    return np.clip(image * (0.9 + 0.2 * spectral_noise(rng, 0.8))[..., None], 0, 1).astype(np.float32)


def page(rng: np.random.Generator) -> Image:
    """A printed page: lines of word-like blocks and a framed picture."""
    across, down = grid()
    lines = int(rng.integers(12, 26))
    words = rng.uniform(0, 1, (lines, 40)) > 0.25
    row, slot = np.floor(down * lines).astype(int), np.floor(across * 40).astype(int)
    ink = words[row, slot] & (down * lines % 1 > 0.35) & (np.abs(across - 0.5) < 0.43)
    sheet = mix(colour(rng, (0, 0.15), (0.85, 1.0)), colour(rng, (0, 0.6), (0.05, 0.25)), ink.astype(np.float32))
    x0, y0 = uniform(rng, 0.08, 0.4), uniform(rng, 0.08, 0.5)
    picture = (across > x0) & (across < x0 + 0.45) & (down > y0) & (down < y0 + 0.35)
    return np.where(picture[..., None], poster(rng), sheet)


def clouds(rng: np.random.Generator) -> Image:
    """Sky: blue with clouds."""
    cover = smoothstep(uniform(rng, 0.35, 0.65), uniform(rng, 0.7, 1.0), spectral_noise(rng, 1.6))
    blue = np.array([uniform(rng, 0.3, 0.55), uniform(rng, 0.5, 0.7), uniform(rng, 0.8, 0.95)], np.float32)
    return mix(blue, np.array([0.95, 0.95, 0.96], np.float32) * uniform(rng, 0.8, 1.0), cover)


def _edge(position: np.ndarray) -> np.ndarray:
    """Distance to the nearest whole number."""
    return np.abs(position - np.round(position))


def _bands(rng: np.random.Generator, position: np.ndarray) -> np.ndarray:
    """A smooth periodic profile of a few sines, in [0, 1]."""
    waves = [np.sin(2 * np.pi * (k * position + uniform(rng, 0, 1))) for k in (1, 2, 4, int(rng.integers(3, 12)))]
    return smoothstep(-0.8, 0.8, np.mean(waves, 0))


def _shape(rng: np.random.Generator, across: Grey, down: Grey) -> Grey:
    """The coverage of one random disc, ring, rotated box or half-plane, in [0, 1]."""
    x, y = across - uniform(rng, 0, 1), down - uniform(rng, 0, 1)
    angle, size = uniform(rng, 0, np.pi), uniform(rng, 0.05, 0.35)
    u, v = np.cos(angle) * x + np.sin(angle) * y, np.cos(angle) * y - np.sin(angle) * x
    distances = (
        np.hypot(x, y) - size,
        np.abs(np.hypot(x, y) - size) - 0.15 * size,
        np.maximum(np.abs(u) - size, np.abs(v) - size * uniform(rng, 0.1, 1.0)),
        np.maximum(np.abs(u) + np.abs(v) - size, -v - 0.3 * size),
    )
    return 1 - smoothstep(-0.004, 0.004, distances[int(rng.integers(len(distances)))])
