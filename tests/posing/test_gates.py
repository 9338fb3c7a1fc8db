"""Each gate closes on what it is for, and the sentence names photos."""

from dataclasses import replace

import numpy as np
import pytest

from sphinx_nvs.errors import InputError
from sphinx_nvs.posing import gates
from sphinx_nvs.posing.findings import Findings
from sphinx_nvs.posing.focal_prior import CameraPrior
from sphinx_nvs.posing.held_out import PairMatches
from sphinx_nvs.posing.photo_set import Photo

GOOD = Findings(
    photos=6,
    registered=tuple(f"{i:04d}.jpg" for i in range(6)),
    points=500,
    reprojection_px=0.5,
    angle_deg=8.0,
    focal_ratio=1.1,
    focal_within=0.02,
    focal_known=True,
    in_front=1.0,
    held_out=200,
    held_out_fit=0.97,
    still=0.0,
    flat=0.1,
)


def _photos(count):
    prior = CameraPrior()
    return [
        Photo(name=f"IMG_{i}.jpg", file=f"{i:04d}.jpg", width=400, height=300, prior=prior, camera=1)
        for i in range(count)
    ]


def _pair(a, b, inliers=100, **changes):
    none = np.zeros((0, 2))
    known = {
        "share": 0.9,
        "panoramic": False,
        "here_seen": none,
        "there_seen": none,
        "here": none,
        "there": none,
    } | changes
    return PairMatches(names=(f"{a:04d}.jpg", f"{b:04d}.jpg"), inliers=inliers, **known)


def test_good_findings_pass():
    gates.check(GOOD)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"points": 12}, "only 12 points"),
        ({"angle_deg": 0.4}, "nearly one place"),
        ({"reprojection_px": 3.0}, "no common scene"),
        ({"focal_ratio": 2.4}, "2.4 times the focal length that EXIF gives"),
        ({"focal_ratio": 0.3, "focal_known": False}, "0.3 times the focal length that a phone has"),
        ({"focal_within": 0.13}, r"focal length open \(\+-13%"),
        ({"in_front": 0.9}, "behind the cameras"),
        ({"held_out_fit": 0.5}, "only 50% of the matches kept for a check"),
        ({"flat": 0.95, "focal_known": False, "focal_within": 0.12}, "only turned"),
        ({"still": 0.8}, "80% of what the photos share stands still"),
    ],
)
def test_a_bad_measure_is_refused(change, sentence):
    with pytest.raises(InputError, match=sentence):
        gates.check(replace(GOOD, **change))


def test_an_unknown_lens_may_be_wider_than_a_phone():
    gates.check(replace(GOOD, focal_ratio=0.45, focal_known=False))
    with pytest.raises(InputError):
        gates.check(replace(GOOD, focal_ratio=0.45))


def test_a_photo_that_shares_nothing_is_named_with_its_neighbours():
    photos = _photos(3)
    with pytest.raises(
        InputError, match=r"IMG_1.jpg shares nothing .* between IMG_0.jpg and IMG_1.jpg, and one"
    ) as found:
        gates.check_overlap(photos, [_pair(0, 2)])
    assert "IMG_2.jpg" in str(found.value)


def test_too_few_cameras_name_the_first_photo_left_out():
    photos = _photos(5)
    with pytest.raises(InputError, match=r"only 3 of 5 .*IMG_3.jpg shares too little .*\(17 details with IMG_2.jpg\)"):
        gates.check_registered(photos, [p.file for p in photos[:3]], [_pair(0, 3, 16), _pair(2, 3, 17)])


def test_four_of_five_are_enough():
    photos = _photos(5)
    gates.check_registered(photos, [p.file for p in photos[:4]], [])


def test_a_camera_that_turned_is_said_to_have_turned():
    error = gates.without_cameras(_photos(3), [_pair(0, 1, panoramic=True), _pair(1, 2, panoramic=True)])
    assert "the camera only turned" in str(error)


def test_plain_photos_are_named():
    photos = _photos(2)
    with pytest.raises(InputError, match=r"IMG_1.jpg shows too little texture \(3 features\)"):
        gates.check_features(photos, {"0000.jpg": 900, "0001.jpg": 3})
