"""Conversion of pickled checkpoints to tensors on installation; at run time nothing is ever unpickled.

A checkpoint of PyTorch Lightning holds, besides its weights, training state: optimizers, schedules, settings. None of
it is needed, but the reader has to parse all of it. So PyTorch's tensors-only reader is used, and classes of a few
known libraries are replaced by inert stand-ins: they are never imported, and none of their code runs. Any other class,
and every function, is refused by name.
"""

from __future__ import annotations

import pickle
import zipfile
from pathlib import Path

import torch
from torch import Tensor

from sphinx_nvs.errors import InputError

INERT = ("omegaconf.", "pytorch_lightning.", "lightning.", "torch.optim.lr_scheduler.", "pathlib.", "src.")
"""Module prefixes of known training state; `src.` is the package of MVSplat's own modules."""


class _Inert:
    """Stands in for an unused object; accepts any arguments and stores nothing."""

    def __new__(cls, *args: object, **kwargs: object) -> _Inert:
        return super().__new__(cls)

    def __init__(self, *args: object, **kwargs: object) -> None:
        pass

    def __setstate__(self, state: object) -> None:
        pass


def is_pickled(path: Path) -> bool:
    """Whether a file was written by `torch.save` (a zip archive or a pickle)."""
    with path.open("rb") as file:
        start = file.read(9)
    is_safetensors = start[4:] == b"\0\0\0\0{"
    return not is_safetensors and start.startswith((b"PK\x03\x04", b"\x80"))


def tensors_from_pickle(path: Path, prefix: str = "") -> dict[str, Tensor]:
    """The tensors of a checkpoint's `state_dict`, or of the checkpoint itself if it has none.

    Args:
        path: the checkpoint.
        prefix: prefix of the names of relevant tensors.

    Raises:
        InputError: it is damaged, or contains a class or function that is not known to be harmless.
    """
    where = f"checkpoint {path}"
    try:
        # Names only: the file is scanned, and nothing in it is constructed.
        unknown = torch.serialization.get_unsafe_globals_in_checkpoint(path)
        refused = [name for name in unknown if not name.startswith(INERT)]
        if refused:
            hint = "use it only if you trust it: save its state_dict alone with torch.save, then install that"
            raise InputError(where, f"beside tensors it holds {', '.join(refused)}", hint)
        # Each known class name is answered by the stand-in, so the reader never imports the class itself.
        with torch.serialization.safe_globals([(_Inert, name) for name in unknown]):
            loaded = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, ValueError, EOFError, OSError, zipfile.BadZipFile) as error:
        found = f"it is damaged or not a checkpoint ({str(error).splitlines()[0]})"
        raise InputError(where, found, "get the file again") from error
    state = loaded.get("state_dict", loaded) if isinstance(loaded, dict) else {}
    tensors = {
        name: value for name, value in state.items() if isinstance(value, Tensor) and str(name).startswith(prefix)
    }
    if not tensors:
        raise InputError(where, f"it has no tensors named {prefix}*", "give the model's own checkpoint")
    return tensors
