"""Resolution of the user's device and dtype options, and the memory of a device."""

from __future__ import annotations

import math
import os

import torch

from sphinx_nvs.errors import InputError

DEVICES = ("auto", "cpu", "cuda")
"""Values of the device option."""

DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16, "float32": torch.float32}
"""Values of the dtype option, besides `auto`."""


def device_named(name: str) -> torch.device:
    """The device for an option value; `auto` selects a GPU if there is one.

    Raises:
        InputError: the name is unknown, or it is `cuda` and PyTorch finds no GPU.
    """
    if name not in DEVICES:
        raise InputError("device", f"there is no {name!r}", f"choose one of: {', '.join(DEVICES)}")
    has_gpu = torch.cuda.is_available()
    if name == "cuda" and not has_gpu:
        raise InputError("device", "PyTorch finds no CUDA GPU here", "choose cpu, or fix the driver")
    return torch.device("cuda" if has_gpu and name != "cpu" else "cpu")


def dtype_named(name: str, device: torch.device) -> torch.dtype:
    """The dtype for an option value; `auto` selects half precision on a GPU and single precision on a CPU.

    Raises:
        InputError: the name is unknown.
    """
    if name == "auto":
        if device.type == "cpu":
            return torch.float32
        # bfloat16 has float32's range, so it is preferred; GPUs that only emulate it are faster in float16.
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16
    if name not in DTYPES:
        raise InputError("dtype", f"there is no {name!r}", f"choose one of: auto, {', '.join(DTYPES)}")
    return DTYPES[name]


def memory_bytes(device: torch.device) -> float:
    """Total memory of a device in bytes, used or free; infinite if the system does not report it."""
    if device.type == "cuda":
        return float(torch.cuda.mem_get_info(device)[1])
    try:
        return float(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    except (AttributeError, ValueError, OSError):
        return math.inf
