"""JSON files from users: read, checked field by field, with sentences that name the file and the field."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from sphinx_nvs.errors import InputError


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file.

    Raises:
        InputError: the file is missing or unreadable, is not JSON (line and column are named) or no object.
    """
    if not path.is_file():
        raise InputError(f"file {path}", "there is no such file", "correct the path or restore the file")
    try:
        data = json.loads(path.read_text(encoding="utf-8-sig"))
    except json.JSONDecodeError as error:
        place = f"line {error.lineno}, column {error.colno}"
        raise InputError(f"{path}, {place}", f"malformed JSON ({error.msg})", "fix it there") from error
    except UnicodeDecodeError as error:
        raise InputError(f"file {path}", "it is not UTF-8 text", "save it as UTF-8") from error
    except OSError as error:
        raise InputError(f"file {path}", f"it cannot be read ({error.strerror})", "check its permissions") from error
    if not isinstance(data, dict):
        raise InputError(
            f"file {path}",
            f"it holds a {type(data).__name__}, not an object",
            "put its content in an object, {...}",
        )
    return data


def number(data: Mapping[str, Any], key: str, where: str, default: float | int | None = None) -> float:
    """The finite number at `key`.

    Args:
        data: an object from a JSON file.
        key: its field.
        where: names the object in errors, e.g. `"frame 3 of transforms.json"`.
        default: what stands for a missing field; None makes it mandatory.

    Raises:
        InputError: the field is missing without default, or is no finite number.
    """
    value = data.get(key, default)
    if value is None:
        raise InputError(where, f"{key} is missing", f"add {key}, a number")
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise InputError(where, f"{key} is {json.dumps(value)}", "give a finite number")
    return float(value)


def matrix(value: object, where: str, key: str) -> Float[Tensor, "4 4"]:
    """A 4x4 float64 matrix from 3x4 or 4x4 nested lists or 16 (row-major) numbers.

    Raises:
        InputError: `value` is missing or has another shape or entries that are not numbers.
    """
    if value is None:
        raise InputError(where, f"{key} is missing", f"add {key}, a 4x4 matrix")
    try:
        out = torch.tensor(value, dtype=torch.float64)
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(where, f"{key} is not a matrix of numbers", "give 4 rows of 4 numbers") from error
    if out.shape == (16,):
        out = out.view(4, 4)
    if out.shape == (3, 4):
        out = torch.cat([out, out.new_tensor([[0, 0, 0, 1]])])
    if out.shape != (4, 4):
        raise InputError(where, f"{key} has shape {tuple(out.shape)}", "give 4 rows of 4 numbers")
    return out
