"""Image sizes as users write them: WIDTHxHEIGHT, or one number for the short side."""

from __future__ import annotations

import re

from sphinx_nvs.errors import InputError
from sphinx_nvs.evaluation.datasets import Size

MOST_FRAME_PIXELS = 7680 * 4320
"""Larger frames are typing mistakes that no memory holds."""


LEAST_SIDE, LONGEST_SIDE = 32, 16_384
"""Pixels that a side of a rendered frame has, as on a server."""


def frame_size_from(size: str) -> tuple[int, int]:
    """Height and width in pixels of frames to render, from `WxH`.

    Raises:
        InputError: see `height_width_from`; or a side is below `LEAST_SIDE` or above `LONGEST_SIDE`.
    """
    height, width = height_width_from(size)
    if not LEAST_SIDE <= min(height, width) <= max(height, width) <= LONGEST_SIDE:
        raise InputError("--size", f"it is {width}x{height}", f"give {LEAST_SIDE} to {LONGEST_SIDE} pixels a side")
    return height, width


def height_width_from(size: str) -> tuple[int, int]:
    """Height and width in pixels from `WxH`.

    Raises:
        InputError: it is not two positive integers with an x between them, or more than `MOST_FRAME_PIXELS`.
    """
    match = re.fullmatch(r"(\d+)[xX×](\d+)", size.strip())
    if not match or 0 in (int(match[1]), int(match[2])):
        raise InputError("--size", f"'{size}'", "give width x height in pixels, e.g. 384x256")
    height, width = int(match[2]), int(match[1])
    if height * width > MOST_FRAME_PIXELS:
        raise InputError(
            "--size", f"{size.strip()[:40]} is {float(height * width):.3g} pixels", "give at most 7680x4320"
        )
    return height, width


def size_from(text: str | None, usual_side: int, views: int, multiple: int) -> Size:
    """The size of evaluated frames: a short side, or a width and height that the denoiser accepts.

    Args:
        text: the user's option; None uses `usual_side`.
        usual_side: short side in pixels.
        views: maximum number of held-out views per scene.
        multiple: sides must be multiples of this.

    Raises:
        InputError: it is not a size.
    """
    if text is None or re.fullmatch(r"\d+", text.strip()):
        side = usual_side if text is None else int(text)
        if side < 1:
            raise InputError("--size", f"'{text}'", "give the short side in pixels, or width x height as 384x256")
        return Size(short_side=side, multiple=multiple, most_views=views)
    exact = height_width_from(text)
    return Size(short_side=min(exact), exact=exact, multiple=multiple, most_views=views)
