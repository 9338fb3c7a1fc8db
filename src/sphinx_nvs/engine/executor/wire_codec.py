"""Messages between processes as bytes: msgpack of their fields, checked on arrival. Nothing is ever unpickled.

    bytes = msgpack [version, kind, {field: value}]        kind = name of the message's class

Each value must be of the type that its field's annotation names. A message with a missing field, an unknown field or a
value of another type is refused, and so is a message of another version.
"""

from __future__ import annotations

import dataclasses
from functools import cache
from typing import Any, NoReturn

import msgspec

from sphinx_nvs.engine.executor.worker_messages import Beat, Failed, Loaded
from sphinx_nvs.engine.types.live import Draw, Drawn, NotDrawn
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
"""Version of the messages; both ends come from one installation, so a message of another version is a mistake."""

KINDS: dict[str, type] = {
    kind.__name__: kind
    for kind in (
        *(Regress, Begin, Step, Finish, Drop),
        *(Regressed, Begun, Stepped, Finished, Dropped, Refused, DeviceLost, DeviceReady),
        *(Draw, Drawn, NotDrawn),
        *(Loaded, Failed, Beat),
    )
}
"""Every message there is."""


class MessageError(SphinxError):
    """Bytes that are no message, or a message that cannot become bytes."""


def encode(message: object) -> bytes:
    """A message's bytes.

    Raises:
        MessageError: it is none of `KINDS`, or msgpack cannot represent one of its values.
    """
    kind = type(message).__name__
    # By class and not by name: another class of the same name is no message.
    if KINDS.get(kind) is not type(message):
        raise MessageError(f"{kind} is no message")
    try:
        return msgspec.msgpack.encode([VERSION, kind, message])
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise MessageError(f"{kind} cannot become bytes: {error}") from error


# There are many classes of messages, which callers tell apart by `match`.
def decode(data: bytes) -> Any:
    """The message that bytes are.

    Raises:
        MessageError: they are none.
    """
    try:
        version, kind, fields = _HEAD.decode(data)
    # Damaged bytes raise many things, e.g. RecursionError.
    except Exception as error:
        raise MessageError(f"{len(data)} bytes are no message ({type(error).__name__})") from error
    # True equals 1 in Python, and would pass for the first version.
    if version != VERSION or isinstance(version, bool):
        raise MessageError(f"a message is of version {version!r}, not {VERSION}")
    if not isinstance(kind, str) or kind not in KINDS:
        raise MessageError(f"there is no message {kind!r}")
    return _decode_fields(kind, fields)


def _decode_fields(kind: str, fields: msgspec.Raw) -> Any:
    """The message of a kind."""
    try:
        # msgspec accepts unknown fields of dataclasses, and leaves out those that have defaults.
        found, names = set(_NAMES.decode(fields)), {field.name for field in dataclasses.fields(KINDS[kind])}
        if found != names:
            raise MessageError(f"{kind} has the fields {sorted(found)}, not {sorted(names)}")
        return _decoder(kind).decode(fields)
    except MessageError:
        raise
    except Exception as error:
        raise MessageError(f"{kind} cannot be read: {error}") from error


def _refuse_extension(code: int, data: memoryview) -> NoReturn:
    """Extension types would reach fields that are annotated as `Any`."""
    raise ValueError(f"extension type {code}")


@cache
def _decoder(kind: str) -> msgspec.msgpack.Decoder[Any]:
    return msgspec.msgpack.Decoder(KINDS[kind], ext_hook=_refuse_extension)


_HEAD = msgspec.msgpack.Decoder(tuple[Any, Any, msgspec.Raw])
_NAMES = msgspec.msgpack.Decoder(dict[str, msgspec.Raw])
