import pytest
import torch

from sphinx_nvs.errors import InputError
from sphinx_nvs.geometry.se3 import so3_exp
from sphinx_nvs.models.mvsplat import RELEASED, TINY, EncoderConfig, UNetShape, random_mvsplat
from sphinx_nvs.models.mvsplat.cost_volume import cost_volume, disparity_candidates
from sphinx_nvs.models.mvsplat.window_attention import Windows, merge_windows, position_code, split_windows


def views(count, height=32, width=48):
    """Random images and cameras that point in roughly the same direction."""
    c2w = torch.eye(4).repeat(count, 1, 1)
    c2w[:, :3, :3] = so3_exp(0.1 * torch.randn(count, 3, dtype=torch.float64)).float()
    c2w[:, :3, 3] = torch.randn(count, 3)
    K = torch.tensor([[0.8, 0, 0.5], [0, 1.1, 0.5], [0, 0, 1]]).repeat(count, 1, 1)
    K[:, 0, 0] += 0.1 * torch.rand(count)
    images = torch.rand(count, 3, height, width)
    return images, c2w, K, 1 + torch.rand(count), 50 + 50 * torch.rand(count)


def by_view(encoded):
    count = len(encoded.pixels.depth)
    gaussians = (t.unflatten(0, (count, -1)) for t in vars(encoded.gaussians).values())
    return [encoded.pixels.depth, encoded.pixels.density, encoded.pixels.pdf, *gaussians]


@pytest.fixture(scope="module")
def encoder():
    return random_mvsplat(size="tiny").encoder


def test_the_released_sizes_have_the_published_number_of_parameters():
    encoder = random_mvsplat().encoder
    assert sum(p.numel() for p in encoder.parameters()) == 11_955_734
    assert len(encoder.state_dict()) == 471
    assert (encoder.config, encoder.size_multiple) == (RELEASED, 16)


@pytest.mark.parametrize("order", [(1, 0), (2, 0, 1), (1, 0, 2), (3, 1, 0, 2)])
def test_another_order_of_the_views_gives_the_same_in_that_order(encoder, order):
    inputs = views(len(order))
    first = by_view(encoder(*inputs))
    second = by_view(encoder(*(part[list(order)] for part in inputs)))
    for a, b in zip(first, second, strict=True):
        torch.testing.assert_close(b, a[list(order)], rtol=1e-3, atol=1e-4)


def test_every_other_view_matters(encoder):
    inputs = views(3)
    before = encoder(*inputs).pixels.depth[0]
    for other in (1, 2):
        images = inputs[0].clone()
        images[other] = torch.rand_like(images[other])
        assert not torch.allclose(encoder(images, *inputs[1:]).pixels.depth[0], before)


def test_a_rigid_motion_of_the_world_moves_the_gaussians(encoder):
    images, c2w, K, near, far = views(2)
    motion = torch.eye(4)
    motion[:3, :3] = so3_exp(torch.tensor([0.3, -1.0, 0.5], dtype=torch.float64)).float()
    motion[:3, 3] = torch.tensor([1.0, -2.0, 0.5])
    still, moved = (encoder(images, pose, K, near, far) for pose in (c2w, motion @ c2w))
    torch.testing.assert_close(moved.pixels.depth, still.pixels.depth, rtol=1e-3, atol=1e-3)
    means = still.gaussians.means @ motion[:3, :3].T + motion[:3, 3]
    torch.testing.assert_close(moved.gaussians.means, means, rtol=1e-3, atol=1e-3)


def test_outputs_are_in_range(encoder):
    inputs = views(2)
    encoded = encoder(*inputs)
    near, far = (bound.view(-1, 1, 1) for bound in inputs[3:])
    assert (encoded.pixels.depth >= near * 0.9999).all()
    assert (encoded.pixels.depth <= far * 1.0001).all()
    assert torch.allclose(encoded.pixels.pdf.sum(1), torch.ones(2, 8, 12))
    assert torch.linalg.eigvalsh(encoded.gaussians.covariances.double()).min() > 0
    assert len(encoded.gaussians.cloud()) == 2 * 32 * 48


