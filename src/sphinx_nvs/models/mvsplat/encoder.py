"""The network: posed context views in, one Gaussian per pixel out.

Parameter names are those of the public checkpoints, without their prefix `encoder.`.
Reference: MVSplat: efficient 3D Gaussian splatting from sparse multi-view images (Chen et al., ECCV 2024).

Shapes: V views, H W pixels.
"""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor, nn

from sphinx_nvs.models.mvsplat.adapter import RawGaussians, gaussians_from_pixels
from sphinx_nvs.models.mvsplat.backbone import REDUCTION, Backbone
from sphinx_nvs.models.mvsplat.config import EncoderConfig
from sphinx_nvs.models.mvsplat.depth import DepthPredictor, PixelEstimates


@dataclass(frozen=True)
class Encoded:
    """A scene as the network understands it.

    Args:
        pixels: depth, density and the depth distribution of every pixel.
        gaussians: one for each, view by view, row by row.
    """

    pixels: PixelEstimates
    gaussians: RawGaussians


class Encoder(nn.Module):
    """Holds parameters, nothing of any request; any number of views from 2."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.config = config
        self.backbone = Backbone(config.feature_channels)
        self.depth_predictor = DepthPredictor(config)

    @property
    def size_multiple(self) -> int:
        """What image sides must be multiples of: 16 for the released configuration."""
        return max(REDUCTION * max(4, self.config.cost_unet.divisor), self.config.depth_unet.divisor)

    def forward(
        self,
        images: Float[Tensor, "V 3 H W"],
        c2w: Float[Tensor, "V 4 4"],
        K_norm: Float[Tensor, "V 3 3"],
        near: Float[Tensor, " V"],
        far: Float[Tensor, " V"],
    ) -> Encoded:
        """Understands the scene.

        Args:
            images: sRGB in [0, 1]; sides are multiples of `size_multiple`.
            c2w: camera-to-world poses, OpenCV axes.
            K_norm: intrinsics divided by width and height.
            near: nearest depth of each view, in the units of the poses.
            far: farthest.
        """
        matched, single = self.backbone(images)
        pixels = self.depth_predictor(images, matched, single, c2w, K_norm, near, far)
        return Encoded(pixels, gaussians_from_pixels(pixels.raw, pixels.depth, pixels.density, c2w, K_norm))
