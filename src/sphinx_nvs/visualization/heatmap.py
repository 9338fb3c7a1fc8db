"""A plan as an image: where each frame is denoised, and from which step on.

Held cells show the frame in grey; active cells are tinted by their start step, bright for an early start (more compute)
and dark for a late one. A colour bar on the right is the legend.

Shapes: H W pixels of the frame, h w latent cells, S steps.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from sphinx_nvs.media import float_from_uint8, resize, uint8_from_float

SHORT_SIDE = 512
"""Smaller frames are enlarged by an integer factor until their short side has at least this many pixels."""

_LONG_SIDE = 4096
"""Frames are not enlarged beyond this."""

_PLASMA = (
    *("0d0887", "2f0596", "4903a0", "6100a7", "7801a8", "8e0ca4", "a21d9a", "b42e8d", "c43e7f"),
    *("d24f71", "de6164", "e97257", "f3854b", "f99a3e", "fdaf31", "fdc627", "f8df25", "f0f921"),
)
"""Matplotlib's colour map of this name at even distances: a frame's picture need not load the library."""

_TINT = 0.6
_INK, _PAPER = (235, 235, 235), (24, 24, 27)
_BAR_COLUMN = 132


def plan_picture(
    frame: Float[Tensor, "3 H W"], start_step: Int[Tensor, "h w"], num_steps: int
) -> Float[Tensor, "3 P Q"]:
    """One frame of a plan, with its legend; P x Q is the enlarged frame and a column for the colour bar.

    Args:
        frame: the frame that the plan is for, sRGB in [0, 1].
        start_step: 0..S; S = kept.
        num_steps: S.
    """
    sides = frame.shape[-2:]
    zoom = max(1, min(math.ceil(SHORT_SIDE / min(sides)), _LONG_SIDE // max(sides)))
    height, width = (zoom * side for side in frame.shape[-2:])
    # The legend needs its height beside frames that are too long to be enlarged.
    canvas = Image.new("RGB", (width + _BAR_COLUMN, max(height, SHORT_SIDE)), _PAPER)
    # Cells at the bottom and the right may reach beyond a frame whose padding was cropped.
    rows, columns = start_step.shape
    cell = zoom * -(-frame.shape[-2] // rows), zoom * -(-frame.shape[-1] // columns)
    canvas.paste(Image.fromarray(tinted(resize(frame[None].cpu(), height, width)[0], start_step, num_steps, cell)))
    _draw_legend(canvas, width, start_step, num_steps)
    return float_from_uint8(torch.from_numpy(np.array(canvas)).permute(2, 0, 1))


def tinted(
    frame: Float[Tensor, "3 H W"],
    start_step: Int[Tensor, "h w"],
    num_steps: int,
    cell: tuple[int, int] | None = None,
) -> UInt8[np.ndarray, "H W 3"]:
    """The frame, grey where cells are held and tinted where they are active.

    Args:
        frame: sRGB in [0, 1].
        start_step: 0..S; S = kept.
        num_steps: S.
        cell: height and width of a cell in pixels; None divides the frame evenly.
    """
    rows, columns = cell or (side // cells for side, cells in zip(frame.shape[-2:], start_step.shape, strict=True))
    steps = start_step.cpu().repeat_interleave(rows, 0).repeat_interleave(columns, 1)
    steps = steps[: frame.shape[-2], : frame.shape[-1]]
    grey = frame.mean(0, keepdim=True).expand(3, -1, -1)
    colours = torch.from_numpy(start_colours(steps.numpy() / num_steps)).permute(2, 0, 1)
    tinted = torch.where(steps < num_steps, torch.lerp(grey, colours, _TINT), grey)
    return uint8_from_float(tinted).permute(1, 2, 0).contiguous().numpy()


def start_colours(share_of_steps: Float[np.ndarray, "*shape"]) -> Float[np.ndarray, "*shape 3"]:
    """Colour of a start step given as a share of all steps: 0 is bright, 1 dark."""
    stops = np.array([tuple(bytes.fromhex(colour)) for colour in _PLASMA]) / 255
    position = (0.95 - 0.9 * share_of_steps) * (len(stops) - 1)
    channels = [np.interp(position, np.arange(len(stops)), stop) for stop in stops.T]
    return np.stack(channels, -1).astype(np.float32)


def _draw_legend(canvas: Image.Image, left: int, start_step: Tensor, num_steps: int) -> None:
    """Draws the colour bar with its ticks, and the share of active cells."""
    draw, height = ImageDraw.Draw(canvas), canvas.height
    font, small = ImageFont.load_default(15), ImageFont.load_default(13)
    draw.text((left + 14, 12), "start step", _INK, font)
    top, bottom = 44, height - 104
    bar = start_colours(np.linspace(0, 1, bottom - top, dtype=np.float32))[:, None].repeat(22, 1)
    canvas.paste(Image.fromarray((bar * 255).astype(np.uint8)), (left + 14, top))
    for step in sorted({round(share * num_steps) for share in (0, 0.25, 0.5, 0.75, 1)}):
        y = top + step / num_steps * (bottom - top - 1)
        draw.line((left + 36, y, left + 41, y), _INK)
        draw.text((left + 46, y), f"{step}{' (all)' if step == 0 else ''}", _INK, small, anchor="lm")
    draw.rectangle((left + 14, bottom + 14, left + 35, bottom + 35), (128, 128, 128))
    draw.text((left + 46, bottom + 25), "kept", _INK, small, anchor="lm")
    active = float((start_step < num_steps).float().mean())
    draw.text((left + 14, height - 46), f"{active:.0%} of cells", _INK, small)
    draw.text((left + 14, height - 26), "are refined", _INK, small)
