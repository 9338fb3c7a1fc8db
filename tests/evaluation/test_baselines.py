import torch

from sphinx_nvs.evaluation import cross_fade, nearest_context
from sphinx_nvs.geometry import Cameras
from sphinx_nvs.scene import Scene


def line(*positions: float) -> Cameras:
    """Parallel cameras on the x axis."""
    c2w = torch.eye(4, dtype=torch.float64).repeat(len(positions), 1, 1)
    c2w[:, 0, 3] = torch.tensor(positions, dtype=torch.float64)
    K = torch.tensor([[16.0, 0, 8], [0, 16, 8], [0, 0, 1]], dtype=torch.float64).repeat(len(positions), 1, 1)
    return Cameras(c2w, K, 16, 16)


def grey_scene() -> Scene:
    """Three contexts at x = 0, 1, 3 that are 0, 0.5 and 1 all over."""
    images = torch.tensor([0.0, 0.5, 1.0]).view(3, 1, 1, 1).expand(3, 3, 16, 16).contiguous()
    return Scene(name="greys", images=images, cameras=line(0, 1, 3))


def test_nearest_shows_the_nearest_photo():
    shown = nearest_context(grey_scene(), line(0.4, 0.6, 2.5, 9))
    assert shown[:, 0, 0, 0].tolist() == [0, 0.5, 1, 1]


def test_cross_fade_mixes_by_nearness():
    shown = cross_fade(grey_scene(), line(0.25, 2.5))
    assert torch.allclose(shown[:, 0, 0, 0], torch.tensor([0.125, 0.875]), atol=1e-6)


def test_at_a_context_view_both_show_its_photo():
    scene = grey_scene()
    assert torch.equal(nearest_context(scene, scene.cameras), scene.images)
    assert torch.allclose(cross_fade(scene, scene.cameras), scene.images)
