"""Triton kernel of the gathered convolution: an implicit matrix product that never stores the gathered taps.

A program computes a tile of output cells x output channels. It iterates over the inner dimension K = 9 C_in of

    out[i, o] = bias[o] + sum_{tap, c} rows[neighbours[i, tap], c] weight[tap C_in + c, o]

in chunks that never cross from one tap to the next, so one index per output cell addresses a whole chunk. Sums are
float32.

Only `gather_conv_triton` imports this module, so that the package does not require Triton. With
TRITON_INTERPRET=1 set before Triton is first imported, the same kernel runs in numpy on any machine.
Shapes: T1 rows (the last is zeros), n output cells, C_in C_out channels.
"""

from typing import Any, no_type_check

import torch
import triton
import triton.language as tl
from jaxtyping import Float, Int
from torch import Tensor


def _config(block_m: int, block_n: int, block_k: int, num_warps: int, num_stages: int) -> triton.Config:
    """Tile sizes and launch settings for the tuner to try."""
    tile = {"BLOCK_M": block_m, "BLOCK_N": block_n, "BLOCK_K": block_k}
    return triton.Config(tile, num_warps=num_warps, num_stages=num_stages)


# Large tiles reuse gathered rows, small ones keep the GPU busy on coarse levels, where few cells are active. The last
# fits every GPU in float32 too; the tuner skips tiles that do not fit.
CONFIGS = [
    _config(128, 128, 64, num_warps=8, num_stages=4),
    _config(128, 64, 64, num_warps=4, num_stages=4),
    _config(64, 128, 64, num_warps=4, num_stages=4),
    _config(64, 64, 64, num_warps=4, num_stages=4),
    _config(32, 64, 64, num_warps=4, num_stages=4),
    _config(64, 64, 32, num_warps=4, num_stages=3),
]
INTERPRETER_TILE = {"BLOCK_M": 16, "BLOCK_N": 16, "BLOCK_K": 16}


# The type checker's wrapper would hide the globals from Triton, which compiles the function's source.
@triton.jit(do_not_specialize=["n", "size_class"])
@no_type_check
def gather_conv_kernel(
    rows,
    neighbours,
    weight,
    bias,
    out,
    n,
    C_in,
    C_out,
    size_class,
    AS_FLOAT32: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    """Computes one tile of the result; `size_class` is only a key for the tuner."""
    # Consecutive programs share their cells: the second finds the gathered rows in the L2 cache.
    num_column_tiles = tl.cdiv(C_out, BLOCK_N)
    cell = (tl.program_id(0) // num_column_tiles) * BLOCK_M + tl.arange(0, BLOCK_M)
    column = (tl.program_id(0) % num_column_tiles) * BLOCK_N + tl.arange(0, BLOCK_N)
    is_cell, is_column = cell < n, column < C_out
    # Row and result offsets may exceed 2^31, and so may n 9.
    cell = cell.to(tl.int64)

    # One flat loop instead of two nested ones, so that the pipeline does not drain after each tap. Indices are loaded
    # one step ahead: loaded in the step itself they would halve the depth of the pipeline.
    chunks_per_tap = tl.cdiv(C_in, BLOCK_K)
    total = tl.zeros((BLOCK_M, BLOCK_N), dtype=tl.float32)
    row = tl.load(neighbours + cell * 9, mask=is_cell, other=0).to(tl.int64)
    for step in range(9 * chunks_per_tap):
        tap = step // chunks_per_tap
        channel = (step % chunks_per_tap) * BLOCK_K + tl.arange(0, BLOCK_K)
        is_channel = channel < C_in
        taken = tl.load(rows + row[:, None] * C_in + channel[None, :], mask=is_channel[None, :], other=0.0)
        factor = tl.load(
            weight + (tap * C_in + channel)[:, None] * C_out + column[None, :],
            mask=is_channel[:, None] & is_column[None, :],
            other=0.0,
        )
        if AS_FLOAT32:
            taken, factor = taken.to(tl.float32), factor.to(tl.float32)
        total = tl.dot(taken, factor, total, input_precision="ieee")
        next_tap = tl.minimum((step + 1) // chunks_per_tap, 8)
        row = tl.load(neighbours + cell * 9 + next_tap, mask=is_cell, other=0).to(tl.int64)

    total += tl.load(bias + column, mask=is_column, other=0.0).to(tl.float32)[None, :]
    target = out + cell[:, None] * C_out + column[None, :]
    tl.store(target, total.to(out.dtype.element_ty), mask=is_cell[:, None] & is_column[None, :])


IS_INTERPRETED = not isinstance(gather_conv_kernel, triton.JITFunction)
_tuned_kernel = triton.autotune(CONFIGS, key=["C_in", "C_out", "size_class"])(gather_conv_kernel)


def _size_class(n: int) -> int:
    """log2 of the number of cells, rounded up: masks differ between requests, and the tuner should not rerun."""
    return min(max((n - 1).bit_length(), 8), 17)


def launch_gather_conv(
    rows: Float[Tensor, "T1 C_in"],
    neighbours: Int[Tensor, "n 9"],
    weight: Float[Tensor, "9*C_in C_out"],
    bias: Float[Tensor, "C_out"],
) -> Float[Tensor, "n C_out"]:
    """Runs the kernel; see `sphinx_nvs.nn.gather_conv.gather_conv_triton`."""
    n, C_in, C_out = neighbours.shape[0], rows.shape[1], weight.shape[1]
    out = rows.new_empty(n, C_out)
    if n == 0:
        return out

    def grid(tile: dict[str, Any]) -> tuple[int]:
        return (triton.cdiv(n, tile["BLOCK_M"]) * triton.cdiv(C_out, tile["BLOCK_N"]),)

    kernel, tile = (gather_conv_kernel, INTERPRETER_TILE) if IS_INTERPRETED else (_tuned_kernel, {})
    # numpy has no bfloat16, so the interpreter computes in float32, where products of half-precision numbers are exact.
    with torch.cuda.device_of(rows):
        kernel[grid](
            rows.contiguous(),
            neighbours.contiguous(),
            weight.contiguous(),
            bias.contiguous(),
            out,
            n,
            C_in,
            C_out,
            _size_class(n),
            AS_FLOAT32=IS_INTERPRETED,
            **tile,
        )
    return out
