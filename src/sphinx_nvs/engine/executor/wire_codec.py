"""Messages between processes as bytes: msgpack of their fields, checked on arrival. Nothing is ever unpickled.

    bytes = msgpack [version, kind, {field: value}]        kind = name of the message's class

A value is taken for what its field's annotation says and for nothing else: a message with a field too few, too many or
of another type is refused, and so is one of another version.
"""

from __future__ import annotations

import dataclasses
import types
from collections.abc import Callable
from functools import cache
from typing import Any, Union, get_args, get_origin, get_type_hints

import msgpack

from sphinx_nvs.engine.executor.worker_messages import Beat, Failed, Loaded
from sphinx_nvs.engine.types.messages import (
    Begin,
    Begun,
    DeviceLost,
    DeviceReady,
    Drop,
    Dropped,
    Finish,
    Finished,
    Refused,
    Regress,
    Regressed,
    Step,
    Stepped,
)
from sphinx_nvs.errors import SphinxError

VERSION = 1
"""Of the messages; both ends come from one installation, so another one is a mistake."""

KINDS: dict[str, type] = {
    kind.__name__: kind
    for kind in (
        *(Regress, Begin, Step, Finish, Drop),
        *(Regressed, Begun, Stepped, Finished, Dropped, Refused, DeviceLost, DeviceReady),
        *(Loaded, Failed, Beat),
    )
}
"""Every message there is."""

_NONE = type(None)
_JSON = (_NONE, bool, int, float, str)


class MessageError(SphinxError):
    """Bytes that are no message, or a message that cannot become bytes."""


def encode(message: Any) -> bytes:
    """A message's bytes.

    Raises:
        MessageError: it is none of `KINDS`, or holds what msgpack has no bytes for.
    """
    kind = type(message).__name__
    if KINDS.get(kind) is not type(message):
        raise MessageError(f"{kind} is no message")
    try:
        data: bytes = msgpack.packb([VERSION, kind, _fields(message)])
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise MessageError(f"{kind} cannot become bytes: {error}") from error
    return data


def _fields(message: Any) -> dict[str, Any]:
    """What a dataclass holds, dataclasses in it likewise."""
    return dataclasses.asdict(message)


def decode(data: bytes) -> Any:
    """The message that bytes are.

    Raises:
        MessageError: they are none.
    """
    try:
        version, kind, fields = msgpack.unpackb(data, strict_map_key=False)
    # What msgpack raises on damage is many things: its own errors, ValueError, TypeError for unhashable keys.
    except Exception as error:
        raise MessageError(f"{len(data)} bytes are no message ({type(error).__name__})") from error
    if version != VERSION or isinstance(version, bool):
        raise MessageError(f"a message is of version {version!r}, not {VERSION}")
    if not isinstance(kind, str) or kind not in KINDS:
        raise MessageError(f"there is no message {kind!r}")
    return _read(KINDS[kind], fields, kind)


def _read(hint: Any, value: Any, where: str) -> Any:
    """A value of the annotated type."""
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        return _read_fields(hint, value, where)
    origin = get_origin(hint)
    if hint is Any:
        return _read_json(value, where)
    if origin in (Union, types.UnionType):
        return _read_union(get_args(hint), value, where)
    if origin is tuple:
        return _read_tuple(get_args(hint), value, where)
    if origin is dict:
        of_key, of_value = get_args(hint)
        entries = _expect(dict, value, where).items()
        return {_read(of_key, key, f"{where} key"): _read(of_value, each, f"{where}[{key!r}]") for key, each in entries}
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    return _expect(hint, value, where)


def _expect(kind: type, value: Any, where: str) -> Any:
    """The value, if it is exactly of that type: True is no number."""
    if type(value) is not kind:
        raise MessageError(f"{where} is of type {type(value).__name__}, not {kind.__name__}")
    return value


def _read_fields(kind: type, value: Any, where: str) -> Any:
    """A dataclass from a map with all its fields."""
    hints = _hints(kind)
    if set(_expect(dict, value, where)) != set(hints):
        raise MessageError(f"{where} has the fields {sorted(map(str, value))}, not {sorted(hints)}")
    read = {name: _read(hint, value[name], f"{where}.{name}") for name, hint in hints.items()}
    try:
        return kind(**read)
    except (SphinxError, ValueError, TypeError) as error:
        raise MessageError(f"{where} cannot be: {error}") from error


@cache
def _hints(kind: type) -> dict[str, Any]:
    """Annotations of a dataclass's fields."""
    hints = get_type_hints(kind)
    return {field.name: hints[field.name] for field in dataclasses.fields(kind)}


def _read_union(hints: tuple[Any, ...], value: Any, where: str) -> Any:
    """A value or None."""
    if value is None and _NONE in hints:
        return None
    (hint,) = (hint for hint in hints if hint is not _NONE)
    return _read(hint, value, where)


def _read_tuple(hints: tuple[Any, ...], value: Any, where: str) -> tuple[Any, ...]:
    """A sequence, of any length or of a fixed one."""
    values = _expect(list, value, where)
    if hints[-1] is not Ellipsis and len(hints) != len(values):
        raise MessageError(f"{where} has {len(values)} values, not {len(hints)}")
    of: Callable[[int], Any] = (lambda i: hints[0]) if hints[-1] is Ellipsis else (lambda i: hints[i])
    return tuple(_read(of(i), each, f"{where}[{i}]") for i, each in enumerate(values))


def _read_json(value: Any, where: str) -> Any:
    """A JSON value."""
    if type(value) in _JSON:
        return value
    if type(value) is list:
        return [_read_json(each, where) for each in value]
    entries = _expect(dict, value, where).items()
    return {_expect(str, key, f"{where} key"): _read_json(each, where) for key, each in entries}
