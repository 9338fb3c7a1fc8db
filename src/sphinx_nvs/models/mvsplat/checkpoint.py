"""The encoder's weights: from a file, or random.

The authors' checkpoints are Lightning's: a pickle whose `state_dict` holds 471 tensors `encoder.*`, besides optimiser
states and settings. Unpickling runs with torch's `weights_only`, so that nothing in the file is executed: tensors and
plain containers are read, objects of the training framework become empty stand-ins, anything else is refused. A
safetensors file with the same names is read as it is.
"""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from sphinx_nvs.errors import InputError
from sphinx_nvs.models.mvsplat.config import RELEASED, TINY, EncoderConfig
from sphinx_nvs.models.mvsplat.encoder import Encoder
from sphinx_nvs.models.mvsplat.regressor import MvSplat, MvSplatSettings

PREFIX = "encoder."
HARMLESS = ("lightning", "pytorch_lightning", "lightning_fabric", "omegaconf", "pathlib")
"""Packages whose objects training leaves in a checkpoint; they are never imported."""

SIZES = {"full": RELEASED, "tiny": TINY}


def load_mvsplat(
    checkpoint: Path,
    *,
    device: str | torch.device = "cpu",
    settings: MvSplatSettings | None = None,
    config: EncoderConfig = RELEASED,
) -> MvSplat:
    """The regressor with weights from a file.

    Args:
        checkpoint: the authors' `.ckpt`, or a `.safetensors` file with the same names.
        device: where to work.
        settings: how scenes are brought to the network; None for the defaults.
        config: sizes; those of the released checkpoints unless told.

    Raises:
        InputError: the file is absent, damaged, holds other objects than checkpoints do, or does not fit.
    """
    encoder = Encoder(config)
    weights = encoder_weights(checkpoint)
    _check_fit(checkpoint, weights, encoder.state_dict())
    encoder.load_state_dict(weights)
    return _ready(encoder, device, settings)


def random_mvsplat(
    *,
    seed: int = 0,
    device: str | torch.device = "cpu",
    size: str = "full",
    settings: MvSplatSettings | None = None,
) -> MvSplat:
    """The regressor with random weights, for tests and timing: its pictures mean nothing.

    Args:
        seed: of the weights.
        device: where to work.
        size: `full` as released, or `tiny`.
        settings: how scenes are brought to the network; None for the defaults.

    Raises:
        InputError: an unknown size.
    """
    if size not in SIZES:
        raise InputError("size", f"{size!r}", f"give one of {', '.join(SIZES)}")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        encoder = Encoder(SIZES[size])
    return _ready(encoder, device, settings)


def encoder_weights(checkpoint: Path) -> dict[str, Tensor]:
    """The tensors `encoder.*` of a checkpoint, in float32, without their prefix.

    Raises:
        InputError: the file is absent, damaged, holds other objects than checkpoints do, or has no such tensor.
    """
    if not checkpoint.is_file():
        raise InputError(str(checkpoint), "there is no such file", "give the path of MVSplat's checkpoint")
    tensors = _read_safetensors(checkpoint) if checkpoint.suffix == ".safetensors" else _read_pickle(checkpoint)
    found = {
        name.removeprefix(PREFIX): value.float()
        for name, value in tensors.items()
        if name.startswith(PREFIX) and isinstance(value, Tensor)
    }
    if not found:
        raise InputError(str(checkpoint), f"no tensor's name begins with {PREFIX}", "give MVSplat's checkpoint")
    return found


def _ready(encoder: Encoder, device: str | torch.device, settings: MvSplatSettings | None) -> MvSplat:
    """A regressor that only infers."""
    return MvSplat(encoder.to(device).eval().requires_grad_(False), settings or MvSplatSettings())


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except SafetensorError as error:
        raise _damaged(path) from error


def _read_pickle(path: Path) -> Mapping[str, Any]:
    """The `state_dict` of a Lightning checkpoint, without running anything that is in the file."""
    try:
        unknown = torch.serialization.get_unsafe_globals_in_checkpoint(path)
        refused = sorted(name for name in unknown if name.split(".")[0] not in HARMLESS)
        if refused:
            found = f"it holds an object of type {refused[0]}, which a checkpoint has no need of"
            raise InputError(str(path), found, "give MVSplat's checkpoint as published, or a safetensors file")
        with torch.serialization.safe_globals([(_stand_in(name), name) for name in unknown]):
            content = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, ValueError, EOFError, BadZipFile, OSError) as error:
        raise _damaged(path) from error
    state = content.get("state_dict") if isinstance(content, Mapping) else None
    if not isinstance(state, Mapping):
        raise InputError(str(path), "it has no state_dict", "give MVSplat's checkpoint")
    return state


def _stand_in(name: str) -> type:
    """An empty class that takes whatever an object of the training framework was made with."""

    def ignore(self: object, *_: Any, **__: Any) -> None:
        """Keeps nothing."""

    return type(name.rpartition(".")[2], (), {"__init__": ignore, "__setstate__": ignore})


def _damaged(path: Path) -> InputError:
    return InputError(str(path), "it is no checkpoint, or damaged", "download MVSplat's checkpoint again")


def _check_fit(path: Path, found: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> None:
    """Raises InputError unless names and shapes agree."""
    mend = "give a checkpoint of MVSplat's released configuration"
    for names, what in ((wanted.keys() - found.keys(), "lacks"), (found.keys() - wanted.keys(), "has an unknown")):
        if names:
            count = f" and {len(names) - 1} more" if len(names) > 1 else ""
            raise InputError(str(path), f"it {what} tensor {PREFIX}{min(names)}{count}", mend)
    for name, value in wanted.items():
        if value.shape != found[name].shape:
            shapes = f"{tuple(found[name].shape)} where {tuple(value.shape)} is needed"
            raise InputError(str(path), f"tensor {PREFIX}{name} has shape {shapes}", mend)
