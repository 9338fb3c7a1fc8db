import math

import pytest
import torch

from sphinx_nvs.errors import InputError
from sphinx_nvs.geometry.cameras import Cameras
from sphinx_nvs.geometry.projection import unproject
from sphinx_nvs.models.base import Reconstruction, Regressor
from sphinx_nvs.models.gaussians import rasterize
from sphinx_nvs.models.gaussians.harmonics import C0
from sphinx_nvs.models.mvsplat import TINY, Encoder, MvSplat, MvSplatSettings, random_mvsplat
from sphinx_nvs.models.mvsplat.adapter import gaussians_from_pixels
from sphinx_nvs.models.mvsplat.depth_predictor import PixelEstimates
from sphinx_nvs.models.mvsplat.encoder import Encoded
from sphinx_nvs.models.mvsplat.gaussian_reconstruction import depth_certainty
from sphinx_nvs.models.mvsplat.mvsplat import working_views
from sphinx_nvs.models.mvsplat.network_units import NEAREST, network_units
from sphinx_nvs.pipeline.regression import reconstruct, render_targets
from sphinx_nvs.procedural import procedural_views
from sphinx_nvs.scene.readers import read_capture
from sphinx_nvs.scene.scene import Scene

SIZE = (96, 128)
RENDER_FIELDS = ("rgb", "alpha", "depth", "confidence", "disagreement")


def psnr(a, b):
    return -10 * math.log10(float((a - b).square().mean()))


