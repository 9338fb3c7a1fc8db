"""A procedural world: primitives, their materials, light and air, and its renderer.

Visibility is cast once through every pixel centre (which gives the exact z-depth) and once per sub-sample;
colour is computed at the centre, where textures are filtered over the pixel's footprint, and for pixels on an edge
also at the sub-samples.

Shapes: V views, H W pixels, N points.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from sphinx_nvs.errors import InputError
from sphinx_nvs.geometry.cameras import Cameras
from sphinx_nvs.procedural.ray_casting import Hits, cast
from sphinx_nvs.procedural.scene_tensors import SceneTensors
from sphinx_nvs.procedural.shading import Surfaces, setting_of, shade


@dataclass(frozen=True, kw_only=True)
class World:
    """A procedural scene and its points of interest; world units are about a metre, y is up.

    Args:
        name: split, kind and seed, for reports.
        kind: room, corridor or plaza.
        split: train, val or test.
        seed: the world's seed.
        stage: the scene to render.
        subjects: points of interest, world units.
        walkable: box (low, high) in which cameras may be.
        tiles: role and variant of each of the scene's textures.
    """

    name: str
    kind: str
    split: str
    seed: int
    stage: SceneTensors
    subjects: Float[Tensor, "N 3"]
    walkable: Float[Tensor, "2 3"]
    tiles: tuple[tuple[str, int], ...] = ()

    def to(self, device: torch.device | str) -> World:
        """The same world on another device; `render` computes there."""
        return _moved(self, device)

    def clearance(self, points: Float[Tensor, "N 3"]) -> Float[Tensor, "N"]:
        """Lower bound of the distance in world units from each point to the nearest surface; negative in matter."""
        return self.stage.primitives.clearance(points.to(self.stage.primitives.centre))

    def render(self, cameras: Cameras, supersample: int = 2) -> tuple[Float[Tensor, "V 3 H W"], Float[Tensor, "V H W"]]:
        """Renders images and exact depth.

        Args:
            cameras: the cameras; any image size.
            supersample: samples per pixel side at edges; 1 is fastest.

        Returns:
            sRGB in [0, 1], and the z-depth at pixel centres in world units, both on the world's device.

        Raises:
            InputError: `supersample` is below 1.
        """
        if supersample < 1:
            raise InputError("supersample", f"it is {supersample}", "give 1 or more samples per pixel side")
        device = self.stage.textures.device
        c2w = cameras.c2w.to(device, torch.float32)
        K_inv = torch.linalg.inv(cameras.K).to(device, torch.float32)
        size = len(cameras), cameras.height, cameras.width
        centre = self._cast(c2w, K_inv, cameras, 1)
        view, row, column = (index.reshape(-1) for index in indices(*size, device))
        uv = torch.stack([column, row]) + 0.5
        shader = self._shader(c2w, K_inv)
        colour = shader(view, uv, centre.depth.view(-1), centre.surface.view(-1), 1.0)
        if supersample > 1:
            refine_edges(shader, colour, centre, self._cast(c2w, K_inv, cameras, supersample), supersample)
        # The root undoes the textures' square (see `shading`): close to sRGB's curve, and cheaper.
        rgb = colour.clamp_(0, 1).sqrt_().view(3, *size).transpose(0, 1).contiguous()
        return rgb, centre.depth

    def _cast(self, c2w: Tensor, K_inv: Tensor, cameras: Cameras, density: int) -> Hits:
        """First hits on a grid of `density` x `density` rays per pixel."""
        u, v = (
            (torch.arange(length * density, device=c2w.device, dtype=torch.float32) + 0.5) / density
            for length in (cameras.width, cameras.height)
        )
        return cast(self.stage.primitives, c2w, K_inv, u, v)

    def _shader(self, c2w: Tensor, K_inv: Tensor) -> Shader:
        """A function that shades points seen from these cameras."""
        stage, setting = self.stage, setting_of(self.stage)
        surfaces = Surfaces(stage.primitives, stage.faces, stage.textures)

        def shader(view: Tensor, uv: Tensor, depth: Tensor, surface: Tensor, footprint: float) -> Tensor:
            return shade(surfaces, lambda _: setting, c2w, K_inv, view, uv, depth, surface, footprint)

        return shader


Shader = Callable[[Tensor, Tensor, Tensor, Tensor, float], Tensor]
"""Computes colours `3 N` from view, image position, depth, surface code and footprint."""


def refine_edges(shader: Shader, colour: Float[Tensor, "3 N"], centre: Hits, fine: Hits, density: int) -> None:
    """Replaces pixels of `colour` (ordered by view, row, column) that see several surfaces by their sub-samples' mean.

    Args:
        shader: shades points.
        colour: changed in place.
        centre: hits of pixel centres.
        fine: hits of a grid of `density` x `density` rays per pixel.
        density: sub-samples per pixel side.
    """
    blocks = blocks_of(fine.surface, density)
    flat = centre.surface.reshape(-1)
    pixels = (blocks != flat[:, None]).any(1).nonzero()[:, 0]
    height, width = centre.surface.shape[1:]
    sub = torch.arange(density * density, device=flat.device)
    view = (pixels // (height * width))[:, None].expand(-1, len(sub)).reshape(-1)
    u = (pixels % width)[:, None] + ((sub % density) + 0.5) / density
    v = (pixels // width % height)[:, None] + ((sub // density) + 0.5) / density
    uv = torch.stack([u.view(-1), v.view(-1)])
    depth, surface = blocks_of(fine.depth, density)[pixels].view(-1), blocks[pixels].view(-1)
    samples = shader(view, uv, depth, surface, 1 / density)
    colour[:, pixels] = samples.view(3, len(pixels), len(sub)).mean(2)


def blocks_of(fine: Tensor, density: int) -> Tensor:
    """Sub-samples `V sH sW` as one row of s s values per pixel."""
    views, height, width = fine.shape
    parts = fine.view(views, height // density, density, width // density, density)
    return parts.permute(0, 1, 3, 2, 4).reshape(-1, density * density)


def indices(views: int, height: int, width: int, device: torch.device) -> tuple[Tensor, ...]:
    """View, row and column of every pixel."""
    axes = [torch.arange(length, device=device) for length in (views, height, width)]
    return torch.meshgrid(*axes, indexing="ij")


def _moved(value: Any, device: torch.device | str) -> Any:
    """A copy of a dataclass with all its tensors on `device`."""
    if isinstance(value, Tensor):
        return value.to(device)
    if is_dataclass(value) and not isinstance(value, type):
        return type(value)(**{f.name: _moved(getattr(value, f.name), device) for f in fields(value)})
    return value
