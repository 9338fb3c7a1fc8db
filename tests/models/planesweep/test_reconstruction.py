import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from sphinx_nvs.errors import InputError
from sphinx_nvs.geometry.cameras import Cameras
from sphinx_nvs.models.planesweep import PlaneSweepReconstruction, RenderConfig
from sphinx_nvs.scene.scene import Scene


def cameras(x, height=48, width=64, yaw=0.0, zoom=1.0):
    """Cameras at (x, 0, 0) directed along +z, turned by `yaw` radians."""
    c2w = torch.eye(4, dtype=torch.float64).repeat(len(x), 1, 1)
    c2w[:, 0, 3] = torch.tensor(x, dtype=torch.float64)
    c2w[:, 0, 0] = c2w[:, 2, 2] = math.cos(yaw)
    c2w[:, 0, 2], c2w[:, 2, 0] = math.sin(yaw), -math.sin(yaw)
    K = torch.tensor([[60.0 * zoom, 0, width / 2], [0, 60.0 * zoom, height / 2], [0, 0, 1]])
    return Cameras(c2w, K.repeat(len(x), 1, 1), height, width)


def texture(X, Y):
    """A smooth coloured pattern over the plane z = 4."""
    return torch.stack([0.5 + 0.4 * torch.sin(3 * X + k) * torch.cos(2 * Y - k) for k in range(3)], -3)


def photo(cams, depth=4.0):
    """Images of the textured plane from `cams` (without yaw)."""
    y, x = torch.meshgrid(torch.arange(cams.height) + 0.5, torch.arange(cams.width) + 0.5, indexing="ij")
    X = (x - cams.width / 2) / cams.K[:, 0, 0].view(-1, 1, 1) * depth + cams.centres[:, 0].view(-1, 1, 1)
    Y = (y - cams.height / 2) / cams.K[:, 1, 1].view(-1, 1, 1) * depth + torch.zeros_like(X)
    return texture(X, Y).transpose(0, 1).float() if X.dim() == 2 else texture(X, Y).float()


def plane_reconstruction(x=(0.0, 0.4), config=None, **size):
    cams = cameras(list(x), **size)
    scene = Scene(name="plane", images=photo(cams), cameras=cams)
    inverse_depth = torch.full((len(x), cams.height, cams.width), 0.25)
    return PlaneSweepReconstruction(scene, inverse_depth, torch.ones_like(inverse_depth), config or RenderConfig())


def noisy_reconstruction(backend="auto"):
    images = F.interpolate(torch.rand(3, 3, 6, 8), size=(48, 64), mode="bicubic").clamp(0, 1)
    inverse_depth = F.interpolate(torch.rand(3, 1, 6, 8), size=(48, 64), mode="bilinear")[:, 0] * 0.5 + 0.2
    scene = Scene(name="noise", images=images, cameras=cameras([0.0, 0.3, 0.7]))
    return PlaneSweepReconstruction(scene, inverse_depth, torch.rand(3, 48, 64), RenderConfig(backend=backend))


def fields(render):
    return {name: getattr(render, name) for name in ("rgb", "alpha", "depth", "confidence", "disagreement")}


def test_a_plane_is_rendered_between_the_context_views():
    target = cameras([0.2])
    render = plane_reconstruction().render(target)
    inner = (..., slice(2, -2), slice(6, -6))
    assert (render.rgb - photo(target))[inner].abs().max() < 0.01
    assert (render.depth[inner] - 4).abs().max() < 1e-3
    assert render.confidence[inner].min() > 0.99
    assert render.alpha[inner].min() > 0.9
    assert render.disagreement[inner].max() < 0.02


@pytest.mark.parametrize("zoom", [0.5, 2.0, 3.0])
def test_targets_may_have_another_size(zoom):
    target = cameras([0.2], height=round(48 * zoom), width=round(64 * zoom), zoom=zoom)
    render = plane_reconstruction().render(target)
    assert render.rgb.shape == (1, 3, target.height, target.width)
    margin = round(6 * zoom)
    inner = (..., slice(margin, -margin), slice(margin, -margin))
    assert (render.rgb - photo(target))[inner].abs().max() < 0.02
    assert (render.depth[inner] - 4).abs().max() < 1e-3


def test_the_context_view_itself_is_reproduced():
    reconstruction = noisy_reconstruction()
    own = reconstruction.render(reconstruction.scene.cameras[1])
    assert (own.rgb[0] - reconstruction.scene.images[1]).abs().mean() < 0.03


