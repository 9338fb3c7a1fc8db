"""What the processor computes natively."""

from __future__ import annotations

from functools import cache

import torch


@cache
def has_amx() -> bool:
    """Whether the CPU multiplies tiles of bfloat16 (AMX)."""
    return _reports("_is_amx_tile_supported")


@cache
def multiplies_bfloat16() -> bool:
    """Whether the CPU multiplies bfloat16 (AVX-512 BF16 or AMX); one that only emulates it is faster in float32."""
    return has_amx() or _reports("_is_avx512_bf16_supported")


def _reports(name: str) -> bool:
    # PyTorch has no public name for it; where a version lacks these, float32 is always right.
    check = getattr(torch.cpu, name, None)
    return bool(check is not None and check())
