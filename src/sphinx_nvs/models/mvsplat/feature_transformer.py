"""Exchange of features between views: six blocks of self- and cross-attention in windows.

With x_v the tokens of view v at the start of a block and A the windowed attention of `window_attention`,

    s_v = x_v + LN(W A(x_v, x_v)),      m = LN1(W A(s_v, {x_u : u != v})),
    x_v <- s_v + LN2(W2 gelu(W1 [s_v, m]))

All views are updated at once, from the other views' features at the start of the block.
Reference: GMFlow / UniMatch (Xu et al., 2022), as MVSplat (Chen et al., 2024, section 3.1) uses it.

Shapes: V views, N = h w tokens, C channels, n tokens of a window, W windows.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from sphinx_nvs.models.mvsplat.window_attention import Windows, position_code, windowed_attention

NUM_BLOCKS = 6
INNER_MULT = 4


class AttentionLayer(nn.Module):
    """LN(W A(x, y)), and a feed-forward on it if `has_ffn`; with the residual connection."""

    def __init__(self, channels: int, has_ffn: bool) -> None:
        super().__init__()
        self.q_proj, self.k_proj, self.v_proj, self.merge = (
            nn.Linear(channels, channels, bias=False) for _ in range(4)
        )
        self.norm1 = nn.LayerNorm(channels)
        self.has_ffn = has_ffn
        if has_ffn:
            inner = 2 * channels * INNER_MULT
            self.mlp = nn.Sequential(
                nn.Linear(2 * channels, inner, bias=False), nn.GELU(), nn.Linear(inner, channels, bias=False)
            )
            self.norm2 = nn.LayerNorm(channels)

    def forward(
        self, x: Float[Tensor, "V N C"], keys: Float[Tensor, "V W M C"], windows: Windows
    ) -> Float[Tensor, "V N C"]:
        """Updates `x`; `keys` are tokens already split into windows."""
        q = windows.cut(self.q_proj(x))
        attended = windowed_attention(q, self.k_proj(keys), self.v_proj(keys), windows.mask(x))
        message = self.norm1(self.merge(windows.join(attended)))
        if self.has_ffn:
            message = self.norm2(self.mlp(torch.cat([x, message], -1)))
        return x + message


class Block(nn.Module):
    """Self-attention, then cross-attention with a feed-forward."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.self_attn = AttentionLayer(channels, has_ffn=False)
        self.cross_attn_ffn = AttentionLayer(channels, has_ffn=True)

    def forward(self, x: Float[Tensor, "V N C"], windows: Windows) -> Float[Tensor, "V N C"]:
        """Updates the tokens of all views."""
        own = windows.cut(x)
        return self.cross_attn_ffn(self.self_attn(x, own, windows), _of_others(own), windows)


class FeatureTransformer(nn.Module):
    """Position codes and six blocks; windows of odd blocks are shifted."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(Block(channels) for _ in range(NUM_BLOCKS))

    def forward(self, features: Float[Tensor, "V C h w"]) -> Float[Tensor, "V C h w"]:
        """Features after attention to the other views; h and w are even."""
        channels, h, w = features.shape[1:]
        x = (features + position_code(channels, h, w).to(features)).flatten(2).transpose(1, 2)
        for index, block in enumerate(self.layers):
            x = block(x, Windows(h, w, is_shifted=index % 2 == 1))
        return x.transpose(1, 2).unflatten(2, (h, w))


def _of_others(tokens: Float[Tensor, "V W n C"]) -> Float[Tensor, "V W M C"]:
    """For every view, the tokens of all other views, window by window."""
    views = range(len(tokens))
    return torch.stack([torch.cat([tokens[u] for u in views if u != v], dim=1) for v in views])
