import torch

from sphinx_nvs.assess.support import SOFT, soft_frames_warning, support
from sphinx_nvs.models.base import Render


def render(alpha, confidence):
    maps = torch.ones(2, 8, 8)
    return Render(
        rgb=torch.zeros(2, 3, 8, 8),
        alpha=alpha * maps,
        depth=maps,
        confidence=confidence * maps,
        disagreement=0 * maps,
    )


def test_support_counts_what_is_covered_and_confirmed():
    assert support(render(1.0, 0.5)) == 0.5
    assert support(render(0.5, 0.5)) == 0.25
    half = render(1.0, 1.0)
    half.confidence[:, :4] = 0
    assert support(half) == 0.5


def test_soft_frames_are_announced_with_their_support():
    assert soft_frames_warning(render(1.0, SOFT)) is None
    assert soft_frames_warning(render(1.0, 0.12)) == (
        "wide baselines: the photos agree on 12% of these views, expect soft frames"
    )
