"""Features for matching: a small residual network at a quarter of the size, then a transformer across views.

Reference: MVSplat (Chen et al., 2024), section 3.1. Shapes: V views, H W pixels, C channels.
"""

from __future__ import annotations

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from sphinx_nvs.models.mvsplat.feature_transformer import FeatureTransformer

REDUCTION = 4
STAGES = ((64, 1), (96, 2), (128, 1))  # channels and stride
IMAGE_MEAN, IMAGE_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class ResidualBlock(nn.Module):
    """relu(shortcut(x) + relu(IN(conv(relu(IN(conv(x)))))), IN without parameters."""

    def __init__(self, channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, out_channels, 3, stride, padding=1, bias=False)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False)
        self.downsample: nn.Sequential | None = None
        if stride > 1 or channels != out_channels:
            self.downsample = nn.Sequential(
                nn.Conv2d(channels, out_channels, 1, stride), nn.InstanceNorm2d(out_channels)
            )

    def forward(self, x: Float[Tensor, "V C _H _W"]) -> Float[Tensor, "V C2 _h _w"]:
        """Applies the residual block."""
        y = F.relu(F.instance_norm(self.conv1(x)))
        y = F.relu(F.instance_norm(self.conv2(y)))
        return F.relu((x if self.downsample is None else self.downsample(x)) + y)


class Cnn(nn.Module):
    """Extracts features at a quarter of the images' size."""

    def __init__(self, out_channels: int) -> None:
        super().__init__()
        channels = STAGES[0][0]
        self.conv1 = nn.Conv2d(3, channels, 7, stride=2, padding=3, bias=False)
        for number, (width, stride) in enumerate(STAGES, 1):
            blocks = nn.Sequential(ResidualBlock(channels, width, stride), ResidualBlock(width, width, 1))
            self.add_module(f"layer{number}", blocks)
            channels = width
        self.conv2 = nn.Conv2d(channels, out_channels, 1)

    def forward(self, images: Float[Tensor, "V 3 H W"]) -> Float[Tensor, "V C h w"]:
        """Extracts features from images in [0, 1] whose sides are multiples of 4."""
        mean, std = (images.new_tensor(values).view(1, 3, 1, 1) for values in (IMAGE_MEAN, IMAGE_STD))
        x = F.relu(F.instance_norm(self.conv1((images - mean) / std)))
        for number in range(1, len(STAGES) + 1):
            x = self.get_submodule(f"layer{number}")(x)
        return self.conv2(x)


class Backbone(nn.Module):
    """The residual network followed by the cross-view transformer."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.backbone = Cnn(channels)
        self.transformer = FeatureTransformer(channels)

    def forward(self, images: Float[Tensor, "V 3 H W"]) -> tuple[Float[Tensor, "V C h w"], Float[Tensor, "V C h w"]]:
        """Features after attention across views, and the residual network's own features."""
        features = self.backbone(images)
        return self.transformer(features), features
