"""The one mutable part of a request's conditioning: what searches of the photos have found, by view.

Decoding a view fills its entry, decoding it again with the same estimate reads it, and temporal consistency takes the
depths of decoded views from it. A cache belongs to one request.

Shapes: C latent channels, h w cells.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from sphinx_nvs.models.embedded.decoder_inputs import Found


@dataclass(frozen=True, kw_only=True, eq=False)
class Search:
    """Surfaces of a view, and the estimate that they were searched with; None for those of the survey."""

    estimate: Float[Tensor, "1 C h w"] | None
    found: Found


class SearchCache:
    """Searches of one request, the latest of each view."""

    def __init__(self) -> None:
        self._by_view: dict[int, Search] = {}

    def known(self, view: int, estimate: Float[Tensor, "1 C h w"]) -> Found | None:
        """Outcome of the view's latest search if that was made with this estimate; else None."""
        latest = self._by_view.get(view)
        if latest is None or latest.estimate is None:
            return None
        return latest.found if torch.equal(latest.estimate, estimate) else None

    def keep(self, view: int, estimate: Float[Tensor, "1 C h w"] | None, found: Found) -> None:
        """Makes these the view's latest surfaces."""
        self._by_view[view] = Search(estimate=estimate, found=found)

    def inverse_depths(self, views: Sequence[int]) -> Float[Tensor, "v 1 h2 w2"]:
        """Inverse depths that the searches of these views found.

        Raises:
            ValueError: a view was never decoded.
        """
        missing = [view for view in views if view not in self._by_view]
        if missing:
            raise ValueError(f"view {missing[0]} was never decoded, so its photos were never searched")
        return torch.cat([self._by_view[view].found.inverse_depth for view in views])
