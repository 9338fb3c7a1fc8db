"""A device's cache: values by key, the least recently used removed first, within a number of bytes.

Only values that can be computed again, bit for bit, are cached: removing one costs time, never
another frame.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field
from typing import TypeVar, cast

from torch import Tensor

_T = TypeVar("_T")


@dataclass(kw_only=True)
class Memory:
    """Values by key, within `limit_bytes`; a larger value is computed each time.

    Args:
        limit_bytes: largest size of all values' tensors together.
    """

    limit_bytes: float
    _held: OrderedDict[Hashable, tuple[object, int]] = field(default_factory=OrderedDict)

    def get(self, key: Hashable, make: Callable[[], _T]) -> _T:
        """The value of a key, computed if it is not cached."""
        if key in self._held:
            self._held.move_to_end(key)
            return cast(_T, self._held[key][0])
        value = make()
        self.put(key, value)
        return value

    def put(self, key: Hashable, value: object) -> None:
        """Caches a value, in place of the key's previous one."""
        self._held[key] = (value, num_bytes(value))
        self._held.move_to_end(key)
        # A value larger than the limit evicts everything, itself last: it is computed each time, and memory stays
        # bounded.
        while self.used_bytes > self.limit_bytes:
            self._held.popitem(last=False)

    def clear(self) -> None:
        """Forgets everything."""
        self._held.clear()

    def __contains__(self, key: Hashable) -> bool:
        return key in self._held

    @property
    def used_bytes(self) -> int:
        """Size of all values' tensors."""
        return sum(size for _, size in self._held.values())


def num_bytes(value: object) -> int:
    """Bytes of all tensors that a value reaches through fields, sequences and mappings, each storage counted once."""
    storages: dict[int, int] = {}
    _gather(value, storages, set())
    return sum(storages.values())


def _gather(value: object, storages: dict[int, int], seen: set[int]) -> None:
    """Adds the storages that a value reaches, by address."""
    # Values share parts (a scene's photos), and may refer to each other in circles.
    if id(value) in seen:
        return
    seen.add(id(value))
    if isinstance(value, Tensor):
        storage = value.untyped_storage()
        storages[storage.data_ptr()] = storage.nbytes()
    elif isinstance(value, Mapping):
        for part in value.values():
            _gather(part, storages, seen)
    elif isinstance(value, list | tuple):
        for part in value:
            _gather(part, storages, seen)
    elif hasattr(value, "__dict__") and not isinstance(value, type) and not callable(value):
        for part in vars(value).values():
            _gather(part, storages, seen)
