"""Images for a report, encoded as text for embedding in one HTML page.

Shapes: H W pixels.
"""

from __future__ import annotations

import base64
import io

import numpy as np
from jaxtyping import Float, Int
from PIL import Image
from torch import Tensor

from sphinx_nvs.media import resize, uint8_from_float
from sphinx_nvs.visualization.heatmap import tinted

LONG_SIDE = 384
"""Larger images are scaled down to this many pixels."""

_QUALITY = 88


def jpeg_text(image: Float[Tensor, "3 H W"]) -> str:
    """An image as the base64 text of a JPEG file."""
    pixels = uint8_from_float(_shrunk(image)).permute(1, 2, 0).contiguous().cpu().numpy()
    return _encoded(pixels)


def plan_text(image: Float[Tensor, "3 H W"], start_step: Int[Tensor, "h w"], num_steps: int) -> str:
    """A plan's heat map over its frame, as the base64 text of a JPEG file."""
    return _encoded(tinted(image.cpu(), start_step, num_steps))


def _shrunk(image: Float[Tensor, "3 H W"]) -> Float[Tensor, "3 _ _"]:
    share = LONG_SIDE / max(image.shape[-2:])
    if share >= 1:
        return image
    height, width = (max(1, round(side * share)) for side in image.shape[-2:])
    return resize(image[None].cpu().float(), height, width)[0]


def _encoded(pixels: np.ndarray) -> str:
    data = io.BytesIO()
    Image.fromarray(pixels).save(data, "JPEG", quality=_QUALITY)
    return base64.b64encode(data.getvalue()).decode("ascii")
