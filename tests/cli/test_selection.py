"""Which views become context and which targets, for every combination of what a user may say."""

import pytest
import torch

from sphinx_nvs.cli.selection import MOST_CONTEXTS, PATH_FRAMES, Selection, ViewOptions, select, spread
from sphinx_nvs.errors import InputError
from sphinx_nvs.scene import Capture, PosedView, Split


def capture(num_views: int = 12, splits: dict[int, Split] | None = None, blind: tuple[int, ...] = ()) -> Capture:
    """Cameras on a line that look along z; views in `blind` have no photo."""
    K = torch.tensor([[32.0, 0, 16], [0, 32, 16], [0, 0, 1]], dtype=torch.float64)
    views = []
    for i in range(num_views):
        c2w = torch.eye(4, dtype=torch.float64)
        c2w[0, 3] = i
        image = None if i in blind else torch.zeros(3, 32, 32)
        views.append(PosedView(name=f"{i}", c2w=c2w, K=K, height=32, width=32, image=image))
    return Capture(name="line", views=tuple(views), splits=splits or {})


TWO = {2: Split(train_ids=(3, 6), test_ids=(4, 5, 9))}


def chosen(of: Capture, **options: object) -> Selection:
    return select(of, ViewOptions(**options), 32, 32)


def test_the_only_split_is_used():
    selection = chosen(capture(splits=TWO))
    assert (selection.context_ids, selection.split, selection.test_ids) == ((3, 6), 2, (4, 5, 9))
    assert selection.notes == ()
    assert selection.targets.centres[:, 0].tolist() == [4, 5, 9]


def test_without_splits_all_views_are_context_of_a_path():
    selection = chosen(capture(5))
    assert selection.context_ids == (0, 1, 2, 3, 4)
    assert (selection.target_name, selection.test_ids, len(selection.targets)) == ("interpolate", None, PATH_FRAMES)


def test_more_views_than_regressors_are_made_for_are_thinned_and_said():
    selection = chosen(capture(30))
    assert len(selection.context_ids) == MOST_CONTEXTS
    assert (selection.context_ids[0], selection.context_ids[-1]) == (0, 29)
    assert selection.notes == (
        "line has 30 photos: views 0, 4, 7, 11, 14, 18, 22, 25, 29 are context; choose with --contexts",
    )


def test_views_without_photo_are_neither_context_nor_tested():
    of = capture(5, blind=(0, 3))
    assert chosen(of).context_ids == (1, 2, 4)
    assert chosen(of, contexts="1,2", targets="test").test_ids == (4,)


def test_a_count_of_contexts_spreads_over_the_split_or_the_scene():
    splits = {4: Split(train_ids=(1, 2, 8, 9), test_ids=(5,))}
    assert chosen(capture(splits=splits), contexts="2").context_ids == (0, 11)
    assert chosen(capture(splits=splits), contexts="2", split=4).context_ids == (1, 9)


def test_named_contexts_keep_the_splits_test_views_without_themselves():
    selection = chosen(capture(splits=TWO), contexts="0,4", split=2)
    assert (selection.context_ids, selection.test_ids) == ((0, 4), (5, 9))


def test_frames_thin_test_views():
    assert chosen(capture(splits=TWO), frames=2).test_ids == (4, 9)


def test_dolly_zooms_may_be_written_with_a_dash():
    dashed = chosen(capture(3), targets="dolly-zoom-in", frames=3).targets
    spaced = chosen(capture(3), targets="dolly zoom-in", frames=3).targets
    assert torch.equal(dashed.c2w, spaced.c2w)
    assert torch.equal(dashed.K, spaced.K)


def test_unknown_split_lists_the_known():
    with pytest.raises(InputError) as caught:
        chosen(capture(), split=2)
    assert str(caught.value) == "split 2 of line: it has none; choose one of these or give --contexts"


@pytest.mark.parametrize(
    ("count", "expected"), [(None, (0, 1, 2, 3, 4)), (9, (0, 1, 2, 3, 4)), (3, (0, 2, 4)), (2, (0, 4)), (1, (2,))]
)
def test_spread(count, expected):
    assert spread(range(5), count) == expected