class OracleEncoder(Encoder):
    """An encoder that outputs ground truth: depth of each pixel, colours of the photos, small round Gaussians."""

    def __init__(self, depth, cameras):
        super().__init__(TINY)
        self.truth = (depth, cameras)

    def forward(self, images, c2w, K_norm, near, far):
        z, cameras = self.truth
        scale = (c2w[1] - c2w[0])[:3, 3].norm() / (cameras.centres[1] - cameras.centres[0]).norm()
        points = unproject(cameras, z) - cameras.centres.view(-1, 1, 1, 3)
        along_ray = (points.norm(dim=-1) * scale).float()
        raw = torch.zeros(len(images), TINY.gaussian_channels, *images.shape[-2:])
        raw[:, 2:5] = -math.log(26 / 3)  # 0.5 + 14.5 sigmoid = 2 tenths of the pixel's sides summed
        raw[:, 8] = 1
        coefficients = raw[:, 9:].unflatten(1, (3, -1))
        coefficients[:, :, 0] = (images - 0.5) / C0
        density = torch.full_like(along_ray, 0.95)
        pdf = torch.zeros(len(images), TINY.num_depths, *(side // 4 for side in images.shape[-2:]))
        pdf[:, 3] = 1
        pixels = PixelEstimates(along_ray, density, raw, pdf)
        return Encoded(pixels, gaussians_from_pixels(raw, along_ray, density, c2w, K_norm))


@pytest.fixture(scope="module")
def world():
    """Photos, depth and cameras of a procedural scene."""
    rgb, depth, cameras, _ = procedural_views(3, 5, *SIZE, motion="walk")
    return rgb, depth, cameras


def oracle(world, units="measured", views=(0, 4)):
    """A regressor with ground-truth depth for two views, and its scene."""
    rgb, depth, cameras = (part[list(views)] for part in world)
    settings = MvSplatSettings(short_side=min(SIZE), units=units)
    return MvSplat(OracleEncoder(depth, cameras), settings), Scene(name="known", images=rgb, cameras=cameras)


@pytest.fixture(scope="module")
def known(world):
    regressor, scene = oracle(world)
    return scene, regressor.reconstruct(scene)


@pytest.fixture(scope="module")
def guess():
    """Random weights."""
    return random_mvsplat(size="tiny", settings=MvSplatSettings(short_side=32))


def cameras(x, height=64, width=80):
    """Cameras at (x, 0, 0) directed along +z."""
    c2w = torch.eye(4, dtype=torch.float64).repeat(len(x), 1, 1)
    c2w[:, 0, 3] = torch.tensor(x, dtype=torch.float64)
    K = torch.tensor([[70.0, 0, width / 2], [0, 70.0, height / 2], [0, 0, 1]])
    return Cameras(c2w, K.repeat(len(x), 1, 1), height, width)


def random_scene(x, height=64, width=80):
    return Scene(name="noise", images=torch.rand(len(x), 3, height, width), cameras=cameras(x, height, width))


def test_it_implements_the_protocols(guess):
    assert isinstance(guess, Regressor)
    assert guess.name == "mvsplat"
    assert guess.min_context_views == 2
    assert isinstance(guess.reconstruct(random_scene([0.0, 0.4])), Reconstruction)


def test_true_gaussians_reproduce_the_photos_at_their_cameras(known):
    scene, reconstruction = known
    for view in range(2):
        own = reconstruction.render(scene.cameras[view])
        assert psnr(own.rgb[0], scene.images[view]) > 24
        assert own.alpha.mean() > 0.95


def test_true_gaussians_render_another_view(world, known):
    rgb, depth, cams = world
    scene, reconstruction = known
    render = reconstruction.render(cams[2])
    assert psnr(render.rgb[0], rgb[2]) > max(psnr(image, rgb[2]) for image in scene.images) + 4
    covered = render.alpha[0] > 0.8
    assert covered.float().mean() > 0.7
    assert (render.depth[0] / depth[2] - 1).abs()[covered].median() < 0.02


def test_certain_gaussians_have_confidence_and_agree_where_both_views_see(world, known):
    render = known[1].render(world[2][2])
    assert torch.allclose(render.confidence, render.alpha, atol=1e-4)  # the depth distributions are all peak
    assert render.disagreement.mean() < 0.05


def test_disagreement_of_views_is_reported(world):
    regressor, scene = oracle(world)
    negative = Scene(name="other", images=torch.stack([scene.images[0], 1 - scene.images[1]]), cameras=scene.cameras)
    same, other = (regressor.reconstruct(s).render(world[2][2]).disagreement.mean() for s in (scene, negative))
    assert other > 3 * same


@pytest.mark.parametrize("units", ["measured", "baseline", "world"])
def test_units_affect_only_the_network_inputs(world, known, units):
    regressor, scene = oracle(world, units)
    target = world[2][2]
    expected, found = known[1].render(target), regressor.reconstruct(scene).render(target)
    assert torch.allclose(found.rgb, expected.rgb, atol=1e-2)
    assert (found.depth / expected.depth - 1).abs().median() < 1e-3


def test_a_world_far_from_the_origin_renders_the_same(world, known):
    rgb, depth, cams = world
    c2w = cams.c2w.clone()
    c2w[:, :3, 3] += torch.tensor([1e5, -2e5, 1e5])
    moved = Cameras(c2w, cams.K, cams.height, cams.width)
    regressor, scene = oracle((rgb, depth, moved))
    found, expected = regressor.reconstruct(scene).render(moved[2]), known[1].render(cams[2])
    assert (found.rgb - expected.rgb).abs().mean() < 1e-3


def test_the_gaussians_in_world_units_are_the_same_scene(known):
    scene, reconstruction = known
    gaussians = reconstruction.gaussians()
    assert len(gaussians) == scene.images[:, 0].numel()
    raster = rasterize(gaussians, scene.cameras)
    render = reconstruction.render(scene.cameras)
    covered = render.alpha > 0.9
    assert (raster.alpha - render.alpha)[covered].abs().mean() < 1e-3
    assert (raster.depth / render.depth - 1)[covered].abs().median() < 1e-3


@pytest.mark.parametrize("x", [[0.0, 0.4], [0.0, 0.3, 0.6], [0.0, 0.0, 0.4, 0.8]])
@pytest.mark.parametrize("size", [(64, 80), (17, 33), (40, 25)])
def test_outputs_are_valid_with_random_weights(guess, x, size):
    scene = random_scene(x, *size)
    targets = cameras([0.1, 0.2, -3.0], 30, 50)
    render = render_targets(reconstruct(guess, scene), targets)
    for name in RENDER_FIELDS:
        value = getattr(render, name)
        assert value.shape[-2:] == (30, 50)
        assert len(value) == 3
        assert torch.isfinite(value).all()
        if name != "depth":
            assert value.min() >= 0
            assert value.max() <= 1
    assert (render.depth > 0).all()
    assert (render.confidence[render.alpha == 0] == 0).all()
    assert (render.disagreement[render.alpha == 0] == 0).all()


def test_holes_are_filled_plausibly(known):
    scene, reconstruction = known
    c2w = scene.cameras.c2w[:1].clone()
    wide = Cameras(c2w, scene.cameras.K[:1] * torch.tensor([0.4, 0.4, 1.0]).view(3, 1), *SIZE)
    K = wide.K.clone()
    K[:, 0, 2], K[:, 1, 2] = SIZE[1] / 2, SIZE[0] / 2
    render = reconstruction.render(Cameras(c2w, K, *SIZE))
    hole = render.alpha[0] < 0.01
    assert hole.float().mean() > 0.3
    filled = render.rgb[0][:, hole]
    assert (filled.mean(1) - scene.images.mean((0, 2, 3))).abs().max() < 0.2
    assert filled.std(1).max() < 0.3
    assert render.depth[0][hole].max() < 10 * render.depth[0][~hole].max()


def test_results_are_reproducible_bit_for_bit(guess):
    scene = random_scene([0.0, 0.4])
    first, second = (guess.reconstruct(scene).render(cameras([0.2])) for _ in range(2))
    assert all(torch.equal(getattr(first, name), getattr(second, name)) for name in RENDER_FIELDS)


def test_one_view_is_refused(guess):
    with pytest.raises(InputError, match="context views: 1 given; MVSplat needs 2 or more views"):
        guess.reconstruct(random_scene([0.0]))


def test_views_at_one_place_are_refused_by_name(guess):
    with pytest.raises(InputError, match="context views 0, 1: their cameras are all at the same place"):
        guess.reconstruct(random_scene([3.0, 3.0]))


def test_targets_that_see_nothing_are_refused(guess):
    away = cameras([0.2])
    away.c2w[0, :3, :3] = torch.diag(torch.tensor([-1.0, 1.0, -1.0], dtype=torch.float64))
    with pytest.raises(InputError, match="target views 0: they see nothing"):
        guess.reconstruct(random_scene([0.0, 0.4])).render(away)


@pytest.mark.parametrize(
    ("size", "wanted"), [((256, 256), (256, 256)), ((540, 960), (256, 448)), ((300, 200), (384, 256))]
)
def test_working_views_keep_aspect_and_direction(size, wanted):
    scene = random_scene([0.0, 1.0], *size)
    images, cams = working_views(scene, 256, 16)
    assert images.shape[-2:] == wanted
    assert (cams.height, cams.width) == wanted
    assert torch.allclose(cams.K[:, 0, 0], cams.K[:, 1, 1], rtol=0.01)
    assert torch.allclose(cams.K_norm[:, :2, 2], torch.full((2, 2), 0.5, dtype=torch.float64), atol=0.01)


def test_a_crop_is_the_centre_of_the_image():
    """A ramp's value says where a pixel was; its camera must say the same."""
    height, width = 40, 70
    ramp = ((torch.arange(width) + 0.5) / width).expand(2, 3, height, width)
    scene = Scene(name="ramp", images=ramp.contiguous(), cameras=cameras([0.0, 1.0], height, width))
    images, cams = working_views(scene, 32, 16)
    slope = 1 / float(cams.K[0, 0, 0])
    expected = (torch.arange(images.shape[-1]) + 0.5 - float(cams.K[0, 0, 2])) * slope * 70.0 / width + 0.5
    assert torch.allclose(images[0, 0, 8, 3:-3], expected[3:-3], atol=2e-3)


def test_depth_certainty_is_mass_near_the_peak():
    pdf = torch.full((1, 128, 2, 2), 1 / 128)
    assert torch.allclose(depth_certainty(pdf, 8, 8), torch.full((1, 8, 8), 5 / 128))
    pdf = torch.zeros(1, 128, 2, 2)
    pdf[:, 20:22] = 0.5
    assert torch.allclose(depth_certainty(pdf, 8, 8), torch.ones(1, 8, 8))
    pdf[:, 20], pdf[:, 21], pdf[:, 100] = 0.4, 0.2, 0.4
    assert torch.allclose(depth_certainty(pdf, 8, 8), torch.full((1, 8, 8), 0.6))


def test_measured_units_place_near_surfaces_at_the_training_depth(world):
    rgb, depth, cams = world
    scene = Scene(name="known", images=rgb[[0, 1]], cameras=cams[[0, 1]])
    nearest = float(depth[[0, 1]].quantile(0.05))
    assert network_units(scene, "measured").scale * nearest == pytest.approx(NEAREST, rel=0.4)


@pytest.mark.parametrize("factor", [1e-3, 1e3])
def test_measured_units_follow_the_world(world, factor):
    rgb, _, cams = world
    c2w = cams.c2w[[0, 4]].clone()
    scene = Scene(name="known", images=rgb[[0, 4]], cameras=cams[[0, 4]])
    c2w[:, :3, 3] *= factor
    scaled = Scene(name="scaled", images=rgb[[0, 4]], cameras=Cameras(c2w, cams.K[[0, 4]], *SIZE))
    found, expected = (network_units(s, "measured").scale for s in (scaled, scene))
    assert found * factor == pytest.approx(expected, rel=1e-2)


def test_unmatched_views_fall_back_to_the_baseline():
    flat = Scene(name="flat", images=torch.full((2, 3, 32, 40), 0.5), cameras=cameras([0.0, 0.25], 32, 40))
    assert network_units(flat, "measured").scale == pytest.approx(4)
    assert network_units(flat, "baseline").scale == pytest.approx(4)
    assert network_units(flat, "world").scale == 1


def test_the_baseline_is_the_distance_of_neighbours():
    assert network_units(random_scene([0.0, 0.5, 1.0, 1.0, 9.0], 16, 16), "baseline").scale == pytest.approx(2)


@pytest.mark.parametrize(
    "bad", [{"short_side": 15}, {"units": "miles"}, {"near": 0}, {"near": 5.0, "far": 2.0}, {"backend": "best"}]
)
def test_bad_settings_are_refused(bad):
    with pytest.raises(InputError, match=f"MvSplatSettings.{next(iter(bad))}"):
        MvSplatSettings(**bad)


def test_an_unknown_rule_is_refused():
    with pytest.raises(InputError, match="units: 'miles'; give one of measured, baseline, world"):
        network_units(random_scene([0.0, 1.0]), "miles")


def test_real_photos_in_training_units_are_scaled_little(captures_dir):
    folder = captures_dir / "re10k_000c3ab1"
    if not folder.is_dir():
        pytest.skip(f"{folder} is absent")
    scene = read_capture(folder).load([10, 25], 128, 224)
    assert 0.5 < network_units(scene, "measured").scale < 1.5
