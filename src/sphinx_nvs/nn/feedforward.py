"""Feed-forward with a gated GELU.

    GEGLU(x) = a * GELU(b),   [a | b] = W x + c

Reference: GLU Variants Improve Transformer (Shazeer, 2020).
Shapes: C channels; `*B` leading axes.
"""

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn


class GEGLU(nn.Module):
    """A linear layer to twice `dim_out` channels, whose second half gates the first."""

    def __init__(self, dim: int, dim_out: int) -> None:
        super().__init__()
        self.proj = nn.Linear(dim, 2 * dim_out)

    def forward(self, x: Float[Tensor, "*B C"]) -> Float[Tensor, "*B C_out"]:
        """The gated projection, with the exact (erf) GELU."""
        value, gate = self.proj(x).chunk(2, dim=-1)
        return value * F.gelu(gate)


class FeedForward(nn.Module):
    """GEGLU to `mult` times the width, and a linear layer back."""

    def __init__(self, dim: int, mult: int) -> None:
        super().__init__()
        # The middle slot is the dropout's in the checkpoints.
        self.net = nn.Sequential(GEGLU(dim, mult * dim), nn.Identity(), nn.Linear(mult * dim, dim))

    def forward(self, x: Float[Tensor, "*B C"]) -> Float[Tensor, "*B C"]:
        """Applies the feed-forward to every token independently."""
        return self.net(x)
