"""The network: maps posed context views to one Gaussian per pixel.

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
from sphinx_nvs.models.mvsplat.depth_predictor import DepthPredictor, PixelEstimates
from sphinx_nvs.models.mvsplat.encoder_config import EncoderConfig


@dataclass(frozen=True)
class Encoded:
    """The network's output for a scene.

    Args:
        pixels: depth, density and the depth distribution of every pixel.
        gaussians: one Gaussian per pixel, view by view, row by row.
    """

    pixels: PixelEstimates
    gaussians: RawGaussians


class Encoder(nn.Module):
    """The network for two or more views; holds parameters and no request state."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.config = config
        self.backbone = Backbone(config.feature_channels)
        self.depth_predictor = DepthPredictor(config)

    @property
    def size_multiple(self) -> int:
        """Image sides must be multiples of this: 16 for the released configuration."""
        return max(REDUCTION * max(4, self.config.cost_unet.divisor), self.config.depth_unet.divisor)

    def forward(
        self,
        images: Float[Tensor, "V 3 H W"],
        c2w: Float[Tensor, "V 4 4"],
        K_norm: Float[Tensor, "V 3 3"],
        near: Float[Tensor, " V"],
        far: Float[Tensor, " V"],
    ) -> Encoded:
        """Encodes the scene.

        Args:
            images: sRGB in [0, 1]; sides are multiples of `size_multiple`.
            c2w: camera-to-world poses, OpenCV axes.
            K_norm: intrinsics divided by width and height.
            near: nearest depth of each view, in the poses' units.
            far: farthest depth of each view.
        """
        matched, single = self.backbone(images)
        pixels = self.depth_predictor(images, matched, single, c2w, K_norm, near, far)
        return Encoded(pixels, gaussians_from_pixels(pixels.raw, pixels.depth, pixels.density, c2w, K_norm))
