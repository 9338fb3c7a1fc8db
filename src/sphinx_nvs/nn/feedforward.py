"""Feed-forward with a gated GELU.

    GEGLU(x) = a * GELU(b),   [a | b] = W x + c

Reference: GLU Variants Improve Transformer (Shazeer, 2020).
Shapes: C channels; `*B` leading axes.
"""

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn


class GEGLU(nn.Module):
    """One linear layer to twice `dim_out`, its second half gating the first."""

    def __init__(self, dim: int, dim_out: int) -> None:
        super().__init__()
        self.proj = nn.Linear(dim, 2 * dim_out)

    def forward(self, x: Float[Tensor, "*B C"]) -> Float[Tensor, "*B C_out"]:
        """The gated projection, with the exact (erf) GELU."""
        value, gate = self.proj(x).chunk(2, dim=-1)
        return value * F.gelu(gate)


class FeedForward(nn.Module):
    """GEGLU to `mult` times the width and a linear layer back."""

    def __init__(self, dim: int, mult: int) -> None:
        super().__init__()
        # The middle slot is where the checkpoints' dropout sits.
        self.net = nn.Sequential(GEGLU(dim, mult * dim), nn.Identity(), nn.Linear(mult * dim, dim))

    def forward(self, x: Float[Tensor, "*B C"]) -> Float[Tensor, "*B C"]:
        """Acts on every token alone."""
        return self.net(x)
