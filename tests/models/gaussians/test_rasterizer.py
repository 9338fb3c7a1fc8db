import pytest
import torch

from sphinx_nvs.errors import InputError
from sphinx_nvs.geometry.cameras import Cameras
from sphinx_nvs.models.gaussians import Gaussians, RasterConfig, rasterize, sh_from_rgb
from sphinx_nvs.models.gaussians import compositing as torch_compositing


def camera(num_views=1, size=(40, 56)):
    height, width = size
    c2w = torch.eye(4).repeat(num_views, 1, 1)
    c2w[:, 0, 3] = 0.3 * torch.arange(num_views)
    K = torch.tensor([[50.0, 0, width / 2], [0, 50.0, height / 2], [0, 0, 1]])
    return Cameras(c2w, K.repeat(num_views, 1, 1), height, width)


def cloud(count=400, features=None, degree=2):
    root = 0.1 * torch.randn(count, 3, 3)
    return Gaussians(
        means=torch.randn(count, 3) + torch.tensor([0.0, 0.0, 3.0]),
        covariances=root @ root.transpose(1, 2),
        opacities=torch.rand(count),
        sh=0.3 * torch.randn(count, 3, (degree + 1) ** 2),
        features=features,
    )


def single(opacity=0.8, z=2.0, rgb=(0.2, 0.4, 0.6)):
    return Gaussians(
        means=torch.tensor([[0.0, 0.0, z]]),
        covariances=0.5 * torch.eye(3)[None],
        opacities=torch.tensor([opacity]),
        sh=sh_from_rgb(torch.tensor([rgb])),
    )


def test_one_gaussian_at_its_centre():
    raster = rasterize(single(), camera(size=(41, 57)))
    assert raster.alpha[0, 20, 28] == pytest.approx(0.8, abs=1e-6)
    assert raster.rgb[0, :, 20, 28].tolist() == pytest.approx([0.16, 0.32, 0.48], abs=1e-5)
    assert raster.depth[0, 20, 28] == pytest.approx(2.0, abs=1e-5)


def test_the_nearer_gaussian_occludes_regardless_of_order():
    near, far = single(0.99, 1.0, (1.0, 0.0, 0.0)), single(0.99, 4.0, (0.0, 1.0, 0.0))
    for first, second in ((near, far), (far, near)):
        names = ("means", "covariances", "opacities", "sh")
        both = Gaussians(**{name: torch.cat([getattr(first, name), getattr(second, name)]) for name in names})
        rgb = rasterize(both, camera()).rgb[0, :, 20, 28]
        assert rgb[0] > 0.9 > 20 * rgb[1]


@pytest.mark.parametrize("backend", ["torch", "numba"])
def test_nothing_in_front_is_black(backend):
    behind = single(z=-2.0)
    raster = rasterize(behind, camera(), backend=backend)
    assert raster.alpha.max() == 0
    assert raster.rgb.max() == 0
    assert raster.depth.max() == 0


@pytest.mark.parametrize("count", [0, 1, 2000])
def test_numba_equals_torch(count):
    gaussians, cameras = cloud(count, features=torch.randn(count, 5)), camera(2)
    slow, fast = (rasterize(gaussians, cameras, backend=backend) for backend in ("torch", "numba"))
    for name in ("rgb", "alpha", "depth_acc", "features"):
        assert torch.allclose(getattr(slow, name), getattr(fast, name), atol=3e-5), name


def test_bands_of_rows_change_nothing(monkeypatch):
    gaussians, cameras = cloud(), camera()
    whole = rasterize(gaussians, cameras, backend="torch")
    monkeypatch.setattr(torch_compositing, "FRAGMENTS_AT_ONCE", 500)
    assert torch.allclose(rasterize(gaussians, cameras, backend="torch").rgb, whole.rgb, atol=1e-6)


def test_features_are_composited_like_colours():
    gaussians = cloud(degree=0)
    rgb = torch.rand(len(gaussians), 3)
    gaussians = Gaussians(
        means=gaussians.means,
        covariances=gaussians.covariances,
        opacities=gaussians.opacities,
        sh=sh_from_rgb(rgb),
        features=rgb,
    )
    raster = rasterize(gaussians, camera(2))
    assert torch.allclose(raster.features, raster.rgb, atol=1e-5)


def test_views_are_independent():
    gaussians, cameras = cloud(), camera(3)
    assert torch.equal(rasterize(gaussians, cameras).rgb[1], rasterize(gaussians, cameras[1]).rgb[0])


def test_permuted_axes_permute_the_direction():
    gaussians = cloud(degree=1)
    turned = RasterConfig(sh_axes=(2, 0, 1))
    assert not torch.allclose(rasterize(gaussians, camera(), turned).rgb, rasterize(gaussians, camera()).rgb)


@pytest.mark.parametrize("backend", ["torch", "numba"])
def test_results_are_reproducible_bit_for_bit(backend):
    gaussians, cameras = cloud(), camera()
    first, second = (rasterize(gaussians, cameras, backend=backend) for _ in range(2))
    assert torch.equal(first.rgb, second.rgb)


def test_an_unknown_backend_is_refused():
    with pytest.raises(InputError, match="backend: 'opengl'; give one of auto, torch, numba, gsplat"):
        rasterize(single(), camera(), backend="opengl")


def test_gsplat_without_cuda_is_refused():
    with pytest.raises(InputError, match=r"backend: gsplat (is not importable|needs CUDA tensors)"):
        rasterize(single(), camera(), backend="gsplat")


@pytest.mark.parametrize(
    "bad", [{"near": -1.0}, {"max_alpha": 1.0}, {"sh_axes": (0, 0, 1)}, {"min_transmittance": -0.1}]
)
def test_bad_constants_are_refused(bad):
    with pytest.raises(InputError, match=f"RasterConfig.{next(iter(bad))}"):
        RasterConfig(**bad)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"opacities": torch.tensor([1.5])}, r"Gaussians.opacities: a value is outside \[0, 1\]"),
        ({"sh": torch.zeros(1, 3, 5)}, "Gaussians.sh: 5 coefficients per channel"),
        ({"means": torch.full((1, 3), torch.nan)}, "Gaussians.means: a value is NaN"),
    ],
)
def test_bad_clouds_are_refused(change, message):
    good = single()
    fields = {name: getattr(good, name) for name in ("means", "covariances", "opacities", "sh")}
    with pytest.raises(InputError, match=message):
        Gaussians(**fields | change)
