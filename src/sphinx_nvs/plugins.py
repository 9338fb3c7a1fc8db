"""Plug-ins: regressors, denoisers and presets by name, from this package and from others.

A package adds its own by calling `register_regressor`, `register_denoiser` and `register_preset`. To have that done
whenever a name is looked up, on the command line and in a server's workers too, it declares an entry point of the group
`sphinx_nvs.presets`: a module that registers when it is imported, or a function that registers when it is called.

    [project.entry-points."sphinx_nvs.presets"]
    mine = "my_package:register"
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import TypeVar

import torch

from sphinx_nvs.errors import InputError
from sphinx_nvs.models.base import Denoiser, Regressor
from sphinx_nvs.models.registry import CARDS, PLUGINS, Card
from sphinx_nvs.plan import Levers
from sphinx_nvs.plan.levers import NO_SAVINGS


@dataclass(frozen=True, kw_only=True)
class LoadOptions:
    """How a model is to be loaded; see `presets.load_preset`.

    Args:
        device: where it computes.
        dtype: type that a denoiser's network computes in.
        compile: whether elementwise work is fused by a compiler.
        offload: whether idle parts wait in the CPU's memory.
        random_weights: `full` or `tiny` for an untrained model of that size; `paths` is empty then.
        paths: files of the weights, by part.
    """

    device: torch.device
    dtype: torch.dtype
    compile: bool = False
    offload: bool = False
    random_weights: str | None = None
    paths: Mapping[str, Path] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class RegressorEntry:
    """A registered regressor; see `register_regressor`."""

    load: Callable[[LoadOptions], Regressor]
    parts: Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class DenoiserEntry:
    """A registered denoiser; see `register_denoiser`."""

    load: Callable[[LoadOptions], Denoiser]
    parts: Mapping[str, str]
    size_multiple: int
    cpu_only: bool


@dataclass(frozen=True, kw_only=True)
class Preset:
    """A registered preset; see `register_preset`."""

    regressor: RegressorEntry
    denoiser: DenoiserEntry
    short_side: int
    window: int
    levers: Levers
    profile: str | Path
    temperature: float

    @property
    def parts(self) -> dict[str, str]:
        """By part, the model whose weights are used unless another is given."""
        return {**self.regressor.parts, **self.denoiser.parts}

    @property
    def size_multiple(self) -> int:
        """Frames' sides are multiples of so many pixels."""
        return self.denoiser.size_multiple


REGRESSORS: dict[str, RegressorEntry] = {}
DENOISERS: dict[str, DenoiserEntry] = {}
PRESETS: dict[str, Preset] = {}

Entry = TypeVar("Entry", RegressorEntry, DenoiserEntry, Preset)


def register_regressor(
    name: str,
    load: Callable[[LoadOptions], Regressor],
    *,
    parts: Mapping[str, str] | None = None,
    cards: Sequence[Card] = (),
) -> None:
    """Makes a regressor known by name.

    Args:
        name: name for `register_preset`.
        load: makes the regressor.
        parts: by part, the card of the weights that it loads, e.g. `{"depth": "my-depth-net"}`; the user can give
            others. Empty if it has none.
        cards: cards of models that are not known yet: their licences, where they come from, how to recognise a file.

    Raises:
        InputError: the name, or a card's, is taken.
    """
    _add(REGRESSORS, "regressor", name, RegressorEntry(load=load, parts=dict(parts or {})))
    _add_cards(cards)


def register_denoiser(
    name: str,
    load: Callable[[LoadOptions], Denoiser],
    *,
    size_multiple: int,
    parts: Mapping[str, str] | None = None,
    cards: Sequence[Card] = (),
    cpu_only: bool = False,
) -> None:
    """Makes a denoiser known by name.

    Args:
        name: name for `register_preset`.
        load: makes the denoiser.
        size_multiple: the denoiser's own, needed before it is loaded: a server checks requests by it.
        parts: see `register_regressor`.
        cards: see `register_regressor`.
        cpu_only: whether it computes on the CPU whatever devices there are.

    Raises:
        InputError: the name, or a card's, is taken.
    """
    entry = DenoiserEntry(load=load, parts=dict(parts or {}), size_multiple=size_multiple, cpu_only=cpu_only)
    _add(DENOISERS, "denoiser", name, entry)
    _add_cards(cards)


def register_preset(
    name: str,
    *,
    regressor: str,
    denoiser: str,
    short_side: int = 256,
    window: int = 21,
    levers: Levers = NO_SAVINGS,
    profile: str | Path = "paper-seva-mvsplat",
    temperature: float = 1.0,
) -> None:
    """Makes a pair of models known by name: to `load_preset`, `--preset` and servers.

    Args:
        name: name of the preset.
        regressor: name of a registered regressor.
        denoiser: name of a registered denoiser.
        short_side: shorter side of frames in pixels, unless a request gives a size.
        window: most views that the denoiser takes together; longer paths are made in units, see `long_paths`.
        levers: step economy where the profile has none of its own.
        profile: rules to plan by: a file that `sphinx-nvs profile` wrote, or the name of one that the package ships.
        temperature: below 1 for a denoiser whose samples are better drawn nearer its mean, see `ComputePlan`.

    Raises:
        InputError: the name is taken, or a model is not registered.
    """
    preset = Preset(
        regressor=_found(REGRESSORS, "regressor", regressor),
        denoiser=_found(DENOISERS, "denoiser", denoiser),
        short_side=short_side,
        window=window,
        levers=levers,
        profile=profile,
        temperature=temperature,
    )
    _add(PRESETS, "preset", name, preset)


def preset_named(name: str) -> Preset:
    """The preset of that name; loads plug-ins only where the name is none of the package's own.

    Raises:
        InputError: there is none, or a plug-in cannot be loaded.
    """
    # Plug-ins are imported only when needed: a broken one must not stop the package's own presets.
    if name not in PRESETS:
        load_plugins()
    return _found(PRESETS, "preset", name)


def preset_names() -> tuple[str, ...]:
    """Every preset, plug-ins' included.

    Raises:
        InputError: a plug-in cannot be loaded.
    """
    load_plugins()
    return tuple(PRESETS)


def load_plugins() -> None:
    """Runs every installed entry point of `PLUGINS`, once a process.

    Raises:
        InputError: one of them cannot be loaded.
    """
    for point in entry_points(group=PLUGINS):
        _load_plugin(point)


@cache
def _load_plugin(point: EntryPoint) -> None:
    try:
        loaded = point.load()
        if callable(loaded):
            loaded()
    # Whatever a plug-in raises while it is imported: it is code of others.
    except Exception as error:
        found = f"its entry point {point.value} fails ({type(error).__name__}: {error})"
        package = point.dist.name if point.dist else point.value.partition(":")[0]
        raise InputError(f"plug-in {point.name}", found, f"fix or uninstall {package}") from error


def _add(entries: dict[str, Entry], kind: str, name: str, entry: Entry) -> None:
    if name in entries:
        raise InputError(kind, f"{name!r} is registered already", "choose another name")
    entries[name] = entry


def _add_cards(cards: Sequence[Card]) -> None:
    for card in cards:
        if card.name in CARDS:
            raise InputError("model", f"there is a card of {card.name!r} already", "choose another name")
        CARDS[card.name] = card


def _found(entries: Mapping[str, Entry], kind: str, name: str) -> Entry:
    if name not in entries:
        raise InputError(kind, f"there is no {name!r}", f"choose one of: {', '.join(entries)}")
    return entries[name]
