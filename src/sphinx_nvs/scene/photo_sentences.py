"""What is said of single photos of a scene, and of parts of it, in sentences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sphinx_nvs.scene.capture import PosedView
from sphinx_nvs.scene.equal_poses import equal_poses, is_identity
from sphinx_nvs.scene.matching import Features, Pair, Photo, features_of, grey_of, pairs_at
from sphinx_nvs.scene.neighbourhoods import FEW_PHOTOS, MOST_PHOTOS, SIDE, breaks_in, places_to_examine
from sphinx_nvs.scene.odd_photos import neighbours, odd_photos
from sphinx_nvs.scene.parts import Contradiction, contradictions
from sphinx_nvs.scene.sightings import Sighting

_MOST_NAMED = 4
_MANY_BREAKS = 4
"""Photos that look like the one before against the poses: more are not single wrong ones."""

_LEAST_CONTRAST = 0.08
"""Between the darkest and the brightest pixel of a photo that shows something."""


def names_of(views: Sequence[PosedView], numbers: Sequence[int]) -> str:
    """Names of photos for a sentence; the first ones of many.

    Args:
        views: all photos.
        numbers: those that are named.
    """
    names = [views[number].name for number in numbers]
    if len(names) > _MOST_NAMED:
        return f"{', '.join(names[:_MOST_NAMED])} and {len(names) - _MOST_NAMED} others"
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def never_registered(views: Sequence[PosedView], seen: Sequence[Sighting]) -> tuple[str, str] | None:
    """What is found, and the hint, if different photos have one pose, which is the identity.

    Args:
        views: the photos.
        seen: their cameras.
    """
    extent = max(float(each.c2w[:3, 3].abs().max()) for each in seen)
    for group in equal_poses([view.c2w for view in views], [view.image for view in views]):
        if is_identity(seen[group[0]].c2w, extent):
            names = names_of(views, group)
            found = f"{names} have one pose, the identity, and other photos do not: they were probably never registered"
            return found, "remove them, or estimate the cameras again"
    return None


def sentences_on_poses(views: Sequence[PosedView], twice: Sequence[Sequence[int]]) -> tuple[str, ...]:
    """Sentences on different photos with one pose, and on one photo with several.

    Args:
        views: the photos.
        twice: numbers of equal ones, see `equal_poses.equal_photos`.
    """
    groups = equal_poses([view.c2w for view in views], [view.image for view in views])
    frozen = [f"{names_of(views, group)} have exactly the same pose: did the tracking stop?" for group in groups]
    several = "are one photo under several names, with different poses: keep one of them"
    return (*frozen, *(f"{names_of(views, group)} {several}" for group in twice))


def sentences_on_photos(
    tried: Sequence[Pair],
    photos: Sequence[Photo],
    views: Sequence[PosedView],
    seen: Sequence[Sighting],
    known: dict[int, Features],
) -> tuple[str, ...]:
    """Sentences on single photos and on parts of the scene, by matches of photos that follow each other.

    Args:
        tried: pairs with matches or without; of few photos all that follow each other.
        photos: read the stored photos.
        views: their views.
        seen: their cameras.
        known: their keypoints, which are added.

    Raises:
        InputError: a photo cannot be read.
    """
    if len(photos) <= FEW_PHOTOS:
        return (*_plain(known, views), *_odd(tried, views, seen, known))
    step = -(-len(photos) // MOST_PHOTOS)
    some = views[::step]
    small = {place: features_of(grey_of(view.image, SIDE)) for place, view in enumerate(some) if view.image is not None}
    found = breaks_in(small, seen[::step])
    said = _plain(small, some)
    if len(found.against) >= _MANY_BREAKS:
        return (*said, _many_breaks(found.against, some))
    for place in places_to_examine(found, len(some)):
        said += _odd_within(range(place.start * step, place.stop * step, step), photos, views, seen, known)
    return said


def _many_breaks(photos: Sequence[int], views: Sequence[PosedView]) -> str:
    """A sentence on photos that fit those before them in many places."""
    first, last = names_of(views, (photos[0] - 1, photos[0])), views[photos[-1]].name
    such = (
        f"much is alike in {first} and in {len(photos) - 1} more pairs of photos that follow each other, up to {last}"
    )
    return f"{such}, and hardly anything of it fits the poses: photos and poses may be paired in the wrong order"


def _odd_within(
    place: range,
    photos: Sequence[Photo],
    views: Sequence[PosedView],
    seen: Sequence[Sighting],
    known: Mapping[int, Features],
) -> tuple[str, ...]:
    """Sentences on single photos among some that follow each other."""
    numbers = [number for number in place if number < len(photos)]
    own = {at: known[number] for at, number in enumerate(numbers) if number in known}
    inner = [photos[number] for number in numbers]
    pairs = list(pairs_at(inner, neighbours(len(inner)), [], own))
    return _odd(pairs, [views[number] for number in numbers], [seen[number] for number in numbers], own)


def _plain(known: Mapping[int, Features], views: Sequence[PosedView]) -> tuple[str, ...]:
    """A sentence on photos of one colour."""
    plain = [number for number, features in sorted(known.items()) if features.contrast < _LEAST_CONTRAST]
    if not plain:
        return ()
    verb = "is" if len(plain) == 1 else "are"
    why = "a lens cap, a failed export, 12 bits in a file of 16?"
    return (f"{names_of(views, plain)} {verb} of one colour all over ({why})",)


def _odd(
    pairs: Sequence[Pair], views: Sequence[PosedView], seen: Sequence[Sighting], known: Mapping[int, Features]
) -> tuple[str, ...]:
    """Sentences on photos that do not belong to the others, or on parts that do not belong together."""
    if apart := list(contradictions(pairs, seen, known)):
        return tuple(_contradiction(each, views) for each in apart)
    misfits, strangers = odd_photos(pairs, seen, known)
    said = []
    if misfits:
        verb = "fits" if len(misfits) == 1 else "fit"
        why = "matches with them do not fit the poses, while the others' do"
        said.append(f"{names_of(views, misfits)} {verb} none of the others: {why}")
    if strangers:
        verb = "shows" if len(strangers) == 1 else "show"
        said.append(f"{names_of(views, strangers)} {verb} nothing of what the photos beside them show")
    return tuple(said)


def _contradiction(apart: Contradiction, views: Sequence[PosedView]) -> str:
    """A sentence on two parts of a scene."""
    first, second = names_of(views, apart.first), names_of(views, apart.second)
    how = (
        f"the poses of each fit its photos, but not the {apart.matches} matches between both"
        if apart.matches
        else "each fits its poses, and they show nothing in common"
    )
    return f"{first} on one side and {second} on the other: {how}; are these two captures in one file?"
