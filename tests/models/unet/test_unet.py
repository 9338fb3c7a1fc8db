import pytest
import torch

from sphinx_nvs.errors import InputError
from sphinx_nvs.models.unet.network import SEVA, UNet, UNetConfig, resized, zero_residual_outputs


def small(**changes) -> UNetConfig:
    settings = {
        "in_channels": 5,
        "out_channels": 3,
        "model_channels": 8,
        "channel_mult": (1, 2, 2),
        "num_res_blocks": 1,
        "attention_resolutions": (2, 4),
        "num_head_channels": 4,
        "dense_in_channels": 6,
        "joint": ("middle_ds4", "output_ds2"),
        "ff_mult": 2,
        "norm_groups": 4,
    }
    return UNetConfig(**(settings | changes))


def batch(requests=1, frames=3, height=8, width=8, dtype=torch.float64):
    rows = requests * frames
    x = torch.randn(rows, 5, height, width, dtype=dtype)
    return x, torch.rand(rows, dtype=dtype) * 100, torch.randn(rows, 6, height, width, dtype=dtype)


def test_seva_has_its_published_size():
    with torch.device("meta"):
        unet = UNet(SEVA)
    assert sum(p.numel() for p in unet.parameters()) == 1_263_968_004
    assert len(unet.state_dict()) == 1146


def test_seva_keys_are_the_checkpoint_s():
    with torch.device("meta"):
        shapes = {name: tuple(p.shape) for name, p in UNet(SEVA).state_dict().items()}
    expected = {
        "time_embed.2.weight": (1280, 1280),
        "input_blocks.0.0.weight": (320, 11, 3, 3),
        "input_blocks.3.0.op.weight": (320, 320, 3, 3),
        "input_blocks.4.0.skip_connection.weight": (640, 320, 1, 1),
        "input_blocks.4.0.dense_emb_layers.0.weight": (640, 6, 1, 1),
        "middle_block.1.transformer_blocks.0.attn2.to_k.weight": (1280, 1024),
        "middle_block.1.time_mix_blocks.0.ff_in.net.0.proj.weight": (10240, 1280),
        "output_blocks.2.1.conv.weight": (1280, 1280, 3, 3),
        "output_blocks.5.2.conv.weight": (1280, 1280, 3, 3),
        "output_blocks.8.0.in_layers.2.weight": (640, 960, 3, 3),
        "output_blocks.11.1.proj_out.weight": (320, 320),
        "out.2.weight": (4, 320, 3, 3),
    }
    assert {name: shapes.get(name) for name in expected} == expected


def test_transformers_are_where_the_configuration_puts_them():
    unet = UNet(small())
    assert not any(".input_blocks.1.1" in f".{name}" for name in unet.state_dict())
    joint = {name for name, module in unet.named_modules() if getattr(module, "joint", False)}
    assert joint == {"middle_block.1", "output_blocks.2.1", "output_blocks.3.1"}
    assert not any("attn2" in name or "norm2" in name for name in unet.state_dict())


def test_depth_can_differ_between_levels():
    unet = UNet(small(transformer_depth=(1, 2, 3)))
    depths = [len(unet.get_submodule(f"{name}.transformer_blocks")) for name in ("input_blocks.3.1", "middle_block.1")]
    assert depths == [2, 3]


def test_time_mix_can_be_left_out():
    assert not any("time_mix" in name for name in UNet(small(time_mix=False)).state_dict())


@pytest.mark.parametrize("size", [(8, 8), (7, 9), (5, 12), (1, 3)])
@torch.no_grad()
def test_any_latent_size_is_restored(size):
    x, timesteps, dense = batch(height=size[0], width=size[1])
    assert UNet(small()).double()(x, timesteps, dense, None, 3).shape == (3, 3, *size)


@torch.no_grad()
def test_requests_do_not_see_each_other():
    unet = UNet(small()).double()
    x, timesteps, dense = batch(requests=2)
    together = unet(x, timesteps, dense, None, 3)
    alone = [unet(x[rows], timesteps[rows], dense[rows], None, 3) for rows in (slice(0, 3), slice(3, 6))]
    torch.testing.assert_close(together, torch.cat(alone))


@torch.no_grad()
def test_permuting_views_permutes_outputs():
    unet, order = UNet(small()).double(), torch.tensor([3, 0, 4, 1, 2])
    x, timesteps, dense = batch(frames=5)
    permuted = unet(x[order], timesteps[order], dense[order], None, 5)
    torch.testing.assert_close(permuted, unet(x, timesteps, dense, None, 5)[order])


