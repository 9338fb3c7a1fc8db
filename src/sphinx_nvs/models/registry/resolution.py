"""Local weight files, and their resolution from a model name, a path or a repository.

The models folder is $SPHINX_NVS_HOME/models, else $XDG_CACHE_HOME/sphinx-nvs/models, else
~/.cache/sphinx-nvs/models. In it a model has NAME/NAME.safetensors and NAME/record.json.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from sphinx_nvs.errors import InputError, SphinxError
from sphinx_nvs.models.registry.cards import CARDS, Card, card_named
from sphinx_nvs.models.registry.header import check_layout, read_header

HOME = "SPHINX_NVS_HOME"
"""Environment variable: the folder for everything that is downloaded."""

RECORD = "record.json"

_REPO = re.compile(r"[\w.-]+/[\w.-]+")
_PICKLES = (".ckpt", ".pt", ".pth", ".bin")


@dataclass(frozen=True, kw_only=True)
class Record:
    """Facts about an installed file.

    Args:
        name: the model.
        source: repository or path it came from.
        revision: commit of the repository, None for a local file.
        sha256: hash of the installed file.
        num_bytes: its size.
        num_tensors: number of its tensors.
        num_parameters: number of their elements.
    """

    name: str
    source: str
    revision: str | None
    sha256: str
    num_bytes: int
    num_tensors: int
    num_parameters: int


class MissingWeightsError(InputError):
    """Weights that are not installed; `card` is the model's, if the registry has it."""

    def __init__(self, card: Card, where: str, found: str, hint: str) -> None:
        self.card = card
        super().__init__(where, found, hint)


def models_folder() -> Path:
    """The folder of all models; it may not exist yet."""
    home = os.environ.get(HOME)
    if home:
        return Path(home).expanduser() / "models"
    cache = os.environ.get("XDG_CACHE_HOME")
    return (Path(cache) if cache else Path.home() / ".cache") / "sphinx-nvs" / "models"


def weights_path(card: Card) -> Path:
    """The path of a model's weights, installed or not."""
    if card.is_shipped:
        return Path(card.file)
    return models_folder() / card.name / f"{card.name}.safetensors"


def find_record(card: Card) -> Record | None:
    """The record of a model's installation; None if it is not installed, or is shipped.

    Raises:
        SphinxError: the record is damaged.
    """
    path = weights_path(card).with_name(RECORD)
    if card.is_shipped or not path.is_file():
        return None
    try:
        return Record(**json.loads(path.read_text()))
    except (OSError, ValueError, TypeError) as error:
        raise SphinxError(f"{path}: it is damaged; get the model again: {card.pull_command} --overwrite") from error


def locate(card: Card) -> Path:
    """The path of a model's installed weights; checks the file's size, not its hash (see `installation.verify`).

    Raises:
        MissingWeightsError: the model is not installed.
        InputError: the file's size differs from the recorded one.
    """
    path, record = weights_path(card), find_record(card)
    if card.is_shipped:
        return path
    if record is None or not path.is_file():
        raise _missing([card])
    # The size only: hashing gigabytes would take longer than loading them.
    found = path.stat().st_size
    if found != record.num_bytes:
        where, hint = f"weights {path}", f"get them again: {card.pull_command} --overwrite"
        raise InputError(where, f"they have {found} bytes where {record.num_bytes} were recorded", hint)
    return path


def resolve(part: str, spec: str | Path) -> Path:
    """Resolves a user's specification to a weights file.

    Args:
        part: `unet`, `vae`, `clip` or `mvsplat`.
        spec: a model's name, a safetensors file, a folder that contains the card's file, or the hub repository that a
            model was pulled from.

    Raises:
        MissingWeightsError: the model is known but not installed.
        InputError: anything else, or a model that cannot be that part.
    """
    cards = [card for card in CARDS.values() if card.part == part]
    text = str(spec)
    if text in CARDS:
        return locate(_of_part(card_named(text), part))
    path = Path(spec).expanduser()
    if path.exists():
        return _checked(cards, _file_in(cards, path) if path.is_dir() else path)
    # A missing file in a folder looks like OWNER/NAME: by its suffix the user meant a file.
    if _REPO.fullmatch(text) and path.suffix not in (".safetensors", *_PICKLES):
        return _pulled_from(cards, text)
    known = ", ".join(card.name for card in cards)
    raise InputError(part, f"{text!r} is no model and no file", f"name one of: {known}; or give a .safetensors file")


def resolve_all(specs: Mapping[str, str | Path]) -> dict[str, Path]:
    """`resolve` for several parts, with one error for all missing ones.

    Args:
        specs: specification by part.

    Raises:
        MissingWeightsError: lists every missing model and the commands that install them.
        InputError: as `resolve`.
    """
    paths, missing = {}, []
    for part, spec in specs.items():
        try:
            paths[part] = resolve(part, spec)
        except MissingWeightsError as error:
            missing.append(error)
    if len(missing) == 1:
        raise missing[0]
    if missing:
        raise _missing([error.card for error in missing])
    return paths


def _missing(cards: list[Card]) -> MissingWeightsError:
    """The error for missing models; those on the hub share one command."""
    names = ", ".join(card.name for card in cards)
    where = f"{'weights' if len(cards) == 1 else 'the weights'} of {names}"
    found = f"{'it is' if len(cards) == 1 else 'they are'} not in {models_folder()}"
    by_hub = [card for card in cards if card.repo]
    commands = [card.pull_command for card in cards if not card.repo]
    if by_hub:
        accept = " --accept-licence" if any(card.licence.to_accept for card in by_hub) else ""
        commands.insert(0, f"sphinx-nvs models pull {' '.join(card.name for card in by_hub)}{accept}")
    offered = "".join(f" ({card.file} is at {card.page})" for card in cards if not card.repo)
    return MissingWeightsError(cards[0], where, found, f"get them: {' && '.join(commands)}{offered}")


def _of_part(card: Card, part: str) -> Card:
    if card.part != part:
        known = ", ".join(other.name for other in CARDS.values() if other.part == part)
        raise InputError(part, f"{card.name} is {card.about}", f"name one of: {known}")
    return card


def _file_in(cards: list[Card], folder: Path) -> Path:
    """The file in a folder that has a name from one of the cards."""
    for card in cards:
        for name in (card.file, Path(card.file).name, f"{card.name}.safetensors"):
            if (folder / name).is_file():
                return folder / name
    names = ", ".join(dict.fromkeys(Path(card.file).name for card in cards))
    raise InputError(f"folder {folder}", f"it holds none of {names}", "name the file itself")


def _checked(cards: list[Card], path: Path) -> Path:
    """The user's own file, if it can be that part."""
    if path.suffix in _PICKLES:
        command = f"sphinx-nvs models pull {cards[0].name} --from {path}"
        raise InputError(f"weights {path}", "a pickled checkpoint is never loaded", f"convert it once: {command}")
    shapes = read_header(path)
    check_layout(cards[0], path, shapes)
    return path


def _pulled_from(cards: list[Card], repo: str) -> Path:
    """The model that was pulled from that repository."""
    records = [(card, find_record(card)) for card in cards]
    from_there = [card for card, record in records if record is not None and record.source.partition(":")[0] == repo]
    card = next(iter(from_there), None) or next((card for card in cards if card.repo == repo), None)
    if card is not None:
        return locate(card)
    command = f"sphinx-nvs models pull {cards[0].name} --source {repo}"
    raise InputError(f"repository {repo}", "nothing was pulled from there", f"do so first: {command}")
