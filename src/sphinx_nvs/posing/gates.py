"""When found cameras are believed: a set that fails is refused, with what to photograph instead.

Structure from motion answers even where photos do not tell: with a far too long focal length, or a few photos out of
many. Each gate is a measure of `Findings` and a bound.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from sphinx_nvs.posing.advice import Reason, UnposedError, between, excerpt, left_out
from sphinx_nvs.posing.findings import Findings, share_of_inliers
from sphinx_nvs.posing.held_out import PairMatches
from sphinx_nvs.posing.photo_set import Photo

LEAST_REGISTERED = 0.8
MOST_REPROJECTION_PX = 2.0
LEAST_ANGLE_DEG = 1.5
FOCAL_KNOWN, FOCAL_ASSUMED = 2.0, 2.5
MOST_OPEN = 0.1
"""Share of the focal length within which it must be known."""
LEAST_IN_FRONT = 0.98
LEAST_HELD_OUT_FIT = 0.75
LEAST_HELD_OUT = 10
MOST_STILL = 0.5
MOST_FLAT = 0.9
LEAST_FEATURES = 60
LEAST_POINTS = 30

_SIDESTEP = "step sideways between photos by about a tenth of the distance, and keep looking at the same things"
_DETAIL = "include things with detail, focus, and give light"
_MORE = "take more photos from between these, each sharing two thirds of what it shows with the one before"


@dataclass(frozen=True, kw_only=True)
class Gate:
    """A condition of believing.

    Args:
        passes: whether findings meet it.
        found: what is wrong, where they do not.
        hint: what to do about it.
    """

    passes: Callable[[Findings], bool]
    found: Callable[[Findings], str]
    hint: str


GATES = (
    Gate(
        passes=lambda f: f.still <= MOST_STILL,
        found=lambda f: f"{f.still:.0%} of what the photos share stands still: the camera did not move between them",
        hint=(
            f"{_SIDESTEP}; turning the object before a fixed camera does not serve; "
            "a logo or a dashboard in all photos stands still, too: crop it"
        ),
    ),
    Gate(
        passes=lambda f: f.flat <= MOST_FLAT or (f.photos > 2 and (f.focal_known or has_focal(f))),
        found=lambda f: "the camera only turned between the photos, or they show one flat thing",
        hint=_SIDESTEP,
    ),
    Gate(
        passes=lambda f: f.points >= LEAST_POINTS,
        found=lambda f: f"only {f.points} points are found in common",
        hint=_MORE,
    ),
    Gate(
        passes=lambda f: f.angle_deg >= LEAST_ANGLE_DEG,
        found=lambda f: f"the photos see the same things from nearly one place ({f.angle_deg:.1f} degrees apart)",
        hint=f"{_SIDESTEP}: turning on the spot shows no depth",
    ),
    Gate(
        passes=lambda f: f.in_front >= LEAST_IN_FRONT,
        found=lambda f: f"{1 - f.in_front:.0%} of the points would lie behind the cameras",
        hint=_MORE,
    ),
    Gate(
        passes=lambda f: f.reprojection_px <= MOST_REPROJECTION_PX,
        found=lambda f: f"the photos fit no common scene ({f.reprojection_px:.1f} pixels of error)",
        hint="leave out photos in which things have moved, and crops",
    ),
    Gate(
        passes=lambda f: 1 / _focal_bound(f) <= f.focal_ratio <= _focal_bound(f),
        found=lambda f: (
            f"they seem to be taken with {f.focal_ratio:.2g} times the focal length that "
            f"{'EXIF gives' if f.focal_known else 'a phone has'}, so their cameras cannot be trusted"
        ),
        hint="keep the EXIF of the photos, do not crop them, and take them from more directions",
    ),
    Gate(
        passes=lambda f: has_focal(f),
        found=lambda f: f"they leave the focal length open (+-{min(1.0, f.focal_within or 0.0):.0%})",
        hint="keep the EXIF of the photos, say what it is (focal_mm), or add some from other directions and distances",
    ),
    Gate(
        passes=lambda f: f.held_out < LEAST_HELD_OUT or f.held_out_fit >= LEAST_HELD_OUT_FIT,
        found=lambda f: f"only {f.held_out_fit:.0%} of the matches kept for a check fit the cameras that were found",
        hint="leave out photos in which things moved or that show look-alikes, and take more between the others",
    ),
)


def has_focal(findings: Findings) -> bool:
    """Whether the photos determine the focal length, or it was kept at its prior."""
    return findings.focal_within is None or findings.focal_within <= MOST_OPEN


def may_keep_exif(findings: Findings) -> bool:
    """Whether the photos leave the focal length open, EXIF gives it, and the two do not contradict each other."""
    if has_focal(findings) or not findings.focal_known or findings.photos <= 2:
        return False
    return abs(math.log(findings.focal_ratio)) <= (findings.focal_within or 0.0)


MOVED = GATES[:2]
"""Gates of a camera that stood still or only turned: they say more than which photos are left out."""


def _focal_bound(findings: Findings) -> float:
    return FOCAL_KNOWN if findings.focal_known else FOCAL_ASSUMED


def check_features(photos: Sequence[Photo], counts: Mapping[str, int]) -> None:
    """Raises UnposedError if fewer than two photos have enough texture to be matched."""
    plain = [photo for photo in photos if counts.get(photo.file, 0) < LEAST_FEATURES]
    if len(photos) - len(plain) >= max(2, LEAST_REGISTERED * len(photos)):
        return
    names = excerpt([photo.name for photo in plain])
    verb = "shows" if len(plain) == 1 else "show"
    found = f"{names} {verb} too little texture ({counts.get(plain[0].file, 0)} features)"
    each = [
        Reason(
            photo=p.name, found=f"{p.name} shows too little texture ({counts.get(p.file, 0)} features)", hint=_DETAIL
        )
        for p in plain
    ]
    raise UnposedError("photos", found, _DETAIL, each)


def check_overlap(photos: Sequence[Photo], pairs: Sequence[PairMatches]) -> None:
    """Raises UnposedError if so many photos share nothing with any other that the set cannot be registered."""
    linked = {name for pair in pairs for name in pair.names}
    alone = [photo for photo in photos if photo.file not in linked]
    if len(photos) - len(alone) >= max(2, LEAST_REGISTERED * len(photos)):
        return
    if len(alone) == len(photos):
        found = "no two of them show the same things" if len(photos) > 2 else "they do not show the same things"
        raise UnposedError("photos", found, _MORE)
    each = [
        Reason(photo=p.name, found=f"{p.name} shares nothing with the others", hint=between(p, photos)) for p in alone
    ]
    more = f", nor do {len(alone) - 1} more" if len(alone) > 1 else ""
    raise UnposedError("photos", f"{each[0].found}{more}", each[0].hint, each)


def check_registered(photos: Sequence[Photo], registered: Sequence[str], pairs: Sequence[PairMatches]) -> None:
    """Raises UnposedError if fewer photos than `LEAST_REGISTERED` have a camera; it names them, and what would help."""
    if len(registered) >= max(2, LEAST_REGISTERED * len(photos)):
        return
    reasons = left_out(photos, registered, pairs)
    found = f"only {len(registered)} of {len(photos)} find their place"
    if not reasons:
        raise UnposedError("photos", found, _SIDESTEP)
    more = "" if len(reasons) == 1 else f" ({len(reasons) - 1} more are left out)"
    raise UnposedError("photos", f"{found}: {reasons[0].found}{more}", reasons[0].hint, reasons)


def stands_still(pairs: Sequence[PairMatches]) -> bool:
    """Whether most of what the photos share does not move between them: no features will place their cameras."""
    return share_of_inliers(pairs, lambda pair: pair.still) > MOST_STILL


def without_cameras(photos: Sequence[Photo], pairs: Sequence[PairMatches]) -> UnposedError:
    """The error for photos without any model: pairs tell whether the camera stood still, or only turned."""
    names = excerpt([photo.name for photo in photos])
    if stands_still(pairs):
        still = share_of_inliers(pairs, lambda pair: pair.still)
        found = f"{names} are taken from one place: {still:.0%} of their details do not move"
        return UnposedError("photos", found, _SIDESTEP)
    if share_of_inliers(pairs, lambda pair: float(pair.panoramic)) > 0.5:
        found = f"{names} are taken from one place: the camera only turned, or sees one flat thing"
        return UnposedError("photos", found, _SIDESTEP)
    return UnposedError("photos", f"no cameras are found that explain {names}", _MORE)


def failed(findings: Findings) -> Gate | None:
    """The first gate that findings do not pass; None if they pass all."""
    return next((gate for gate in GATES if not gate.passes(findings)), None)


def check(findings: Findings, *, among: Sequence[Gate] = GATES) -> None:
    """Raises UnposedError if findings do not pass a gate of those given."""
    gate = next((gate for gate in among if not gate.passes(findings)), None)
    if gate is not None:
        raise UnposedError("photos", gate.found(findings), gate.hint)
