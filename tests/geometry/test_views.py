"""Distances between views, and where a target lies between contexts."""

import torch
from geometry_strategies import arc, cameras
from hypothesis import given

from sphinx_nvs.geometry.cameras import Cameras
from sphinx_nvs.geometry.interpolation import interpolate_path
from sphinx_nvs.geometry.views import between_contexts, nearest_contexts, path_lengths, pose_distances


def close(a, b, atol=1e-9):
    torch.testing.assert_close(a, b, atol=atol, rtol=0)


@given(cameras(num_views=4))
def test_pose_distances_are_symmetric_and_zero_only_to_itself(views):
    distances = pose_distances(views, views)
    close(distances, distances.T, atol=1e-6)
    assert float(distances.diagonal().max()) < 1e-6
    assert float(distances[0, 1]) > 1e-3


def test_units_of_the_world_do_not_matter():
    views = arc(4)
    c2w = views.c2w.clone()
    c2w[:, :3, 3] *= 1000
    close(
        pose_distances(Cameras(c2w, views.K, 24, 32), Cameras(c2w, views.K, 24, 32)),
        pose_distances(views, views),
    )


def test_nearest_contexts_on_an_arc():
    views = arc(9)
    nearest = nearest_contexts(views[[1, 7]], views[[0, 4, 8]], 2)
    assert nearest.tolist() == [[0, 1], [2, 1]]


def test_position_between_two_contexts_is_the_share_of_the_way():
    contexts = arc(2)
    between = between_contexts(interpolate_path(contexts, 5), contexts)
    close(between.position, torch.linspace(0, 1, 5, dtype=torch.float64), atol=1e-6)
    assert between.before.tolist() == [0] * 5
    assert between.after.tolist() == [1] * 5


def test_a_single_context_is_both_neighbours():
    between = between_contexts(arc(3), arc(1))
    assert between.before.tolist() == between.after.tolist() == [0, 0, 0]
    assert between.position.tolist() == [0, 0, 0]


def test_path_lengths_grow_even_where_cameras_repeat():
    lengths = path_lengths(arc(3)[[0, 0, 1, 2]])
    assert bool((lengths.diff() > 0).all())
