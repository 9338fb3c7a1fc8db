"""The type checker of the tests: shapes in signatures are checked once for each set of shapes.

`--jaxtyping-packages=sphinx_nvs,shape_checks.once_for_each_shape` puts it around every function of the package. Whether
a call passes depends on types, shapes and dtypes of what goes in and comes out, and on the values of integers and text;
a denoising loop repeats them thousands of times. Calls with anything else, e.g. a list, are checked each time.
"""

from collections.abc import Callable, Hashable, Iterable
from functools import cache

import numpy as np
import torch
from beartype import beartype

_UNKNOWN = object()
"""In the place of an argument of which only a check can say whether it passes."""


def once_for_each_shape(function: Callable) -> Callable:
    """Checks as `beartype` does, which is applied at the first call: most functions are never called in a process."""
    passed: set[tuple[Hashable, ...]] = set()
    checked = None

    def check(*args, **kwargs):
        nonlocal checked
        call = (*map(_kind, args), *kwargs, *map(_kind, kwargs.values()))
        if call in passed:
            return
        checked = checked or beartype(function)
        checked(*args, **kwargs)
        if _UNKNOWN not in call:
            passed.add(call)

    return check


def _kind(value: object) -> Hashable:
    """What decides whether a value passes."""
    kind = type(value)
    if issubclass(kind, (torch.Tensor, np.ndarray)):
        return kind, value.shape, value.dtype
    if issubclass(kind, (bool, int, str, type)):
        return kind, value
    return _UNKNOWN if _holds_others(kind) else kind


@cache
def _holds_others(kind: type) -> bool:
    return issubclass(kind, Iterable)
