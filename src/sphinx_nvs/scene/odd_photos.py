"""Single photos that do not belong to the others.

Nearly none of their matches with others fit the poses, while those of the others do; or they have none, although other
photos match that are as far apart as these are. The check of all matches together (`conventions`) passes over a few
wrong views among many right ones.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch

from sphinx_nvs.geometry import se3
from sphinx_nvs.scene.matching import Features, Pair, likenesses
from sphinx_nvs.scene.sightings import Sighting, fits_of

_LEAST_MATCHES = 40
_NEARLY_NONE, _THE_OTHERS_FIT = 0.15, 0.6
"""Share of matches that fit: of an odd photo at most, and of the others at least."""

_LEAST_PAIRS = 3
_MINORITY = 1 / 3
_LEAST_NEAR, _NEARLY_ALL = 2, 0.9
"""Neighbours that a photo of the scene would match, and share of matching photos which are as far apart at most."""

_LEAST_ALIKE, _BY_CHANCE = 5, 1
"""Points that look alike in a photo and its neighbours, and how many of them fit any poses."""


@dataclass(frozen=True, kw_only=True)
class _Judged:
    """Two photos, how many of their matches have parallax, and how many of these fit the poses."""

    first: int
    second: int
    count: int
    fitting: int

    def __contains__(self, photo: object) -> bool:
        return photo in (self.first, self.second)


def odd_photos(
    pairs: Sequence[Pair], seen: Sequence[Sighting], known: Mapping[int, Features]
) -> tuple[list[int], list[int]]:
    """Numbers of photos that fit none of the others: by their matches, and for want of any.

    Args:
        pairs: photos that are near each other in order, with matches or without.
        seen: the cameras, one a photo.
        known: the photos' keypoints.
    """
    judged = list(_judged(pairs, seen))
    misfits: list[int] = []
    rest = judged
    while (worst := _worst(rest, len(seen))) is not None:
        misfits.append(worst)
        rest = [pair for pair in rest if worst not in pair]
    matched = [pair for pair in rest if pair.count]
    if len(matched) < _LEAST_PAIRS or _share(matched) < _THE_OTHERS_FIT:
        return [], []
    others = [photo for photo in range(len(seen)) if photo not in misfits]
    strangers = [photo for photo in others if _is_stranger(photo, pairs, seen, known)]
    odd = len(misfits) + len(strangers)
    return (sorted(misfits), strangers) if odd <= _MINORITY * len(seen) else ([], [])


def _judged(pairs: Sequence[Pair], seen: Sequence[Sighting]) -> Iterator[_Judged]:
    for pair, fit in zip(pairs, fits_of(pairs, seen), strict=True):
        fitting = int(fit.fits.sum())
        count = int((fit.fits | ~fit.is_parallel).sum())
        yield _Judged(first=pair.first, second=pair.second, count=count, fitting=fitting)


def _share(pairs: Sequence[_Judged]) -> float:
    return sum(pair.fitting for pair in pairs) / max(1, sum(pair.count for pair in pairs))


def _worst(pairs: Sequence[_Judged], photos: int) -> int | None:
    """Of the photos with many matches of which nearly none fit, the one with the most; None if there is none."""
    own = {photo: [pair for pair in pairs if photo in pair] for photo in range(photos)}
    counts = {photo: sum(pair.count for pair in mine) for photo, mine in own.items()}
    wrong = [photo for photo, mine in own.items() if counts[photo] >= _LEAST_MATCHES and _share(mine) < _NEARLY_NONE]
    return max(wrong, key=lambda photo: counts[photo], default=None)


def _is_stranger(photo: int, pairs: Sequence[Pair], seen: Sequence[Sighting], known: Mapping[int, Features]) -> bool:
    """Whether a photo matches none of its neighbours, although photos that are as far apart as these do match.

    What looks alike in photos that show too little in common still fits their poses now and then.
    """
    mine = [pair for pair in pairs if photo in (pair.first, pair.second)]
    matched = [_apart(seen[pair.first], seen[pair.second]) for pair in pairs if len(pair)]
    if any(map(len, mine)) or len(matched) < _LEAST_PAIRS:
        return False
    limits = [_most_of(lengths) for lengths in zip(*matched, strict=True)]
    near = [pair for pair in mine if _is_within(_apart(seen[pair.first], seen[pair.second]), limits)]
    alike = list(likenesses([(pair.first, pair.second) for pair in mine], known))
    fitting = sum(int(fit.fits.sum()) for fit in fits_of(alike, seen))
    return len(near) >= _LEAST_NEAR and sum(map(len, alike)) >= _LEAST_ALIKE and fitting <= _BY_CHANCE


def _most_of(lengths: Sequence[float]) -> float:
    """What nearly all of some lengths are within."""
    return float(torch.tensor(lengths, dtype=torch.float64).quantile(_NEARLY_ALL))


def _is_within(apart: Sequence[float], limits: Sequence[float]) -> bool:
    return all(length <= limit for length, limit in zip(apart, limits, strict=True))


def _apart(one: Sighting, other: Sighting) -> tuple[float, float]:
    """Distance of two cameras and angle between them."""
    return float((one.c2w[:3, 3] - other.c2w[:3, 3]).norm()), float(se3.rotation_angle(one.c2w, other.c2w))


def neighbours(photos: int) -> list[tuple[int, int]]:
    """Pairs of numbers that are one or two apart."""
    order = range(photos)
    return [*pairwise(order), *zip(order, order[2:], strict=False)]
