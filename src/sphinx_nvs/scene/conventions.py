"""Do a scene's poses fit its photos? If not, which other reading of them does?

Poses written by another convention than their layout's are valid rotations, and every frame is wrong; so are poses that
belong to other photos, or intrinsics of another image size. Matches between photos (`matching`) tell:

    as given fits                       nothing is said
    another reading fits clearly        refused, with its name
    none fits, although photos match    refused
    doubtful                            a warning

A scene is never changed by it.

Shapes: V photos, B readings.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from statistics import median

import torch
from jaxtyping import Float
from torch import Tensor

from sphinx_nvs import media
from sphinx_nvs.errors import InputError
from sphinx_nvs.geometry import se3
from sphinx_nvs.scene.capture import Capture, PosedView
from sphinx_nvs.scene.closer_reading import closer_reading
from sphinx_nvs.scene.equal_poses import equal_photos
from sphinx_nvs.scene.matching import Features, Pair, Photo, grey_of, likely_pairs, matched_pairs, more_pairs, pairs_at
from sphinx_nvs.scene.neighbourhoods import FEW_PHOTOS
from sphinx_nvs.scene.odd_photos import neighbours
from sphinx_nvs.scene.orientation import sighting
from sphinx_nvs.scene.other_readings import (
    Reading,
    other_conventions,
    other_intrinsics,
    other_pairings,
    slightly_other,
)
from sphinx_nvs.scene.photo_sentences import never_registered, sentences_on_photos, sentences_on_poses
from sphinx_nvs.scene.photos import natural_key
from sphinx_nvs.scene.pose_ranks import ranks_of
from sphinx_nvs.scene.sightings import CLOSE, Sighting, calibrated, fit_of, fits_of

_ENOUGH_PAIRS = 7
_CLEAR = 0.8
"""Share of fitting matches that ends the check once there are `_ENOUGH_PAIRS`."""

_FITS = 0.5
"""Share of fitting matches from which poses are right: correct scenes have 0.62 and more, see the tests."""

_OTHER_FITS = 0.6
_CLEARLY = 2.0
"""Times as many matches fit another reading of poses that is said to be right."""

_AS_WELL = 0.95

_ROUGHLY = 0.06
"""Of pinhole coordinates: what poses that are wrong by two degrees still fit."""

_NOT_EVEN_ROUGHLY = 0.3
_BEST_FITS, _HALF, _BEHIND = 0.6, 0.5, 0.06
"""Of two photos: share of matches that fits poses of two others well; most of it that fits their own; share of others
that fit better. Poses half a degree off mostly stand behind less than 5 % of others, shuffled ones behind 7 % and more.
"""

_NEARLY_ALL_FIT, _FAR_BEHIND = 0.9, 0.15
"""The same where half of all matches and more fit."""

_SHUFFLED = "photos and poses are paired in the wrong order"
_PAIR_THEM = "give every photo its own pose, or estimate the cameras again"
_LEAST_MATCHES = 40
_MANY_MATCHES, _MANY_PAIRS, _SOME_PAIRS = 80, 3, 2
_TEXTURED = 200
"""Keypoints of a photo that would match if another one showed the same."""

_SIDE_BY_SIDE_DEG = 20.0
_SOME = 3
_LEVEL, _NEARLY_ALL = 0.02, 0.95
_ROUNDED = 1e-9
"""Of the cameras' distance from the origin."""


@dataclass(frozen=True, kw_only=True)
class Findings:
    """What matches between photos say of the poses.

    Args:
        refusal: what was found and the hint, if the scene is clearly wrong.
        doubt: a sentence, if it may be wrong.
        single: sentences on single photos.
    """

    refusal: tuple[str, str] | None = None
    doubt: str | None = None
    single: tuple[str, ...] = ()

    @property
    def warnings(self) -> tuple[str, ...]:
        """All sentences of a scene that is not refused."""
        return (*(() if self.doubt is None else (self.doubt,)), *self.single)


def with_checked_poses(capture: Capture) -> Capture:
    """The same capture, unless its poses clearly do not fit its photos.

    Args:
        capture: any capture; its photos, at most 200, are decoded at a low resolution. One made in memory is not
            checked.

    Returns:
        The capture; a note says so if its poses are doubtful.

    Raises:
        InputError: the poses are clearly wrong; the sentence names the reading that fits, if there is one.
    """
    findings = examined(capture)
    if findings.refusal is not None:
        raise InputError(f"poses of {capture.path}", *findings.refusal)
    return replace(capture, notes=(*capture.notes, *findings.warnings)) if findings.warnings else capture


