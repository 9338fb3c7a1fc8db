"""Within what the focal length is known: narrow where photos determine it, wide where they do not."""

import numpy as np
import pytest
from posing_helpers import FOCAL, SIZE

from sphinx_nvs.posing.colmap_library import colmap
from sphinx_nvs.posing.focal_certainty import _half_width, focal_within


def model_of(centres, turns, *, noise_px=0.2, seed=0):
    """A model of known photos of random points, adjusted to noisy sightings of them."""
    library = colmap()
    rng = np.random.default_rng(seed)
    height, width = SIZE
    reconstruction = library.Reconstruction()
    camera = library.Camera(
        model="SIMPLE_RADIAL", width=width, height=height, params=[FOCAL, width / 2, height / 2, 0.0], camera_id=1
    )
    reconstruction.add_camera_with_trivial_rig(camera)
    points = rng.uniform([-1.5, -1.0, 4.0], [1.5, 1.0, 8.0], (150, 3))
    seen = {number: [] for number in range(len(points))}
    for index, (centre, turn) in enumerate(zip(centres, turns, strict=True), start=1):
        c, s = np.cos(turn), np.sin(turn)
        rotation = np.array([[c, 0, -s], [0, 1, 0], [s, 0, c]])
        inside = (points - centre) @ rotation.T
        pixels = FOCAL * inside[:, :2] / inside[:, 2:] + [width / 2, height / 2] + rng.normal(0, noise_px, (150, 2))
        image = library.Image(name=f"{index}.jpg", camera_id=1, image_id=index, keypoints=pixels)
        pose = library.Rigid3d(library.Rotation3d(rotation), -rotation @ centre)
        reconstruction.add_image_with_trivial_frame(image, pose)
        for number in range(len(points)):
            seen[number].append(library.TrackElement(index, number))
    for number, elements in seen.items():
        track = library.Track()
        for element in elements:
            track.add_element(element)
        reconstruction.add_point3D(points[number], track)
    reconstruction.update_point_3d_errors()
    return reconstruction


AROUND = [np.array([3 * np.sin(a), 0.3 * np.cos(3 * a), 6 - 6 * np.cos(a)]) for a in np.linspace(-0.7, 0.7, 8)]
ALONG = [np.array([0.0, 0.0, 0.03 * i]) for i in range(8)]


def test_photos_from_many_directions_determine_it():
    assert focal_within(model_of(AROUND, np.linspace(0.7, -0.7, 8))) < 0.03


def test_photos_along_a_line_do_not():
    assert focal_within(model_of(ALONG, np.zeros(8))) > 0.1


def test_three_photos_are_judged_by_the_adjustment_alone():
    around = focal_within(model_of(AROUND[::3], np.linspace(0.7, -0.7, 8)[::3]))
    along = focal_within(model_of(ALONG[::3], np.zeros(3)))
    assert around < 0.1 < along


def test_the_half_width_is_students():
    # Four groups: the standard error is sqrt(3 / 4 . sum of squares), and t(3) is 3.18.
    values = [1.0, 1.0, 1.02, 0.98]
    assert _half_width(values) == pytest.approx(3.18 * np.sqrt(3 / 4 * (2 * 0.02**2)))
    assert _half_width([1.0, np.nan]) == np.inf