def test_a_near_object_occludes_the_background():
    cams = cameras([0.0, 0.2])
    images, inverse_depth = torch.full((2, 3, 48, 64), 0.2), torch.full((2, 48, 64), 0.1)
    images[0, :, 16:32, 24:40], inverse_depth[0, 16:32, 24:40] = 0.9, 0.5
    images[1, :, 16:32, 18:34], inverse_depth[1, 16:32, 18:34] = 0.9, 0.5
    scene = Scene(name="box", images=images, cameras=cams)
    render = PlaneSweepReconstruction(scene, inverse_depth, torch.ones_like(inverse_depth)).render(cameras([0.1]))
    assert (render.rgb[0, :, 18:30, 23:35] - 0.9).abs().max() < 0.05
    assert (render.depth[0, 18:30, 23:35] - 2).abs().max() < 0.05
    assert (render.rgb[0, :, :, :16] - 0.2).abs().max() < 0.05


def test_holes_are_filled_without_confidence():
    render = plane_reconstruction().render(cameras([3.5]))
    hole = render.confidence[0] == 0
    assert 0.2 < hole.float().mean() < 0.95
    assert render.alpha[0][hole].max() == 0
    assert render.rgb[:, :, hole[:, :]].min() > 0.05
    assert all(torch.isfinite(value).all() for value in fields(render).values())
    assert render.depth.min() > 0


def test_one_uncovered_view_among_covered_ones_is_a_hole():
    both = Cameras.cat([cameras([0.2]), cameras([0.2], yaw=math.pi)])
    reconstruction = plane_reconstruction()
    render = reconstruction.render(both)
    assert render.confidence[1].max() == 0
    assert render.alpha[1].max() == 0
    assert torch.allclose(render.rgb[1].mean((1, 2)), reconstruction.scene.images.mean((0, 2, 3)), atol=0.3)


def test_targets_that_see_nothing_are_named():
    with pytest.raises(InputError, match="target views 0, 1: they see nothing"):
        plane_reconstruction().render(cameras([0.0, 0.2], yaw=math.pi))


def test_numba_and_torch_agree():
    slow = noisy_reconstruction("torch")
    fast = replace(slow, config=RenderConfig(backend="numba"))
    targets = cameras([-0.2, 0.4, 0.9], height=56, width=50)
    slow, fast = fields(slow.render(targets)), fields(fast.render(targets))
    for name, value in slow.items():
        assert torch.allclose(value, fast[name], atol=1e-4), name


@pytest.mark.parametrize("backend", ["torch", "auto"])
def test_rendering_is_reproducible_bit_for_bit(backend):
    reconstruction, targets = noisy_reconstruction(backend), cameras([0.1, 0.5])
    first, second = fields(reconstruction.render(targets)), fields(reconstruction.render(targets))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_targets_are_rendered_independently():
    reconstruction, targets = noisy_reconstruction(), cameras([0.1, 0.5])
    assert torch.equal(reconstruction.render(targets).rgb[1], reconstruction.render(targets[1]).rgb[0])


def test_disagreement_is_where_the_context_views_differ():
    reconstruction = plane_reconstruction()
    images = reconstruction.scene.images.clone()
    images[1, :, 20:30, 20:36] = 1 - images[1, :, 20:30, 20:36]
    changed = replace(reconstruction, scene=replace(reconstruction.scene, images=images))
    disagreement = changed.render(cameras([0.4])).disagreement[0]
    assert disagreement[22:28, 22:34].mean() > 0.1 > 10 * disagreement[:15, 10:].mean()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"inverse_depth": torch.zeros(2, 48, 64)},
            "inverse_depth: its least value is 0; give values",
        ),
        ({"inverse_depth": torch.full((2, 48, 64), torch.nan)}, "inverse_depth: a value is NaN or infinite"),
        ({"confidence": torch.full((2, 48, 64), 1.5)}, r"confidence: a value is outside \[0, 1\]"),
    ],
)
def test_bad_depths_are_refused(change, message):
    with pytest.raises(InputError, match=message):
        replace(plane_reconstruction(), **change)


def test_a_wrong_size_is_refused():
    reconstruction = plane_reconstruction()
    with pytest.raises(InputError, match=r"inverse_depth: its shape is \(2, 4, 4\); give \(2, 48, 64\)"):
        PlaneSweepReconstruction(reconstruction.scene, torch.ones(2, 4, 4), torch.ones(2, 4, 4))


@pytest.mark.parametrize("bad", [{"kernel_px": 0.0}, {"nearness": -1.0}, {"backend": "cuda"}])
def test_bad_settings_are_refused(bad):
    with pytest.raises(InputError, match=f"RenderConfig.{next(iter(bad))}"):
        RenderConfig(**bad)


@pytest.mark.parametrize("size", [(1, 1), (2, 3), (7, 5)])
def test_tiny_images_are_rendered(size):
    cams = cameras([0.0, 0.1], *size)
    scene = Scene(name="tiny", images=torch.rand(2, 3, *size), cameras=cams)
    ones = torch.ones(2, *size)
    render = PlaneSweepReconstruction(scene, ones, ones).render(cams)
    assert all(torch.isfinite(value).all() for value in fields(render).values())
