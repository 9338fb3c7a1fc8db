"""Filtered sampling of a stack of mip-mapped, repeating textures.

A pixel's footprint on a surface is an ellipse. Its short axis selects the mip level unless the long axis is
more than `num_taps` times longer, and taps along the long axis cover the rest (anisotropic filtering).

Shapes: N samples, M textures. Vectors come first (`3 N`), so that every operation is contiguous in memory.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int32
from torch import Tensor

from sphinx_nvs.procedural.noise import TILE
from sphinx_nvs.procedural.texture_library import LEVELS, MIP_OFFSETS


def sample(
    textures: Int32[Tensor, "M texels"],
    layer: Int32[Tensor, "N"],
    uv: Float[Tensor, "2 N"],
    lod: Float[Tensor, "N"],
) -> Float[Tensor, "3 N"]:
    """Trilinear sampling: sRGB in [0, 1] at `uv` (tile units, repeating) and mip level `lod`."""
    lod = lod.clamp(0, LEVELS - 1.001)
    level = lod.int()
    fine = _bilinear(textures, layer, uv, level)
    return torch.lerp(fine, _bilinear(textures, layer, uv, level + 1), lod - level).mul_(1 / 255)


def sample_anisotropic(
    textures: Int32[Tensor, "M texels"],
    layer: Int32[Tensor, "N"],
    uv: Float[Tensor, "2 N"],
    long_axis: Float[Tensor, "2 N"],
    short: Float[Tensor, "N"],
    num_taps: int = 2,
) -> Float[Tensor, "3 N"]:
    """Mean of `num_taps` samples along the footprint's long axis (a vector, in tiles; so is `short`)."""
    spread = torch.maximum(short, torch.hypot(long_axis[0], long_axis[1]) / num_taps)
    lod = torch.log2(spread.clamp(min=1e-6) * TILE)
    total = torch.zeros_like(uv[:1]).expand(3, -1).clone()
    for tap in range(num_taps):
        total += sample(textures, layer, uv + ((tap + 0.5) / num_taps - 0.5) * long_axis, lod)
    return total.mul_(1 / num_taps)


def sample_grey(
    textures: Int32[Tensor, "M texels"],
    layer: Int32[Tensor, "N"] | int,
    uv: Float[Tensor, "2 N"],
    lod: Float[Tensor, "N"],
) -> Float[Tensor, "N"]:
    """Red channel, bilinear in the nearest mip level, of one texture for all points or one for each."""
    texels, share = _corners(textures, layer, uv, lod.clamp(0, LEVELS - 1).round().int())
    return _mixed((texels & 255).float(), share).mul_(1 / 255)


def _bilinear(textures: Tensor, layer: Tensor, uv: Tensor, level: Tensor) -> Tensor:
    """Colours in [0, 255] of one mip level, `3 N`."""
    texels, share = _corners(textures, layer, uv, level)
    channels = torch.stack([(texels >> shift) & 255 for shift in (0, 8, 16)], 1)
    return _mixed(channels.float(), share)


def _mixed(corners: Tensor, share: Tensor) -> Tensor:
    """Bilinear mean of four corners (first axis)."""
    top = torch.lerp(corners[0], corners[1], share[0])
    return torch.lerp(top, torch.lerp(corners[2], corners[3], share[0]), share[1])


def _corners(textures: Tensor, layer: Tensor | int, uv: Tensor, level: Tensor) -> tuple[Tensor, Tensor]:
    """The four packed texels around each sample (`4 N`), and its position between them (`2 N`)."""
    side = TILE >> level
    offset = torch.tensor(MIP_OFFSETS, dtype=torch.int32, device=uv.device).index_select(0, level)
    position = uv * side - 0.5
    corner = position.floor()
    # Sides are powers of two, so a mask wraps coordinates around.
    mask = side - 1
    first = corner.int() & mask
    second = (first + 1) & mask
    base = offset + layer * textures.shape[1]
    above, below = base + first[1] * side, base + second[1] * side
    index = torch.stack([above + first[0], above + second[0], below + first[0], below + second[0]])
    return textures.view(-1).index_select(0, index.view(-1)).view(4, -1), position - corner
