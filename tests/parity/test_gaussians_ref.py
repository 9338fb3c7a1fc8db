"""Rasterisation against a brute-force float64 reference of the published equations."""

import pytest
import torch
from safetensors.torch import load_file

from sphinx_nvs.geometry.cameras import Cameras
from sphinx_nvs.geometry.se3 import rotation_from_quaternion
from sphinx_nvs.models.gaussians import Gaussians, RasterConfig, covariances_from_scales, rasterize
from sphinx_nvs.models.gaussians.ewa_projection import project
from sphinx_nvs.models.gaussians.harmonics import colours

FILE = "gaussians_ref.safetensors"
EXACT, SINGLE = 1e-9, 2e-5


@pytest.fixture(scope="module")
def golden(parity_dir):
    if not (parity_dir / FILE).is_file():
        pytest.skip(f"{parity_dir / FILE} is absent")
    return load_file(parity_dir / FILE)


def camera(golden):
    height, width = golden["main.alpha"].shape
    return Cameras(golden["in.c2w_opencv"][None], golden["in.K_pixels"][None], height, width)


def cloud(golden, dtype):
    names = {"means": "means", "covariances": "covariances", "opacities": "opacities", "sh": "sh"}
    return Gaussians(**{field: golden[f"in.{name}"].to(dtype) for field, name in names.items()})


def check(golden, variant, raster, tolerance):
    assert torch.allclose(raster.rgb[0].double(), golden[f"{variant}.rgb"].permute(2, 0, 1), atol=tolerance)
    assert torch.allclose(raster.alpha[0].double(), golden[f"{variant}.alpha"], atol=tolerance)
    depth = golden[f"{variant}.depth_acc"]
    assert torch.allclose(raster.depth_acc[0].double(), depth, atol=tolerance * float(depth.max()))


@pytest.mark.parametrize("variant", ["main", "pure"])
def test_torch_in_double_precision_is_exact(golden, variant):
    config = RasterConfig() if variant == "main" else RasterConfig(min_alpha=0.0, min_transmittance=0.0)
    raster = rasterize(cloud(golden, torch.float64), camera(golden), config, backend="torch")
    check(golden, variant, raster, EXACT)


@pytest.mark.parametrize("backend", ["torch", "numba"])
def test_single_precision(golden, backend):
    raster = rasterize(cloud(golden, torch.float32), camera(golden), backend=backend)
    check(golden, "main", raster, SINGLE)


def test_tile_culling_of_other_renderers_is_a_small_difference(golden):
    raster = rasterize(cloud(golden, torch.float64), camera(golden), backend="torch")
    difference = (raster.rgb[0] - golden["tile16.rgb"].permute(2, 0, 1)).abs()
    assert difference.max() < 0.05
    assert difference.mean() < 1e-3


@pytest.mark.parametrize("degree", range(5))
def test_colours(golden, degree):
    double = cloud(golden, torch.float64)
    found = colours(double.means, double.sh, golden["in.c2w_opencv"][:3, 3].double(), degree)
    assert torch.allclose(found, golden[f"colours.degree{degree}"], atol=EXACT)


def test_projection(golden):
    projected = project(cloud(golden, torch.float64), camera(golden), near=0.2, blur=0.3)
    xx, xy, yy = projected.cov2d.unbind(-1)
    cov2d = torch.stack([xx, xy, xy, yy], -1).view(-1, 2, 2)
    for name, found in (("means2d", projected.means2d), ("cov2d", cov2d), ("z", projected.z)):
        assert torch.allclose(found, golden[f"proj.{name}"], rtol=EXACT, atol=EXACT), name
    valid = projected.is_valid
    assert torch.equal(projected.radius[valid], golden["proj.radius"][valid])


def test_covariances_come_from_scales_and_quaternions(golden):
    rotations = rotation_from_quaternion(golden["in.quats_wxyz"].double())
    found = covariances_from_scales(golden["in.scales"].double(), rotations)
    assert torch.allclose(found, golden["in.covariances"].double(), atol=1e-6)
