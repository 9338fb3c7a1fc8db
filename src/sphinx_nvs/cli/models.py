"""`sphinx-nvs models list, show, pull, verify`: available models, and installation of their weights.

Modules that import torch are imported on use, so that `list` and `show` respond at once.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterable, Sequence
from importlib.metadata import entry_points

from rich.console import Console
from rich.table import Column, Table

from sphinx_nvs.cli.options.render_options import ModelsCommand, ModelsList, ModelsPull, ModelsShow, ModelsVerify
from sphinx_nvs.errors import InputError, SphinxError
from sphinx_nvs.json_types import JSONObject
from sphinx_nvs.models.registry import CARDS, PLUGINS, Card, card_named, find_record, locate
from sphinx_nvs.models.registry.resolution import models_folder, weights_path

# Width of tables outside a terminal, or in a narrow one: lines may wrap, words are never split.
_NARROWEST = 100


def models(options: ModelsCommand) -> None:
    """Runs one of the commands.

    Raises:
        InputError: a model is unknown, its licence is not accepted, or its weights are unavailable or damaged.
        OutputError: weights cannot be written.
    """
    if entry_points(group=PLUGINS):
        # They may bring cards; imported here, because plug-ins import torch.
        from sphinx_nvs.plugins import load_plugins

        load_plugins()
    if isinstance(options, ModelsList):
        _list(options)
    elif isinstance(options, ModelsShow):
        _show(options)
    elif isinstance(options, ModelsPull):
        _pull(options)
    else:
        _verify(options)


def _list(options: ModelsList) -> None:
    """Lists the models and whether their weights are installed."""
    if options.json:
        _say_json({"folder": str(models_folder()), "models": [_facts(card) for card in CARDS.values()]})
        return
    columns = ("model", "weights", "size", "licence", "what it is")
    rows = [(card.name, _state(card), _size(card.num_bytes), card.licence.name, card.about) for card in CARDS.values()]
    say_table(columns, rows)
    sys.stdout.write(f"\nWeights are in {models_folder()}; sphinx-nvs models show NAME says how to get them.\n")


def _show(options: ModelsShow) -> None:
    """Prints one model's card, and the path of its weights."""
    card = card_named(options.name)
    facts = _facts(card)
    if options.json:
        _say_json(facts)
        return
    licence = card.licence
    rows = [
        ("model", card.name),
        ("what it is", card.about),
        ("weights", facts["state"] if facts["path"] is None else f"{facts['state']}, {facts['path']}"),
        ("size", f"about {_size(card.num_bytes)}"),
        ("source", f"{card.repo}:{card.file}" if card.repo else card.page),
        ("gated", "yes: accept its terms on its page, then hf auth login, or set HF_TOKEN" if card.gated else "no"),
        ("licence", f"{licence.name}, {licence.url}"),
        ("", licence.summary),
        *([("credit", f'"{licence.credit}" beside every output')] if licence.credit else []),
        ("sha256", facts["sha256"] or "not published; recorded on installation, and checked from then on"),
        *([("needs", ", ".join(card.needs))] if card.needs else []),
        *([] if card.is_shipped else [("get it", card.pull_command)]),
    ]
    width = max(len(name) for name, _ in rows)
    sys.stdout.write("".join(f"{name:<{width}}  {value}\n" for name, value in rows))


def _pull(options: ModelsPull) -> None:
    """Installs each model in turn; wrong names are reported before anything is downloaded."""
    from sphinx_nvs.cli.progress import stage_progress
    from sphinx_nvs.models.registry.installation import adopt, pull

    cards = _named(options.names)
    if not cards:
        raise InputError("models pull", "no model is named", f"name some of: {', '.join(CARDS)}")
    for flag, value in (("--from", options.from_), ("--source", options.source)):
        if value is not None and len(cards) > 1:
            raise InputError(flag, f"{len(cards)} models are named", "name one model")
    if options.from_ is not None and options.source is not None:
        raise InputError("--from", "--source is given, too", "leave one of them out")
    may = {"accept_licence": options.accept_licence, "overwrite": options.overwrite}
    for card in cards:
        with stage_progress() as progress:
            if options.from_ is not None:
                record = adopt(card, options.from_, progress=progress, **may)
            else:
                record = pull(card, source=options.source, progress=progress, **may)
        size = f"{_size(record.num_bytes)}, {record.num_tensors} tensors, sha256 {record.sha256[:12]}…"
        sys.stdout.write(f"{card.name}: {size}: {locate(card)}\n")
        _mention_needs(card)


def _mention_needs(card: Card) -> None:
    """Prints the command for other models that this one needs and that are not installed."""
    missing = [CARDS[name] for name in card.needs if find_record(CARDS[name]) is None]
    if missing:
        sys.stdout.write(f"it also needs: sphinx-nvs models pull {' '.join(other.name for other in missing)}\n")


def _verify(options: ModelsVerify) -> None:
    """Checks every file and reports each, then fails if any is damaged."""
    from sphinx_nvs.cli.progress import stage_progress
    from sphinx_nvs.models.registry.installation import verify

    named = _named(options.names)
    cards = named or [card for card in CARDS.values() if card.is_shipped or weights_path(card).parent.exists()]
    problems: dict[str, SphinxError | None] = {}
    for card in cards:
        with stage_progress() as progress:
            try:
                verify(card, progress)
                problems[card.name] = None
            except SphinxError as error:
                problems[card.name] = error
    if options.json:
        _say_json({name: {"ok": error is None, "problem": error and str(error)} for name, error in problems.items()})
    else:
        sys.stdout.write("".join(f"{name}: intact\n" for name, error in problems.items() if error is None))
    bad = [error for error in problems.values() if error is not None]
    if len(bad) == 1:
        raise bad[0]
    if bad:
        raise InputError(f"{len(bad)} models", "; ".join(map(str, bad)), "nothing was changed")


def _named(names: Iterable[str]) -> list[Card]:
    return [card_named(name) for name in dict.fromkeys(names)]


def _facts(card: Card) -> JSONObject:
    """A card as plain values for JSON."""
    record = find_record(card)
    return {
        "name": card.name,
        "about": card.about,
        "state": _state(card),
        "path": str(weights_path(card)) if card.is_shipped or record else None,
        "repo": card.repo,
        "file": card.file,
        "page": card.page,
        "gated": card.gated,
        "licence": {
            "name": card.licence.name,
            "url": card.licence.url,
            "summary": card.licence.summary,
            "credit": card.licence.credit,
        },
        "bytes": record.num_bytes if record else card.num_bytes,
        "sha256": record.sha256 if record else card.sha256,
        "source": record.source if record else None,
        "needs": list(card.needs),
        "pull": None if card.is_shipped else card.pull_command,
    }


def _state(card: Card) -> str:
    """Whether the weights are installed, in a word or two."""
    if card.is_shipped:
        return "shipped"
    return "here" if find_record(card) else "not here"


def _size(num_bytes: int) -> str:
    return f"{num_bytes / 1e9:.1f} GB" if num_bytes >= 1e9 else f"{num_bytes / 1e6:.0f} MB"


def _say_json(value: JSONObject) -> None:
    sys.stdout.write(f"{json.dumps(value)}\n")


def say_table(columns: Sequence[str | Column], rows: Iterable[Sequence[str]]) -> None:
    """Prints rows in columns; long cells wrap."""
    table = Table(*columns, box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for row in rows:
        table.add_row(*row)
    width = max(_NARROWEST, shutil.get_terminal_size().columns)
    Console(file=sys.stdout, width=width, highlight=False, markup=False, emoji=False).print(table)
