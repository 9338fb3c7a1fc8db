"""Residual convolution block, modulated per pixel by a dense map and per channel by the noise level.

    h = SiLU(GN(x)) * (1 + s) + b,   [s | b] = W d
    h = conv(h) + A SiLU(e)
    y = conv(SiLU(GN(h))) + skip(x)

Reference: Stable Virtual Camera (Zhou et al., 2025), whose parameter names are kept.
Shapes: N rows, C channels, D channels of the dense map, E channels of the noise embedding, h w cells.
"""

from jaxtyping import Float
from torch import Tensor, nn

from sphinx_nvs.nn.norms import group_norm


class ResBlock(nn.Module):
    """Two 3x3 convolutions with a residual connection.

    Args:
        channels: channels of the input.
        out_channels: channels of the result; if they differ from `channels` the skip is a 1x1 convolution.
        emb_channels: channels of the noise embedding.
        dense_channels: channels of the dense map.
        groups: groups of the group norms; divides both channel counts.
    """

    def __init__(
        self, channels: int, out_channels: int, *, emb_channels: int, dense_channels: int, groups: int
    ) -> None:
        super().__init__()
        self.in_layers = nn.Sequential(
            group_norm(channels, groups), nn.SiLU(), nn.Conv2d(channels, out_channels, 3, padding=1)
        )
        self.emb_layers = nn.Sequential(nn.SiLU(), nn.Linear(emb_channels, out_channels))
        self.dense_emb_layers = nn.Sequential(nn.Conv2d(dense_channels, 2 * channels, 1))
        # The third slot is the dropout's in the checkpoints.
        self.out_layers = nn.Sequential(
            group_norm(out_channels, groups),
            nn.SiLU(),
            nn.Identity(),
            nn.Conv2d(out_channels, out_channels, 3, padding=1),
        )
        same = channels == out_channels
        self.skip_connection: nn.Module = nn.Identity() if same else nn.Conv2d(channels, out_channels, 1)

    def forward(
        self, x: Float[Tensor, "N C h w"], emb: Float[Tensor, "N E"], dense: Float[Tensor, "N D h w"]
    ) -> Float[Tensor, "N C_out h w"]:
        """Maps features of `x`'s size to features of the same size; `dense` must already have that size."""
        norm, activation, conv = self.in_layers
        scale, shift = self.dense_emb_layers(dense).chunk(2, dim=1)
        h = activation(norm(x)) * (1 + scale) + shift
        h = conv(h) + self.emb_layers(emb)[:, :, None, None]
        return self.skip_connection(x) + self.out_layers(h)
