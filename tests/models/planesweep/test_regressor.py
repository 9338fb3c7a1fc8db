import math

import pytest
import torch

from sphinx_nvs.errors import InputError
from sphinx_nvs.geometry.cameras import Cameras
from sphinx_nvs.models.base import Reconstruction, Regressor
from sphinx_nvs.models.gaussians import rasterize
from sphinx_nvs.models.planesweep import PlaneSweep, PlaneSweepConfig
from sphinx_nvs.scene.scene import Scene

SLANT = 0.15
RENDER_FIELDS = ("rgb", "alpha", "depth", "confidence", "disagreement")


def cameras(x, height=64, width=80):
    """Cameras at (x, 0, 0) directed along +z."""
    c2w = torch.eye(4, dtype=torch.float64).repeat(len(x), 1, 1)
    c2w[:, 0, 3] = torch.tensor(x, dtype=torch.float64)
    K = torch.tensor([[70.0, 0, width / 2], [0, 70.0, height / 2], [0, 0, 1]])
    return Cameras(c2w, K.repeat(len(x), 1, 1), height, width)


def inverse_depth(cams):
    """Inverse depth of the plane n . P = 1 with n = (SLANT / 4, 0, 1 / 4)."""
    x, _ = _directions(cams)
    n_dot_centre = SLANT / 4 * cams.centres[:, 0].view(-1, 1, 1)
    return ((SLANT / 4 * x + 0.25) / (1 - n_dot_centre)).float()


def photos(cams):
    """Images of the textured plane."""
    x, y = _directions(cams)
    depth = 1 / inverse_depth(cams)
    X, Y = x * depth + cams.centres[:, 0].view(-1, 1, 1), y * depth
    waves = [torch.sin(a * X + b * Y + k) for k, (a, b) in enumerate([(9, 4), (-5, 11), (3, -14), (13, 7)])]
    grey = 0.5 + 0.1 * sum(waves)
    return torch.stack([grey, 0.9 * grey, 1 - grey], 1).float().clamp(0, 1)


def slanted_plane(x, **size):
    cams = cameras(x, **size)
    return Scene(name="slanted plane", images=photos(cams), cameras=cams)


def psnr(a, b):
    return -10 * math.log10(float((a - b).square().mean()))


def _directions(cams):
    y, x = torch.meshgrid(torch.arange(cams.height) + 0.5, torch.arange(cams.width) + 0.5, indexing="ij")
    K = cams.K[0]
    x, y = (x - K[0, 2]) / K[0, 0], (y - K[1, 2]) / K[1, 1]
    return x.expand(len(cams), -1, -1), y.expand(len(cams), -1, -1)


@pytest.fixture(scope="module")
def pair():
    """The slanted plane from two cameras, and its reconstruction."""
    scene = slanted_plane([0.0, 0.4])
    return scene, PlaneSweep().reconstruct(scene)


def test_it_implements_the_protocols(pair):
    assert isinstance(PlaneSweep(), Regressor)
    assert isinstance(pair[1], Reconstruction)


def test_the_depth_of_a_slanted_plane_is_found(pair):
    scene, reconstruction = pair
    truth = inverse_depth(scene.cameras)
    error = (reconstruction.inverse_depth / truth - 1).abs()
    assert error.median() < 0.01
    assert error[:, 4:-4, 12:-12].quantile(0.95) < 0.03


def test_confidence_is_high_where_both_views_see_and_zero_where_one_does(pair):
    confidence = pair[1].confidence
    assert confidence[:, 4:-4, 12:-12].mean() > 0.8
    assert confidence[0, :, :4].max() < 0.1
    assert confidence[1, :, -4:].max() < 0.1


def test_a_view_between_the_two_is_predicted(pair):
    target = cameras([0.2])
    truth = photos(target)
    predicted = pair[1].render(target).rgb
    trivial = max(psnr(image, truth[0]) for image in pair[0].images)
    trivial = max(trivial, psnr(pair[0].images.mean(0), truth[0]))
    assert psnr(predicted, truth) > max(trivial + 10, 30)


def test_more_views_than_sources_use_the_nearest():
    scene = slanted_plane([0.0, 0.3, 0.6, 0.9], height=40, width=48)
    reconstruction = PlaneSweep().reconstruct(scene)
    error = (reconstruction.inverse_depth / inverse_depth(scene.cameras) - 1).abs()
    assert error.median() < 0.01


