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
from sphinx_nvs.scene.textfile import read_text

LARGEST = 1e12
"""Numbers beyond this are no lengths, pixels or matrices of any camera."""

_SHOWN = 40


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file.

    Raises:
        InputError: the file is missing or unreadable, is not JSON (line and column are named) or no object.
    """
    data = read_json_value(path)
    if not isinstance(data, dict):
        raise InputError(
            f"file {path}",
            f"it holds a {type(data).__name__}, not an object",
            "put its content in an object, {...}",
        )
    return data


def read_json_value(path: Path) -> Any:
    """The value in a JSON file, of whatever kind.

    Raises:
        InputError: see `read_json`.
    """
    if not path.is_file():
        raise InputError(f"file {path}", "there is no such file", "correct the path or restore the file")
    try:
        return json.loads(read_text(path))
    except json.JSONDecodeError as error:
        place = f"line {error.lineno}, column {error.colno}"
        raise InputError(f"{path}, {place}", f"malformed JSON ({error.msg})", "fix it there") from error
    except RecursionError as error:
        raise InputError(f"file {path}", "it is nested too deeply", "give plain lists of numbers") from error
    except ValueError as error:
        # Python refuses whole numbers of thousands of digits.
        raise InputError(f"file {path}", "a number in it is far too long", "correct it") from error


def number(data: Mapping[str, Any], key: str, where: str, default: float | int | None = None) -> float:
    """The finite number at `key`.

    Args:
        data: an object from a JSON file.
        key: its field.
        where: names the object in errors, e.g. `"frame 3 of transforms.json"`.
        default: what stands for a missing field; None makes it mandatory.

    Raises:
        InputError: the field is missing without default, or is no finite number of a possible size.
    """
    value = data.get(key, default)
    if value is None:
        raise InputError(where, f"{key} is missing", f"add {key}, a number")
    if isinstance(value, bool) or not isinstance(value, int | float) or not _is_finite(value):
        raise InputError(where, f"{key} is {shown(value)}", "give a finite number")
    if abs(value) > LARGEST:
        raise InputError(where, f"{key} is {shown(value)}", f"give a number below {LARGEST:g}")
    return float(value)


def _is_finite(value: float | int) -> bool:
    """Also of whole numbers that no float holds."""
    return isinstance(value, int) or math.isfinite(value)


def shown(value: object) -> str:
    """A value as JSON, cut short: for a sentence."""
    try:
        text = json.dumps(value)
    except (ValueError, TypeError, RecursionError):
        text = f"a {type(value).__name__}"
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


def matrix(value: object, where: str, key: str) -> Float[Tensor, "4 4"]:
    """A 4x4 float64 matrix from 3x4 or 4x4 nested lists or 16 (row-major) numbers.

    Raises:
        InputError: `value` is missing or has another shape, entries that are not numbers or cannot be, or another last
            row than 0 0 0 1.
    """
    if value is None:
        raise InputError(where, f"{key} is missing", f"add {key}, a 4x4 matrix")
    out = numbers(value, where, key, "give 4 rows of 4 numbers")
    if out.shape == (16,):
        out = out.view(4, 4)
    if out.shape == (3, 4):
        out = torch.cat([out, out.new_tensor([[0, 0, 0, 1]])])
    if out.shape != (4, 4):
        raise InputError(where, f"{key} has shape {tuple(out.shape)}", "give 4 rows of 4 numbers")
    check_last_row(out, where, key)
    return out


def numbers(value: object, where: str, key: str, hint: str) -> Float[Tensor, "..."]:
    """Nested lists of numbers as a float64 tensor.

    Raises:
        InputError: something in them is no number, or one of a size that cannot be.
    """
    try:
        out = torch.tensor(value, dtype=torch.float64)
    except (TypeError, ValueError, RuntimeError, OverflowError, RecursionError) as error:
        raise InputError(where, f"{key} is not a matrix of numbers", hint) from error
    finite = out[torch.isfinite(out)]
    if finite.numel() and float(finite.abs().max()) > LARGEST:
        raise InputError(where, f"{key} holds {float(finite.abs().max()):.3g}", f"give numbers below {LARGEST:g}")
    return out


def check_last_row(pose: Float[Tensor, "4 4"], where: str, key: str) -> None:
    """Raises InputError unless the last row of a pose is 0 0 0 1; a transposed matrix is called that."""
    last = pose[3]
    if not torch.isfinite(last).all() or torch.allclose(last, last.new_tensor([0.0, 0.0, 0.0, 1.0]), atol=1e-6):
        return
    row = " ".join(f"{value:g}" for value in last.tolist())
    if bool((pose[:3, 3].abs() < 1e-9).all()) and abs(float(last[3]) - 1) < 1e-6:
        found = f"{key} is transposed: its last row is {row}, which is where its last column belongs"
        raise InputError(where, found, "transpose it: rows one after another, the translation in the last column")
    raise InputError(where, f"the last row of {key} is {row}", "give 0 0 0 1 there, or leave the row out")
