"""What the processor computes natively."""

from __future__ import annotations

from functools import cache

import torch


@cache
def multiplies_bfloat16() -> bool:
    """Whether the CPU multiplies bfloat16 (AVX-512 BF16 or AMX) instead of acting as if, which is slower than float32."""
    # PyTorch has no public name for it; where a version lacks these, float32 is always right.
    checks = (getattr(torch.cpu, name, None) for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"))
    return any(check is not None and check() for check in checks)
