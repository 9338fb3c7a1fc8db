import shutil
import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F

from sphinx_nvs.nn.token_ops import TokenOps, group_sums, group_sums_plain, norm_affine, norm_silu_film

PROGRAM = """
import torch
from torch._dynamo.utils import counters
from sphinx_nvs.models.unet.selective import SelectiveUNet
from sphinx_nvs.models.unet.operations import NetworkCall
from sphinx_nvs.models.unet.network import UNet, UNetConfig
from sphinx_nvs.nn.active_tokens import ActiveTokens
from sphinx_nvs.nn.feature_cache import FeatureCache

torch.set_num_threads(1)
torch.manual_seed(0)
config = UNetConfig(
    in_channels=6, out_channels=4, model_channels=32, channel_mult=(1, 2), num_res_blocks=1, context_dim=8,
    num_head_channels=16, attention_resolutions=(1, 2), joint=("middle_ds2",)
)
unet = UNet(config).eval().requires_grad_(False)
x, features = torch.randn(3, 4, 8, 8), torch.randn(3, 2, 8, 8)
dense, context = torch.randn(3, 6, 8, 8), torch.randn(3, 1, 8)
cells = [torch.rand(3, 8, 8) < share for share in (0.2, 0.5, 0.8)]
answers = []
for compiled in (False, True):
    network, cache, found = SelectiveUNet(unet, 4, compiled=compiled), FeatureCache(), []
    constants = network.constants(features, dense, context)
    compilations = []
    for active in (None, *(ActiveTokens.from_cells(mask, 2) for mask in cells)):
        call = NetworkCall(x=x, timestep=300.0, constants=constants, cache=cache, active=active)
        found.append(network([call])[0])
        compilations.append(counters["stats"]["unique_graphs"])
    cache.check()
    answers.append(found)
for plain, fused in zip(*answers):
    error = float((plain - fused).abs().max() / plain.abs().max())
    assert error < 1e-5, error
assert compilations[0] > 0, "nothing was compiled"
assert compilations[3] == compilations[2] == compilations[1], f"new token counts compiled again: {compilations}"
"""


@pytest.mark.slow
def test_compiled_calls_equal_plain_ones_and_new_token_counts_compile_nothing():
    if shutil.which("g++") is None and shutil.which("clang++") is None:
        pytest.skip("no C++ compiler: PyTorch's compiler needs one on the CPU")
    # A process of its own: shape checks wrapped around every function cannot be traced.
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=500, check=False)
    assert done.returncode == 0, done.stderr[-3000:]


def test_norm_from_sums_equals_group_norm():
    torch.manual_seed(0)
    frames, cells, channels, groups = 3, 10, 24, 4
    x = torch.randn(frames * cells, channels)
    norm = torch.nn.GroupNorm(groups, channels)
    torch.nn.init.normal_(norm.weight)
    torch.nn.init.normal_(norm.bias)
    sums = group_sums(x, groups).view(frames, cells, -1).sum(1, dtype=torch.float64)
    gain, bias = norm_affine(sums, cells * channels // groups, norm.weight, norm.bias, norm.eps)
    scale, shift = torch.randn(2, frames * cells, channels)
    frame = torch.arange(frames).repeat_interleave(cells)
    expected = F.silu(norm(x.view(frames, cells, channels).transpose(1, 2)).transpose(1, 2).flatten(0, 1))
    token = torch.arange(len(x))
    found = norm_silu_film(x, gain, bias, frame, scale, shift, token)
    torch.testing.assert_close(found, expected * scale + shift, rtol=1e-5, atol=1e-5)
    assert found.equal(norm_silu_film(x, gain, bias, frame, scale, shift, None))


@pytest.mark.parametrize("channels", [16, 128])
def test_both_ways_of_summing_groups_agree(channels: int):
    x = torch.randn(5, channels, dtype=torch.float64)
    torch.testing.assert_close(group_sums_plain(x, 4), group_sums(x, 4))
    assert TokenOps().group_sums(x, 4).equal(group_sums_plain(x, 4))


def test_a_machine_without_compiler_gets_an_error(monkeypatch: pytest.MonkeyPatch):
    from torch._inductor import cpp_builder
    from torch._inductor.exc import InvalidCxxCompiler

    from sphinx_nvs.errors import InputError
    from sphinx_nvs.nn import token_ops

    def missing() -> str:
        raise InvalidCxxCompiler

    token_ops._compiled.cache_clear()
    monkeypatch.setattr(cpp_builder, "get_cpp_compiler", missing)
    with pytest.raises(InputError, match="no C\\+\\+ compiler"):
        TokenOps(compiled=True)
