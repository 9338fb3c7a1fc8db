"""A contact sheet: one row per view, one column per method.

Shapes: H W pixels of an image, P Q pixels of the sheet.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from sphinx_nvs.media import float_from_uint8, uint8_from_float

_GAP, _TITLE = 4, 22
_INK, _PAPER = (20, 20, 20), (255, 255, 255)


def contact_sheet(
    rows: Sequence[Sequence[Float[Tensor, "3 _ _"]]], titles: Sequence[Sequence[str]]
) -> Float[Tensor, "3 P Q"]:
    """A sheet of images, each under its title.

    Args:
        rows: images in [0, 1]; all of a row have the same height, all of a column the same width.
        titles: one per image, in the same rows.
    """
    columns = [picture.shape[-1] for picture in rows[0]]
    heights = [row[0].shape[-2] for row in rows]
    size = (sum(columns) + _GAP * (len(columns) - 1), sum(heights) + _TITLE * len(rows))
    sheet = Image.new("RGB", size, _PAPER)
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(13)
    top = 0
    for row, words in zip(rows, titles, strict=True):
        left = 0
        for picture, title in zip(row, words, strict=True):
            draw.text((left + 2, top + _TITLE / 2), title, _INK, font, anchor="lm")
            pixels = uint8_from_float(picture).permute(1, 2, 0).contiguous().cpu().numpy()
            sheet.paste(Image.fromarray(pixels), (left, top + _TITLE))
            left += picture.shape[-1] + _GAP
        top += row[0].shape[-2] + _TITLE
    return float_from_uint8(torch.from_numpy(np.array(sheet)).permute(2, 0, 1))
