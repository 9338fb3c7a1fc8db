"""Multi-head attention, split into the steps that a caller with cached keys and values needs.

    Attention(x, y) = W_o softmax(Q K^T / sqrt(d)) V,   Q = W_q x,   K = W_k y,   V = W_v y

With one context token the softmax is exactly 1, so the result is W_o W_v y for every query.
Reference: Attention Is All You Need (Vaswani et al., 2017, section 3.2).
Shapes: L queries, M keys, C channels, D context channels, H heads, d channels of a head; `*B` leading axes.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

SHORT = 64
"""Number of keys up to which plain products beat the CPU's fused kernel in bfloat16, 2 to 10 times in training."""


class Attention(nn.Module):
    """Self-attention, or cross-attention when `context_dim` is given.

    Args:
        dim: channels of the queries and of the result, a multiple of `head_dim`.
        head_dim: channels of one head.
        context_dim: channels of the keys' and values' source; None for self-attention.
    """

    def __init__(self, dim: int, head_dim: int, context_dim: int | None = None) -> None:
        super().__init__()
        self.head_dim = head_dim
        source_dim = dim if context_dim is None else context_dim
        self.to_q = nn.Linear(dim, dim, bias=False)
        self.to_k = nn.Linear(source_dim, dim, bias=False)
        self.to_v = nn.Linear(source_dim, dim, bias=False)
        self.to_out = nn.Sequential(nn.Linear(dim, dim))

    def queries(self, x: Float[Tensor, "*B L C"]) -> Float[Tensor, "*B H L d"]:
        """Queries of `x`."""
        return split_heads(self.to_q(x), self.head_dim)

    def keys_values(self, y: Float[Tensor, "*B M D"]) -> tuple[Float[Tensor, "*B H M d"], Float[Tensor, "*B H M d"]]:
        """Keys and values of `y`; a caller may cache both and overwrite entries with fresh ones."""
        return split_heads(self.to_k(y), self.head_dim), split_heads(self.to_v(y), self.head_dim)

    def attend(
        self, q: Float[Tensor, "*B H L d"], k: Float[Tensor, "*#B H M d"], v: Float[Tensor, "*#B H M d"]
    ) -> Float[Tensor, "*B L C"]:
        """The weighted sum of values, heads joined and projected out."""
        return self.to_out(merge_heads(attention(q, k, v)))

    def one_token(self, y: Float[Tensor, "*B 1 D"]) -> Float[Tensor, "*B 1 C"]:
        """The exact result for any query if `y` is a single token."""
        return self.to_out(self.to_v(y))

    def forward(self, x: Float[Tensor, "*B L C"], y: Float[Tensor, "*#B M D"] | None = None) -> Float[Tensor, "*B L C"]:
        """Attends from `x` to `y`, or to itself if `y` is None."""
        k, v = self.keys_values(x if y is None else y)
        return self.attend(self.queries(x), k, v)


def split_heads(x: Float[Tensor, "*B L C"], head_dim: int) -> Float[Tensor, "*B H L {head_dim}"]:
    """Splits channels into heads; a view."""
    return x.unflatten(-1, (-1, head_dim)).transpose(-2, -3)


def merge_heads(x: Float[Tensor, "*B H L d"]) -> Float[Tensor, "*B L C"]:
    """Merges heads into channels: the inverse of `split_heads`."""
    return x.transpose(-2, -3).flatten(-2)


def attention(
    q: Float[Tensor, "*B H L d"], k: Float[Tensor, "*#B H M d"], v: Float[Tensor, "*#B H M d"]
) -> Float[Tensor, "*B H L d"]:
    """softmax(q k^T / sqrt(d)) v by the fastest kernel; leading axes of k and v broadcast to those of q."""
    lead = q.shape[:-3]
    if k.shape[:-3] != lead:
        k, v = k.expand(*lead, *k.shape[-3:]), v.expand(*lead, *v.shape[-3:])
    if q.device.type == "cpu" and q.dtype == torch.bfloat16 and k.shape[-2] <= SHORT:
        return plain_attention(q, k, v)
    if len(lead) == 1:
        return F.scaled_dot_product_attention(q, k, v)
    # The fused kernels take exactly one leading axis.
    flat_q, flat_k, flat_v = (part.reshape(-1, *part.shape[-3:]) for part in (q, k, v))
    return F.scaled_dot_product_attention(flat_q, flat_k, flat_v).view(q.shape)


def plain_attention(
    q: Float[Tensor, "*B H L d"], k: Float[Tensor, "*#B H M d"], v: Float[Tensor, "*#B H M d"]
) -> Float[Tensor, "*B H L d"]:
    """The same by its formula, storing all L M weights at once."""
    return ((q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2)).softmax(dim=-1) @ v
