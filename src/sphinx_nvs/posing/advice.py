"""Why a photo found no place, and which photo would give it one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sphinx_nvs.errors import InputError
from sphinx_nvs.posing.held_out import PairMatches
from sphinx_nvs.posing.photo_set import Photo

_NAMED = 3


@dataclass(frozen=True, kw_only=True)
class Reason:
    """A photo without a camera: what is wrong with it, and what to do about it."""

    photo: str
    found: str
    hint: str


class UnposedError(InputError):
    """Photos that do not determine cameras.

    Args:
        where: see `InputError`, as the next two.
        found: what is wrong.
        hint: what to photograph instead.
        reasons: what is wrong with single photos.
    """

    def __init__(self, where: str, found: str, hint: str, reasons: Sequence[Reason] = ()) -> None:
        super().__init__(where, found, hint)
        self.reasons = tuple(reasons)


def left_out(photos: Sequence[Photo], registered: Sequence[str], pairs: Sequence[PairMatches]) -> list[Reason]:
    """A reason for every photo without a camera, in their order.

    Args:
        photos: of the set.
        registered: working copies that have one.
        pairs: verified pairs.
    """
    placed = set(registered)
    return [_reason(photo, photos, placed, pairs) for photo in photos if photo.file not in placed]


def _reason(photo: Photo, photos: Sequence[Photo], placed: set[str], pairs: Sequence[PairMatches]) -> Reason:
    shared = {(set(pair.names) - {photo.file}).pop(): pair.inliers for pair in pairs if photo.file in pair.names}
    with_placed = {name: count for name, count in shared.items() if name in placed}
    if not with_placed:
        return Reason(
            photo=photo.name, found=f"{photo.name} shares nothing with the others", hint=between(photo, photos)
        )
    nearest, count = max(with_placed.items(), key=lambda entry: entry[1])
    name = next(other.name for other in photos if other.file == nearest)
    return Reason(
        photo=photo.name,
        found=f"{photo.name} shares too little with the others ({count} details with {name})",
        hint=f"take one between {name} and {photo.name}",
    )


def between(photo: Photo, photos: Sequence[Photo]) -> str:
    """Which photo would link this one to its neighbours."""
    at = [other.file for other in photos].index(photo.file)
    neighbours = [photos[i].name for i in (at - 1, at + 1) if 0 <= i < len(photos)]
    if len(neighbours) == 2:
        return f"take one between {neighbours[0]} and {photo.name}, and one between {photo.name} and {neighbours[1]}"
    return f"take one between {neighbours[0]} and {photo.name}" if neighbours else "take more photos"


def excerpt(names: Sequence[str]) -> str:
    """A few names, and how many more there are."""
    if len(names) <= _NAMED:
        return " and ".join(names) if len(names) < 3 else f"{', '.join(names[:-1])} and {names[-1]}"
    return f"{names[0]}, {names[1]} and {len(names) - 2} more"
