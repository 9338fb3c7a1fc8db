"""From matched features to a depth, a density and raw Gaussian parameters for every pixel.

The cost volume of all candidates 1/d_k is refined at a quarter of the size and yields a depth distribution there:

    p = softmax(head(refine([cost, f]) + W [cost, f])),    disparity = sum_k p_k / d_k

At full size a second U-Net takes image, features, disparity and the distribution's peak, and corrects the disparity.
Reference: MVSplat (Chen et al., 2024), sections 3.1 to 3.3.

Shapes: V views, D candidates, C channels, h w cells of the quarter size, H W pixels, P raw parameters.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from sphinx_nvs.models.mvsplat.backbone import REDUCTION
from sphinx_nvs.models.mvsplat.cost_volume import cost_volume, disparity_candidates
from sphinx_nvs.models.mvsplat.encoder_config import EncoderConfig
from sphinx_nvs.models.mvsplat.refinement_unet import UNet, conv3


@dataclass(frozen=True)
class PixelEstimates:
    """The network's estimates for every pixel of every view.

    Args:
        depth: within the view's [near, far]; matched as z-depth, applied along the ray (see `adapter`).
        density: the Gaussian's opacity, [0, 1].
        raw: Gaussian parameters before `adapter`.
        pdf: the depth distribution at a quarter of the size, candidates from far to near.
    """

    depth: Float[Tensor, "V H W"]
    density: Float[Tensor, "V H W"]
    raw: Float[Tensor, "V P H W"]
    pdf: Float[Tensor, "V D h w"]


class DepthPredictor(nn.Module):
    """Cost volume, its refinement, and the heads."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        features, depths = config.feature_channels, config.num_depths
        cost, full = config.cost_unet.width, config.depth_unet.width
        self.num_depths = depths
        self.corr_refine_net = nn.Sequential(
            conv3(depths + features, cost),
            nn.GroupNorm(8, cost),
            nn.GELU(),
            UNet(config.cost_unet),
            conv3(cost, depths),
        )
        self.regressor_residual = nn.Conv2d(depths + features, depths, 1)
        self.depth_head_lowres = _head(depths, 2 * depths, depths)
        self.upsampler = nn.Sequential(
            conv3(2 * features, features),
            nn.Upsample(scale_factor=REDUCTION, mode="bilinear", align_corners=True),
            nn.GELU(),
        )
        self.proj_feature = conv3(features, full)
        self.refine_unet = nn.Sequential(
            conv3(3 + full + 2, full), nn.GroupNorm(4, full), nn.GELU(), UNet(config.depth_unet)
        )
        raw = config.gaussian_channels
        self.to_gaussians = _head(full + 3 + features, 2 * raw, raw)
        self.to_disparity = _head(full, 2 * full, 2)

    def forward(
        self,
        images: Float[Tensor, "V 3 H W"],
        matched: Float[Tensor, "V C h w"],
        single: Float[Tensor, "V C h w"],
        c2w: Float[Tensor, "V 4 4"],
        K_norm: Float[Tensor, "V 3 3"],
        near: Float[Tensor, " V"],
        far: Float[Tensor, " V"],
    ) -> PixelEstimates:
        """Predicts all views' estimates.

        Args:
            images: images in [0, 1], sides multiples of 16.
            matched: features after attention across views.
            single: features before it.
            c2w: camera-to-world poses.
            K_norm: intrinsics divided by width and height.
            near: nearest depth candidate of each view.
            far: farthest depth candidate of each view.
        """
        candidates = disparity_candidates(near, far, self.num_depths)
        pdf = self.depth_distribution(matched, cost_volume(matched, c2w, K_norm, candidates))
        coarse = torch.einsum("vdhw,vd->vhw", pdf, candidates)[:, None]
        coarse = F.interpolate(coarse, scale_factor=REDUCTION, mode="bilinear", align_corners=True)
        peak = F.interpolate(pdf.amax(1, keepdim=True), scale_factor=REDUCTION, mode="nearest")
        features = self.upsampler(torch.cat([matched, single], 1))
        refined = self.refine_unet(torch.cat([images, self.proj_feature(features), coarse, peak], 1))
        change, density = self.to_disparity(refined).unbind(1)
        limits = [(1 / bound).view(-1, 1, 1) for bound in (far, near)]
        return PixelEstimates(
            depth=1 / torch.clamp(coarse[:, 0] + change, *limits),
            density=density.sigmoid(),
            raw=self.to_gaussians(torch.cat([refined, images, features], 1)),
            pdf=pdf,
        )

    def depth_distribution(
        self, features: Float[Tensor, "V C h w"], costs: Float[Tensor, "V D h w"]
    ) -> Float[Tensor, "V D h w"]:
        """Distribution over the candidates at a quarter of the size."""
        volume = torch.cat([costs, features], 1)
        refined = self.corr_refine_net(volume) + self.regressor_residual(volume)
        return self.depth_head_lowres(refined).softmax(1)


def _head(channels: int, inner: int, out_channels: int) -> nn.Sequential:
    """A head of two convolutions."""
    return nn.Sequential(conv3(channels, inner), nn.GELU(), conv3(inner, out_channels))