def convention_warnings(capture: Capture) -> list[str]:
    """What `with_checked_poses` would refuse or warn of, as sentences.

    Raises:
        InputError: a photo cannot be read.
    """
    findings = examined(capture)
    if findings.refusal is not None:
        return ["; ".join(findings.refusal)]
    return list(findings.warnings)


def examined(capture: Capture) -> Findings:
    """What matches between the photos of a capture say of its poses; see `with_checked_poses`.

    Raises:
        InputError: a photo cannot be read.
    """
    order = [index for index, view in enumerate(capture.views) if view.image is not None]
    if capture.path is None or len(order) < 2:
        return Findings()
    order.sort(key=lambda index: natural_key(capture.views[index].name))
    views = [capture.views[index] for index in order]
    seen = [replace(sighting(view), c2w=capture.world.outside(view.c2w)) for view in views]
    if (doubt := _no_photos(views)) is not None:
        return Findings(doubt=doubt)
    twice = equal_photos([view.c2w for view in views], [view.image for view in views])
    alike = Findings(refusal=never_registered(views, seen), single=sentences_on_poses(views, twice))
    kept = [index for index in range(len(views)) if not any(index in group for group in twice)]
    if alike.refusal is not None or len(kept) < 2:
        return alike
    order, views, seen = [order[at] for at in kept], [views[at] for at in kept], [seen[at] for at in kept]
    photos = [partial(grey_of, view.image) for view in views if view.image is not None]
    known: dict[int, Features] = {}
    tried = _pairs_of(photos, seen, known)
    for more in (more_pairs, likely_pairs):
        pairs = [pair for pair in tried if len(pair)]
        if len(pairs) < _ENOUGH_PAIRS and _tally(pairs, seen).share < _FITS:
            tried += more(photos, tried, known)
    pairs = [pair for pair in tried if len(pair)]
    if not pairs:
        found = _in_one_place(pairs, seen) if _are_in_one_place(seen) else Findings(doubt=_unlike(tried, views, seen))
    else:
        found = _judged(pairs, views, seen, _ranks(order))
    if found.refusal is not None or _are_in_one_place(seen):
        return replace(found, single=alike.single)
    if len(photos) <= FEW_PHOTOS:
        tried += pairs_at(photos, neighbours(len(photos)), tried, known)
    if (imprecise := _imprecise([pair for pair in tried if len(pair)], seen)) is not None:
        return replace(found, doubt=imprecise, single=alike.single)
    return replace(found, single=(*alike.single, *sentences_on_photos(tried, photos, views, seen, known)))


def _judged(
    pairs: Sequence[Pair], views: Sequence[PosedView], seen: Sequence[Sighting], order: Sequence[int]
) -> Findings:
    """What matches say.

    Args:
        pairs: with matches.
        views: by name.
        seen: their cameras.
        order: their places in the file.
    """
    share = _tally(pairs, seen).share
    if _are_in_one_place(seen):
        return _in_one_place(pairs, seen)
    if share >= _FITS:
        behind = _far_behind(pairs, views, seen) if share < _CLEAR else None
        return behind or Findings()
    explained = list(calibrated(pairs, seen))
    rigid = explained or pairs
    given = _tally(rigid, seen)
    if given.count < _LEAST_MATCHES or (given.share >= _FITS and given.count >= _FITS * sum(map(len, pairs))):
        return Findings()
    c2w = torch.stack([each.c2w for each in seen])
    poses = [*other_conventions(c2w), *other_pairings(c2w, [view.name for view in views], order)]
    shares = _shares(rigid, seen, torch.stack([reading.c2w for reading in poses]))
    refusal = _refusal(poses, shares, given.share)
    # Two photos alone hardly tell intrinsics from poses.
    if refusal is None and len(rigid) > 1:
        intrinsics = list(other_intrinsics(c2w, seen))
        refusal = _refusal(intrinsics, [_share_of(reading, pairs, seen) for reading in intrinsics], share)
    if refusal is not None:
        return Findings(refusal=refusal)
    # Matches that no pose explains are of things that look alike, such as the windows of a facade.
    return Findings() if given.share >= _FITS or not explained else _unexplained(rigid, given, seen, views)


