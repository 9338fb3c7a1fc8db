"""The distance to context cameras: worked out, by its laws, and against a slow twin that projects point by point."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sphinx_nvs.assess.distance import context_distance
from sphinx_nvs.geometry import Cameras
from sphinx_nvs.geometry.projection import project, unproject

HEIGHT, WIDTH = 12, 16


def cameras(positions, turns=None, focal=14.0):
    """Cameras at positions, turned about the vertical axis."""
    c2w = torch.eye(4, dtype=torch.float64).repeat(len(positions), 1, 1)
    for i, (position, turn) in enumerate(zip(positions, turns or [0.0] * len(positions), strict=True)):
        c, s = math.cos(turn), math.sin(turn)
        c2w[i, :3, :3] = torch.tensor([[c, 0, s], [0, 1, 0], [-s, 0, c]])
        c2w[i, :3, 3] = torch.tensor(position)
    K = torch.tensor([[focal, 0, WIDTH / 2], [0, focal, HEIGHT / 2], [0, 0, 1]]).repeat(len(positions), 1, 1)
    return Cameras(c2w, K, HEIGHT, WIDTH)


def depth(value=2.0, views=1):
    return torch.full((views, HEIGHT, WIDTH), value)


def test_nothing_is_far_from_its_own_photo():
    own = cameras([(0.3, -0.1, 0.5)], [0.2])
    assert (context_distance(own, own, depth()) == 0).all()


def test_a_sidestep_counts_in_units_of_depth_where_the_point_is_in_the_photo():
    found = context_distance(cameras([(0.5, 0.0, 0.0)]), cameras([(0.0, 0.0, 0.0)]), depth(2.0))
    shift = 0.5 * 14 / 2
    seen = torch.arange(WIDTH) + 0.5 >= shift
    torch.testing.assert_close(found[0, :, seen], torch.full((HEIGHT, int(seen.sum())), 0.25))
    assert (found[0, :, ~seen] == 1).all()


def test_what_no_photo_shows_is_farthest():
    away = cameras([(0.0, 0.0, 0.0)], [math.pi])
    assert (context_distance(away, cameras([(0.0, 0.0, 0.0)]), depth()) == 1).all()


def test_another_photo_never_makes_anything_farther():
    target = cameras([(0.1, 0.0, 0.0), (0.2, 0.1, 0.3)], [0.0, 0.4])
    one, two = cameras([(0.4, 0.0, 0.0)]), cameras([(0.4, 0.0, 0.0), (-0.1, 0.0, 0.1)], [0.0, 0.3])
    few, more = (context_distance(context, target, depth(views=2)) for context in (one, two))
    assert (more <= few).all()
    assert (more < few).any()


def test_the_scale_of_the_world_does_not_matter():
    context, target = [(0.4, 0.0, 0.1)], [(0.0, 0.1, 0.0)]
    small = context_distance(cameras(context), cameras(target), depth(2.0))
    large = context_distance(
        cameras([tuple(10 * x for x in context[0])]), cameras([tuple(10 * x for x in target[0])]), depth(20.0)
    )
    torch.testing.assert_close(small, large)


@given(
    moves=st.lists(st.tuples(*[st.floats(-1, 1)] * 3, st.floats(-1.5, 1.5)), min_size=1, max_size=3),
    seed=st.integers(0, 9),
)
def test_equals_its_slow_twin(moves, seed):
    context = cameras([move[:3] for move in moves], [move[3] for move in moves])
    target = cameras([(0.1, 0.2, -0.3)], [0.1])
    z = 1 + 3 * torch.rand(1, HEIGHT, WIDTH, generator=torch.Generator().manual_seed(seed))
    points = unproject(target, z).reshape(1, -1, 3).expand(len(context), -1, -1)
    (pixels, in_front), size = project(context, points), torch.tensor([WIDTH, HEIGHT])
    seen = (in_front > 0) & (pixels >= 0).all(-1) & (pixels < size).all(-1)
    ratio = (context.centres - target.centres).norm(dim=1)[:, None] / z.reshape(1, -1)
    expected = torch.where(seen, ratio, 1.0).amin(0).clamp_max(1).reshape(1, HEIGHT, WIDTH)
    on_border = ((pixels.abs() < 1e-4) | ((pixels - size).abs() < 1e-4)).any(-1).any(0).reshape(1, HEIGHT, WIDTH)
    found = context_distance(context, target, z)
    torch.testing.assert_close(found[~on_border], expected.float()[~on_border])
    assert found.dtype == z.dtype


@pytest.mark.parametrize("views", [1, 3])
def test_views_do_not_depend_on_each_other(views):
    context = cameras([(0.3, 0.0, 0.0)])
    targets = cameras([(0.1 * i, 0.0, 0.0) for i in range(views)])
    together = context_distance(context, targets, depth(views=views))
    assert torch.equal(together[-1:], context_distance(context, targets[views - 1], depth()))
