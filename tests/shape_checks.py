"""The type checker of the tests: shapes in signatures are checked once for each set of shapes.

`--jaxtyping-packages=sphinx_nvs,shape_checks.once_for_each_shape` puts it around every function of the package whose
signature has a shape; types of the others are mypy's. Whether a call passes depends on types, shapes and dtypes of what
goes in and comes out, and on the values of integers and text; a denoising loop repeats them thousands of times. Calls
with anything else, e.g. a mapping, are checked each time.
"""

import re
import types
from collections.abc import Callable, Hashable, Iterable, Iterator
from contextvars import ContextVar
from dataclasses import is_dataclass
from functools import cache, cached_property, partial, wraps

import jaxtyping
import numpy as np
import torch
from beartype import beartype

_UNKNOWN = object()
"""In the place of a value of which only a check can say whether it passes."""

_BY_TYPE, _BY_SHAPE, _BY_VALUE, _BY_ITEMS = object(), object(), object(), object()
"""Ways of telling values apart."""

MOST_ITEMS = 32
"""Of a tuple or list whose items are compared with those that passed."""

_OUTPUT: ContextVar[object] = ContextVar("output")
"""What a function has returned, while that is checked."""

_NAME = re.compile(r"[A-Za-z_]\w*")

_jaxtyped = jaxtyping.jaxtyped


def once_for_each_shape(function: Callable) -> Callable:
    """Names this checker on the command line; `install` makes it more than beartype."""
    return beartype(function)


def install() -> None:
    """Replaces jaxtyping's decorator, which binds arguments and prepares for a check at every call."""
    jaxtyping.jaxtyped = jaxtyped


def jaxtyped(function=None, *, typechecker=once_for_each_shape):
    """Decorates what jaxtyping's import hook decorates: functions, methods, and the `__init__` of dataclasses."""
    if function is None:
        return partial(jaxtyped, typechecker=typechecker)
    if isinstance(function, type):
        if is_dataclass(function) and getattr(function.__init__, "__globals__", None) is not globals():
            function.__init__ = jaxtyped(function.__init__, typechecker=typechecker)
        return function
    if isinstance(function, (classmethod, staticmethod)):
        return type(function)(jaxtyped(function.__func__, typechecker=typechecker))
    if isinstance(function, property):
        parts = (function.fget, function.fset, function.fdel)
        return property(*(part and jaxtyped(part, typechecker=typechecker) for part in parts))
    return _once_for_each_shape(function, _Checks(function, typechecker)) if _has_shapes(function) else function


def _has_shapes(function: Callable) -> bool:
    """Whether an annotation is, contains or names a type of jaxtyping."""
    annotations = getattr(function, "__annotations__", {}).values()
    names = getattr(function, "__globals__", {})
    return any(
        _is_shaped(each) or any(_is_shaped(names.get(name)) for name in _NAME.findall(str(each)))
        for each in annotations
    )


def _is_shaped(kind: object) -> bool:
    return type(kind).__module__.startswith("jaxtyping")


def _once_for_each_shape(function: Callable, checks: "_Checks") -> Callable:
    passed: dict[tuple[Hashable, ...], set[Hashable]] = {}

    @wraps(function)
    def call(*args, **kwargs):
        __tracebackhide__ = True
        kind = (*map(_kind, args), *kwargs, *map(_kind, kwargs.values())) if kwargs else (*map(_kind, args),)
        returned = passed.get(kind)
        if returned is None:
            output = checks.call(*args, **kwargs)
            returned = set() if _UNKNOWN in kind else passed.setdefault(kind, set())
            returned.add(_kind(output))
            return output
        output = function(*args, **kwargs)
        of_output = _kind(output)
        if of_output is _UNKNOWN or of_output not in returned:
            checks.output(output, *args, **kwargs)
            returned.add(of_output)
        return output

    return call


class _Checks:
    """A function's checks, which are made when they are needed: most functions are never called in a process."""

    def __init__(self, function: Callable, typechecker: Callable):
        self._function = function
        self._typechecker = typechecker

    @cached_property
    def call(self) -> Callable:
        """The function between a check of its arguments and one of what it returns."""
        return _jaxtyped(self._function, typechecker=self._typechecker)

    def output(self, output: object, *args, **kwargs) -> None:
        """Checks what the function has returned, with its arguments: they share names of sizes."""
        token = _OUTPUT.set(output)
        try:
            self._returns(*args, **kwargs)
        finally:
            _OUTPUT.reset(token)

    @cached_property
    def _returns(self) -> Callable:
        """Has the function's signature and returns what is set."""
        output = _OUTPUT

        def returned(*args, **kwargs):
            return output.get()

        # Annotations that are text are looked up in the globals of the function.
        inside = types.FunctionType(
            returned.__code__, self._function.__globals__, "returned", None, returned.__closure__
        )
        return _jaxtyped(wraps(self._function)(inside), typechecker=self._typechecker)


def _kind(value: object) -> Hashable:
    """What decides whether a value passes."""
    kind = type(value)
    way = _way(kind)
    if way is _BY_TYPE:
        return kind
    if way is _BY_SHAPE:
        return kind, value.shape, value.dtype
    if way is _BY_VALUE:
        return kind, value
    return _kind_of_items(kind, value) if way is _BY_ITEMS and len(value) <= MOST_ITEMS else _UNKNOWN


@cache
def _way(kind: type) -> object:
    """How values of a type are kept apart."""
    if issubclass(kind, (torch.Tensor, np.ndarray)):
        return _BY_SHAPE
    if issubclass(kind, (bool, int, str, type)):
        return _BY_VALUE
    if issubclass(kind, (tuple, list)):
        return _BY_ITEMS
    return _UNKNOWN if issubclass(kind, Iterable) and not issubclass(kind, Iterator) else _BY_TYPE


def _kind_of_items(kind: type, items: tuple | list) -> Hashable:
    """Beartype checks one of any number of items, drawn by chance: which one must not matter."""
    kinds = tuple(map(_kind, items))
    alike = len(set(kinds)) <= 1 or {*map(type, items)} == {int}
    return (kind, *kinds) if alike and _UNKNOWN not in kinds else _UNKNOWN
