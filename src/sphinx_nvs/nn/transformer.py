"""Multi-view transformer over feature maps: attention within or across views, then along the frames of each cell.

    x -> x + W_out(u + m),   u = Spatial(W_in GN(x)),   m = TimeMix(u)

A *joint* transformer attends over all cells of all views at once, any other over the cells of each view alone.
There is no positional or frame embedding: only the dense ray map carries a token's position and direction.
Reference: Stable Virtual Camera (Zhou et al., 2025), whose parameter names are kept.
Shapes: N = B T rows (batch-major), B requests, T frames, P = h w cells, C channels, M context tokens of D
channels.
"""

from jaxtyping import Float
from torch import Tensor, nn

from sphinx_nvs.nn.attention import Attention
from sphinx_nvs.nn.feedforward import FeedForward
from sphinx_nvs.nn.norms import group_norm


class SpatialBlock(nn.Module):
    """Self-attention, cross-attention if there is a context, feed-forward; each pre-normed and residual."""

    def __init__(self, dim: int, *, head_dim: int, context_dim: int | None, ff_mult: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim)
        self.attn1 = Attention(dim, head_dim)
        if context_dim is not None:
            self.norm2 = nn.LayerNorm(dim)
            self.attn2 = Attention(dim, head_dim, context_dim)
        self.norm3 = nn.LayerNorm(dim)
        self.ff = FeedForward(dim, ff_mult)

    def cross(self, x: Float[Tensor, "*B L C"], context: Float[Tensor, "*#B M D"]) -> Float[Tensor, "*#B #L C"]:
        """The context's contribution to every token; for a one-token context a constant, with one row."""
        # Softmax over a single token is 1 whatever the query: the result is that token's value, for all rows.
        if context.shape[-2] == 1:
            return self.attn2.one_token(context)
        return self.attn2(self.norm2(x), context)

    def forward(self, x: Float[Tensor, "*B L C"], context: Float[Tensor, "*#B M D"] | None) -> Float[Tensor, "*B L C"]:
        """Mixes the L tokens of each sequence."""
        x = x + self.attn1(self.norm1(x))
        if context is not None:
            x = x + self.cross(x, context)
        return x + self.ff(self.norm3(x))


class TimeMixBlock(SpatialBlock):
    """The same layers after an extra feed-forward; without the last residual: it returns an increment."""

    def __init__(self, dim: int, *, head_dim: int, context_dim: int | None, ff_mult: int) -> None:
        super().__init__(dim, head_dim=head_dim, context_dim=context_dim, ff_mult=ff_mult)
        self.norm_in = nn.LayerNorm(dim)
        self.ff_in = FeedForward(dim, ff_mult)

    def forward(self, x: Float[Tensor, "*B L C"], context: Float[Tensor, "*#B M D"] | None) -> Float[Tensor, "*B L C"]:
        """The increment for the L frames of each cell."""
        x = x + self.ff_in(self.norm_in(x))
        x = x + self.attn1(self.norm1(x))
        if context is not None:
            x = x + self.cross(x, context)
        return self.ff(self.norm3(x))


class MultiviewTransformer(nn.Module):
    """A stack of spatial and time-mix blocks with a residual connection around it.

    Args:
        dim: channels of the map.
        head_dim: channels of one attention head; divides `dim`.
        depth: pairs of blocks.
        context_dim: channels of the cross-attention context; None leaves cross-attention out.
        ff_mult: inner width of the feed-forwards over `dim`.
        groups: groups of the group norm.
        joint: whether spatial attention spans all views.
        time_mix: whether the blocks along the frames exist.
    """

    def __init__(
        self,
        dim: int,
        *,
        head_dim: int,
        depth: int,
        context_dim: int | None,
        ff_mult: int,
        groups: int,
        joint: bool,
        time_mix: bool,
    ) -> None:
        super().__init__()
        self.joint = joint
        self.norm = group_norm(dim, groups, eps=1e-6)
        self.proj_in = nn.Linear(dim, dim)
        sizes = {"head_dim": head_dim, "ff_mult": ff_mult}
        self.transformer_blocks = nn.ModuleList(
            SpatialBlock(dim, context_dim=context_dim, **sizes) for _ in range(depth)
        )
        self.time_mix_blocks = nn.ModuleList(
            TimeMixBlock(dim, context_dim=context_dim, **sizes) for _ in range(depth if time_mix else 0)
        )
        self.proj_out = nn.Linear(dim, dim)

    def forward(
        self, x: Float[Tensor, "N C h w"], context: Float[Tensor, "N M D"] | None, num_frames: int
    ) -> Float[Tensor, "N C h w"]:
        """Mixes the cells of `num_frames` views."""
        tokens = self.proj_in(tokens_from_map(self.norm(x)))
        for depth, spatial in enumerate(self.transformer_blocks):
            tokens = self.across_cells(spatial, tokens, context, num_frames)
            if len(self.time_mix_blocks):
                tokens = tokens + self.along_frames(self.time_mix_blocks[depth], tokens, context, num_frames)
        return x + map_from_tokens(self.proj_out(tokens), x.shape[-2], x.shape[-1])

    def across_cells(
        self,
        block: nn.Module,
        tokens: Float[Tensor, "N P C"],
        context: Float[Tensor, "N M D"] | None,
        num_frames: int,
    ) -> Float[Tensor, "N P C"]:
        """Runs a spatial block per view, or over all views' cells with the context of the first."""
        if not self.joint:
            return block(tokens, context)
        # All cells of all views are one sequence, which has one context: that of the first view.
        sequences = tokens.reshape(-1, num_frames * tokens.shape[1], tokens.shape[2])
        return block(sequences, first_frames(context, num_frames)).view(tokens.shape)

    def along_frames(
        self,
        block: nn.Module,
        tokens: Float[Tensor, "N P C"],
        context: Float[Tensor, "N M D"] | None,
        num_frames: int,
    ) -> Float[Tensor, "N P C"]:
        """Runs a time-mix block over the frames of every cell, with the context of the first frame."""
        columns = tokens.unflatten(0, (-1, num_frames)).transpose(1, 2).contiguous()
        first = first_frames(context, num_frames)
        return block(columns, None if first is None else first[:, None]).transpose(1, 2).flatten(0, 1)


def first_frames(context: Float[Tensor, "N M D"] | None, num_frames: int) -> Float[Tensor, "B M D"] | None:
    """The context of each request's first frame."""
    return None if context is None else context[::num_frames]


def tokens_from_map(x: Float[Tensor, "N C h w"]) -> Float[Tensor, "N P C"]:
    """Cells in row-major order; a view."""
    return x.flatten(2).transpose(1, 2)


def map_from_tokens(tokens: Float[Tensor, "N P C"], height: int, width: int) -> Float[Tensor, "N C {height} {width}"]:
    """The inverse of `tokens_from_map`; a view."""
    return tokens.transpose(1, 2).unflatten(2, (height, width))