def test_ten_views_are_allowed():
    scene = slanted_plane([0.1 * k for k in range(10)], height=24, width=24)
    assert len(PlaneSweep().reconstruct(scene).inverse_depth) == 10


def test_a_view_at_the_same_place_is_no_source():
    scene = slanted_plane([0.0, 0.0, 0.4], height=40, width=48)
    error = PlaneSweep().reconstruct(scene).inverse_depth / inverse_depth(scene.cameras) - 1
    assert error.abs().median() < 0.01


def test_the_gaussians_show_the_same_scene(pair):
    scene, reconstruction = pair
    gaussians = reconstruction.gaussians()
    assert len(gaussians) == scene.images[:, 0].numel()
    raster = rasterize(gaussians, scene.cameras)
    inner = (..., slice(4, -4), slice(12, -12))
    assert raster.alpha[inner].mean() > 0.8
    seen = raster.rgb / raster.alpha[:, None].clamp_min(0.1)
    assert (seen - scene.images)[inner].abs().mean() < 0.08
    assert (raster.depth * inverse_depth(scene.cameras) - 1)[inner].abs().median() < 0.02


def test_results_are_reproducible_bit_for_bit(pair):
    scene, first = pair
    second = PlaneSweep().reconstruct(scene)
    assert torch.equal(first.inverse_depth, second.inverse_depth)
    assert torch.equal(first.confidence, second.confidence)


def test_one_view_is_refused():
    with pytest.raises(InputError, match="context views: 1 given; plane sweep needs 2 or more views"):
        PlaneSweep().reconstruct(slanted_plane([0.0]))


def test_views_at_one_place_are_refused_by_name():
    with pytest.raises(InputError, match="context views 0, 1, 2: their cameras are all at the same place"):
        PlaneSweep().reconstruct(slanted_plane([3.0, 3.0, 3.0], height=16, width=16))


def everything_is_finite(scene):
    reconstruction = PlaneSweep().reconstruct(scene)
    render = reconstruction.render(scene.cameras)
    return all(torch.isfinite(getattr(render, name)).all() for name in RENDER_FIELDS)


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (2, 2), (5, 3), (8, 8), (17, 33)])
def test_tiny_images_are_supported(size):
    cams = cameras([0.0, 0.2], *size)
    assert everything_is_finite(Scene(name="tiny", images=torch.rand(2, 3, *size), cameras=cams))


@pytest.mark.parametrize("value", [0.0, 0.5, 1.0])
def test_textureless_images_are_supported(value):
    cams = cameras([0.0, 0.2], 32, 40)
    assert everything_is_finite(Scene(name="flat", images=torch.full((2, 3, 32, 40), value), cameras=cams))


def test_views_without_overlap_have_no_confidence():
    cams = cameras([0.0, 0.2], 32, 40)
    cams.c2w[1, :3, :3] = torch.diag(torch.tensor([-1.0, 1.0, -1.0], dtype=torch.float64))
    scene = Scene(name="back to back", images=torch.rand(2, 3, 32, 40), cameras=cams)
    assert PlaneSweep().reconstruct(scene).confidence.max() == 0
    assert everything_is_finite(scene)


def test_a_translation_of_the_world_changes_nothing(pair):
    scene, reconstruction = pair
    cams = cameras([0.0, 0.4])
    cams.c2w[:, :3, 3] += torch.tensor([1000.0, -2000.0, 500.0], dtype=torch.float64)
    moved = PlaneSweep().reconstruct(Scene(name="moved", images=scene.images, cameras=cams))
    assert torch.allclose(moved.inverse_depth, reconstruction.inverse_depth, rtol=1e-3)


def test_depth_scales_with_the_world(pair):
    scene, reconstruction = pair
    cams = cameras([0.0, 400.0])
    scaled = PlaneSweep().reconstruct(Scene(name="scaled", images=scene.images, cameras=cams))
    assert torch.allclose(1000 * scaled.inverse_depth, reconstruction.inverse_depth, rtol=1e-2)


@pytest.mark.parametrize(
    "bad",
    [{"num_sources": 0}, {"max_planes": 3}, {"plane_px": 0.0}, {"nearest_baselines": -1.0}, {"colour_mix": 1.5}],
)
def test_bad_settings_are_refused(bad):
    with pytest.raises(InputError, match=f"PlaneSweepConfig.{next(iter(bad))}"):
        PlaneSweepConfig(**bad)
