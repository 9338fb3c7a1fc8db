"""Exact depth, spoilt the way matching spoils it: the regressor's errors without the regressor's cost.

What a plane sweep gets wrong is not white noise. Here, per scene and each at its own strength:

- smooth errors everywhere, larger that no second context view sees (there it guesses from afar);
- surfaces that bleed over their edges (flying pixels, which render as floaters and stretched skins);
- patches locked onto a wrong plane, some of them confidently (ghosts: repeated textures do that);
- depth quantised to planes; slight misalignment of the poses' scale between views (double contours);
- a confidence map that mostly, but not always, knows, and is timid on plain surfaces.

On 12 validation scenes the mean confidence is 0.46 (plane sweep: 0.43), the median error of what is seen the same.

Shapes: B scenes, C context views, H W pixels.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from sphinx_nvs.models.planesweep.splatting import pixel_grid


class Spoilt(NamedTuple):
    """What a regressor might have found."""

    inverse_depth: Float[Tensor, "B C H W"]
    confidence: Float[Tensor, "B C H W"]


@torch.no_grad()
def spoil(
    depth: Float[Tensor, "B C H W"],
    c2w: Float[Tensor, "B C 4 4"],
    K: Float[Tensor, "B C 3 3"],
    generator: torch.Generator | None,
) -> Spoilt:
    """Errors for exact z-depth.

    Args:
        depth: exact, world units.
        c2w: poses of the context views.
        K: their intrinsics in pixels.
        generator: on the tensors' device; None for the global one.
    """
    noise = _Noise(depth, generator)
    inverse = 1 / depth.clamp_min(1e-3)
    doubt = _blurred(1 - seen_by_another(depth, c2w, K), 5)
    # Powers of a uniform level below: most scenes have little of an error, a few have much.
    inverse = inverse * (1 + (0.002 + 0.02 * noise.level().square()) * noise.smooth(16))
    inverse = inverse * (1 + 0.25 * noise.level() * doubt * noise.smooth(24))
    inverse = inverse * (1 + 0.03 * noise.level() ** 3 * noise.normal(depth.shape[:2]).view(*depth.shape[:2], 1, 1))
    inverse, edge = _bled(inverse, noise)
    # 1.6 to 3 standard deviations: from 5 % of the pixels down to almost none.
    wrong = (noise.smooth(12) > 1.6 + 1.4 * noise.level()).float()
    inverse = torch.where(wrong > 0, inverse * (1 + 0.35 * noise.smooth(40)).clamp(0.3, 2.2), inverse)
    inverse = _quantised(inverse, noise)
    blind = 0.7 * noise.level()
    confidence = (1 - doubt) * (1 - 0.5 * edge) * (1 - blind * wrong)
    confidence = confidence * (0.85 + 0.15 * noise.smooth(8)).clamp(0.2, 1)
    # Matching also doubts much that it has right: plain surfaces, repeated textures.
    confidence = confidence * (1 - 0.9 * noise.level() * (noise.smooth(20) > -0.2).float())
    return Spoilt(inverse.clamp_min(1e-4), confidence.clamp(0, 1))


class _Noise:
    """Random fields like one tensor, from one generator."""

    def __init__(self, like: Float[Tensor, "B C H W"], generator: torch.Generator | None) -> None:
        self._like, self._generator = like, generator

    def level(self) -> Float[Tensor, "B 1 1 1"]:
        """One strength a scene, uniform in [0, 1)."""
        return torch.rand(len(self._like), 1, 1, 1, generator=self._generator, device=self._like.device)

    def normal(self, shape: tuple[int, ...]) -> Tensor:
        """White noise."""
        return torch.randn(shape, generator=self._generator, device=self._like.device)

    def smooth(self, cell: int) -> Float[Tensor, "B C H W"]:
        """Unit-variance noise with features of about `cell` pixels."""
        scenes, views, height, width = self._like.shape
        coarse = self.normal((scenes * views, 1, height // cell + 3, width // cell + 3))
        fine = F.interpolate(coarse, size=(height, width), mode="bicubic", align_corners=False)
        return (fine / fine.std().clamp_min(1e-6)).view_as(self._like)


def _blurred(x: Float[Tensor, "B C H W"], side: int) -> Float[Tensor, "B C H W"]:
    return F.avg_pool2d(x, side, 1, side // 2, count_include_pad=False)


def _bled(inverse: Float[Tensor, "B C H W"], noise: _Noise) -> tuple[Tensor, Tensor]:
    """Foreground grown by a pixel or two, mixtures of both sides at edges; and where the edges are."""
    grown = torch.where(noise.smooth(20) > 0.3, F.max_pool2d(inverse, 3, 1, 1), inverse)
    fat = torch.where(noise.level() < 0.3, F.max_pool2d(grown, 3, 1, 1), grown)
    blurred = _blurred(fat, 3)
    edge = ((fat - blurred).abs() / fat > 0.03).float()
    return torch.where(edge > 0, blurred, fat), edge


def _quantised(inverse: Float[Tensor, "B C H W"], noise: _Noise) -> Float[Tensor, "B C H W"]:
    """Inverse depth rounded to 24..96 planes over its range, in half of the scenes."""
    high = inverse.amax((1, 2, 3), keepdim=True)
    step = high / (24 + 72 * noise.level())
    rounded = ((inverse / step).round() * step).clamp_min(0.25 * step)
    return torch.where(noise.level() < 0.5, rounded, inverse)


def seen_by_another(
    depth: Float[Tensor, "B C H W"], c2w: Float[Tensor, "B C 4 4"], K: Float[Tensor, "B C 3 3"]
) -> Float[Tensor, "B C H W"]:
    """1 where another context view sees the same surface point, by reprojecting exact depth."""
    height, width = depth.shape[-2:]
    num_views = depth.shape[1]
    c2w, K, w2c = c2w.float(), K.float(), torch.linalg.inv(c2w.double()).float()
    K_inv = torch.linalg.inv(K)
    grid = pixel_grid(depth, height, width)
    size = torch.tensor([[width], [height]], device=depth.device, dtype=depth.dtype)
    world = c2w[..., :3, :3] @ ((K_inv @ grid) * depth.flatten(2)[:, :, None]) + c2w[..., :3, 3:]
    seen = torch.zeros_like(depth)
    for shift in range(1, num_views):
        into, K_there, other = (part.roll(-shift, 1) for part in (w2c, K, depth))
        there = into[..., :3, :3] @ world + into[..., :3, 3:]
        z = there[:, :, 2:].clamp_min(1e-6)
        place = (K_there @ there)[:, :, :2] / z / size * 2 - 1
        # Points near the camera's plane project to infinity: far outside says as much, and stays finite.
        where = place.transpose(-1, -2).reshape(-1, height, width, 2).clamp(-3, 3)
        found = F.grid_sample(other.flatten(0, 1)[:, None], where, mode="nearest", align_corners=False)
        inside = (where.abs() < 1).all(-1).view_as(depth) & (there[:, :, 2].view_as(depth) > 0)
        agrees = (found.view_as(depth) / z.view_as(depth) - 1).abs() < 0.03
        seen = torch.maximum(seen, (inside & agrees).float())
    return seen
