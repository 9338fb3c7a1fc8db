"""Filtered look-ups in a stack of mip-mapped, repeating textures.

A pixel's footprint on a surface is an ellipse. Its short axis picks the mip level unless the long axis is more
than `num_taps` times longer, and taps spread along the long axis cover the rest (anisotropic filtering).

Shapes: N look-ups, M textures.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int32, Int64
from torch import Tensor

from sphinx_nvs.scene.procedural.library import LEVELS, MIP_OFFSETS
from sphinx_nvs.scene.procedural.noise import TILE


def sample(
    textures: Int32[Tensor, "M texels"],
    layer: Int64[Tensor, "N"],
    uv: Float[Tensor, "N 2"],
    lod: Float[Tensor, "N"],
) -> Float[Tensor, "N 3"]:
    """Trilinear look-up: sRGB in [0, 1] at `uv` (tile units, repeating) and mip level `lod`."""
    lod = lod.clamp(0, LEVELS - 1.001)
    level = lod.long()
    fine = _bilinear(textures, layer, uv, level)
    return torch.lerp(fine, _bilinear(textures, layer, uv, level + 1), (lod - level)[:, None])


def sample_anisotropic(
    textures: Int32[Tensor, "M texels"],
    layer: Int64[Tensor, "N"],
    uv: Float[Tensor, "N 2"],
    long_axis: Float[Tensor, "N 2"],
    short: Float[Tensor, "N"],
    num_taps: int = 2,
) -> Float[Tensor, "N 3"]:
    """Mean of `num_taps` trilinear look-ups along the footprint's long axis (vector and short length in tiles)."""
    spread = torch.maximum(short, long_axis.norm(dim=1) / num_taps)
    lod = torch.log2(spread.clamp(min=1e-6) * TILE)
    offsets = [(tap + 0.5) / num_taps - 0.5 for tap in range(num_taps)]
    taps = [sample(textures, layer, uv + offset * long_axis, lod) for offset in offsets]
    return torch.stack(taps).mean(0)


def sample_nearest_level(
    textures: Int32[Tensor, "M texels"],
    layer: Int64[Tensor, "N"],
    uv: Float[Tensor, "N 2"],
    lod: Float[Tensor, "N"],
) -> Float[Tensor, "N 3"]:
    """Bilinear look-up in the nearest mip level: enough for faint detail."""
    return _bilinear(textures, layer, uv, lod.clamp(0, LEVELS - 1).round().long())


def _bilinear(textures: Tensor, layer: Tensor, uv: Tensor, level: Tensor) -> Tensor:
    offsets = torch.tensor(MIP_OFFSETS, device=uv.device)
    side = TILE >> level
    position = uv * side[:, None] - 0.5
    corner = position.floor()
    share = position - corner
    first = corner.long() & (side - 1)[:, None]
    second = (first + 1) & (side - 1)[:, None]
    base = layer * textures.shape[1] + offsets[level]
    above, below = base + first[:, 1] * side, base + second[:, 1] * side
    index = torch.stack(
        [above + first[:, 0], above + second[:, 0], below + first[:, 0], below + second[:, 0]]
    )
    texels = (
        textures.view(-1).index_select(0, index.view(-1)).view(torch.uint8).view(4, -1, 4)[..., :3].float()
    )
    top = torch.lerp(texels[0], texels[1], share[:, :1])
    bottom = torch.lerp(texels[2], texels[3], share[:, :1])
    return torch.lerp(top, bottom, share[:, 1:]) / 255
