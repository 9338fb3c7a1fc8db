"""Frames of any size for networks that take only multiples of some number of pixels.

A camera of H x W pixels is enlarged at the bottom and the right to H' x W', the next multiples. Its pose and `K` stay:
what is computed there is real content of the scene, and the frame is its top left H x W pixels.

Shapes: V views, H W pixels of the frame, H' W' pixels that are computed, h w latent cells over H' W'.
"""

from __future__ import annotations

from torch import Tensor

from sphinx_nvs.geometry.cameras import Cameras


def padded_length(length: int, multiple: int) -> int:
    """The next multiple, in pixels; `length` itself if it is one."""
    return -(-length // multiple) * multiple


def padded_size(height: int, width: int, multiple: int) -> tuple[int, int]:
    """H' and W'."""
    return padded_length(height, multiple), padded_length(width, multiple)


def padded_cameras(cameras: Cameras, multiple: int) -> Cameras:
    """The same cameras with an image of H' x W' pixels."""
    return Cameras(cameras.c2w, cameras.K, *padded_size(cameras.height, cameras.width, multiple))


def cropped_frames(frames: Tensor, height: int, width: int) -> Tensor:
    """Frames (..., H', W') without their padding (..., H, W)."""
    return frames[..., :height, :width]


def cropped_cells(cells: Tensor, height: int, width: int, multiple: int) -> Tensor:
    """The latent cells (..., h, w) that the frame of `height` x `width` pixels lies on."""
    full = padded_size(height, width, multiple)
    rows, columns = (
        -(-side * count // length) for side, count, length in zip((height, width), cells.shape[-2:], full, strict=True)
    )
    return cells[..., :rows, :columns]
