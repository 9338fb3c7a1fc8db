"""Text drawn across frames that must not be mistaken for results.

A dark band over the middle of the frame, so that no crop is without it, with the words as large as fit: on one line, or
a line each.

Shapes: V frames, H W pixels.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from sphinx_nvs.errors import SphinxError
from sphinx_nvs.media import float_from_uint8

_BAND_OPACITY = 0.75
# Font sizes in pixels: the first is the smallest used; below the second, each word gets its own line.
_LEAST_FONT, _LEAST_ONE_LINE = 6, 18


def watermarked(frames: Float[Tensor, "V 3 H W"], text: str) -> Float[Tensor, "V 3 H W"]:
    """Draws `text` across the middle of frames in [0, 1]."""
    ink, band = (layer.to(frames) for layer in _layers(text, *frames.shape[-2:]))
    darkened = frames * (1 - _BAND_OPACITY * band)
    return darkened * (1 - ink) + ink


@cache
def _layers(text: str, height: int, width: int) -> tuple[Float[Tensor, "H W"], Float[Tensor, "H W"]]:
    """Opacity of ink and of the band behind it at each pixel, [0, 1]."""
    lines, font = _fitted(text, height, width)
    picture, band = Image.new("L", (width, height)), torch.zeros(height, width)
    draw = ImageDraw.Draw(picture)
    draw.multiline_text((width / 2, height / 2), lines, 255, font, anchor="mm", align="center", spacing=2)
    _, top, _, bottom = draw.multiline_textbbox((width / 2, height / 2), lines, font, anchor="mm", spacing=2)
    margin = max(2, font.size / 4)
    band[max(0, int(top - margin)) : max(1, int(bottom + margin) + 1)] = 1
    ink = float_from_uint8(torch.from_numpy(np.array(picture)))
    return ink, band


def _fitted(text: str, height: int, width: int) -> tuple[str, ImageFont.FreeTypeFont]:
    """Splits the text into lines; returns them and the largest font with which they fit the frame."""
    one_line = _largest_font(text, height, width)
    if one_line.size >= _LEAST_ONE_LINE:
        return text, one_line
    stacked = text.replace(" ", "\n")
    return stacked, _largest_font(stacked, height, width)


def _largest_font(text: str, height: int, width: int) -> ImageFont.FreeTypeFont:
    draw = ImageDraw.Draw(Image.new("L", (1, 1)))
    for size in range(max(_LEAST_FONT, height // 4), _LEAST_FONT, -1):
        font = _font(size)
        left, top, right, bottom = draw.multiline_textbbox((0, 0), text, font, spacing=2)
        if right - left <= 0.94 * width and bottom - top <= 0.6 * height:
            return font
    return _font(_LEAST_FONT)


def _font(size: int) -> ImageFont.FreeTypeFont:
    font = ImageFont.load_default(size)
    if isinstance(font, ImageFont.FreeTypeFont):
        return font
    raise SphinxError("Pillow cannot draw text of any size (it was built without FreeType); install its ordinary wheel")
