"""Heat maps and contact sheets, checked by pixel."""

import torch

from sphinx_nvs.evaluation import plan_picture
from sphinx_nvs.visualization.contact_sheet import contact_sheet


def red(height: int = 64, width: int = 96) -> torch.Tensor:
    return torch.tensor([0.9, 0.1, 0.2]).view(3, 1, 1).expand(3, height, width).contiguous()


def test_held_cells_are_grey_and_active_cells_are_not():
    start_step = torch.full((8, 12), 50)
    start_step[:, :6] = 10
    picture = plan_picture(red(), start_step, 50)
    assert picture.shape[1] == 512
    active, held = picture[:, 256, 100], picture[:, 256, 700]
    assert float(held.max() - held.min()) < 0.01
    assert float(active.max() - active.min()) > 0.2


def test_earlier_starts_are_brighter():
    shades = [plan_picture(red(), torch.full((8, 12), step), 50)[:, 200, 200].mean() for step in (0, 20, 45)]
    assert shades[0] > shades[1] > shades[2]


def test_cells_cover_their_own_pixels():
    start_step = torch.full((8, 12), 50)
    start_step[2, 5] = 0
    picture = plan_picture(red(), start_step, 50)
    coloured = (picture.amax(0) - picture.amin(0))[:, :768] > 0.1
    rows, columns = coloured.nonzero().unbind(1)
    assert (int(rows.min()), int(rows.max())) == (128, 191)
    assert (int(columns.min()), int(columns.max())) == (320, 383)


def test_large_frames_keep_their_size():
    assert plan_picture(red(576, 640), torch.zeros(72, 80, dtype=torch.long), 50).shape[1] == 576


def test_contact_sheet_places_pictures_under_their_titles():
    first, second = red(20, 30), 1 - red(20, 30)
    sheet = contact_sheet([[first, second], [second, first]], [["a", "b"], ["c", "d"]])
    assert sheet.shape == (3, 2 * (20 + 22), 2 * 30 + 4)
    assert torch.allclose(sheet[:, 22:42, :30], first, atol=1 / 255)
    assert torch.allclose(sheet[:, 64:84, :30], second, atol=1 / 255)
    assert float(sheet[:, :22].min()) < 0.3


def test_cells_of_a_cropped_frame_lie_over_their_own_pixels():
    start_step = torch.full((8, 12), 50)
    start_step[7, 11] = 0
    picture = plan_picture(red(59, 91), start_step, 50)
    coloured = (picture.amax(0) - picture.amin(0))[:, : 9 * 91] > 0.1
    rows, columns = coloured.nonzero().unbind(1)
    assert (int(rows.min()), int(rows.max())) == (9 * 56, 9 * 59 - 1)
    assert (int(columns.min()), int(columns.max())) == (9 * 88, 9 * 91 - 1)
