"""Periodic noise, Voronoi cells and palettes, from which texture patterns are composed.

Spectral noise is white noise filtered by a power law in the Fourier domain,

    z_hat(f) = w_hat(f) max(|f|, f_low)^-slope,

which is periodic by construction: a tile of it repeats without a seam. All images are `T T` (one tile) or
`T T 3` (sRGB), float32 in [0, 1], T = `TILE`.
"""

from __future__ import annotations

import colorsys

import numpy as np
import scipy  # Its parts come with their first use, which a start need not wait for.
from jaxtyping import Float

from sphinx_nvs.procedural.seeds import Number, uniform

TILE = 256
Grey = Float[np.ndarray, "T T"]
Image = Float[np.ndarray, "T T 3"]


def grid() -> tuple[Grey, Grey]:
    """Tile coordinates (across, down) of texel centres in [0, 1)."""
    ticks = (np.arange(TILE, dtype=np.float32) + 0.5) / TILE
    across, down = np.meshgrid(ticks, ticks)
    return across, down


def spectral_noise(
    rng: np.random.Generator, slope: Number = 1.6, low: Number = 1.0, stretch: tuple[Number, Number] = (1.0, 1.0)
) -> Grey:
    """Periodic noise around 0.5 with deviation 0.2; `stretch` > 1 makes features finer (across, down)."""
    down = np.fft.fftfreq(TILE, 1 / TILE)[:, None] / stretch[1]
    across = np.fft.rfftfreq(TILE, 1 / TILE)[None] / stretch[0]
    radius = np.hypot(across, down)
    spectrum = np.fft.rfft2(rng.standard_normal((TILE, TILE))) * np.maximum(radius, low) ** -slope
    spectrum[0, 0] = 0
    z = np.fft.irfft2(spectrum, s=(TILE, TILE))
    return np.clip(0.5 + 0.2 * z / z.std(), 0, 1).astype(np.float32)


def cells(rng: np.random.Generator, count: int) -> tuple[np.ndarray, Grey]:
    """Periodic Voronoi cells: the index of each texel's cell, and the texel's distance from the border (0 there)."""
    across, down = grid()
    tree = scipy.spatial.cKDTree(rng.uniform(0, 1, (count, 2)), boxsize=1.0)
    distance, index = tree.query(np.stack([across, down], -1).reshape(-1, 2), k=2)
    inside = (distance[:, 1] - distance[:, 0]) * np.sqrt(count)
    return index[:, 0].reshape(TILE, TILE), inside.reshape(TILE, TILE).astype(np.float32)


# Ranges of hue and their probabilities: mostly warm, as in rooms and streets, then blue and green.
_HUES = ((0.0, 0.14, 0.55), (0.2, 0.45, 0.17), (0.5, 0.68, 0.2), (0.0, 1.0, 0.08))


def colour(
    rng: np.random.Generator,
    saturation: tuple[Number, Number] = (0.05, 0.6),
    value: tuple[Number, Number] = (0.25, 0.95),
) -> np.ndarray:
    """A random sRGB colour (3,)."""
    low, high, _ = _HUES[int(rng.choice(len(_HUES), p=[share for *_, share in _HUES]))]
    hsv = uniform(rng, low, high), uniform(rng, *saturation), uniform(rng, *value)
    return np.array(colorsys.hsv_to_rgb(*hsv), dtype=np.float32)


def earthy(rng: np.random.Generator) -> np.ndarray:
    """A random warm colour (3,) of clay, sand, timber or stone."""
    hsv = uniform(rng, 0.02, 0.13), uniform(rng, 0.1, 0.65), uniform(rng, 0.25, 0.85)
    return np.array(colorsys.hsv_to_rgb(*hsv), dtype=np.float32)


def ramp(position: Float[np.ndarray, "*shape"], *colours: np.ndarray) -> Float[np.ndarray, "*shape 3"]:
    """Colours evenly spaced along [0, 1], mixed linearly at `position`."""
    stops = np.linspace(0, 1, len(colours))
    channels = [np.interp(position, stops, [c[i] for c in colours]) for i in range(3)]
    return np.stack(channels, -1).astype(np.float32)


def mix(first: np.ndarray, second: np.ndarray, share: Grey) -> Image:
    """`first` where `share` is 0, `second` where it is 1; both are images or single colours."""
    return (first + (second - first) * share[..., None]).astype(np.float32)


def smoothstep(low: Number, high: Number, x: np.ndarray) -> np.ndarray:
    """0 below `low`, 1 above `high`, a smooth cubic between."""
    s = np.clip((x - low) / (high - low), 0, 1)
    return (s * s * (3 - 2 * s)).astype(np.float32)
