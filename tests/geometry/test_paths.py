"""Paths by name, in the scene's own units."""

import pytest
import torch
from geometry_strategies import arc

from sphinx_nvs.errors import InputError
from sphinx_nvs.geometry.cameras import Cameras
from sphinx_nvs.geometry.paths import PATH_NAMES, SPIRAL_THROUGH, scene_path


def enlarged(views, factor):
    c2w = views.c2w.clone()
    c2w[:, :3, 3] *= factor
    return Cameras(c2w, views.K, views.height, views.width)


@pytest.mark.parametrize("name", [name for name in PATH_NAMES if name != SPIRAL_THROUGH])
def test_paths_begin_at_the_first_context_and_follow_the_units_of_the_scene(name):
    views = arc(3)
    path = scene_path(name, views, 5)
    torch.testing.assert_close(path.c2w[0], views.c2w[0], atol=1e-8, rtol=0)
    torch.testing.assert_close(
        scene_path(name, enlarged(views, 7.0), 5).c2w, enlarged(path, 7.0).c2w, atol=1e-8, rtol=0
    )


def test_a_move_is_a_tenth_of_the_distance_to_the_scene():
    moved = scene_path("move-left", arc(3, radius=4.0), 2).centres.diff(dim=0).norm()
    assert abs(float(moved) - 0.099 * 4) < 1e-9
    known = scene_path("move-left", arc(3), 2, median_depth=30.0).centres.diff(dim=0).norm()
    assert abs(float(known) - 0.099 * 30) < 1e-9


def test_a_name_without_spaces_is_understood():
    views = arc(3)
    assert torch.equal(scene_path("dolly-zoom-in", views, 3).K, scene_path("dolly zoom-in", views, 3).K)


def test_the_spiral_through_several_views_follows_their_units():
    views = arc(3)
    path = scene_path(SPIRAL_THROUGH, views, 8)
    found = scene_path(SPIRAL_THROUGH, enlarged(views, 7.0), 8)
    torch.testing.assert_close(found.c2w, enlarged(path, 7.0).c2w, atol=1e-8, rtol=0)
    with pytest.raises(InputError) as caught:
        scene_path(SPIRAL_THROUGH, arc(1), 8)
    assert str(caught.value) == "path spiral-through: it has 1 context view; give at least 2, or choose spiral"
    with pytest.raises(InputError) as caught:
        scene_path(SPIRAL_THROUGH, views, 0)
    assert str(caught.value) == "frames: 0 are requested; request at least 1"
