"""Matches between photos tell which convention the poses are in."""

import os
from dataclasses import replace
from pathlib import Path

import pytest

from sphinx_nvs.geometry import se3
from sphinx_nvs.scene.conventions import convention_warnings
from sphinx_nvs.scene.readers import read_capture
from sphinx_nvs.scene.transforms import flip_yz

CAPTURES = Path(os.environ.get("SPHINX_CAPTURES_DIR", "../shared/captures"))
pytestmark = pytest.mark.skipif(not (CAPTURES / "llff_fern").is_dir(), reason="needs the capture llff_fern")


def transposed(c2w):
    opengl = flip_yz(c2w)
    return flip_yz(se3.pose_from(opengl[:3, :3].T, opengl[:3, 3]))


@pytest.mark.parametrize(
    ("written", "told"),
    [
        (lambda c2w: c2w, None),
        (flip_yz, "reversed"),
        (se3.inverse, "OpenCV axes"),
        (lambda c2w: flip_yz(se3.inverse(flip_yz(c2w))), "OpenGL axes"),
        (transposed, "transposed"),
    ],
)
def test_the_convention_that_matches_fit_is_named(written, told):
    capture = read_capture(CAPTURES / "llff_fern")
    views = tuple(replace(view, c2w=written(view.c2w)) for view in capture.views[:5])
    found = convention_warnings(replace(capture, views=views, splits={}))
    assert found == [] if told is None else told in found[0]
