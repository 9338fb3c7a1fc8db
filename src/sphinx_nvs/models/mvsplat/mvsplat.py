"""MVSplat as a regressor: one forward pass per scene yields Gaussians, which are rendered from any camera.

Context views are scaled to the size the network was trained at (256 pixels on the short side), with sides that are
multiples of 16; to fit, a few border pixels may be cropped symmetrically. Poses are converted to the network's units
(`network_units`), and depth is returned in the scene's.

Shapes: V context views, H W working pixels.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from sphinx_nvs.errors import InputError
from sphinx_nvs.geometry.cameras import Cameras
from sphinx_nvs.media import cover, resize_cover
from sphinx_nvs.models.gaussians import Gaussians
from sphinx_nvs.models.gaussians.rasterizer import BACKENDS
from sphinx_nvs.models.mvsplat.encoder import Encoded, Encoder
from sphinx_nvs.models.mvsplat.gaussian_reconstruction import MvSplatReconstruction, depth_certainty
from sphinx_nvs.models.mvsplat.network_units import RULES, network_units
from sphinx_nvs.models.planesweep.sources import check_parallax
from sphinx_nvs.scene.scene import Scene


@dataclass(frozen=True, kw_only=True)
class MvSplatSettings:
    """How scenes are converted for the network.

    Args:
        short_side: working size in pixels, 16 or more.
        units: `measured`, `baseline` or `world`; see `mvsplat.network_units`.
        near: nearest depth searched, in the network's units.
        far: farthest depth searched, in the network's units.
        backend: back end of the rasteriser; see `gaussians.rasterize`.

    Raises:
        InputError: a value is out of range.
    """

    short_side: int = 256
    units: str = "measured"
    near: float | int = 1.0
    far: float | int = 100.0
    backend: str = "auto"

    def __post_init__(self) -> None:
        if self.short_side < 16:
            raise InputError("MvSplatSettings.short_side", f"{self.short_side}", "give 16 pixels or more")
        if self.units not in RULES:
            raise InputError("MvSplatSettings.units", f"{self.units!r}", f"give one of {', '.join(RULES)}")
        if not 0 < self.near < self.far < float("inf"):
            raise InputError("MvSplatSettings.near", f"{self.near:g} to {self.far:g}", "give 0 < near < far")
        if self.backend not in BACKENDS:
            raise InputError("MvSplatSettings.backend", f"{self.backend!r}", f"give one of {', '.join(BACKENDS)}")


@dataclass(frozen=True)
class MvSplat:
    """Regressor with an `Encoder`; computes on the encoder's device."""

    encoder: Encoder
    settings: MvSplatSettings = field(default_factory=MvSplatSettings)
    name: str = "mvsplat"
    min_context_views: int = 2

    @torch.no_grad()
    def reconstruct(self, scene: Scene) -> MvSplatReconstruction:
        """Converts every pixel of every context view into a Gaussian.

        Raises:
            InputError: there are fewer than two views, or all are at one place.
        """
        if len(scene.images) < self.min_context_views:
            found = f"{len(scene.images)} given"
            raise InputError("context views", found, "MVSplat needs 2 or more views from different places")
        check_parallax(scene.cameras)
        units = network_units(scene, self.settings.units)
        images, cameras = working_views(scene, self.settings.short_side, self.encoder.size_multiple)
        encoded = self._encode(images, units.network_cameras(cameras))
        return MvSplatReconstruction(_clouds(encoded), units, scene.images.device, self.settings.backend)

    def _encode(self, images: Float[Tensor, "V 3 H W"], cameras: Cameras) -> Encoded:
        """One forward pass; cameras are in the network's units."""
        to = next(self.encoder.parameters())
        bounds = (to.new_full((len(images),), float(bound)) for bound in (self.settings.near, self.settings.far))
        return self.encoder(images.to(to), cameras.c2w.to(to), cameras.K_norm.to(to), *bounds)


def working_views(scene: Scene, short_side: int, multiple: int) -> tuple[Float[Tensor, "V 3 H W"], Cameras]:
    """Resizes context views to about `short_side` pixels, cropped centrally to sides that `multiple` divides."""
    size = (scene.cameras.height, scene.cameras.width)
    height, width = (max(round(side * short_side / min(size) / multiple), 1) * multiple for side in size)
    fit = cover(size, (height, width))
    cameras = scene.cameras.resized(fit.height, fit.width).cropped(fit.top, fit.left, height, width)
    return resize_cover(scene.images, height, width), cameras


def _clouds(encoded: Encoded) -> tuple[Gaussians, ...]:
    """One cloud per view, with `depth_certainty` as its feature."""
    views, height, width = encoded.pixels.depth.shape
    cloud = encoded.gaussians.cloud(depth_certainty(encoded.pixels.pdf, height, width).reshape(-1, 1))
    names = ("means", "covariances", "opacities", "sh", "features")
    parts = {name: getattr(cloud, name).chunk(views) for name in names}
    return tuple(Gaussians(**{name: parts[name][view] for name in names}) for view in range(views))
