"""Laws of the research code's network call: where it is exact, and where it is not."""

import pytest
import torch

from sphinx_nvs.errors import InputError
from sphinx_nvs.models.unet.network import UNet, UNetConfig
from sphinx_nvs.released_code.released_network import Part, ResearchCall, ResearchUNet, tiled_res_block

FRAMES, SIDE, LEVELS = 4, 8, 3
CONFIG = {
    "in_channels": 11,
    "out_channels": 4,
    "model_channels": 8,
    "channel_mult": (1, 2, 2),
    "num_res_blocks": 1,
    "attention_resolutions": (1, 2, 4),
    "num_head_channels": 4,
    "context_dim": 6,
    "joint": ("middle_ds4", "output_ds2"),
    "norm_groups": 4,
    "ff_mult": 2,
}


@pytest.fixture(scope="module")
def unet():
    torch.manual_seed(1)
    return UNet(UNetConfig(**CONFIG)).eval().requires_grad_(False)


class Request:
    """Two branches of random inputs and the maps they leave."""

    def __init__(self, unet):
        torch.manual_seed(2)
        self.unet, self.network = unet, ResearchUNet(unet)
        self.x = torch.randn(2, FRAMES, 11, SIDE, SIDE)
        self.rays = torch.randn(FRAMES, 6, SIDE, SIDE)
        self.context = torch.randn(2, 1, 6)
        self.maps = {}

    def call(self, x, part=None, timestep=300.0):
        frames = slice(None) if part is None else part.frames
        call = ResearchCall(
            x=x[:, frames].flatten(0, 1),
            timestep=timestep,
            rays=self.rays[frames],
            context=self.context,
            num_frames=FRAMES,
            part=part,
            maps=self.maps,
        )
        return self.network(call).unflatten(0, (2, -1))

    def plain(self, x, timestep=300.0):
        context = self.context.repeat_interleave(FRAMES, 0)
        steps = torch.full((2 * FRAMES,), timestep)
        out = self.unet(x.flatten(0, 1), steps, self.rays.repeat(2, 1, 1, 1), context, FRAMES)
        return out.unflatten(0, (2, -1))


@pytest.fixture
def request_(unet):
    return Request(unet)


def part_of(frames=(1, 3), share=0.3, *, whole=False, tiled=False):
    mask = torch.rand(SIDE, SIDE, generator=torch.Generator().manual_seed(3)) < (1.0 if whole else share)
    return Part.of(torch.tensor(frames), mask, LEVELS, tiled=tiled)


def test_a_call_for_everything_is_the_plain_network(request_):
    torch.testing.assert_close(request_.call(request_.x), request_.plain(request_.x))


def test_the_same_inputs_again_change_nothing_whatever_the_part(request_):
    dense = request_.call(request_.x)
    for part in (part_of(), part_of(whole=True), part_of(frames=range(FRAMES))):
        torch.testing.assert_close(request_.call(request_.x, part), dense[:, part.frames])


def test_all_cells_of_all_frames_are_a_dense_call(request_):
    request_.call(request_.x)
    changed = request_.x + torch.randn_like(request_.x)
    found = request_.call(changed, part_of(frames=range(FRAMES), whole=True), timestep=200.0)
    torch.testing.assert_close(found, request_.plain(changed, timestep=200.0))


def test_what_a_part_computes_stays_for_the_next(request_):
    request_.call(request_.x)
    changed = request_.x + torch.randn_like(request_.x)
    before = next(iter(request_.maps.values())).before.clone()
    out = next(iter(request_.maps.values())).out.clone()
    part = part_of()
    request_.call(changed, part)
    maps = next(iter(request_.maps.values()))
    moved = (maps.before != before).any(-1).any(0)
    expected = torch.zeros(FRAMES, SIDE * SIDE, dtype=torch.bool)
    expected[part.frames[:, None], part.cells[0]] = True
    assert torch.equal(moved, expected)
    # Only a call for everything renews the answers that cells outside the mask take.
    assert torch.equal(maps.out, out)


def test_frames_that_wait_are_seen_as_they_were(request_):
    request_.call(request_.x)
    changed = request_.x.clone()
    changed[:, [0, 2]] += 1
    part = part_of(whole=True)
    torch.testing.assert_close(request_.call(changed, part), request_.call(request_.x, part))


def test_a_tiled_residual_block_is_another_function_even_with_every_tile(unet):
    torch.manual_seed(4)
    block = unet.get_submodule("input_blocks.1.0")
    x, emb, rays = torch.randn(2, 8, SIDE, SIDE), torch.randn(2, 32), torch.randn(2, 6, SIDE, SIDE)
    every = torch.ones(SIDE // 4, SIDE // 4, dtype=torch.bool)
    dense, tiled = block(x, emb, rays) - x, tiled_res_block(block, x, emb, rays, every) - x
    assert 0.3 < float((tiled - dense).norm() / dense.norm()) < 3


def test_tiles_that_are_not_listed_have_no_residual(unet):
    torch.manual_seed(4)
    block = unet.get_submodule("input_blocks.1.0")
    x, emb, rays = torch.randn(2, 8, SIDE, SIDE), torch.randn(2, 32), torch.randn(2, 6, SIDE, SIDE)
    tiles = torch.tensor([[True, False], [False, False]])
    residual = tiled_res_block(block, x, emb, rays, tiles) - x
    assert residual[:, :, :4, :4].abs().min() > 0
    assert not residual[:, :, 4:].any()
    assert not residual[:, :, :, 4:].any()


def test_tiles_need_sides_that_divide():
    mask = torch.ones(6, 8, dtype=torch.bool)
    with pytest.raises(InputError, match="size: 6x8 latent cells do not divide into tiles of 4x4"):
        Part.of(torch.arange(2), mask, LEVELS, tiled=True)
    assert Part.of(torch.arange(2), mask, LEVELS).tiles is None


@pytest.mark.parametrize("change", [{"transformer_depth": 2}, {"time_mix": False}, {"context_dim": None}])
def test_networks_of_other_kinds_are_refused(change):
    with pytest.raises(InputError, match="the released code's arithmetic needs depth 1, time_mix and a context"):
        ResearchUNet(UNet(UNetConfig(**(CONFIG | change))))