@torch.no_grad()
def test_every_view_informs_every_other():
    unet = UNet(small()).double()
    x, timesteps, dense = batch()
    moved = dense.clone()
    moved[2] += 1
    change = (unet(x, timesteps, dense, None, 3) - unet(x, timesteps, moved, None, 3)).abs().amin(dim=(1, 2, 3))
    assert (change > 0).all()


@torch.no_grad()
def test_integer_and_real_timesteps_agree():
    unet = UNet(small())
    x, _, dense = batch(dtype=torch.float32)
    whole = torch.tensor([5, 70, 999])
    assert torch.equal(unet(x, whole, dense, None, 3), unet(x, whole.float(), dense, None, 3))


def test_zeroed_network_returns_zero_and_still_learns():
    unet = zero_residual_outputs(UNet(small()))
    x, timesteps, dense = batch(dtype=torch.float32)
    output = unet(x, timesteps, dense, None, 3)
    assert not output.any()
    (output - 1).square().mean().backward()
    assert unet.out[2].weight.grad.any()


def test_zeroed_blocks_pass_their_input_on():
    unet = zero_residual_outputs(UNet(small()))
    x, timesteps, dense = batch(dtype=torch.float32)
    inputs = unet.row_inputs(x, timesteps, dense, None, 3)
    features = unet.input_blocks[0](x, inputs)
    assert torch.equal(unet.input_blocks[1](features, inputs), features)


def test_gradient_is_the_slope():
    unet = UNet(small(context_dim=3)).double()
    inputs = (*batch(), torch.randn(3, 2, 3, dtype=torch.float64), 3)
    parameters = list(unet.parameters())
    directions = [torch.randn_like(p) for p in parameters]

    def loss(step):
        moved = {name: p + step * d for (name, p), d in zip(unet.named_parameters(), directions, strict=True)}
        return torch.func.functional_call(unet, moved, inputs).square().sum()

    gradients = torch.autograd.grad(loss(0.0), parameters)
    slope = sum(float((g * d).sum()) for g, d in zip(gradients, directions, strict=True))
    with torch.no_grad():
        difference = float(loss(1e-6) - loss(-1e-6)) / 2e-6
    assert slope == pytest.approx(difference, rel=1e-5)
    assert all(g.any() for g in gradients)


def test_bfloat16_training_step_is_finite():
    unet = UNet(small())
    x, timesteps, dense = batch(dtype=torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = unet(x, timesteps, dense, None, 3)
    output.float().square().mean().backward()
    exact = unet(x, timesteps, dense, None, 3)
    assert (output.float() - exact).norm() < 0.05 * exact.norm()
    assert all(p.grad.isfinite().all() for p in unet.parameters())


def test_dense_map_keeps_its_corners():
    x = torch.arange(12.0).view(1, 1, 3, 4)
    smaller = resized(x, (2, 2))
    assert smaller.flatten().tolist() == [0.0, 3.0, 8.0, 11.0]
    assert resized(x, (3, 4)) is x


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"in_channels": 0}, "UNetConfig.in_channels: it is 0; give at least 1"),
        ({"channel_mult": ()}, "UNetConfig.channel_mult: it is (); give multipliers from 1"),
        (
            {"transformer_depth": (1, 2)},
            "UNetConfig.transformer_depth: it is (1, 2) for 3 levels; give one depth of 1 or more, or one per level",
        ),
        (
            {"model_channels": 6},
            "UNetConfig.model_channels: 6 does not divide by norm_groups 4; give a multiple of norm_groups",
        ),
        (
            {"num_head_channels": 5},
            "UNetConfig.num_head_channels: 5 does not divide the width 16 at downsample 2; "
            "give a divisor of every width",
        ),
        (
            {"joint": ("output_ds1",)},
            "UNetConfig.joint: no transformer at output_ds1; "
            "choose from input_ds2, input_ds4, output_ds2, output_ds4, middle_ds4",
        ),
    ],
)
def test_configuration_errors_are_sentences(changes, message):
    with pytest.raises(InputError) as error:
        small(**changes)
    assert str(error.value) == message


def test_rows_must_be_whole_requests():
    x, timesteps, dense = batch()
    with pytest.raises(ValueError, match="rows must be a multiple of num_frames=2, got 3"):
        UNet(small()).double()(x, timesteps, dense, None, 2)


def test_context_must_match():
    x, timesteps, dense = batch()
    with pytest.raises(ValueError, match="context must match context_dim=None, got one"):
        UNet(small()).double()(x, timesteps, dense, torch.zeros(3, 1, 2, dtype=torch.float64), 3)
    with pytest.raises(ValueError, match="context must match context_dim=2, got none"):
        UNet(small(context_dim=2)).double()(x, timesteps, dense, None, 3)
