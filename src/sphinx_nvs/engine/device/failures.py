"""What is said of commands that failed: sentences for users, without paths of this machine."""

from __future__ import annotations

import re
from pathlib import PurePath

import torch

from sphinx_nvs.errors import InputError, OutputError

NO_MEMORY = "the device has too little memory for this; request fewer or smaller frames"

_PATH = re.compile(r"(?<![\w:/])/(?:[^\s/:;,'\"]+/)+[^\s/:;,'\"]*")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error means that memory ran out, on any device."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    # PyTorch's CPU allocator raises a plain RuntimeError, known only by its text.
    return isinstance(error, RuntimeError) and "can't allocate memory" in str(error)


def is_users_fault(error: BaseException) -> bool:
    """Whether trying again is pointless."""
    return isinstance(error, InputError) and not isinstance(error, OutputError)


def sentence_of(error: BaseException, otherwise: str) -> str:
    """The sentence for the user.

    Args:
        error: what went wrong.
        otherwise: what to say of an error that is not the user's.
    """
    if is_users_fault(error):
        return without_paths(str(error))
    return NO_MEMORY if is_out_of_memory(error) else f"{otherwise}: the server has the reason in its log"


def without_paths(sentence: str) -> str:
    """The sentence with nothing left of absolute paths but their last names."""
    return _PATH.sub(lambda found: PurePath(found[0]).name, sentence)
