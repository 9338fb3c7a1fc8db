"""The sizes of MVSplat's encoder; the defaults are those of the released checkpoints."""

from __future__ import annotations

from dataclasses import dataclass, field

from sphinx_nvs.errors import InputError

HEAD_CHANNELS = 32
SHORTEST_GROUPING = 4  # every width must divide into this many groups


@dataclass(frozen=True, kw_only=True)
class UNetShape:
    """Sizes of one of the two U-Nets.

    Args:
        width: channels of the finest level; a multiple of 32 if any level has attention, else of 4.
        channel_mult: width of each level over `width`, finest first.
        attention_at: downsample factors (1, 2, 4, ...) of the levels with attention across all views.

    Raises:
        InputError: a number is out of range, or widths do not divide.
    """

    width: int
    channel_mult: tuple[int, ...]
    attention_at: tuple[int, ...]

    def __post_init__(self) -> None:
        if not self.channel_mult or min(self.channel_mult) < 1:
            raise InputError("UNetShape.channel_mult", f"it is {self.channel_mult}", "give multipliers from 1")
        needed = HEAD_CHANNELS if self.attention_at else SHORTEST_GROUPING
        if self.width < 1 or self.width % needed:
            raise InputError("UNetShape.width", f"it is {self.width}", f"give a multiple of {needed}")

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels of each level, finest first."""
        return tuple(self.width * mult for mult in self.channel_mult)

    @property
    def divisor(self) -> int:
        """The sides of the U-Net's maps must be multiples of this."""
        return 2 ** (len(self.channel_mult) - 1)


@dataclass(frozen=True, kw_only=True)
class EncoderConfig:
    """Everything that determines the encoder's parameters.

    Args:
        feature_channels: channels of the matching features, a multiple of 4.
        num_depths: depth candidates per pixel.
        cost_unet: refines the cost volume, at a quarter of the size.
        depth_unet: refines depth, at full size.
        sh_degree: degree of the colours' spherical harmonics, 0 to 4.

    Raises:
        InputError: a number is out of range.
    """

    feature_channels: int = 128
    num_depths: int = 128
    cost_unet: UNetShape = field(
        default_factory=lambda: UNetShape(width=128, channel_mult=(1, 1, 1), attention_at=(4,))
    )
    depth_unet: UNetShape = field(
        default_factory=lambda: UNetShape(width=32, channel_mult=(1, 1, 1, 1, 1), attention_at=(16,))
    )
    sh_degree: int = 4

    def __post_init__(self) -> None:
        if self.feature_channels < 4 or self.feature_channels % 4:
            found = f"it is {self.feature_channels}"
            raise InputError("EncoderConfig.feature_channels", found, "give a multiple of 4")
        if self.num_depths < 2:
            raise InputError("EncoderConfig.num_depths", f"it is {self.num_depths}", "give 2 or more")
        if not 0 <= self.sh_degree <= 4:
            raise InputError("EncoderConfig.sh_degree", f"it is {self.sh_degree}", "give 0 to 4")

    @property
    def sh_coefficients(self) -> int:
        """Coefficients per colour channel."""
        return (self.sh_degree + 1) ** 2

    @property
    def gaussian_channels(self) -> int:
        """Raw numbers per Gaussian: pixel offset 2, scale 3, quaternion 4, colour."""
        return 2 + 3 + 4 + 3 * self.sh_coefficients


RELEASED = EncoderConfig()
"""The authors' checkpoints for RealEstate10K and ACID: 12.0 million parameters."""

TINY = EncoderConfig(
    feature_channels=32,
    num_depths=16,
    cost_unet=UNetShape(width=32, channel_mult=(1, 1, 1), attention_at=(4,)),
)
"""For tests and examples: the same structure with few channels."""
