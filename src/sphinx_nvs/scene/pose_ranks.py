"""Do poses fit their own photos, or do those of other photos of the scene?

On the matches of two photos, the poses of any two are tried. Imprecise poses fit their own photos better than nearly
all others do, and no others fit precisely. Where poses belong to other photos, their place among all is chance, and
those of some two others fit as precisely as right ones do.

Shapes: P pairs of poses.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from sphinx_nvs.geometry import se3
from sphinx_nvs.scene.matching import Pair
from sphinx_nvs.scene.sightings import Sighting, fit_of, misfit_of

_MOST_POSES = 20_000
_MOST_MATCHES, _FEW_MATCHES = 60, 15
_NEAREST = 60
"""Pairs of poses that all matches are tried on, after a few of these."""

_FAR = 0.06
"""Of pinhole coordinates: what poses that are wrong by two degrees still fit."""


@dataclass(frozen=True, kw_only=True)
class Rank:
    """How the poses of two photos stand among those of any two.

    Args:
        given: share of matches that fit their own.
        best: share of matches that fit the best of all.
        before: share of all that fit better than their own.
    """

    given: float
    best: float
    before: float


def ranks_of(pairs: Sequence[Pair], seen: Sequence[Sighting]) -> list[Rank]:
    """How the poses of each pair of photos stand among those of any two.

    Args:
        pairs: with matches.
        seen: the cameras, one a photo.
    """
    c2w = torch.stack([each.c2w for each in seen])
    first, second = _some_pairs(len(c2w))
    others = se3.inverse(c2w[second]) @ c2w[first]
    return [_rank(pair, seen, others) for pair in pairs]


def _some_pairs(count: int) -> tuple[Tensor, Tensor]:
    """Pairs of different numbers below `count`: all, or so many by chance, always the same."""
    first, second = torch.meshgrid(torch.arange(count), torch.arange(count), indexing="ij")
    is_other = first != second
    first, second = first[is_other], second[is_other]
    chosen = torch.randperm(len(first), generator=torch.Generator().manual_seed(0))[:_MOST_POSES]
    return first[chosen], second[chosen]


def _rank(pair: Pair, seen: Sequence[Sighting], others: Float[Tensor, "P 4 4"]) -> Rank:
    here, there = seen[pair.first], seen[pair.second]
    step = -(-len(pair) // _MOST_MATCHES)
    x1, x2 = here.rays(pair.here[::step]), there.rays(pair.there[::step])
    own = se3.inverse(there.c2w) @ here.c2w
    few = -(-len(x1) // _FEW_MATCHES)
    misfits = misfit_of(others, x1[::few], x2[::few], _FAR)
    before = float((misfits < misfit_of(own, x1[::few], x2[::few], _FAR)).double().mean())
    nearest = others[misfits.topk(min(_NEAREST, len(others)), largest=False).indices]
    fits = fit_of(torch.cat([own[None], nearest]), x1, x2).fits.double().mean(dim=-1)
    return Rank(given=float(fits[0]), best=float(fits[1:].max()), before=before)
