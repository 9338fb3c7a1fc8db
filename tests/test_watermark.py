import pytest
import torch

from sphinx_nvs.watermark import watermarked

TEXT = "RANDOM WEIGHTS"


@pytest.mark.parametrize(("height", "width"), [(64, 64), (64, 96), (256, 384), (576, 576), (576, 128), (1080, 1920)])
@pytest.mark.parametrize("value", [0.0, 0.5, 1.0])
def test_words_can_be_read_on_any_ground(height, width, value):
    frames = torch.full((2, 3, height, width), value)
    marked = watermarked(frames, TEXT)[0, 0]
    dark = (marked < 0.3).any(1) if value > 0.9 else (marked > 0.6).any(1)
    ink = marked[dark] > 0.6
    columns = ink.any(0).nonzero().flatten()
    assert len(ink) >= 7, "letters are too small"
    assert int(columns[-1] - columns[0]) > 0.5 * width, "words are narrower than half of the frame"
    assert float(marked[dark].median()) <= 0.25, "letters stand on no dark band"


def test_the_rest_of_the_frame_stays():
    frames = torch.rand(2, 3, 128, 128)
    marked = watermarked(frames, TEXT)
    changed = (marked != frames).any(1).any(2)
    assert changed.any()
    assert not changed[:, :32].any()
    assert not changed[:, -32:].any()
    assert marked.dtype == frames.dtype
    assert float(marked.min()) >= 0
    assert float(marked.max()) <= 1


def test_the_middle_row_is_inside_the_band():
    marked = watermarked(torch.ones(1, 3, 100, 100), TEXT)
    assert float(marked[0, 0, 50].min()) < 0.5


def test_frames_too_small_for_words_are_marked_all_the_same():
    frames = torch.ones(1, 3, 8, 8)
    assert not torch.equal(watermarked(frames, TEXT), frames)
