"""Quality scores: worse pictures score less, and the benchmark lies between its context views."""

import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from skimage.data import astronaut

from sphinx_nvs.assess import AssessConfig, assess
from sphinx_nvs.assess.quality import benchmark_quality, image_quality, scene_descriptor
from sphinx_nvs.assess.uncertainty import UncertaintyConfig
from sphinx_nvs.geometry import Cameras
from sphinx_nvs.models.base import Render
from sphinx_nvs.scene.scene import Scene

PHOTO = torch.from_numpy(astronaut()[::2, ::2]).permute(2, 0, 1)[None].float() / 255


def cameras(positions):
    c2w = torch.eye(4).repeat(len(positions), 1, 1)
    c2w[:, 0, 3] = torch.tensor(positions)
    return Cameras(c2w, torch.tensor([[[200.0, 0, 128], [0, 200, 128], [0, 0, 1]]] * len(positions)), 256, 256)


def test_blur_lowers_quality_monotonically():
    scores = [float(image_quality(F.avg_pool2d(PHOTO, 2 * r + 1, 1, r))) for r in range(5)]
    assert scores == sorted(scores, reverse=True)
    assert 0 < scores[-1] < scores[0] < 1


@given(c0=st.floats(0.1, 1), c1=st.floats(0.1, 1), x=st.floats(0, 1))
def test_the_benchmark_stays_between_the_context_views(c0, c1, x):
    value = float(benchmark_quality(torch.tensor([c0, c1]), cameras([0.0, 1.0]), cameras([x])))
    assert min(c0, c1) - 1e-5 <= value <= max(c0, c1) + 1e-5


def test_the_benchmark_at_a_context_view_is_its_own_quality():
    quality = torch.tensor([0.3, 0.7, 0.5])
    at_contexts = benchmark_quality(quality, cameras([0.0, 1.0, 3.0]), cameras([0.0, 1.0, 3.0]))
    torch.testing.assert_close(at_contexts, quality)


def test_descriptors_have_unit_length_and_tell_pictures_apart():
    own, other = scene_descriptor(PHOTO), scene_descriptor(1 - PHOTO)
    assert abs(float(own.norm()) - 1) < 1e-5
    assert float(own @ other) < 0.9
    assert float(own @ scene_descriptor(PHOTO.roll(1, -1))) > 0.99


def test_views_score_by_sharpness_and_by_what_can_be_trusted():
    scene = Scene(name="photo", images=PHOTO.repeat(2, 1, 1, 1), cameras=cameras([0.0, 1.0]))
    alpha = torch.ones(3, 256, 256)
    alpha[2, :, :128] = 0
    render = Render(
        rgb=torch.cat([PHOTO, F.avg_pool2d(PHOTO, 17, 1, 8), PHOTO]),
        alpha=alpha,
        depth=torch.ones_like(alpha),
        confidence=alpha,
        disagreement=torch.zeros_like(alpha),
    )
    plain = AssessConfig(uncertainty=UncertaintyConfig(use_distance=False, blur="off"))
    quality = assess(scene, cameras([0.25, 0.5, 0.75]), render, plain).quality
    assert quality[0] == 1
    assert quality[1] < 0.9
    torch.testing.assert_close(quality[2], torch.tensor(0.75), atol=0.01, rtol=0)
    by_default = assess(scene, cameras([0.25, 0.5, 0.75]), render).quality
    assert by_default[0] > max(by_default[1:])
    assert (by_default <= quality).all()
