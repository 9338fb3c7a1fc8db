"""Filling networks from safetensors files, or with random numbers, tensor by tensor and in place.

A network is built on PyTorch's meta device, where tensors have shapes and no memory. A file's names and shapes are
compared with it before any number is read; then every tensor is read, converted and assigned, so that memory never
holds a tensor twice. The file's mapping is closed at intervals, since pages that were read count as memory while it is
open.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from sphinx_nvs.errors import InputError

_Module = TypeVar("_Module", bound=nn.Module)

Convert = Callable[[str, Tensor], Iterable[tuple[str, Tensor]]]
"""Maps a file's name and tensor to the network's; yields nothing for unused tensors. It is also called with tensors
on the meta device, so it must not read values."""

MAPPED_BYTES = 2**28
"""Bytes that are read before a file's mapping is closed."""

SHOWN = 3
"""Number of names in an error message."""

KINDS = (
    ("input_blocks.1.0.dense_emb_layers.", "SEVA's U-Net"),
    ("model.diffusion_model.", "a whole Stable Diffusion checkpoint"),
    ("input_blocks.", "Stable Diffusion's U-Net"),
    ("down_blocks.", "a U-Net in diffusers' layout"),
    ("visual.", "an OpenCLIP model"),
    ("vision_model.", "a CLIP model in transformers' layout"),
    ("encoder.conv_in.", "a Stable Diffusion autoencoder"),
)
"""Kinds of files by the prefix of their tensors' names; the first match is reported."""


