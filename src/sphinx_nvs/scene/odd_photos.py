"""Single photos that do not belong to the others.

Nearly none of their matches with others fit the poses, while those of the others do; or they have none, although the
photos before and after match each other and the pose is between theirs. The check of all matches together
(`conventions`) passes over a few wrong views among many right ones.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from sphinx_nvs.geometry import se3
from sphinx_nvs.scene.matching import Pair
from sphinx_nvs.scene.sightings import Sighting, fits_of

MOST_PHOTOS = 16
"""Captures with more are not judged photo by photo: matching takes a tenth of a second a photo."""

_LEAST_MATCHES = 40
_NEARLY_NONE, _THE_OTHERS_FIT = 0.15, 0.6
"""Share of matches that fit: of an odd photo at most, and of the others at least."""

_LEAST_PAIRS = 3
_MINORITY = 1 / 3
_TEXTURED = 200
"""Keypoints of photos that would match if they showed the same."""


@dataclass(frozen=True, kw_only=True)
class _Judged:
    """Two photos, how many of their matches have parallax, and how many of these fit the poses."""

    first: int
    second: int
    keypoints: int
    count: int
    fitting: int

    def __contains__(self, photo: object) -> bool:
        return photo in (self.first, self.second)


def odd_photos(pairs: Sequence[Pair], seen: Sequence[Sighting]) -> tuple[list[int], list[int]]:
    """Numbers of photos that fit none of the others: by their matches, and for want of any.

    Args:
        pairs: photos that are near each other in order, with matches or without.
        seen: the cameras, one a photo.
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
    strangers = [photo for photo in range(len(seen)) if photo not in misfits and _is_stranger(photo, rest, seen)]
    odd = len(misfits) + len(strangers)
    return (sorted(misfits), strangers) if odd <= _MINORITY * len(seen) else ([], [])


def _judged(pairs: Sequence[Pair], seen: Sequence[Sighting]) -> Iterator[_Judged]:
    for pair, fit in zip(pairs, fits_of(pairs, seen), strict=True):
        fitting = int(fit.fits.sum())
        count = int((fit.fits | ~fit.is_parallel).sum())
        yield _Judged(first=pair.first, second=pair.second, keypoints=pair.keypoints, count=count, fitting=fitting)


def _share(pairs: Sequence[_Judged]) -> float:
    return sum(pair.fitting for pair in pairs) / max(1, sum(pair.count for pair in pairs))


def _worst(pairs: Sequence[_Judged], photos: int) -> int | None:
    """Of the photos with many matches of which nearly none fit, the one with the most; None if there is none."""
    own = {photo: [pair for pair in pairs if photo in pair] for photo in range(photos)}
    counts = {photo: sum(pair.count for pair in mine) for photo, mine in own.items()}
    wrong = [photo for photo, mine in own.items() if counts[photo] >= _LEAST_MATCHES and _share(mine) < _NEARLY_NONE]
    return max(wrong, key=lambda photo: counts[photo], default=None)


def _is_stranger(photo: int, pairs: Sequence[_Judged], seen: Sequence[Sighting]) -> bool:
    """Whether a photo whose pose is between its neighbours' matches none, and these match each other."""
    mine = {pair.first + pair.second - photo: pair for pair in pairs if photo in pair}
    if photo - 1 not in mine or photo + 1 not in mine or any(pair.count for pair in mine.values()):
        return False
    around = [pair for pair in pairs if (pair.first, pair.second) == (photo - 1, photo + 1)]
    is_textured = all(pair.keypoints >= _TEXTURED for pair in mine.values())
    return is_textured and any(pair.count for pair in around) and _is_between(*seen[photo - 1 : photo + 2])


def _is_between(before: Sighting, here: Sighting, after: Sighting) -> bool:
    """Whether a camera is no further from two others, and no more turned, than these from each other."""
    distance, angle = _apart(before, after)
    return all(d <= distance and a <= angle for d, a in (_apart(before, here), _apart(here, after)))


def _apart(one: Sighting, other: Sighting) -> tuple[float, float]:
    """Distance of two cameras and angle between them."""
    return float((one.c2w[:3, 3] - other.c2w[:3, 3]).norm()), float(se3.rotation_angle(one.c2w, other.c2w))


def neighbours(photos: int) -> list[tuple[int, int]]:
    """Pairs of numbers that are one or two apart."""
    order = range(photos)
    return [*pairwise(order), *zip(order, order[2:], strict=False)]
