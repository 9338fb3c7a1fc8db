"""Loading of the encoder's weights from a file, or random ones.

The authors' checkpoints are Lightning's: a pickle whose `state_dict` holds 471 tensors `encoder.*`, besides optimiser
states and settings. They are read without executing any of their contents (`registry.convert`); a safetensors file with
the same names is read directly.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from sphinx_nvs.errors import InputError
from sphinx_nvs.models.mvsplat.encoder import Encoder
from sphinx_nvs.models.mvsplat.encoder_config import RELEASED, TINY, EncoderConfig
from sphinx_nvs.models.mvsplat.mvsplat import MvSplat, MvSplatSettings
from sphinx_nvs.models.registry.convert import is_pickled, tensors_from_pickle

PREFIX = "encoder."
SIZES = {"full": RELEASED, "tiny": TINY}


def load_mvsplat(
    checkpoint: Path,
    *,
    device: str | torch.device = "cpu",
    settings: MvSplatSettings | None = None,
    config: EncoderConfig = RELEASED,
) -> MvSplat:
    """Loads the regressor with weights from a file.

    Args:
        checkpoint: the authors' `.ckpt`, or a `.safetensors` file with the same names.
        device: device of the network.
        settings: how scenes are converted for the network; None for the defaults.
        config: sizes; the released checkpoints' by default.

    Raises:
        InputError: the file is missing or damaged, holds unexpected objects, or does not fit `config`.
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
    """Creates the regressor with random weights, for tests and timing: its images are meaningless.

    Args:
        seed: seed of the weights.
        device: device of the network.
        size: `full` as released, or `tiny`.
        settings: how scenes are converted for the network; None for the defaults.

    Raises:
        InputError: the size is unknown.
    """
    if size not in SIZES:
        raise InputError("size", f"{size!r}", f"give one of {', '.join(SIZES)}")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        encoder = Encoder(SIZES[size])
    return _ready(encoder, device, settings)


def encoder_weights(checkpoint: Path) -> dict[str, Tensor]:
    """Reads the tensors `encoder.*` of a checkpoint, in float32, without their prefix.

    Raises:
        InputError: the file is missing or damaged, holds unexpected objects, or has no such tensor.
    """
    if not checkpoint.is_file():
        raise InputError(str(checkpoint), "there is no such file", "give the path of MVSplat's checkpoint")
    tensors = tensors_from_pickle(checkpoint, PREFIX) if is_pickled(checkpoint) else _read_safetensors(checkpoint)
    found = {name.removeprefix(PREFIX): value.float() for name, value in tensors.items() if name.startswith(PREFIX)}
    if not found:
        raise InputError(str(checkpoint), f"no tensor's name begins with {PREFIX}", "give MVSplat's checkpoint")
    return found


def _ready(encoder: Encoder, device: str | torch.device, settings: MvSplatSettings | None) -> MvSplat:
    """The regressor in evaluation mode, without gradients."""
    return MvSplat(encoder.to(device).eval().requires_grad_(False), settings or MvSplatSettings())


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except SafetensorError as error:
        found = "it is not a checkpoint, or it is damaged"
        raise InputError(str(path), found, "download MVSplat's checkpoint again") from error


def _check_fit(path: Path, found: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> None:
    """Raises InputError unless names and shapes agree."""
    hint = "give a checkpoint of MVSplat's released configuration"
    for names, what in ((wanted.keys() - found.keys(), "lacks"), (found.keys() - wanted.keys(), "has an unknown")):
        if names:
            count = f" and {len(names) - 1} more" if len(names) > 1 else ""
            raise InputError(str(path), f"it {what} tensor {PREFIX}{min(names)}{count}", hint)
    for name, value in wanted.items():
        if value.shape != found[name].shape:
            shapes = f"{tuple(found[name].shape)} where {tuple(value.shape)} is needed"
            raise InputError(str(path), f"tensor {PREFIX}{name} has shape {shapes}", hint)
