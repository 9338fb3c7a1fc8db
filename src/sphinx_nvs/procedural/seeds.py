"""Reproducible random generators, disjoint by split.

A generator is keyed by (split, purpose, numbers): numpy's SeedSequence hashes the key, so that the training, validation
and test worlds of one seed share nothing, and neither do a world's layout and its camera path.
"""

from __future__ import annotations

import zlib

import numpy as np

from sphinx_nvs.errors import InputError

Number = float | int
SPLITS = ("train", "val", "test")


def check_choice(where: str, value: str, choices: tuple[str, ...]) -> None:
    """Raises InputError unless `value` is one of `choices`."""
    if value not in choices:
        raise InputError(where, f"unknown value {value!r}", f"choose one of {', '.join(choices)}")


def generator(split: str, purpose: str, *numbers: int) -> np.random.Generator:
    """A new generator for this key.

    Raises:
        InputError: the split is unknown, or a number is negative.
    """
    check_choice("split", split, SPLITS)
    for number in numbers:
        if number < 0:
            raise InputError("seed", f"it is {number}", "give an integer from 0")
    return np.random.default_rng([zlib.crc32(split.encode()), zlib.crc32(purpose.encode()), *numbers])


def uniform(rng: np.random.Generator, low: Number, high: Number) -> float:
    """A uniform float in [low, high)."""
    return float(rng.uniform(low, high))


def choose(rng: np.random.Generator, *options: str) -> str:
    """One of `options`, all equally likely."""
    return options[int(rng.integers(len(options)))]
