"""Rendering of MVSplat's Gaussians, with holes filled, confidence and disagreement.

The cloud is composited over a smooth continuation of itself (the original has black there). Confidence is composited
like a colour from `depth_certainty`, the greatest mass of the depth distribution within a few neighbouring candidates.
For disagreement, every context view's Gaussians are rendered alone and compared where they show the same surface.

Unlike the original's rasteriser, ours honours the principal point; with a centred one both agree.

Shapes: V context views, T targets, H W pixels, D depth candidates, G = H W Gaussians per view.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from sphinx_nvs.errors import InputError, spans
from sphinx_nvs.geometry.cameras import Cameras
from sphinx_nvs.models.base import Render
from sphinx_nvs.models.gaussians import Gaussians, Raster, rasterize
from sphinx_nvs.models.mvsplat.network_units import Units
from sphinx_nvs.models.planesweep.pushpull import push_pull

WINDOW_SHARE = 1 / 64  # share of the candidates, on either side of the most likely one
HOLE = 1e-3  # alpha below which depth is undefined
SEEN = 0.5  # alpha from which a context view's own Gaussians show a surface
SAME_SURFACE = 0.1  # relative difference in depth


def depth_certainty(pdf: Float[Tensor, "V D h w"], height: int, width: int) -> Float[Tensor, "V H W"]:
    """How peaked the depth distribution of every pixel is, [0, 1]."""
    reach = int(pdf.shape[1] * WINDOW_SHARE)
    window = 2 * reach + 1
    columns = pdf.flatten(2).transpose(1, 2)
    mass = window * F.avg_pool1d(columns, window, stride=1, padding=reach)
    best = mass.amax(2).clamp(0, 1).unflatten(1, pdf.shape[-2:])
    return F.interpolate(best[:, None], size=(height, width), mode="bilinear", align_corners=False)[:, 0]


@dataclass(frozen=True)
class MvSplatReconstruction:
    """One cloud per context view; can be rendered from any camera.

    Args:
        clouds: each view's Gaussians, in the network's units, with `depth_certainty` as their one feature.
        units: the network's units.
        device: device on which renders are returned.
        backend: back end of the rasteriser.
    """

    clouds: tuple[Gaussians, ...]
    units: Units
    device: torch.device
    backend: str = "auto"

    @torch.no_grad()
    def render(self, cameras: Cameras) -> Render:
        """Renders every camera, at any image size.

        Raises:
            InputError: no Gaussian projects into any of the targets.
        """
        seen_from = self.units.network_cameras(cameras)
        raster = rasterize(_joined(self.clouds), seen_from, backend=self.backend)
        if not bool((raster.alpha > 0).any()):
            views = spans(range(len(cameras)))
            raise InputError(
                f"target views {views}",
                "they see nothing of what the context views show",
                "point the cameras at the scene; poses are camera-to-world with +z forward",
            )
        layers = [rasterize(replace(cloud, features=None), seen_from, backend=self.backend) for cloud in self.clouds]
        depth = _filled_depth(raster)
        render = Render(
            rgb=_filled_colour(raster),
            alpha=raster.alpha,
            depth=depth / self.units.scale,
            confidence=_confidence(raster),
            disagreement=_disagreement(layers, depth),
        )
        return Render(**{name: value.to(self.device) for name, value in vars(render).items() if value is not None})

    def gaussians(self) -> Gaussians:
        """The scene as one cloud in world units, without features; view by view, row by row."""
        cloud, scale = _joined(self.clouds), self.units.scale
        means = cloud.means / scale + self.units.origin.to(cloud.means)
        return replace(cloud, means=means, covariances=cloud.covariances / scale**2, features=None)


def _joined(clouds: Sequence[Gaussians]) -> Gaussians:
    """All clouds in one."""
    names = ("means", "covariances", "opacities", "sh", "features")
    return Gaussians(**{name: torch.cat([getattr(cloud, name) for cloud in clouds]) for name in names})


def _confidence(raster: Raster) -> Float[Tensor, "T H W"]:
    """Composited depth_certainty; 0 for clouds without that feature."""
    if raster.features is None:
        return torch.zeros_like(raster.alpha)
    return raster.features[:, 0].clamp(0, 1)


def _filled_colour(raster: Raster) -> Float[Tensor, "T 3 H W"]:
    """The cloud composited over its smooth continuation, in [0, 1]."""
    alpha = raster.alpha[:, None]
    weight = torch.where(alpha > HOLE, alpha, 0)
    # Composited colours are premultiplied; the continuation needs the surface's own.
    own = raster.rgb / alpha.clamp_min(HOLE)
    mean = (own * weight).sum((0, 2, 3)) / weight.sum().clamp_min(HOLE)
    behind = push_pull(own, weight, mean)
    return (raster.rgb + (1 - alpha) * behind).clamp(0, 1)


def _filled_depth(raster: Raster) -> Float[Tensor, "T H W"]:
    """Expected z-depth, continued smoothly in inverse depth through holes; the network's units."""
    has_surface = raster.alpha > HOLE
    # Inverse depth is linear in the image on a plane, so its continuation stays on the plane.
    inverse = torch.where(has_surface, 1 / raster.depth.clamp_min(HOLE), 0)
    typical = inverse[has_surface].median() if bool(has_surface.any()) else inverse.new_tensor(1.0)
    weight = torch.where(has_surface, raster.alpha, 0)
    return 1 / push_pull(inverse[:, None], weight[:, None], typical[None])[:, 0]


def _disagreement(layers: Sequence[Raster], depth: Float[Tensor, "T H W"]) -> Float[Tensor, "T H W"]:
    """Twice the mean absolute deviation of colour among the views that show the surface; 0 for one or none."""
    alpha = torch.stack([layer.alpha for layer in layers])
    own_depth = torch.stack([layer.depth for layer in layers])
    shows = ((alpha > SEEN) & ((own_depth / depth - 1).abs() < SAME_SURFACE)).to(depth)
    share = (shows / shows.sum(0).clamp_min(1))[:, :, None]
    rgb = torch.stack([layer.rgb for layer in layers]) / alpha.clamp_min(SEEN)[:, :, None]
    mean = (share * rgb).sum(0)
    return (2 * share * (rgb - mean).abs()).sum(0).mean(1).clamp(0, 1)
