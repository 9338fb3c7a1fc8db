"""Which photos of a scene are examined one by one: all of a few, and of many those around a break.

There is a break between two photos that follow each other where hardly any of the points that look alike in both fit
their poses. Finding breaks takes keypoints of every photo at a very low resolution, and no more.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from sphinx_nvs.scene.matching import Features, likenesses
from sphinx_nvs.scene.sightings import Sighting, fits_of

FEW_PHOTOS = 16
"""So few photos are all examined."""

MOST_PHOTOS = 200
"""Of more photos, so many spread over all are taken for the whole."""

SIDE = 256
"""Pixels of the longer side that breaks are found at."""

_CLOSE = 0.008
"""As `sightings.CLOSE`, for keypoints at that resolution."""

_LEAST_FITTING, _LEAST_SHARE = 4, 0.2
"""Points that look alike in two photos of one place and fit their poses: at least, and their share."""

_MANY, _HARDLY_ANY = 20, 0.25
"""Points that look alike in two photos which follow each other against their poses: at least, and share that fits."""

_BEFORE, _BEHIND = 4, 6
"""Photos around a break that are examined."""

_MOST_PLACES, _MOST_BREAKS = 3, 0.25
"""Places that are examined, and share of photos with a break before them above which their order tells nothing."""


@dataclass(frozen=True, kw_only=True)
class Breaks:
    """Numbers of photos that do not seem to follow the one before.

    Args:
        unlike: hardly anything is alike in both; none if this holds for many photos.
        against: much is alike, and hardly anything of it fits their poses.
    """

    unlike: tuple[int, ...]
    against: tuple[int, ...]


def breaks_in(known: Mapping[int, Features], seen: Sequence[Sighting]) -> Breaks:
    """Where photos that follow each other do not fit.

    Args:
        known: keypoints of all photos, at a longer side of `SIDE` pixels.
        seen: the cameras, one a photo.
    """
    pairs = list(likenesses(list(pairwise(range(len(seen)))), known))
    unlike, against = [], []
    for pair, fit in zip(pairs, fits_of(pairs, seen, _CLOSE), strict=True):
        fitting = int((fit.fits | fit.is_parallel).sum())
        if len(pair) >= _MANY and fitting < _HARDLY_ANY * len(pair):
            against.append(pair.second)
        elif fitting < max(_LEAST_FITTING, _LEAST_SHARE * len(pair)):
            unlike.append(pair.second)
    is_ordered = len(unlike) <= _MOST_BREAKS * len(seen)
    return Breaks(unlike=tuple(unlike) if is_ordered else (), against=tuple(against))


def places_to_examine(found: Breaks, photos: int) -> Iterator[range]:
    """Runs of photos around breaks: first around those that have another one beside them, as single wrong photos have.

    Args:
        found: see `breaks_in`.
        photos: number of photos.
    """
    breaks = sorted((*found.unlike, *found.against))
    first = [photo for photo in breaks if photo - 1 in breaks or photo + 1 in breaks or photo in (1, photos - 1)]
    taken: list[range] = []
    for photo in [*first, *(photo for photo in breaks if photo not in first)]:
        if len(taken) < _MOST_PLACES and not any(photo in inner[2:-2] for inner in taken):
            start = min(max(0, photo - _BEFORE), max(0, photos - _BEFORE - _BEHIND))
            taken.append(range(start, min(photos, start + _BEFORE + _BEHIND)))
    yield from taken
