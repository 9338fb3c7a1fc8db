import os
import platform
import subprocess
import sys
from importlib.metadata import version
from importlib.util import find_spec

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from sphinx_nvs.nn import gather_conv as module
from sphinx_nvs.nn.gather_conv import (
    conv_weight_rows,
    gather_conv,
    gather_conv_plain,
    gather_conv_triton,
)

HAS_TRITON = find_spec("triton") is not None and (platform.system(), platform.machine()) == ("Linux", "x86_64")
needs_triton = pytest.mark.skipif(not HAS_TRITON, reason="Triton is not installed or this is not Linux on x86-64")
IS_OLD = HAS_TRITON and tuple(map(int, version("triton").split(".")[:2])) < (3, 7)
needs_interpreter = pytest.mark.skipif(IS_OLD, reason="Triton before 3.7 cannot interpret loops with today's numpy")

# n, C_in, C_out: none, one, whole tiles of the interpreter's 16, ragged in each direction.
SHAPES = [(0, 16, 16), (1, 16, 16), (32, 32, 48), (40, 20, 16), (17, 3, 5), (16, 33, 7)]
DTYPES = [torch.float32, torch.bfloat16, torch.float16]

RUN_KERNEL = """
import sys
import warnings
import jaxtyping
import torch

with jaxtyping.install_import_hook("sphinx_nvs", "beartype.beartype"):
    from sphinx_nvs.nn.gather_conv import gather_conv_triton
    from sphinx_nvs.nn.triton_kernels import IS_INTERPRETED

assert IS_INTERPRETED
warnings.simplefilter("error")
cases = torch.load(sys.argv[1])
torch.save([gather_conv_triton(*case) for case in cases], sys.argv[2])
"""

COMPILE_KERNEL = """
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from sphinx_nvs.nn.triton_kernels import CONFIGS, gather_conv_kernel

for capability, numbers, config in ((80, "*bf16", CONFIGS[0]), (90, "*fp16", CONFIGS[0]), (90, "*fp32", CONFIGS[-1])):
    values = {"AS_FLOAT32": False, **config.kwargs}
    pointers = dict.fromkeys(("rows", "weight", "bias", "out"), numbers) | {"neighbours": "*i32"}
    types = {
        name: "constexpr" if name in values else pointers.get(name, "i32") for name in gather_conv_kernel.arg_names
    }
    options = {"num_warps": config.num_warps, "num_stages": config.num_stages}
    compiled = triton.compile(
        ASTSource(gather_conv_kernel, types, values), target=GPUTarget("cuda", capability, 32), options=options
    )
    print("mma" in compiled.asm["ptx"], len(compiled.asm["cubin"]) > 0)
"""

IMPORT_WITHOUT_TRITON = """
import sys
import torch

sys.modules["triton"] = None
from sphinx_nvs.nn.gather_conv import gather_conv

rows, neighbours = torch.ones(3, 2), torch.zeros(1, 9, dtype=torch.int64)
print(gather_conv(rows, neighbours, torch.ones(18, 4), torch.zeros(4)).tolist())
"""


