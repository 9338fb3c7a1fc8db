"""Do poses fit their own photos better than the poses of other photos would?

On the matches of two photos, the poses of any two are tried. Imprecise poses fit their own photos better than nearly
all others do; where poses belong to other photos, their place among all is chance.

Shapes: V photos, P pairs of poses.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from sphinx_nvs.geometry import se3
from sphinx_nvs.scene.matching import Pair
from sphinx_nvs.scene.sightings import Sighting, misfit_of

_MOST_POSES = 1000
_MOST_MATCHES = 60
_FAR = 0.06
"""Of pinhole coordinates: what poses that are wrong by two degrees still fit."""


def ranks_of(pairs: Sequence[Pair], seen: Sequence[Sighting]) -> Float[Tensor, "N"]:
    """For each pair of photos, the share of other pairs of poses that fit its matches better than its own, 0 to 1.

    Args:
        pairs: with matches.
        seen: the cameras, one a photo.
    """
    c2w = torch.stack([each.c2w for each in seen])
    first, second = _some_pairs(len(c2w))
    others = se3.inverse(c2w[second]) @ c2w[first]
    return torch.stack([_rank(pair, seen, others) for pair in pairs])


def _some_pairs(count: int) -> tuple[Tensor, Tensor]:
    """Pairs of different numbers below `count`: all, or so many by chance, always the same."""
    first, second = torch.meshgrid(torch.arange(count), torch.arange(count), indexing="ij")
    is_other = first != second
    first, second = first[is_other], second[is_other]
    chosen = torch.randperm(len(first), generator=torch.Generator().manual_seed(0))[:_MOST_POSES]
    return first[chosen], second[chosen]


def _rank(pair: Pair, seen: Sequence[Sighting], others: Float[Tensor, "P 4 4"]) -> Float[Tensor, ""]:
    step = -(-len(pair) // _MOST_MATCHES)
    here, there = seen[pair.first], seen[pair.second]
    rays = here.rays(pair.here[::step]), there.rays(pair.there[::step])
    own = misfit_of(se3.inverse(there.c2w) @ here.c2w, *rays, _FAR)
    misfits = misfit_of(others, *rays, _FAR)
    # Of those that fit as well, its own is one.
    return ((misfits < own).double() + 0.5 * (misfits == own).double()).mean()