def _are_in_one_place(seen: Sequence[Sighting]) -> bool:
    """Whether cameras have no distance between them, up to rounding."""
    centres = torch.stack([each.c2w[:3, 3] for each in seen])
    extent = float((centres - centres[0]).norm(dim=-1).max())
    return extent <= _ROUNDED * max(1.0, float(centres.abs().max()))


def _in_one_place(pairs: Sequence[Pair], seen: Sequence[Sighting]) -> Findings:
    """What is said of cameras that have one centre; refused if photos were taken from several places."""
    found = f"the {len(seen)} cameras have no distance between them: all their centres are the same"
    parallel = sum(int(fit.is_parallel.sum()) for fit in fits_of(pairs, seen))
    count = sum(map(len, pairs))
    if count >= _LEAST_MATCHES and parallel < _FITS * count:
        hint = "give the translations of the poses too, in the last column of camera-to-world matrices"
        return Findings(refusal=(f"{found}, and matches between the photos do not fit that", hint))
    return Findings(doubt=f"{found}, so that nothing can be triangulated")


def _unexplained(
    rigid: Sequence[Pair], given: _Tally, seen: Sequence[Sighting], views: Sequence[PosedView]
) -> Findings:
    """What is said of matches that fit neither the poses nor another reading of them."""
    first, second = (views[index].name for index in (rigid[0].first, rigid[0].second))
    such = f"{given.count} matches between photos such as {first} and {second}"
    if _fit_others(rigid, seen):
        return Findings(refusal=(f"{such} fit poses of other photos and not their own: {_SHUFFLED}", _PAIR_THEM))
    roughly = _tally(rigid, seen, _ROUGHLY).share
    if roughly < _NOT_EVEN_ROUGHLY and given.count >= _MANY_MATCHES and len(rigid) >= _MANY_PAIRS:
        found = f"{such} fit the poses in no convention: photos and poses may be paired in the wrong order"
        return Findings(refusal=(found, "give every photo its own pose and intrinsics, or estimate the cameras again"))
    return Findings(doubt=f"only {100 * given.share:.0f} % of {such} fit the poses: check cameras and intrinsics")


def _far_behind(pairs: Sequence[Pair], views: Sequence[PosedView], seen: Sequence[Sighting]) -> Findings | None:
    """What is said of poses that matches fit, and of others far better: through long lenses most poses look alike."""
    ranks = ranks_of(list(calibrated(pairs, seen)) or pairs, seen)
    best, before = (median(getattr(rank, name) for rank in ranks) for name in ("best", "before"))
    if len(ranks) < _MANY_PAIRS or best < _NEARLY_ALL_FIT or before < _FAR_BEHIND:
        return None
    first, second = (views[index].name for index in (pairs[0].first, pairs[0].second))
    found = f"matches between photos such as {first} and {second} fit poses of other photos better than their own"
    return Findings(refusal=(f"{found}: {_SHUFFLED}", _PAIR_THEM))


def _fit_others(rigid: Sequence[Pair], seen: Sequence[Sighting]) -> bool:
    """Whether matches of photos, in the median of pairs, fit poses of two other photos well and not their own."""
    ranks = ranks_of(rigid, seen)
    given, best, before = (median(getattr(rank, name) for rank in ranks) for name in ("given", "best", "before"))
    return len(ranks) >= _SOME_PAIRS and best >= _BEST_FITS and given < _HALF * best and before > _BEHIND


def _pairs_of(photos: Sequence[Photo], seen: Sequence[Sighting], known: dict[int, Features]) -> list[Pair]:
    """Pairs of photos, until it is clear that they fit."""
    pairs: list[Pair] = []
    for pair in matched_pairs(photos, torch.stack([each.c2w for each in seen]), known):
        pairs.append(pair)
        tally = _tally(pairs, seen)
        if (
            sum(len(each) > 0 for each in pairs) >= _ENOUGH_PAIRS
            and tally.count >= _MANY_MATCHES
            and tally.share >= _CLEAR
        ):
            break
    return pairs


def _unlike(tried: Sequence[Pair], views: Sequence[PosedView], seen: Sequence[Sighting]) -> str | None:
    """A sentence if several photos with texture show nothing in common although their poses are side by side."""
    near = [
        pair
        for pair in tried
        if pair.keypoints >= _TEXTURED
        and float(se3.rotation_angle(seen[pair.first].c2w, seen[pair.second].c2w)) < math.radians(_SIDE_BY_SIDE_DEG)
    ]
    if len(near) < _MANY_PAIRS:
        return None
    first, second = (views[index].name for index in (near[0].first, near[0].second))
    return (
        f"photos such as {first} and {second}, whose poses are side by side, show nothing in common: "
        "photos and poses may be paired in the wrong order"
    )


