"""The texture library: mip-mapped tiles by role and variant, disjoint by split.

A tile is `T T 4` bytes (sRGB and one unused byte, so that a texel is one 32-bit word) followed by its mip
pyramid, each level the 2x2 mean of the previous one. Photographic tiles are cut from images in scikit-image's
wheel (nothing is downloaded); each photo belongs to one split only.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, lru_cache

import numpy as np
import skimage.data
from jaxtyping import Float, Int32
from PIL import Image as PillowImage

from sphinx_nvs.procedural import patterns
from sphinx_nvs.procedural.noise import TILE, Image, colour, ramp, spectral_noise
from sphinx_nvs.procedural.seeds import Number, generator, uniform

VARIANTS = {"grain": 8, "sky": 24, "books": 16, "foliage": 16}
MOST_VARIANTS = 64
"""Number of tiles of a role: `VARIANTS`, else `MOST_VARIANTS`."""
LEVELS = TILE.bit_length()
MIP_OFFSETS = tuple(sum((TILE >> k) ** 2 for k in range(level)) for level in range(LEVELS))
MIP_TEXELS = sum((TILE >> k) ** 2 for k in range(LEVELS))

# The motorcycle pair is excluded: it is a capture used for evaluation.
PICTURES = {
    "train": (
        "astronaut",
        "coffee",
        "rocket",
        "hubble_deep_field",
        "immunohistochemistry",
        "camera",
        "moon",
        "page",
    ),
    "val": ("colorwheel", "clock", "text"),
    "test": ("chelsea", "retina", "coins"),
}
SURFACES = {"train": ("brick", "grass"), "val": ("cell",), "test": ("gravel",)}

Maker = Callable[[np.random.Generator], Image]
ROLES: dict[str, tuple[Maker, ...]] = {
    "floor": (patterns.planks, patterns.planks, patterns.tiles, patterns.terrazzo, patterns.marble, patterns.fabric,
              patterns.concrete),
    "wall": (patterns.plaster, patterns.bricks, patterns.wallpaper, patterns.stripes, patterns.concrete,
             patterns.planks, patterns.tiles, patterns.patches),
    "ceiling": (patterns.plaster, patterns.planks, patterns.concrete),
    "ground": (patterns.terrazzo, patterns.concrete, patterns.tiles, patterns.bricks, patterns.foliage),
    "facade": (patterns.facade, patterns.facade, patterns.facade, patterns.bricks),
    "object": (patterns.wood, patterns.marble, patterns.fabric, patterns.metal, patterns.patches, patterns.stripes,
               patterns.terrazzo, patterns.tiles, patterns.plaster, patterns.planks, patterns.poster,
               patterns.wallpaper),
    "wood": (patterns.wood, patterns.wood, patterns.planks, patterns.metal),
    "cloth": (patterns.fabric, patterns.stripes, patterns.wallpaper, patterns.patches),
    "picture": (patterns.poster, patterns.page),
    "books": (patterns.books,),
    "foliage": (patterns.foliage,),
    "sky": (patterns.clouds,),
    "grain": (lambda rng: np.repeat(spectral_noise(rng, uniform(rng, 0.7, 1.4))[..., None], 3, -1),),
}  # fmt: skip
PHOTO_SHARE = {"floor": 0.15, "wall": 0.2, "ground": 0.35, "object": 0.3, "picture": 0.6}


@lru_cache(maxsize=1024)
def tile(split: str, role: str, variant: int) -> Int32[np.ndarray, "texels"]:
    """The mip pyramid of one tile, finest level first, `MIP_TEXELS` packed texels."""
    rng = generator(split, f"texture {role}", variant)
    if rng.uniform() < PHOTO_SHARE.get(role, 0.0):
        image = _picture(rng, split) if role == "picture" else _surface(rng, split)
    else:
        makers = ROLES[role]
        image = makers[variant % len(makers)](rng)
    return _packed(image)


@cache
def catalogue() -> dict[tuple[str, int], int]:
    """Index of each tile (role, variant) in `all_tiles`."""
    keys = [(role, variant) for role in ROLES for variant in range(VARIANTS.get(role, MOST_VARIANTS))]
    return {key: index for index, key in enumerate(keys)}


def all_tiles(split: str) -> Int32[np.ndarray, "M texels"]:
    """Every tile of a split, to render worlds that were made without textures: about 230 MB, loaded in ten seconds."""
    return np.stack([tile(split, role, variant) for role, variant in catalogue()])


def _packed(image: Image) -> Int32[np.ndarray, "texels"]:
    """Mip levels as 32-bit texels (R, G, B, 255 in memory order)."""
    levels = []
    while True:
        bytes_ = np.full((*image.shape[:2], 4), 255, np.uint8)
        bytes_[..., :3] = np.round(image * 255)
        levels.append(bytes_.view(np.int32).ravel())
        if len(image) == 1:
            return np.concatenate(levels)
        half = len(image) // 2
        image = image.reshape(half, 2, half, 2, 3).mean((1, 3))


@cache
def _photo(name: str) -> Float[np.ndarray, "h w 3"]:
    """A bundled photo as sRGB in [0, 1], at its own size."""
    data = np.asarray(getattr(skimage.data, name)())
    if data.ndim == 2:
        data = np.repeat(data[..., None], 3, -1)
    return data[..., :3].astype(np.float32) / 255


def _crop(rng: np.random.Generator, photo: np.ndarray, share: tuple[Number, Number]) -> Image:
    """A random square window, `share` of the shorter side, resized to one tile."""
    side = round(min(photo.shape[:2]) * uniform(rng, *share))
    top, left = (int(rng.integers(0, length - side + 1)) for length in photo.shape[:2])
    window = np.round(photo[top : top + side, left : left + side] * 255).astype(np.uint8)
    resized = PillowImage.fromarray(window).resize((TILE, TILE), PillowImage.Resampling.LANCZOS)
    return np.asarray(resized, np.float32) / 255


def _picture(rng: np.random.Generator, split: str) -> Image:
    """A window of a photo, shown once per face."""
    names = PICTURES[split]
    image = _crop(rng, _photo(names[int(rng.integers(len(names)))]), (0.4, 1.0))
    return image[:, ::-1].copy() if rng.uniform() < 0.5 else image


def _surface(rng: np.random.Generator, split: str) -> Image:
    """A seamless tile cut from a photo, mostly of a surface; grey ones are recoloured."""
    names = SURFACES[split] if rng.uniform() < 0.7 else PICTURES[split]
    image = _crop(rng, _photo(names[int(rng.integers(len(names)))]), (0.5, 1.0))
    if np.ptp(image, -1).max() < 0.02:
        image = ramp(image[..., 0], colour(rng, (0.1, 0.5), (0.02, 0.2)), colour(rng, (0.03, 0.35), (0.7, 1.0)))
    return _seamless(image)


def _seamless(image: Image) -> Image:
    """Cross-fades the borders with the image shifted by half, keeping contrast; the result repeats."""
    for axis in (0, 1):
        ticks = (np.arange(TILE) + 0.5) / TILE
        weight = np.clip((np.minimum(ticks, 1 - ticks)) / 0.15, 0, 1).astype(np.float32)
        weight = weight.reshape((TILE, 1, 1) if axis == 0 else (1, TILE, 1))
        mean = image.mean((0, 1))
        shifted = np.roll(image, TILE // 2, axis) - mean
        # A plain cross-fade of independent patterns would lose contrast; the norm of the weights restores it.
        image = mean + ((image - mean) * weight + shifted * (1 - weight)) / np.hypot(weight, 1 - weight)
    return np.clip(image, 0, 1).astype(np.float32)
