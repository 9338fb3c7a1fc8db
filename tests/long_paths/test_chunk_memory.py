"""What later chunks remember, and how votes end that are even: as recorded from SEVA."""

import pytest
import torch

from sphinx_nvs.long_paths.chunks import ChunkViews, plan_chunks


@pytest.mark.parametrize(
    ("targets", "remembered"),
    [
        (29, 7),  # 10 are left, and 6 suffice: ceil(0.33 * 19) are remembered
        (25, 7),  # 6 are left, which is floor(0.33 * 19)
        (24, 14),  # 5 are left: as many as there is room for beside them
    ],
)
def test_gt_ltr_fills_the_window_only_when_little_is_left(targets, remembered):
    views = ChunkViews(known_order=[0, targets + 1], target_order=list(range(1, targets + 1)))
    last = plan_chunks("gt-ltr", views, 21)[1]
    assert len(last.known) == 2 + remembered


def test_even_votes_of_nearest_go_to_who_was_counted_first():
    # The first target is nearest to view 2, then to 1; the second to 0, then to 1: view 1 has two votes, 2 came first.
    distances = torch.tensor([[3.0, 2.0, 1.0], [1.0, 2.0, 3.0]])
    views = ChunkViews(known_order=[0, 10, 20], target_order=[5, 15], to_known=distances)
    (chunk,) = plan_chunks("nearest-2", views, 4)
    assert chunk.known == (1, 2)