def test_the_cost_volume_peaks_at_the_true_depth():
    """A fronto-parallel plane at depth 4 moves by f b / 4 = 3 cells between two cameras side by side."""
    h, w, focal, depth = 24, 48, 24.0, 4.0
    texture = torch.randn(16, h, w + 3)
    features = torch.stack([texture[..., :w], texture[..., 3:]])
    c2w = torch.eye(4).repeat(2, 1, 1)
    c2w[1, 0, 3] = 3 * depth / focal
    K = torch.tensor([[focal / w, 0, 0.5], [0, focal / h, 0.5], [0, 0, 1]]).repeat(2, 1, 1)
    candidates = disparity_candidates(torch.full((2,), 1.0), torch.full((2,), 100.0), 34)
    volume = cost_volume(features, c2w, K, candidates)
    best = candidates[0][volume.argmax(1)]
    step = float(candidates[0, 1] - candidates[0, 0])
    assert ((best[0, :, 4:] - 1 / depth).abs() < step).float().mean() > 0.95
    assert ((best[1, :, :-4] - 1 / depth).abs() < step).float().mean() > 0.95


def test_candidates_range_from_far_to_near():
    candidates = disparity_candidates(torch.tensor([1.0, 2.0]), torch.tensor([100.0, 10.0]), 5)
    assert torch.allclose(candidates[:, 0], torch.tensor([0.01, 0.1]))
    assert torch.allclose(candidates[:, -1], torch.tensor([1.0, 0.5]))
    assert torch.allclose(candidates.diff(dim=1).diff(dim=1), torch.zeros(2, 3), atol=1e-6)


@pytest.mark.parametrize("is_shifted", [False, True])
def test_windows_are_split_and_merged(is_shifted):
    x = torch.randn(3, 8 * 12, 5)
    windows = Windows(8, 12, is_shifted)
    assert torch.equal(windows.join(windows.cut(x)), x)
    assert torch.equal(merge_windows(split_windows(x.view(3, 8, 12, 5)), 8, 12), x.view(3, 8, 12, 5))


def test_shifted_windows_separate_cells_that_wrap_around():
    windows = Windows(8, 12, is_shifted=True)
    mask = windows.mask(torch.zeros(1))
    row, column = (windows.cut(grid.flatten().view(1, -1, 1).float())[0, :, :, 0] for grid in _grid(8, 12))
    for axis, reach in ((row, 4), (column, 6)):
        is_far = (axis[:, :, None] - axis[:, None, :]).abs() >= reach
        assert (mask[is_far] == -100).all()
    assert (mask == 0).any(-1).all()
    assert (mask[0] == 0).all()


def _grid(h, w):
    return torch.meshgrid(torch.arange(h), torch.arange(w), indexing="ij")


def test_positions_are_encoded_the_same_in_all_windows():
    code = position_code(8, 4, 6)
    assert torch.equal(code[:, :2, :3], code[:, 2:, 3:])
    assert len(code[:, :2, :3].flatten(1).unique(dim=1).T) == 6


@pytest.mark.parametrize(
    ("make", "where"),
    [
        (lambda: EncoderConfig(feature_channels=6), "EncoderConfig.feature_channels"),
        (lambda: EncoderConfig(num_depths=1), "EncoderConfig.num_depths"),
        (lambda: EncoderConfig(sh_degree=5), "EncoderConfig.sh_degree"),
        (lambda: UNetShape(width=33, channel_mult=(1,), attention_at=()), "UNetShape.width"),
        (lambda: UNetShape(width=16, channel_mult=(1,), attention_at=(1,)), "UNetShape.width"),
        (lambda: UNetShape(width=32, channel_mult=(), attention_at=()), "UNetShape.channel_mult"),
    ],
)
def test_bad_sizes_are_refused(make, where):
    with pytest.raises(InputError, match=where):
        make()


def test_tiny_is_small():
    assert TINY.num_depths < RELEASED.num_depths
