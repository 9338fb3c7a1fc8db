"""Folders of stored samples that are read one sample at a time, and mixtures of them.

A pool may grow while a run learns from it: shards written since are taken in once in `FRESH_S` seconds. What such a run
draws then depends on when they appeared, and the run cannot be repeated bit for bit.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, Generic, cast

import torch
from safetensors import safe_open

from sphinx_nvs.errors import InputError
from sphinx_nvs.training.samples import Stored

FRESH_S = 60.0


class StoredPool(Generic[Stored]):
    """The samples of a folder's shards; memory holds only what was drawn last.

    Args:
        folder: folder of shards, as `save_samples` writes them.
        kind: class of the samples.

    Raises:
        InputError: there are no samples, or they are of another kind.
    """

    def __init__(self, folder: Path, kind: type[Stored]) -> None:
        self.folder, self.kind = folder, kind
        self._names = [field.name for field in fields(cast(Any, kind))]
        self._places: list[tuple[Path, int]] = []
        self._read: set[Path] = set()
        self._lock, self._refreshed = threading.Lock(), 0.0
        self._refresh()
        if not self._places:
            raise InputError(f"pool {folder}", "it holds no samples", "make them with decoder-pool or capture-pool")

    def __len__(self) -> int:
        return len(self._places)

    def draw(self, generator: torch.Generator) -> Stored:
        """One sample, all of them equally likely."""
        # Several threads draw at once; one of them reads the folder.
        with self._lock:
            if time.monotonic() - self._refreshed > FRESH_S:
                self._refresh()
        return self._load(*self._places[int(torch.randint(len(self._places), (), generator=generator))])

    def _refresh(self) -> None:
        """Takes in shards that were not there before, in order of name."""
        for path in sorted(self.folder.glob("*.safetensors")):
            if path not in self._read:
                self._read.add(path)
                self._places += [(path, index) for index in range(self._count(path))]
        self._refreshed = time.monotonic()

    def _count(self, path: Path) -> int:
        with safe_open(path, framework="pt") as shard:
            keys = set(shard.keys())
        missing = [name for name in self._names if f"0.{name}" not in keys]
        if missing:
            hint = f"name a pool of {self.kind.__name__}s, see docs/how-to/train-the-embedded-pair.md"
            raise InputError(f"pool {path}", f"its samples have no {missing[0]}", hint)
        return 1 + max(int(key.partition(".")[0]) for key in keys)

    def _load(self, path: Path, index: int) -> Stored:
        with safe_open(path, framework="pt") as shard:
            return self.kind(**{name: shard.get_tensor(f"{index}.{name}") for name in self._names})


class Mixture(Generic[Stored]):
    """Draws from several pools, each by its share.

    Args:
        pools: to draw from.
        shares: how likely each is, in any unit.
    """

    def __init__(self, pools: Sequence[StoredPool[Stored]], shares: Sequence[float]) -> None:
        self.pools, self.shares = pools, torch.tensor(list(shares))

    def __call__(self, generator: torch.Generator) -> Stored:
        """One sample."""
        return self.pools[int(torch.multinomial(self.shares, 1, generator=generator))].draw(generator)
