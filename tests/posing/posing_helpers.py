"""Photos of a painted box from any place: what posing can and cannot do is tried on them."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.ndimage import map_coordinates, zoom

SIZE = (240, 320)
FOCAL = 260.0


def paint(seed: int, side: int = 512) -> np.ndarray:
    """A picture with blobs of every size, in [0, 255]."""
    rng = np.random.default_rng(seed)
    layers = [zoom(rng.random((n, n, 3)), (side / n, side / n, 1), order=1) for n in (8, 32, 128)]
    return 255 * sum(layers) / len(layers)


def view(walls: list[tuple[np.ndarray, float]], centre: np.ndarray, yaw: float) -> np.ndarray:
    """A photo of walls that face the camera at several depths, nearer ones smaller, from a place and direction.

    Args:
        walls: pictures with their z, farthest first; each is as wide as it is far, but the first is five times that.
        centre: of the camera; it sees along z once `yaw` is 0.
        yaw: radians to the right.
    """
    height, width = SIZE
    v, u = np.mgrid[:height, :width] + 0.5
    rays = np.stack([(u - width / 2) / FOCAL, (v - height / 2) / FOCAL, np.ones_like(u)], axis=-1)
    c, s = np.cos(yaw), np.sin(yaw)
    rays = rays @ np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]]).T
    image = np.zeros((height, width, 3))
    for number, (picture, z) in enumerate(walls):
        reach = (5.0 if number == 0 else 0.25) * z
        hit = centre + rays * ((z - centre[2]) / rays[..., 2:])
        offset = 0.0 if number == 0 else (number - 2) * 0.35 * z
        at = [(hit[..., i] - o) / reach + 0.5 for i, o in ((1, 0.0), (0, offset))]
        inside = (rays[..., 2] > 0) & (at[0] > 0) & (at[0] < 1) & (at[1] > 0) & (at[1] < 1)
        pixels = [np.clip(part * picture.shape[0] - 0.5, 0, picture.shape[0] - 1) for part in at]
        for channel in range(3):
            seen = map_coordinates(picture[..., channel], pixels, order=1)
            image[..., channel] = np.where(inside, seen, image[..., channel])
    return image


@lru_cache(maxsize=1)
def box() -> list[tuple[np.ndarray, float]]:
    """A far wall and three boards before it."""
    return [(paint(0, 1024), 8.0), (paint(1), 6.0), (paint(2), 5.0), (paint(3), 4.0)]


def save(folder: Path, images: list[np.ndarray]) -> list[Path]:
    """Writes photos as files."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"IMG_{i}.png" for i in range(len(images))]
    for path, image in zip(paths, images, strict=True):
        Image.fromarray(image.clip(0, 255).round().astype(np.uint8)).save(path)
    return paths


def walked(count: int, step: float = 0.4) -> list[np.ndarray]:
    """Photos from a walk to the right, turned a little towards the middle."""
    middle = (count - 1) / 2
    return [
        view(box(), np.array([(i - middle) * step, 0.05 * (i % 2), 0.1 * i]), -(i - middle) * step / 5.5)
        for i in range(count)
    ]
