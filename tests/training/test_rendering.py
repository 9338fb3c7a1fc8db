import pytest
import torch

from sphinx_nvs.models import planesweep
from sphinx_nvs.procedural import procedural_views
from sphinx_nvs.scene.scene import Scene
from sphinx_nvs.training.rendering import render_scenes
from sphinx_nvs.training.spoiling import seen_by_another, spoil


@pytest.fixture(scope="module")
def views():
    return [procedural_views(seed, 4, 40, 40) for seed in (0, 3)]


def stacked(views):
    rgb, depth = (torch.stack([view[i] for view in views]) for i in (0, 1))
    c2w, K = (torch.stack([getattr(view[2], name) for view in views]) for name in ("c2w", "K"))
    return rgb, depth, c2w, K


def test_many_scenes_render_as_each_does_alone(views):
    rgb, depth, c2w, K = stacked(views)
    found = spoil(depth[:, :2], c2w[:, :2], K[:, :2], torch.Generator().manual_seed(0))
    renders = render_scenes(rgb[:, :2], found.inverse_depth, found.confidence, c2w, K)
    assert renders.covered.all()
    for i, (images, _, cameras, _) in enumerate(views):
        scene = Scene(name="alone", images=images[:2], cameras=cameras[:2])
        alone = planesweep.PlaneSweepReconstruction(scene, found.inverse_depth[i], found.confidence[i])
        render = alone.render(cameras[2:])
        for name in ("rgb", "alpha", "depth", "confidence", "disagreement"):
            torch.testing.assert_close(getattr(renders, name)[i], getattr(render, name), atol=1e-4, rtol=1e-4)


def test_a_scene_that_no_target_sees_is_not_covered(views):
    rgb, depth, c2w, K = stacked(views[:1])
    away = c2w.clone()
    away[:, 2:, :3, 0] *= -1
    away[:, 2:, :3, 2] *= -1
    away[:, 2:, :3, 3] = c2w[:, :1, :3, 3] - 50 * c2w[:, :1, :3, 2]
    renders = render_scenes(rgb[:, :2], 1 / depth[:, :2], torch.ones_like(depth[:, :2]), away, K)
    assert not renders.covered.any()
    assert all(torch.isfinite(part).all() for part in renders[:5])


def test_spoilt_depth_is_wrong_mostly_where_no_other_view_looks(views):
    _, depth, c2w, K = stacked(views)
    seen = seen_by_another(depth[:, :3], c2w[:, :3], K[:, :3]) > 0
    assert 0.1 < seen.float().mean() < 1
    errors, sure = [], []
    for seed in range(6):
        found = spoil(depth[:, :3], c2w[:, :3], K[:, :3], torch.Generator().manual_seed(seed))
        errors.append((found.inverse_depth * depth[:, :3] - 1).abs())
        sure.append(found.confidence)
    error, confidence = torch.stack(errors).mean(0), torch.stack(sure).mean(0)
    assert error[seen].median() > 1e-3
    assert error[~seen].mean() > error[seen].mean()
    assert confidence[~seen].mean() < 0.7 * confidence[seen].mean()


def test_a_view_that_repeats_another_sees_all_of_it(views):
    _, depth, c2w, K = stacked(views)
    twice = [part[:, [0, 0]] for part in (depth, c2w, K)]
    assert seen_by_another(*twice).mean() > 0.95
