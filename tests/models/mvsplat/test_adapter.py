import pytest
import torch

from sphinx_nvs.geometry.cameras import Cameras
from sphinx_nvs.geometry.projection import project
from sphinx_nvs.geometry.se3 import so3_exp
from sphinx_nvs.models.gaussians import Gaussians, RasterConfig, rasterize
from sphinx_nvs.models.mvsplat.adapter import gaussians_from_pixels

SIZE = (12, 20)
CHANNELS = 9 + 75


@pytest.fixture
def cameras():
    c2w = torch.eye(4, dtype=torch.float64).repeat(2, 1, 1)
    c2w[:, :3, :3] = so3_exp(0.2 * torch.randn(2, 3, dtype=torch.float64))
    c2w[:, :3, 3] = torch.randn(2, 3)
    K = torch.tensor([[18.0, 0, 9.0], [0, 22.0, 6.5], [0, 0, 1]]).repeat(2, 1, 1)
    return Cameras(c2w, K, *SIZE)


def adapted(raw, depth, cameras, density=None):
    density = torch.full_like(depth, 0.9) if density is None else density
    return gaussians_from_pixels(raw, depth, density, cameras.c2w.float(), cameras.K_norm.float())


def per_view(values):
    return values.unflatten(0, (2, -1))


def test_means_project_to_their_pixels_at_their_distance(cameras):
    depth = 2 + torch.rand(2, *SIZE)
    means = per_view(adapted(torch.zeros(2, CHANNELS, *SIZE), depth, cameras).means)
    pixels, _ = project(cameras, means)
    y, x = torch.meshgrid(torch.arange(SIZE[0]) + 0.5, torch.arange(SIZE[1]) + 0.5, indexing="ij")
    expected = torch.stack([x, y], -1).flatten(0, 1).expand(2, -1, -1).double()
    assert torch.allclose(pixels, expected, atol=1e-4)
    distance = (means.double() - cameras.centres[:, None]).norm(dim=-1)
    assert torch.allclose(distance, depth.flatten(1).double(), atol=1e-4)


def test_offsets_stay_within_the_pixel(cameras):
    raw = torch.zeros(2, CHANNELS, *SIZE)
    raw[:, 0], raw[:, 1] = 100.0, -100.0
    pixels, _ = project(cameras, per_view(adapted(raw, torch.full((2, *SIZE), 3.0), cameras).means))
    assert torch.allclose(pixels[:, 0], torch.tensor([1.0, 0.0], dtype=torch.float64), atol=1e-4)


def test_scales_grow_with_depth_between_their_bounds(cameras):
    raw = torch.zeros(2, CHANNELS, *SIZE)
    raw[:, 2], raw[:, 3], raw[:, 8] = -100.0, 100.0, 1.0
    depth = torch.full((2, *SIZE), 4.0)
    scales = torch.linalg.eigvalsh(adapted(raw, depth, cameras).covariances.double()).sqrt()
    unit = 4 * 0.1 * (1 / 18 + 1 / 22)
    expected = unit * torch.tensor([0.5, 7.75, 15.0], dtype=torch.float64)
    assert torch.allclose(scales, expected.expand_as(scales), rtol=1e-3)


def test_covariances_follow_the_quaternion_and_the_camera(cameras):
    raw = torch.zeros(2, CHANNELS, *SIZE)
    raw[:, 2] = 5.0
    raw[:, 7], raw[:, 8] = 1.0, 1.0  # z and w: a quarter turn about z, so that the long axis is the camera's y
    covariances = per_view(adapted(raw, torch.full((2, *SIZE), 2.0), cameras).covariances)
    axes = torch.linalg.eigh(covariances.double()).eigenvectors[..., -1]
    y = cameras.c2w[:, None, :3, 1]
    assert torch.allclose((axes * y).sum(-1).abs(), torch.ones(2, SIZE[0] * SIZE[1], dtype=torch.float64), atol=1e-4)


def test_the_cloud_renders_as_the_original_evaluates_it(cameras):
    raw = torch.randn(2, CHANNELS, *SIZE)
    raw[:, 9:] *= 10  # so that the damped degrees count
    gaussians = adapted(raw, 2 + torch.rand(2, *SIZE), cameras)
    as_stored = Gaussians(
        means=gaussians.means,
        covariances=gaussians.covariances,
        opacities=gaussians.opacities,
        sh=gaussians.harmonics,
    )
    expected = rasterize(as_stored, cameras, RasterConfig(sh_degree=3, sh_axes=(2, 0, 1)), backend="torch")
    found = rasterize(gaussians.cloud(), cameras, backend="torch")
    assert torch.allclose(found.rgb, expected.rgb, atol=1e-4)
    naive = rasterize(as_stored, cameras, backend="torch")
    assert (naive.rgb - expected.rgb).abs().max() > 0.01
