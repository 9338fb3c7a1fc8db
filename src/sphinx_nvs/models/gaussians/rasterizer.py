"""Rendering of Gaussians with any back end.

Shapes: V cameras, N Gaussians, C channels (colour, depth, features), F features, H W pixels.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from sphinx_nvs.errors import InputError
from sphinx_nvs.geometry.cameras import Cameras
from sphinx_nvs.models.gaussians.cloud import Gaussians
from sphinx_nvs.models.gaussians.compositing import Limits, Splats, composite_torch
from sphinx_nvs.models.gaussians.ewa_projection import project, support_boxes
from sphinx_nvs.models.gaussians.harmonics import colours

BACKENDS = ("auto", "torch", "numba", "gsplat")


@dataclass(frozen=True, kw_only=True)
class RasterConfig:
    """Constants of 3D Gaussian splatting, with their customary values.

    Args:
        near: Gaussians at or before this z-depth are culled, world units.
        blur: low-pass term added to screen covariances, square pixels.
        max_alpha: upper bound of one Gaussian's alpha.
        min_alpha: alpha below which a Gaussian is skipped in a pixel.
        min_transmittance: compositing of a pixel stops before its transmittance falls below this.
        sh_degree: highest degree of colour that is evaluated; at most the stored one is used.
        sh_axes: which components of the viewing direction serve as x, y, z; (2, 0, 1) for MVSplat.
    """

    near: float = 0.2
    blur: float = 0.3
    max_alpha: float = 0.99
    min_alpha: float = 1 / 255
    min_transmittance: float = 1e-4
    sh_degree: int = 3
    sh_axes: tuple[int, int, int] = (0, 1, 2)

    def __post_init__(self) -> None:
        if not 0 < self.max_alpha < 1:
            raise InputError("RasterConfig.max_alpha", f"{self.max_alpha}", "give a value in (0, 1)")
        for name in ("near", "blur", "min_alpha", "min_transmittance", "sh_degree"):
            if getattr(self, name) < 0:
                raise InputError(f"RasterConfig.{name}", f"{getattr(self, name)}", "give 0 or more")
        if sorted(self.sh_axes) != [0, 1, 2]:
            raise InputError("RasterConfig.sh_axes", f"{self.sh_axes}", "give a permutation of 0, 1, 2")


@dataclass(frozen=True, kw_only=True)
class Raster:
    """Composited images over black.

    Args:
        rgb: premultiplied by alpha and not clamped above.
        alpha: sum of weights, [0, 1].
        depth_acc: sum of weights times z-depth, world units.
        features: composited features, or None if the cloud has none.
    """

    rgb: Float[Tensor, "V 3 H W"]
    alpha: Float[Tensor, "V H W"]
    depth_acc: Float[Tensor, "V H W"]
    features: Float[Tensor, "V F H W"] | None = None

    @property
    def depth(self) -> Float[Tensor, "V H W"]:
        """Expected z-depth, world units; 0 where nothing is seen."""
        return self.depth_acc / self.alpha.clamp_min(1e-8)


def rasterize(
    gaussians: Gaussians, cameras: Cameras, config: RasterConfig | None = None, backend: str = "auto"
) -> Raster:
    """Renders the cloud from every camera.

    Args:
        gaussians: the cloud; computation uses its dtype and device (`numba` and `gsplat`: float32).
        cameras: the views.
        config: constants; None for the defaults.
        backend: `torch` (any device), `numba` (CPU), `gsplat` (CUDA, extra `cuda`), or `auto` for the
            fastest one installed.

    Raises:
        InputError: the back end is unknown, not installed, or does not support the Gaussians' device.
    """
    config = config or RasterConfig()
    chosen = _chosen_backend(backend, gaussians.means.device)
    images, alphas = zip(
        *(_rasterize_one(gaussians, cameras[v], config, chosen) for v in range(len(cameras))), strict=True
    )
    image = torch.stack(images)
    features = None if gaussians.features is None else image[:, 4:]
    return Raster(rgb=image[:, :3], alpha=torch.stack(alphas), depth_acc=image[:, 3], features=features)


def _chosen_backend(backend: str, device: torch.device) -> str:
    """The back end to use; `auto` never fails."""
    if backend not in BACKENDS:
        raise InputError("backend", f"{backend!r}", f"give one of {', '.join(BACKENDS)}")
    if backend != "auto":
        return backend
    # gsplat is written in CUDA, and numba compiles for the CPU; torch runs anywhere, but slower.
    preferred = {"cpu": "numba", "cuda": "gsplat"}.get(device.type, "torch")
    return preferred if _is_importable(preferred) else "torch"


def _is_importable(module: str) -> bool:
    try:
        __import__(module)
    except ImportError:
        return False
    return True


def _rasterize_one(
    gaussians: Gaussians, camera: Cameras, config: RasterConfig, backend: str
) -> tuple[Float[Tensor, "C H W"], Float[Tensor, "H W"]]:
    """Colour, depth and features composited for one camera, and alpha."""
    centre = camera.centres[0].to(gaussians.means)
    rgb = colours(gaussians.means, gaussians.sh, centre, config.sh_degree, config.sh_axes)
    projected = project(gaussians, camera, config.near, config.blur)
    parts = [rgb, projected.z[:, None]]
    values = torch.cat(parts if gaussians.features is None else [*parts, gaussians.features], 1)
    if backend == "gsplat":
        from sphinx_nvs.models.gaussians.compositing_gsplat import composite_gsplat

        return composite_gsplat(gaussians, camera, values, config.near, config.blur, config.max_alpha)
    boxes = support_boxes(projected, gaussians.opacities, camera, config.min_alpha)
    seen = (boxes[:, 0] <= boxes[:, 1]).nonzero()[:, 0]
    # Front to back. Stable, so that Gaussians at one depth composite in the cloud's order with every back end.
    order = seen[torch.argsort(projected.z[seen], stable=True)]
    splats = Splats(
        projected.means2d[order],
        projected.conic[order],
        gaussians.opacities[order],
        boxes[order],
        values[order],
    )
    limits = Limits(
        max_alpha=config.max_alpha,
        min_alpha=config.min_alpha,
        min_transmittance=config.min_transmittance,
    )
    if backend == "torch":
        return composite_torch(splats, camera.height, camera.width, limits)
    return _composite_numba(splats, camera, limits)


def _composite_numba(
    splats: Splats, camera: Cameras, limits: Limits
) -> tuple[Float[Tensor, "C H W"], Float[Tensor, "H W"]]:
    """The numba compositor; raises InputError if the cloud is not on the CPU."""
    # Numba takes a quarter of a second to import, which other back ends spare.
    from sphinx_nvs.models.gaussians.compositing_numba import composite_numba

    if splats.values.device.type != "cpu":
        raise InputError("backend", f"numba needs CPU tensors, got {splats.values.device}", "use auto or torch")
    return composite_numba(splats, camera.height, camera.width, limits)
