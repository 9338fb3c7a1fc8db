"""Picture sizes as people write them: WIDTHxHEIGHT."""

from __future__ import annotations

import re

from sphinx_nvs.errors import InputError


def height_width_from(size: str) -> tuple[int, int]:
    """Height and width in pixels from `WxH`.

    Raises:
        InputError: it is not two whole numbers above 0 with an x between.
    """
    match = re.fullmatch(r"(\d+)[xX×](\d+)", size.strip())
    if not match or 0 in (int(match[1]), int(match[2])):
        raise InputError("--size", f"'{size}'", "give width x height in pixels, e.g. 384x256")
    return int(match[2]), int(match[1])
