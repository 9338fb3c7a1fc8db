import pytest
import torch

from sphinx_nvs.evaluation.specks import excess_contrast, speck_rate


def edge(column, *, height=16, width=16):
    picture = torch.full((1, 3, height, width), 0.2)
    picture[..., column:] = 0.8
    return picture


def test_the_truth_and_a_blurred_frame_have_no_specks():
    truth = torch.rand(2, 3, 24, 24)
    blurred = torch.nn.functional.avg_pool2d(truth, 3, 1, 1, count_include_pad=False)
    for frames in (truth, blurred, torch.full_like(truth, 0.5)):
        assert torch.equal(speck_rate(frames, truth), torch.zeros(2))
        assert float(excess_contrast(frames, truth).abs().max()) == 0


def test_single_wrong_pixels_are_specks():
    truth = torch.full((1, 3, 16, 16), 0.5)
    frame = truth.clone()
    frame[..., 8, 8] = 1.0
    # The pixel itself, and those before it across and down, differ from the next one.
    assert float(speck_rate(frame, truth)) == pytest.approx(3 / 15**2)
    faint = truth.clone()
    faint[..., 8, 8] = 0.55
    assert float(speck_rate(faint, truth)) == 0
    assert float(excess_contrast(faint, truth).sum()) > 0


def test_an_edge_may_lie_beside_the_true_one_but_not_elsewhere():
    assert float(speck_rate(edge(9), edge(7))) == 0
    assert float(speck_rate(edge(12), edge(7))) == pytest.approx(1 / 15)


def test_the_gradient_takes_specks_away():
    truth = torch.full((1, 3, 8, 8), 0.5)
    frame = truth.clone()
    frame[..., 4, 4] = 1.0
    frame.requires_grad_(True)
    excess_contrast(frame, truth).mean().backward()
    assert float(frame.grad[..., 4, 4].min()) > 0
