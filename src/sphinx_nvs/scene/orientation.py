"""Photos with an EXIF orientation: were their cameras made from the pixels as stored, or as a viewer shows them?

Both happen: COLMAP and most tools take pixels as they are stored, phones and viewers turn them. The choice is one for
a whole scene and made by evidence, in this order:

    1. sizes       a camera of 96x128 fits only one reading of a photo that is stored as 128x96
    2. matches     the reading whose matches fit the poses (`matching`)
    3. habit       what the layout's tools do, where photos tell nothing; a note says that it is a guess
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import torch

from sphinx_nvs import media
from sphinx_nvs.scene.capture import PosedView
from sphinx_nvs.scene.matching import Features, grey_of, matched_pairs, pairs_at
from sphinx_nvs.scene.sightings import Sighting, fits_of

Readings = Mapping[bool, PosedView]
"""A view by whether its photo's EXIF orientation is applied; one entry where nothing else is possible."""

_NAMES = {True: "turned upright", False: "as stored"}
_GUESS = "neither sizes nor matches tell how their cameras were made, so this is a guess"
_FEW_TAGGED, _BESIDE = 8, 2
"""Photos with an orientation that are decided one by one, and how many others each is compared with."""

_LEAST_FITTING = 12
_CLEARLY = 1.5
"""Times as many matches fit the reading that is chosen as the other one."""


def settled(views: Sequence[Readings], *, habit: bool) -> tuple[tuple[PosedView, ...], tuple[str, ...]]:
    """One reading of every view, and what to tell about the choice.

    Args:
        views: as `fit_to_image` permits them.
        habit: whether the layout's tools apply orientations; decides where nothing else does.
    """
    tagged = [index for index, view in enumerate(views) if len(view) > 1 or False in view]
    forced = {oriented for view in views if len(view) == 1 for oriented in view if _is_tagged(view)}
    open_ids = [index for index in tagged if len(views[index]) > 1]
    if not open_ids:
        chosen = tuple(next(iter(view.values())) for view in views)
        return chosen, _told(forced.pop(), "their sizes fit the cameras only so") if len(forced) == 1 else ()
    if len(forced) == 1:
        oriented, why = forced.pop(), "the sizes of some fit their cameras only so"
    else:
        oriented, why = _by_matches(views, open_ids, habit)
        if why == _GUESS and (apart := _one_by_one(views, open_ids)) is not None:
            return _each_by_itself(views, apart)
    chosen = tuple(view[oriented] if oriented in view else next(iter(view.values())) for view in views)
    return chosen, _told(oriented, why)


def _is_tagged(view: Readings) -> bool:
    """Whether a view's photo has an orientation at all."""
    image = next(iter(view.values())).image
    return isinstance(image, Path) and media.orientation(image) != media.UPRIGHT


def _by_matches(views: Sequence[Readings], open_ids: Sequence[int], habit: bool) -> tuple[bool, str]:
    """The reading that photos and poses agree on, and why."""
    seen = {oriented: [sighting(views[index][oriented]) for index in open_ids] for oriented in _NAMES}
    images = [next(iter(views[index].values())).image for index in open_ids]
    photos = [partial(grey_of, image) for image in images if image is not None]
    pairs = list(matched_pairs(photos, torch.stack([each.c2w for each in seen[habit]])))
    counts = {oriented: sum(int(fit.fits.sum()) for fit in fits_of(pairs, seen[oriented])) for oriented in _NAMES}
    best = max(counts, key=lambda oriented: counts[oriented])
    if counts[best] < max(_LEAST_FITTING, _CLEARLY * counts[not best]):
        return habit, _GUESS
    return best, "only so do matches between them fit the poses"


def _one_by_one(views: Sequence[Readings], open_ids: Sequence[int]) -> dict[int, bool] | None:
    """The reading of each photo that matches with photos beside it tell clearly; None if they do not for all of them.

    Args:
        views: by their readings.
        open_ids: photos that two readings are possible for; the others are compared with.
    """
    if len(open_ids) > _FEW_TAGGED:
        return None
    plain = [
        index for index, view in enumerate(views) if len(view) == 1 and next(iter(view.values())).image is not None
    ]
    photos = [partial(grey_of, next(iter(view.values())).image or Path()) for view in views]
    known: dict[int, Features] = {}
    chosen: dict[int, bool] = {}
    for index in open_ids:
        beside = sorted(plain, key=lambda other: abs(other - index))[:_BESIDE]
        places = [(min(index, other), max(index, other)) for other in beside]
        pairs = list(pairs_at(photos, places, (), known))
        counts = {}
        for oriented in _NAMES:
            seen = [sighting(view[oriented] if oriented in view else next(iter(view.values()))) for view in views]
            counts[oriented] = sum(int(fit.fits.sum()) for fit in fits_of(pairs, seen))
        best = max(counts, key=lambda oriented: counts[oriented])
        if counts[best] < max(_LEAST_FITTING, _CLEARLY * counts[not best]):
            return None
        chosen[index] = best
    return chosen if len(set(chosen.values())) > 1 else None


def _each_by_itself(
    views: Sequence[Readings], oriented: Mapping[int, bool]
) -> tuple[tuple[PosedView, ...], tuple[str, ...]]:
    """Views that are read differently, and what to tell of them."""
    chosen = tuple(
        view[oriented[index]] if index in oriented else next(iter(view.values())) for index, view in enumerate(views)
    )
    said = [f"{chosen[index].name} {_NAMES[turned]}" for index, turned in oriented.items()]
    why = "only so do matches fit the poses; some of the tags are stale"
    return chosen, (f"photos with an EXIF orientation are read differently, {', '.join(said)}: {why}",)


def sighting(posed: PosedView) -> Sighting:
    """A view as its photo is read."""
    orientation = media.orientation(posed.image) if posed.oriented and isinstance(posed.image, Path) else media.UPRIGHT
    return Sighting(
        c2w=posed.c2w,
        K=posed.K,
        height=posed.height,
        width=posed.width,
        distortion=posed.distortion,
        orientation=orientation,
    )


def _told(oriented: bool, why: str) -> tuple[str, ...]:
    return (f"photos with an EXIF orientation are read {_NAMES[oriented]}: {why}",)
