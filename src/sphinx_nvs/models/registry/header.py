"""The header of a safetensors file, read without its tensors.

Layout: 8 bytes n (little endian), n bytes of JSON {name: {dtype, shape, data_offsets}}, then the tensors' bytes.
"""

from __future__ import annotations

import json
from pathlib import Path

from sphinx_nvs.errors import InputError
from sphinx_nvs.models.registry.cards import Card, Layout

_LONGEST_HEADER = 100_000_000
_HINT = "get the file again"


def read_header(path: Path) -> Layout:
    """Names and shapes of the tensors in a safetensors file.

    Raises:
        InputError: it is missing, is not a safetensors file, or is shorter than its header states.
    """
    where = f"weights {path}"
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if not 0 < length < _LONGEST_HEADER:
                raise InputError(where, "it is not a safetensors file", _HINT)
            entries = json.loads(file.read(length))
        entries.pop("__metadata__", None)
        shapes = {name: tuple(entry["shape"]) for name, entry in entries.items()}
        data_bytes = max((entry["data_offsets"][1] for entry in entries.values()), default=0)
    except OSError as error:
        raise InputError(where, f"it cannot be read ({error.strerror})", "check it and its permissions") from error
    except (ValueError, TypeError, AttributeError, KeyError, IndexError) as error:
        raise InputError(where, "it is not a safetensors file, or it is damaged", _HINT) from error
    wanted, found = 8 + length + data_bytes, path.stat().st_size
    if found != wanted:
        raise InputError(where, f"it has {found} bytes where its header says {wanted}", _HINT)
    return shapes


def check_layout(card: Card, path: Path, shapes: Layout) -> None:
    """Checks whether a file can be this model's.

    Args:
        card: the model.
        path: the file, for the message.
        shapes: names and shapes of the file's tensors.

    Raises:
        InputError: tensors are missing or have other shapes; names the first.
    """
    problems = [_first_difference(layout, shapes) for layout in card.layouts()]
    if problems and all(problems):
        raise InputError(f"weights {path}", f"they are not {card.name}'s: {problems[0]}", f"see {card.page}")


def _first_difference(wanted: Layout, found: Layout) -> str | None:
    for name, shape in wanted.items():
        if name not in found:
            return f"{name} is missing"
        if found[name] != shape:
            return f"{name} is {_times(found[name])} where it should be {_times(shape)}"
    return None


def _times(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape)) or "a single number"
