"""Photos that hold together, and parts of a scene that do not: two captures in one file.

Two photos hold together if matches between them fit their poses. Parts contradict each other if photos of both match,
and hardly any match fits even roughly; or if no two photos of them match and they have another camera each, or what is
alike in them fits the poses as seldom as chance.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, product

from sphinx_nvs.scene.matching import Features, Pair, likenesses
from sphinx_nvs.scene.sightings import Sighting, fits_of

_LEAST_FITTING, _MOSTLY = 12, 0.5
"""Matches that fit the poses of two photos which hold together, and their share of all."""

_LEAST_APART, _ROUGHLY, _HARDLY_ANY = 40, 0.06, 0.3
"""Matches between parts that contradict each other: at least; how far from epipolar lines most of them are, in pinhole
coordinates (poses that are wrong by two degrees fit more closely); and share that may be nearer."""

_MANY = 4
"""Photos of each of two parts that have no match."""

_LEAST_ALIKE, _CHANCE = 150, 0.01
"""Points that look alike in two parts, and share of them that fits any poses; of two parts of one scene more fit."""

_SAME_LENS = 1e-3


@dataclass(frozen=True, kw_only=True)
class Contradiction:
    """Two parts of a scene whose photos do not fit each other.

    Args:
        first: numbers of photos.
        second: as `first`, of the other part.
        matches: how many there are between them.
    """

    first: tuple[int, ...]
    second: tuple[int, ...]
    matches: int


def parts_of(pairs: Sequence[Pair], seen: Sequence[Sighting]) -> list[tuple[int, ...]]:
    """Numbers of photos by what holds together.

    Args:
        pairs: pairs of photos that are near each other, with matches or without.
        seen: the cameras, one a photo.
    """
    part = {photo: {photo} for photo in range(len(seen))}
    for pair, fit in zip(pairs, fits_of(pairs, seen), strict=True):
        fitting, count = int(fit.fits.sum()), int((fit.fits | ~fit.is_parallel).sum())
        if fitting >= _LEAST_FITTING and fitting >= _MOSTLY * count:
            joined = part[pair.first] | part[pair.second]
            part.update(dict.fromkeys(joined, joined))
    return sorted({tuple(sorted(photos)) for photos in part.values()})


def contradictions(
    pairs: Sequence[Pair], seen: Sequence[Sighting], known: Mapping[int, Features]
) -> Iterator[Contradiction]:
    """Parts that do not fit each other, however well each fits itself.

    Args:
        pairs: see `parts_of`.
        seen: the cameras, one a photo.
        known: the photos' keypoints.
    """
    for first, second in combinations([part for part in parts_of(pairs, seen) if len(part) > 1], 2):
        between = [pair for pair in pairs if _joins(pair, first, second)]
        matches = sum(map(len, between))
        are_apart = _fit_nowhere(between, seen) if matches else _have_nothing_in_common(first, second, seen, known)
        if are_apart:
            yield Contradiction(first=first, second=second, matches=matches)


def _joins(pair: Pair, first: Sequence[int], second: Sequence[int]) -> bool:
    return (pair.first in first and pair.second in second) or (pair.first in second and pair.second in first)


def _fit_nowhere(pairs: Sequence[Pair], seen: Sequence[Sighting]) -> bool:
    """Whether hardly any match between two parts fits the poses, even roughly."""
    fits = list(fits_of(pairs, seen, _ROUGHLY))
    count = sum(int((fit.fits | ~fit.is_parallel).sum()) for fit in fits)
    return count >= _LEAST_APART and sum(int(fit.fits.sum()) for fit in fits) < _HARDLY_ANY * count


def _have_nothing_in_common(
    first: Sequence[int], second: Sequence[int], seen: Sequence[Sighting], known: Mapping[int, Features]
) -> bool:
    """Whether large parts without matches have different cameras, or fit each other only by chance."""
    if min(len(first), len(second)) < _MANY:
        return False
    if _have_two_cameras(first, second, seen):
        return True
    pairs = list(likenesses(list(product(first, second)), known))
    count = sum(map(len, pairs))
    return count >= _LEAST_ALIKE and sum(int(fit.fits.sum()) for fit in fits_of(pairs, seen)) <= _CHANCE * count


def _have_two_cameras(first: Sequence[int], second: Sequence[int], seen: Sequence[Sighting]) -> bool:
    """Whether all photos of each part have one camera, and those of the parts have two."""
    lenses = [[_lens(seen[photo]) for photo in part] for part in (first, second)]
    within = all(_are_alike(lens, part[0]) for part in lenses for lens in part)
    return within and not _are_alike(lenses[0][0], lenses[1][0])


def _lens(camera: Sighting) -> tuple[float, ...]:
    """Focal lengths and principal point as shares of the picture."""
    K = camera.K
    across, down = camera.width, camera.height
    return tuple(float(x) for x in (K[0, 0] / across, K[1, 1] / down, K[0, 2] / across, K[1, 2] / down))


def _are_alike(one: tuple[float, ...], other: tuple[float, ...]) -> bool:
    return all(abs(a - b) <= _SAME_LENS for a, b in zip(one, other, strict=True))
