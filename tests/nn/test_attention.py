import pytest
import torch

from sphinx_nvs.nn.attention import SHORT, Attention, attention, merge_heads, plain_attention, split_heads


@pytest.mark.parametrize("lead", [(), (3,), (2, 5)])
def test_kernel_equals_softmax_over_any_leading_axes(lead):
    q, k, v = (torch.randn(*lead, 2, length, 8, dtype=torch.float64) for length in (4, 6, 6))
    torch.testing.assert_close(attention(q, k, v), plain_attention(q, k, v))


def test_plain_attention_is_a_weighted_mean():
    q, k, v = torch.randn(1, 1, 8), torch.randn(1, 2, 8), torch.randn(1, 2, 8)
    share = torch.sigmoid(((k[0, 0] - k[0, 1]) * q[0, 0]).sum() / 8**0.5)
    torch.testing.assert_close(plain_attention(q, k, v)[0, 0], share * v[0, 0] + (1 - share) * v[0, 1])


@pytest.mark.parametrize("keys", [3, SHORT, SHORT + 1])
def test_half_precision_stays_near_single(keys):
    q, k, v = (torch.randn(2, 5, 2, length, 8) for length in (4, keys, keys))
    found = attention(q.bfloat16(), k.bfloat16(), v.bfloat16())
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found.float(), plain_attention(q, k, v), atol=0.05, rtol=0.05)


def test_keys_broadcast_over_leading_axes():
    q = torch.randn(2, 5, 1, 4, 8, dtype=torch.float64)
    k, v = (torch.randn(2, 1, 1, 6, 8, dtype=torch.float64) for _ in range(2))
    torch.testing.assert_close(attention(q, k, v), plain_attention(q, k, v))


def test_heads_split_and_merge():
    x = torch.randn(2, 3, 12)
    heads = split_heads(x, 4)
    assert heads.shape == (2, 3, 3, 4)
    assert torch.equal(heads[:, 1, :, 2], x[..., 6])
    assert torch.equal(merge_heads(heads), x)


def test_one_token_is_exactly_real_attention():
    layer = Attention(12, 4, context_dim=5).double()
    x, y = torch.randn(2, 7, 12, dtype=torch.float64), torch.randn(2, 1, 5, dtype=torch.float64)
    torch.testing.assert_close(layer.one_token(y).expand(2, 7, 12), layer(x, y), rtol=1e-14, atol=1e-14)


def test_two_tokens_are_not_one():
    layer = Attention(12, 4, context_dim=5)
    x, y = torch.randn(2, 7, 12), torch.randn(2, 2, 5)
    assert not torch.allclose(layer(x, y), layer.one_token(y[:, :1]).expand(2, 7, 12), atol=1e-4)


def test_pieces_make_the_whole():
    layer = Attention(12, 4)
    x = torch.randn(2, 7, 12)
    assert torch.equal(layer.attend(layer.queries(x), *layer.keys_values(x)), layer(x))