def import_required(module: str) -> Any:
    """Imports a module of the optional extra `seva`.

    Raises:
        InputError: it cannot be imported.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        found = f"SEVA's parts need the package {module.split('.')[0]}, which cannot be imported ({error})"
        raise InputError("packages", found, "run: pip install 'sphinx-nvs[seva]'") from error


def same_name(name: str, tensor: Tensor) -> Iterable[tuple[str, Tensor]]:
    """The identity: the file's names are the network's."""
    yield name, tensor


def find_file(path: Path, names: Iterable[str], wanted: str) -> Path:
    """The path itself, or the first of `names` that exists in a folder.

    Args:
        path: a file or a folder.
        names: file names, in order of preference.
        wanted: description of the expected file, for messages.

    Raises:
        InputError: there is no such file, or its name does not end in `.safetensors`.
    """
    if path.is_dir():
        present = [path / name for name in names if (path / name).is_file()]
        if not present:
            raise InputError(str(path), f"the folder holds none of {', '.join(names)}", f"give {wanted}")
        return present[0]
    if not path.is_file():
        raise InputError(str(path), "there is no such file", f"give {wanted}")
    if path.suffix != ".safetensors":
        hint = f"give {wanted}, in the safetensors format: other formats can run code when they are read"
        raise InputError(str(path), f"its name ends in '{path.suffix}'", hint)
    return path


def names_in(path: Path) -> list[str]:
    """Names of a file's tensors.

    Raises:
        InputError: it is not a safetensors file.
    """
    with _opened(path) as file:
        return sorted(file.keys())


def fill_from_file(
    module: nn.Module,
    path: Path,
    *,
    dtype: torch.dtype,
    device: torch.device | str,
    wanted: str,
    convert: Convert = same_name,
) -> None:
    """Loads the parameters of a network on the meta device.

    Args:
        module: the network, changed in place; its parameters get `dtype`, its buffers stay.
        path: a safetensors file.
        dtype: type that numbers are converted to.
        device: device of the parameters.
        wanted: description of the expected file, for messages.
        convert: maps the file's names and tensors to the network's.

    Raises:
        InputError: the file is not a safetensors file, or its tensors are not the network's.
    """
    with _opened(path) as file:
        shapes = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
    with torch.device("meta"):
        found = {
            ours: tuple(part.shape) for name, size in shapes.items() for ours, part in convert(name, torch.empty(size))
        }
    _check(path, list(shapes), found, {name: tuple(p.shape) for name, p in module.named_parameters()}, wanted)
    for name, tensor in _tensors(path):
        for ours, part in convert(name, tensor):
            _put(module, ours, nn.Parameter(_laid_out(part, dtype, device), requires_grad=False))


def fill_randomly(module: nn.Module, *, seed: int, dtype: torch.dtype, device: torch.device | str) -> None:
    """Gives a network on the meta device random parameters, distributed like PyTorch's initial ones.

    Norms are the identity; all else is uniform in +-1 / sqrt(fan-in), which preserves the scale of activations.

    Args:
        module: the network, changed in place; its buffers stay.
        seed: seed of the numbers, which also depend on `device` and `dtype`.
        dtype: type of the numbers, generated directly, without a larger intermediate type.
        device: device on which they are generated.
    """
    generator = torch.Generator(device).manual_seed(seed)
    for name, parameter in list(module.named_parameters()):
        layout = torch.channels_last if parameter.ndim == 4 else torch.contiguous_format
        values = torch.empty(parameter.shape, dtype=dtype, device=device, memory_format=layout)
        if isinstance(module.get_submodule(name.rpartition(".")[0]), nn.GroupNorm | nn.LayerNorm):
            values.fill_(float(name.endswith("weight")))
        else:
            fan_in = parameter.numel() // (len(parameter) if parameter.ndim > 1 else 1)
            bound = 1 / math.sqrt(fan_in)
            values.uniform_(-bound, bound, generator=generator)
        _put(module, name, nn.Parameter(values, requires_grad=False))


def frozen(module: _Module) -> _Module:
    """The network in evaluation mode and without gradients; raises ValueError if a tensor was left on meta."""
    tensors = [*module.named_parameters(), *module.named_buffers()]
    left = [name for name, tensor in tensors if tensor.is_meta]
    if left:
        raise ValueError(f"tensors without memory are left: {_listed(left)}")
    return module.eval().requires_grad_(False)


@contextmanager
def temporarily_on(module: nn.Module, device: torch.device | str) -> Iterator[None]:
    """Copies a network to a device for the duration of the block; the original tensors keep their memory.

    Args:
        module: the network; if it is on the device already nothing happens.
        device: device needed inside the block.
    """
    home = {**dict(module.named_parameters()), **dict(module.named_buffers())}
    try:
        for name, tensor in home.items():
            moved = tensor.to(device)
            _put(module, name, nn.Parameter(moved, False) if isinstance(tensor, nn.Parameter) else moved)
        yield
    finally:
        for name, tensor in home.items():
            _put(module, name, tensor)


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    try:
        file = safe_open(path, framework="pt", device="cpu")
    except (SafetensorError, OSError) as error:
        found = f"it cannot be read as safetensors ({error})"
        raise InputError(str(path), found, "download it again, or give another file") from error
    with file as opened:
        yield opened


def _tensors(path: Path) -> Iterator[tuple[str, Tensor]]:
    """All tensors, mapped from the file; each is valid until the next one is requested."""
    names = names_in(path)
    while names:
        mapped = 0
        with _opened(path) as file:
            while names and mapped < MAPPED_BYTES:
                tensor = file.get_tensor(names[-1])
                mapped += tensor.nbytes
                yield names.pop(), tensor
                # Views of the mapping must be gone before it is closed.
                del tensor


def _laid_out(tensor: Tensor, dtype: torch.dtype, device: torch.device | str) -> Tensor:
    """A copy with memory of its own; convolution weights are channels-last, the fastest layout for their products."""
    layout = torch.channels_last if tensor.ndim == 4 else torch.contiguous_format
    return tensor.to(device=device, dtype=dtype, memory_format=layout, copy=True)


def _put(module: nn.Module, name: str, tensor: Tensor) -> None:
    owner, _, leaf = name.rpartition(".")
    setattr(module.get_submodule(owner), leaf, tensor)


def _check(
    path: Path,
    names: list[str],
    found: dict[str, tuple[int, ...]],
    needed: dict[str, tuple[int, ...]],
    wanted: str,
) -> None:
    """Raises InputError if the file's tensors, by their names in the network, are not the needed ones."""
    missing, unknown = sorted(needed.keys() - found.keys()), sorted(found.keys() - needed.keys())
    other = [
        f"{name} is {_size(found[name])} and not {_size(size)}"
        for name, size in needed.items()
        if found.get(name, size) != size
    ]
    complaints = [(missing, "lacks"), (unknown, "has unknown"), (other, "has other shapes:")]
    problems = [f"{verb} {_listed(items)}" for items, verb in complaints if items]
    if not problems:
        return
    kind = next((kind for start, kind in KINDS if any(name.startswith(start) for name in names)), None)
    hint = f"give {wanted}" if kind is None else f"this looks like {kind}: give {wanted}"
    raise InputError(str(path), f"it {', '.join(problems)}", hint)


def _size(size: tuple[int, ...]) -> str:
    return "x".join(map(str, size))


def _listed(items: list[str]) -> str:
    more = len(items) - SHOWN
    return ", ".join(items[:SHOWN]) + (f" and {more} more" if more > 0 else "")