def _no_photos(views: Sequence[PosedView]) -> str | None:
    """A sentence if the first photos are masks or depth maps."""
    for view in views[:_SOME]:
        if not isinstance(view.image, Path) or not (media.is_grey_of_16_bits(view.image) or _is_mask(view.image)):
            return None
    return f"photos such as {views[0].name} look like masks or depth maps"


def _is_mask(image: Path) -> bool:
    """Whether nearly all pixels have one of two levels."""
    grey = grey_of(image)
    low, high = float(grey.min()), float(grey.max())
    is_extreme = (grey < low + _LEVEL) | (grey > high - _LEVEL)
    return high - low > 2 * _LEVEL and float(is_extreme.mean()) > _NEARLY_ALL


@dataclass(frozen=True, kw_only=True)
class _Tally:
    """How many matches have parallax, and which share of these fits."""

    count: int
    share: float


def _tally(pairs: Sequence[Pair], seen: Sequence[Sighting], close: float = CLOSE) -> _Tally:
    fits = list(fits_of(pairs, seen, close))
    fitting = sum(int(fit.fits.sum()) for fit in fits)
    count = sum(int((fit.fits | ~fit.is_parallel).sum()) for fit in fits)
    return _Tally(count=count, share=fitting / max(1, count))


def _ranks(numbers: Sequence[int]) -> list[int]:
    """The place of each number in their order."""
    order = sorted(numbers)
    return [order.index(number) for number in numbers]


def _refusal(readings: Sequence[Reading], shares: Sequence[float], given: float) -> tuple[str, str] | None:
    """What is found, and the hint, if one of other readings is clearly right; of several the first, simplest one.

    Args:
        readings: of the cameras.
        shares: of matches that fit them.
        given: share that fits the cameras as they are given.
    """
    best = max(shares)
    if best < max(_OTHER_FITS, _CLEARLY * given):
        return None
    reading = next(reading for reading, share in zip(readings, shares, strict=True) if share >= _AS_WELL * best)
    return f"matches between the photos fit them only {reading.found}", reading.hint


def _share_of(reading: Reading, pairs: Sequence[Pair], seen: Sequence[Sighting]) -> float:
    """Share of matches that fit a reading of the intrinsics; as close in pixels as for those that are given."""
    assert reading.K is not None
    read = [replace(each, K=K) for each, K in zip(seen, reading.K, strict=True)]
    read = [replace(each, distortion=None) for each in read] if reading.is_straight else read
    close = CLOSE * float(seen[0].K[0, 0] / reading.K[0][0, 0])
    return _shares(pairs, read, reading.c2w[None], close)[0]


def _imprecise(pairs: Sequence[Pair], seen: Sequence[Sighting]) -> str | None:
    """A sentence if matches lie clearly closer to the epipolar lines of slightly different cameras."""
    readings = list(slightly_other(torch.stack([each.c2w for each in seen]), seen))
    closer = closer_reading(pairs, seen, readings)
    if closer is None:
        return None
    reading, times = closer
    return f"matches between the photos fit {times:.1f} times as precisely {reading.found}: {reading.hint}"


def _shares(
    pairs: Sequence[Pair], seen: Sequence[Sighting], c2w: Float[Tensor, "B V 4 4"], close: float = CLOSE
) -> list[float]:
    """Share of matches that fit each of several readings of the poses; 0 where hardly any has parallax."""
    fitting = torch.zeros(len(c2w), dtype=torch.float64)
    count = torch.zeros(len(c2w), dtype=torch.float64)
    for pair in pairs:
        relative = torch.linalg.inv(c2w[:, pair.second]) @ c2w[:, pair.first]
        rays = seen[pair.first].rays(pair.here), seen[pair.second].rays(pair.there)
        fit = fit_of(relative, *rays, close)
        fitting += fit.fits.double().sum(dim=-1)
        count += (fit.fits | ~fit.is_parallel).double().sum(dim=-1)
    return torch.where(count >= _LEAST_MATCHES, fitting / count.clamp_min(1), 0.0).tolist()
