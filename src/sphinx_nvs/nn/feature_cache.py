"""Features that sparse calls of one request read from earlier calls; owned by the request.

A dense call stores, for every layer that mixes tokens, what other tokens read: inputs of convolutions, keys and values,
and the sums of each group norm. A sparse call reads the inactive tokens' entries and overwrites the active tokens'.

Shapes: N frames, T tokens of a level, T1 = T + 1 rows including a last one of zeros, C channels, G groups.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from sphinx_nvs.errors import SphinxError


@dataclass(eq=False)
class NormSums:
    """Sums of a group norm: of values and of squares, concatenated.

    Args:
        tokens: sums over each token's channels in each group.
        frames: sums over all tokens of a frame, in double precision, so that many small updates do not accumulate
            errors.
    """

    tokens: Float[Tensor, "T G2"]
    frames: Float64[Tensor, "N G2"]


@dataclass(eq=False)
class FeatureCache:
    """Features of every token of one request, as of the last call that computed it.

    Args:
        rows: per layer, inputs of convolutions (with the zero row), or keys and values concatenated.
        sums: sums of each group norm.
        sigma: noise level of the last dense call; None before the first.
        drift: change of the active tokens' watched keys and values since then: the sum over calls of the relative
            change, 0 right after a dense call.
    """

    rows: dict[str, Tensor] = field(default_factory=dict)
    sums: dict[str, NormSums] = field(default_factory=dict)
    sigma: float | None = None
    drift: float = 0.0

    @property
    def num_bytes(self) -> int:
        """Bytes of memory held."""
        tensors = [*self.rows.values(), *(t for s in self.sums.values() for t in (s.tokens, s.frames))]
        return sum(t.numel() * t.element_size() for t in tensors)

    def check(self) -> None:
        """Checks that the cache is valid input for a sparse call.

        Raises:
            SphinxError: nothing is cached yet, a value is not finite, a zero row is not zero, or a frame's sums differ
                from those of its tokens.
        """
        if self.sigma is None or not self.rows:
            raise SphinxError("the feature cache is empty: the first call of a request must be dense")
        for name, rows in self.rows.items():
            if not bool(torch.isfinite(rows).all()):
                raise SphinxError(f"the feature cache is damaged: {name} holds a value that is not finite")
            if name.endswith("conv") and bool(rows[-1].any()):
                raise SphinxError(f"the feature cache is damaged: the zero row of {name} is not zero")
        for name, sums in self.sums.items():
            fresh = sums.tokens.view(len(sums.frames), -1, sums.tokens.shape[1]).sum(1, dtype=torch.float64)
            if not torch.allclose(fresh, sums.frames, rtol=1e-4, atol=1e-3):
                raise SphinxError(f"the feature cache is damaged: the sums of {name} are not those of its tokens")
