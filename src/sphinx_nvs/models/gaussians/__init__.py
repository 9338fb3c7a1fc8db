"""Scenes as clouds of Gaussians: the data type, one rasteriser with three back ends, and PLY files."""

from sphinx_nvs.models.gaussians.cloud import Gaussians, covariances_from_scales
from sphinx_nvs.models.gaussians.harmonics import sh_from_rgb
from sphinx_nvs.models.gaussians.rasterizer import Raster, RasterConfig, rasterize

__all__ = [
    "Gaussians",
    "Raster",
    "RasterConfig",
    "covariances_from_scales",
    "rasterize",
    "sh_from_rgb",
]