def run_python(source, *arguments, **environment):
    """Output of a fresh interpreter: whether Triton interprets is settled when it is first imported."""
    variables = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"} | environment
    command = [sys.executable, "-c", source, *map(str, arguments)]
    result = subprocess.run(command, env=variables, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    return result.stdout


def all_neighbours(num_frames, size, out_size, *, stride=1, scale=1):
    """Rows under the taps of every output cell; `scale` enlarges the map before it is convolved."""
    (height, width), outside = size, num_frames * size[0] * size[1]
    table = []
    for frame in range(num_frames):
        for y in range(out_size[0]):
            for x in range(out_size[1]):
                for tap in range(9):
                    row, column = y * stride + tap // 3 - 1, x * stride + tap % 3 - 1
                    inside = 0 <= row < height * scale and 0 <= column < width * scale
                    cell = (frame * height + row // scale) * width + column // scale
                    table.append(cell if inside else outside)
    return torch.tensor(table).view(-1, 9)


def rows_of(maps):
    """Rows of all cells and one of zeros."""
    channels = maps.shape[1]
    return torch.cat([maps.permute(0, 2, 3, 1).reshape(-1, channels), maps.new_zeros(1, channels)])


@pytest.mark.parametrize(
    ("stride", "scale", "out_size"), [(1, 1, (5, 7)), (2, 1, (3, 4)), (1, 2, (10, 14))], ids=["same", "half", "double"]
)
@torch.no_grad()
def test_the_plain_version_is_the_convolution_at_every_cell(stride, scale, out_size):
    maps, conv = torch.randn(2, 6, 5, 7), nn.Conv2d(6, 4, 3, stride=stride, padding=1)
    neighbours = all_neighbours(2, (5, 7), out_size, stride=stride, scale=scale)
    expected = conv(F.interpolate(maps, scale_factor=float(scale), mode="nearest"))
    assert expected.shape[-2:] == out_size
    found = gather_conv_plain(rows_of(maps), neighbours, conv_weight_rows(conv), conv.bias)
    torch.testing.assert_close(found, rows_of(expected)[:-1], atol=1e-5, rtol=1e-5)


def test_the_plain_version_at_some_cells_has_gradients():
    maps, conv = torch.randn(1, 3, 4, 4), nn.Conv2d(3, 5, 3, padding=1)
    chosen = torch.tensor([0, 5, 15])
    found = gather_conv(rows_of(maps), all_neighbours(1, (4, 4), (4, 4))[chosen], conv_weight_rows(conv), conv.bias)
    torch.testing.assert_close(found, rows_of(conv(maps))[chosen])
    (gradient,) = torch.autograd.grad(found.sum(), conv.weight)
    (expected,) = torch.autograd.grad(rows_of(conv(maps))[chosen].sum(), conv.weight)
    torch.testing.assert_close(gradient, expected)


@pytest.mark.parametrize("settings", [{"kernel_size": 1}, {"kernel_size": 3, "groups": 2}])
def test_other_convolutions_have_no_weight_rows(settings):
    with pytest.raises(ValueError, match="conv must be 3x3, in one group and not dilated, got Conv2d"):
        conv_weight_rows(nn.Conv2d(4, 4, **settings))


def padded(values):
    """The same numbers followed by NaN in memory, so that out-of-bounds reads are visible."""
    buffer = torch.full((values.numel() + 512,), torch.nan, dtype=values.dtype)
    buffer[: values.numel()] = values.flatten()
    return buffer[: values.numel()].view(values.shape)


def make_case(n, c_in, c_out, dtype, *, num_cells=50):
    rows = torch.randn(num_cells + 1, c_in)
    rows[-1] = 0
    neighbours = torch.randint(num_cells + 1, (n, 9), dtype=torch.int32 if n % 2 else torch.int64)
    weight, bias = torch.randn(9 * c_in, c_out) / (9 * c_in) ** 0.5, torch.randn(c_out)
    return padded(rows.to(dtype)), neighbours, padded(weight.to(dtype)), padded(bias.to(dtype))


@pytest.fixture(scope="module")
def interpreted(tmp_path_factory):
    """Every case with the kernel's result; one interpreter for all of them."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("triton")
    cases = {(*shape, dtype): make_case(*shape, dtype) for shape in SHAPES for dtype in DTYPES}
    torch.save(list(cases.values()), folder / "cases.pt")
    run_python(RUN_KERNEL, folder / "cases.pt", folder / "results.pt", TRITON_INTERPRET="1")
    return dict(zip(cases, zip(cases.values(), torch.load(folder / "results.pt"), strict=True), strict=True))


@needs_triton
@needs_interpreter
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_the_interpreted_kernel_equals_the_plain_version(interpreted, shape, dtype):
    (rows, neighbours, weight, bias), found = interpreted[*shape, dtype]
    expected = gather_conv_plain(rows.float(), neighbours, weight.float(), bias.float())
    assert found.dtype == dtype
    # Sums are float32, so that the result is off by no more than its own rounding.
    torch.testing.assert_close(found.float(), expected, rtol=max(torch.finfo(dtype).eps, 1e-5), atol=1e-5)


@needs_triton
def test_the_kernel_compiles_for_absent_gpus(tmp_path):
    # The interpreter accepts code that the compiler rejects; tensor cores are used in half precision only.
    lines = run_python(COMPILE_KERNEL, TRITON_CACHE_DIR=str(tmp_path)).split("\n")[:-1]
    assert lines == ["True True", "True True", "False True"]


def test_package_works_without_triton():
    assert run_python(IMPORT_WITHOUT_TRITON) == "[[18.0, 18.0, 18.0, 18.0]]\n"


@pytest.fixture
def probe(monkeypatch):
    """The check for a GPU of the given capability, without cached answers."""

    def ask(capability):
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
        return module._triton_works.__wrapped__(torch.device("cuda"))

    return ask


def test_old_gpus_use_the_plain_path(probe):
    assert not probe((7, 5))


@needs_triton
@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is there, so Triton starts")
def test_a_triton_that_cannot_start_is_named_and_falls_back_with_a_warning(probe):
    with pytest.warns(RuntimeWarning, match="Triton cannot start, convolutions use the plain path: "):
        assert not probe((9, 0))


@needs_triton
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", [*SHAPES, (1000, 320, 320), (250, 1280, 640)], ids=str)
@torch.no_grad()
def test_the_kernel_on_a_gpu_equals_the_plain_version(shape, dtype):
    case = [value.cuda() for value in make_case(*shape, dtype, num_cells=2000)]
    rows, neighbours, weight, bias = (value.double() if value.is_floating_point() else value for value in case)
    expected = gather_conv_plain(rows, neighbours, weight, bias).float()
    eps = max(torch.finfo(dtype).eps, 1e-5)
    torch.testing.assert_close(gather_conv_triton(*case).float(), expected, rtol=eps, atol=1e-4)
