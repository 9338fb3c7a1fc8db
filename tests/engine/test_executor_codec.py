"""Every message survives the wire; nothing else gets through it."""

import dataclasses
import types
from functools import partial
from typing import Any, Union, get_args, get_origin, get_type_hints

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sphinx_nvs.engine.executor.wire_codec import KINDS, VERSION, MessageError, decode, encode
from sphinx_nvs.engine.types.messages import Command, Drop, Dropped, Report, Step, Stepped

INTS = st.integers(-(2**63), 2**64 - 1)
FLOATS = st.floats(allow_nan=False)
JSON = st.recursive(
    st.none() | st.booleans() | INTS | FLOATS | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)
PLAIN = {
    int: INTS,
    float: FLOATS,
    str: st.text(max_size=12),
    bool: st.booleans(),
    bytes: st.binary(max_size=12),
    Any: JSON,
    type(None): st.none(),
}


def values(hint):
    """Values of an annotation."""
    if dataclasses.is_dataclass(hint):
        return messages(hint)
    origin, inner = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return st.one_of([values(each) for each in inner])
    if origin is dict:
        return st.dictionaries(values(inner[0]), values(inner[1]), max_size=3)
    if origin is tuple and inner[-1] is Ellipsis:
        return st.lists(values(inner[0]), max_size=3).map(tuple)
    return st.tuples(*map(values, inner)) if origin is tuple else PLAIN[hint]


def messages(kind):
    """Recipes of messages of a kind: made in the test, since type checks draw random numbers of their own."""
    hints = get_type_hints(kind)
    fields = {field.name: values(hints[field.name]) for field in dataclasses.fields(kind)}
    return st.fixed_dictionaries(fields).map(lambda made: partial(make, kind, made))


def make(kind, fields):
    """A message of which some fields may be recipes themselves."""
    return kind(**{name: each() if isinstance(each, partial) else each for name, each in fields.items()})


ANY = st.sampled_from(sorted(KINDS)).flatmap(lambda name: messages(KINDS[name]))


def test_every_command_and_report_is_known():
    assert set(get_args(Command)) | set(get_args(Report)) <= set(KINDS.values())


@given(ANY)
def test_round_trip(recipe):
    message = recipe()
    read = decode(encode(message))
    assert type(read) is type(message)
    assert read == message


@given(ANY, st.data())
def test_a_message_that_was_tampered_with_is_refused(recipe, data):
    version, kind, fields = msgspec.msgpack.decode(encode(recipe()))
    name = data.draw(st.sampled_from(sorted(fields)))
    del fields[name]
    with pytest.raises(MessageError, match="has the fields"):
        decode(msgspec.msgpack.encode([version, kind, fields]))
    fields[name] = msgspec.msgpack.Ext(5, b"x")
    with pytest.raises(MessageError):
        decode(msgspec.msgpack.encode([version, kind, fields]))


@given(st.binary(max_size=200))
def test_noise_is_refused(data):
    with pytest.raises(MessageError):
        decode(data)


@given(JSON)
def test_other_values_are_refused(value):
    with pytest.raises(MessageError):
        decode(msgspec.msgpack.encode(value))


GOOD = msgspec.msgpack.decode(encode(Stepped(units=(("a", 1),), done=(1,), computed_cells=4, seconds=0.5)))


@pytest.mark.parametrize(
    ("field", "value", "sentence"),
    [
        ("seconds", "0.5", r"Expected `float`, got `str` - at `\$\.seconds`"),
        ("seconds", True, r"Expected `float`, got `bool` - at `\$\.seconds`"),
        ("computed_cells", 4.0, r"Expected `int`, got `float` - at `\$\.computed_cells`"),
        ("computed_cells", True, r"Expected `int`, got `bool` - at `\$\.computed_cells`"),
        ("units", [["a"]], r"Expected `array` of length 2, got 1 - at `\$\.units\[0\]`"),
        ("units", "a1", r"Expected `array`, got `str` - at `\$\.units`"),
        ("done", [None], r"Expected `int`, got `None` - at `\$\.done\[0\]`"),
    ],
)
def test_a_field_of_another_type_is_refused(field, value, sentence):
    version, kind, fields = GOOD
    with pytest.raises(MessageError, match=sentence):
        decode(msgspec.msgpack.encode([version, kind, {**fields, field: value}]))


def test_a_field_too_many_is_refused():
    version, kind, fields = GOOD
    with pytest.raises(MessageError, match="has the fields"):
        decode(msgspec.msgpack.encode([version, kind, {**fields, "more": 1}]))


def test_whole_numbers_are_seconds_too():
    version, kind, fields = GOOD
    read = decode(msgspec.msgpack.encode([version, kind, {**fields, "seconds": 2}]))
    assert (read.seconds, type(read.seconds)) == (2.0, float)


@pytest.mark.parametrize("version", [VERSION + 1, str(VERSION), True, None])
def test_another_version_is_refused(version):
    with pytest.raises(MessageError, match=f"version {version!r}, not {VERSION}"):
        decode(msgspec.msgpack.encode([version, "Drop", {"units": []}]))


@pytest.mark.parametrize("kind", ["JobSpec", "drop", None, 3])
def test_another_kind_is_refused(kind):
    with pytest.raises(MessageError, match="there is no message"):
        decode(msgspec.msgpack.encode([VERSION, kind, {"units": []}]))


def test_extension_types_are_refused_where_any_value_may_stand():
    names = ("unit", "steps", "predicted_s", "predicted_quality", "plan", "plan_file", "seconds", "share_of_full")
    plan = {"a": [msgspec.msgpack.Ext(5, b"x")]}
    fields = dict(zip(names, (["a", 1], 1, 1.0, 1.0, plan, "f", 1.0, None), strict=True))
    with pytest.raises(MessageError, match="extension type 5"):
        decode(msgspec.msgpack.encode([VERSION, "Begun", fields]))


@pytest.mark.parametrize("message", [object(), "Drop", GOOD, None])
def test_other_objects_are_not_sent(message):
    with pytest.raises(MessageError, match="is no message"):
        encode(message)


def test_numbers_that_are_too_long_are_not_sent():
    with pytest.raises(MessageError, match="Step cannot become bytes"):
        encode(Step(units=(("a", 2**70),)))


def test_empty_messages():
    assert decode(encode(Drop(units=()))) == Drop(units=())
    assert decode(encode(Dropped(units=()))) == Dropped(units=())
