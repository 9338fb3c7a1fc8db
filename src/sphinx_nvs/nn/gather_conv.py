"""3x3 convolution at selected output cells only, from feature maps stored as rows.

    out[i] = bias + sum_tap rows[neighbours[i, tap]] W_tap

Rows are the cells of all frames in row-major order (frame, y, x) and a last row of zeros that stands for everything
outside a frame. Since the neighbours are explicit, stride and upsampling are encoded by the caller. There is a plain
version that runs anywhere and a Triton kernel that needs no buffer of n x 9 C gathered numbers; `gather_conv` chooses.

Shapes: T1 = T + 1 rows (the last is zeros), n output cells, C_in C_out channels, K = 9 C_in.
"""

import warnings
from functools import cache
from importlib.util import find_spec
from subprocess import SubprocessError

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

# The oldest GPUs on which Triton multiplies bfloat16 on tensor cores (Ampere).
MIN_CAPABILITY = (8, 0)


def conv_weight_rows(conv: nn.Conv2d) -> Float[Tensor, "K C_out"]:
    """The weight of a 3x3 convolution as the matrix that multiplies gathered rows.

    Args:
        conv: the convolution; its bias, stride and padding are ignored.

    Returns:
        A contiguous matrix; its rows run over taps (ky, kx), then over input channels.

    Raises:
        ValueError: if the convolution is not 3x3, or is grouped or dilated.
    """
    if conv.kernel_size != (3, 3) or conv.groups != 1 or conv.dilation != (1, 1):
        raise ValueError(f"conv must be 3x3, in one group and not dilated, got {conv}")
    return conv.weight.permute(2, 3, 1, 0).reshape(-1, conv.out_channels).contiguous()


def gather_conv_plain(
    rows: Float[Tensor, "T1 C_in"],
    neighbours: Int[Tensor, "n 9"],
    weight: Float[Tensor, "9*C_in C_out"],
    bias: Float[Tensor, "C_out"],
) -> Float[Tensor, "n C_out"]:
    """`gather_conv` in plain PyTorch: a gather and a matrix product."""
    return torch.addmm(bias, gathered(rows, neighbours), weight)


def gathered(rows: Float[Tensor, "T1 C_in"], neighbours: Int[Tensor, "n 9"]) -> Float[Tensor, "n 9*C_in"]:
    """The nine taps of each output cell, concatenated along channels."""
    return rows.index_select(0, neighbours.flatten()).view(neighbours.shape[0], 9 * rows.shape[1])


def gather_conv_triton(
    rows: Float[Tensor, "T1 C_in"],
    neighbours: Int[Tensor, "n 9"],
    weight: Float[Tensor, "9*C_in C_out"],
    bias: Float[Tensor, "C_out"],
) -> Float[Tensor, "n C_out"]:
    """`gather_conv` as a Triton kernel: no buffer of gathered rows, sums in float32, no gradients.

    The first call with new channel counts, or with another power of two of cells, benchmarks a handful of tilings; it
    cannot be part of a CUDA graph. Indices are not checked: one outside [0, T] reads out of bounds.

    Raises:
        ImportError: if Triton is not installed.
    """
    from sphinx_nvs.nn.triton_kernels import launch_gather_conv

    return launch_gather_conv(rows, neighbours, weight, bias)


def gather_conv(
    rows: Float[Tensor, "T1 C_in"],
    neighbours: Int[Tensor, "n 9"],
    weight: Float[Tensor, "9*C_in C_out"],
    bias: Float[Tensor, "C_out"],
) -> Float[Tensor, "n C_out"]:
    """Convolves at selected output cells.

    Args:
        rows: the feature map; the last row is zeros. float32, bfloat16 or float16.
        neighbours: for each output cell the rows under the nine taps (ky, kx), T where a tap falls outside its frame.
        weight: the result of `conv_weight_rows`, of `rows`' dtype.
        bias: one number per output channel, of `rows`' dtype.

    Returns:
        One row per output cell, of `rows`' dtype. The kernel has no gradients, so on CUDA it is used only if no input
        requires them.
    """
    needs_grad = torch.is_grad_enabled() and any(t.requires_grad for t in (rows, weight, bias))
    if rows.is_cuda and not needs_grad and _triton_works(rows.device):
        return gather_conv_triton(rows, neighbours, weight, bias)
    return gather_conv_plain(rows, neighbours, weight, bias)


@cache
def _triton_works(device: torch.device) -> bool:
    """Whether a CUDA device can run the kernel; if Triton is installed but cannot start, a warning says why."""
    if find_spec("triton") is None or torch.cuda.get_device_capability(device) < MIN_CAPABILITY:
        return False
    try:
        from triton.runtime import driver

        # Builds Triton's launcher, which needs a C compiler and Python's headers.
        driver.active.get_current_target()
    except (ImportError, OSError, RuntimeError, SubprocessError) as error:
        warnings.warn(f"Triton cannot start, convolutions use the plain path: {error}", RuntimeWarning, stacklevel=3)
        return False
    return True
