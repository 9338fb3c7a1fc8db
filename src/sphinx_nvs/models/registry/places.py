"""Where weights live on this machine, and how a user may name them: by model, by path, by repository.

The folder of all models is $SPHINX_NVS_HOME/models, else $XDG_CACHE_HOME/sphinx-nvs/models, else
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
"""Environment variable: the folder for everything that is fetched."""

RECORD = "record.json"

_REPO = re.compile(r"[\w.-]+/[\w.-]+")
_PICKLES = (".ckpt", ".pt", ".pth", ".bin")


@dataclass(frozen=True, kw_only=True)
class Record:
    """What is known of a file that was taken in.

    Args:
        name: the model.
        source: repository or path that it came from.
        revision: commit of the repository, None for a local file.
        sha256: of the file as it lies here.
        num_bytes: its size.
        num_tensors: how many it holds.
        num_parameters: how many numbers they hold.
    """

    name: str
    source: str
    revision: str | None
    sha256: str
    num_bytes: int
    num_tensors: int
    num_parameters: int


class MissingWeightsError(InputError):
    """Weights that are not here; `card` says which, if it is a model of the registry's."""

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
    """Where a model's weights are, once they are here."""
    if card.is_shipped:
        return Path(card.file)
    return models_folder() / card.name / f"{card.name}.safetensors"


def find_record(card: Card) -> Record | None:
    """What was recorded when the model was taken in; None if it never was, or is shipped.

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
    """The file of a model's weights; a glance at its size, not a hash (see `store.verify`).

    Raises:
        MissingWeightsError: it is not here.
        InputError: it is not of the size that it had when it was taken in.
    """
    path, record = weights_path(card), find_record(card)
    if card.is_shipped:
        return path
    if record is None or not path.is_file():
        raise _missing([card])
    found = path.stat().st_size
    if found != record.num_bytes:
        where, hint = f"weights {path}", f"get them again: {card.pull_command} --overwrite"
        raise InputError(where, f"they have {found} bytes where {record.num_bytes} were recorded", hint)
    return path


def resolve(part: str, spec: str | Path) -> Path:
    """The weights that a user means.

    Args:
        part: `unet`, `vae`, `clip` or `mvsplat`.
        spec: a model's name, a safetensors file, a folder that holds the one that the card names, or the hub
            repository that a model was pulled from.

    Raises:
        MissingWeightsError: a model that is known and not here.
        InputError: anything else, or a model that cannot be that part.
    """
    cards = [card for card in CARDS.values() if card.part == part]
    text = str(spec)
    if text in CARDS:
        return locate(_of_part(card_named(text), part))
    path = Path(spec).expanduser()
    if path.exists():
        return _checked(cards, _file_in(cards, path) if path.is_dir() else path)
    if _REPO.fullmatch(text) and path.suffix not in (".safetensors", *_PICKLES):
        return _pulled_from(cards, text)
    known = ", ".join(card.name for card in cards)
    raise InputError(part, f"{text!r} is no model and no file", f"name one of: {known}; or give a .safetensors file")


def resolve_all(specs: Mapping[str, str | Path]) -> dict[str, Path]:
    """`resolve` for several parts, with one sentence for all that are not here.

    Args:
        specs: by part.

    Raises:
        MissingWeightsError: lists every missing model and the commands that get them.
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
    """The sentence for models that are not here; those that the hub has take one command."""
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
    """The one file in a folder that bears a name of one of the cards'."""
    for card in cards:
        for name in (card.file, Path(card.file).name, f"{card.name}.safetensors"):
            if (folder / name).is_file():
                return folder / name
    names = ", ".join(dict.fromkeys(Path(card.file).name for card in cards))
    raise InputError(f"folder {folder}", f"it holds none of {names}", "name the file itself")


def _checked(cards: list[Card], path: Path) -> Path:
    """A file of the user's own, if it can be that part."""
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
