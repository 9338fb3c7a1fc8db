"""Where and in which number type a model computes, from what a user says; how much room there is."""

from __future__ import annotations

import math
import os

import torch

from sphinx_nvs.errors import InputError

DEVICES = ("auto", "cpu", "cuda")
"""What a user can say of devices."""

DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16, "float32": torch.float32}
"""What a user can say of number types, beside `auto`."""


def device_named(name: str) -> torch.device:
    """The device that a user means; `auto` is a GPU if there is one.

    Raises:
        InputError: another name, or `cuda` where no GPU can be used.
    """
    if name not in DEVICES:
        raise InputError("device", f"there is no {name!r}", f"choose one of: {', '.join(DEVICES)}")
    has_gpu = torch.cuda.is_available()
    if name == "cuda" and not has_gpu:
        raise InputError("device", "PyTorch finds no CUDA GPU here", "choose cpu, or fix the driver")
    return torch.device("cuda" if has_gpu and name != "cpu" else "cpu")


def dtype_named(name: str, device: torch.device) -> torch.dtype:
    """The number type that a user means; `auto` is half precision on a GPU, and single on a CPU.

    Raises:
        InputError: another name.
    """
    if name == "auto":
        if device.type == "cpu":
            return torch.float32
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16
    if name not in DTYPES:
        raise InputError("dtype", f"there is no {name!r}", f"choose one of: auto, {', '.join(DTYPES)}")
    return DTYPES[name]


def memory_bytes(device: torch.device) -> float:
    """A device's memory, in use or not: the same at every run. Infinite where the system does not tell."""
    if device.type == "cuda":
        return float(torch.cuda.mem_get_info(device)[1])
    try:
        return float(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    except (AttributeError, ValueError, OSError):
        return math.inf
