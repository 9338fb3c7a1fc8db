import pytest
import torch

from sphinx_nvs.nn.transformer import MultiviewTransformer, map_from_tokens, tokens_from_map


def transformer(*, joint, time_mix, context_dim=None, depth=1):
    return MultiviewTransformer(
        8,
        head_dim=4,
        depth=depth,
        context_dim=context_dim,
        ff_mult=2,
        groups=4,
        joint=joint,
        time_mix=time_mix,
    ).double()


def rows(count=6):
    return torch.randn(count, 8, 3, 4, dtype=torch.float64)


def views_reached(layer, context=None):
    """Which of 2 x 3 rows change when row 1 does."""
    x = rows()
    y = x.clone()
    y[1] += torch.randn_like(y[1])
    return [bool(change) for change in (layer(x, context, 3) != layer(y, context, 3)).flatten(1).any(1)]


def test_tokens_and_maps_are_the_same_memory():
    x = rows()
    tokens = tokens_from_map(x)
    assert tokens.data_ptr() == x.data_ptr()
    assert torch.equal(tokens[:, 5], x[:, :, 1, 1])
    assert torch.equal(map_from_tokens(tokens, 3, 4), x)


@pytest.mark.parametrize(
    ("joint", "time_mix", "reached"),
    [(False, False, [1]), (True, False, [0, 1, 2]), (False, True, [0, 1, 2])],
)
def test_a_view_reaches_its_own_request_only(joint, time_mix, reached):
    changed = views_reached(transformer(joint=joint, time_mix=time_mix))
    assert [row for row, flag in enumerate(changed) if flag] == reached


def test_time_mixing_stays_in_its_cell():
    layer = transformer(joint=False, time_mix=True)
    tokens = torch.randn(3, 12, 8, dtype=torch.float64)
    other = tokens.clone()
    other[0, 5] += 1
    mix = layer.time_mix_blocks[0]
    changed = layer.along_frames(mix, tokens, None, 3) != layer.along_frames(mix, other, None, 3)
    assert changed.any(dim=2).nonzero().tolist() == [[0, 5], [1, 5], [2, 5]]


@pytest.mark.parametrize("joint", [False, True])
def test_frames_have_no_order(joint):
    layer, x, order = transformer(joint=joint, time_mix=True, depth=2), rows(4), torch.tensor([2, 0, 3, 1])
    torch.testing.assert_close(layer(x[order], None, 4), layer(x, None, 4)[order])


@pytest.mark.parametrize("joint", [False, True])
def test_one_context_token_equals_that_token_twice(joint):
    # Softmax over two equal keys and values is the same sum, but runs through real attention.
    layer, x = transformer(joint=joint, time_mix=True, context_dim=5), rows()
    context = torch.randn(6, 1, 5, dtype=torch.float64)
    torch.testing.assert_close(layer(x, context, 3), layer(x, context.repeat(1, 2, 1), 3), rtol=1e-12, atol=1e-12)


def test_joint_attention_reads_the_first_frame_s_context():
    layer, x = transformer(joint=True, time_mix=True, context_dim=5), rows()
    context = torch.randn(6, 1, 5, dtype=torch.float64)
    other = context.clone()
    other[[1, 2, 4, 5]] += 1
    assert torch.equal(layer(x, context, 3), layer(x, other, 3))
    other[3] += 1
    assert not torch.equal(layer(x, context, 3)[3:], layer(x, other, 3)[3:])
    assert torch.equal(layer(x, context, 3)[:3], layer(x, other, 3)[:3])
