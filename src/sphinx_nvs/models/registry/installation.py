"""Installation and verification of weights.

A model's folder is built under a temporary name, filled, checked, and renamed, so installation is atomic.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import shutil
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

from safetensors.torch import save

from sphinx_nvs.errors import InputError
from sphinx_nvs.media import written_beside
from sphinx_nvs.models.registry.cards import Card, Layout
from sphinx_nvs.models.registry.convert import is_pickled, tensors_from_pickle
from sphinx_nvs.models.registry.header import check_layout, read_header
from sphinx_nvs.models.registry.hub import download, look_up
from sphinx_nvs.models.registry.resolution import RECORD, Record, find_record, locate, weights_path

Progress = Callable[[str, int, int], None]
"""Called with the current activity, the megabytes done, and the megabytes in total."""

# 4 MiB: calls cost nothing beside the hashing, and progress is still reported often.
_CHUNK = 1 << 22


def pull(
    card: Card,
    *,
    source: str | None = None,
    accept_licence: bool = False,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Record:
    """Downloads and installs a model from the hub.

    Args:
        card: the model.
        source: another repository, as `OWNER/NAME` or `OWNER/NAME:FILE`; None for the card's.
        accept_licence: whether the user accepts the model's licence.
        overwrite: whether to download it again if it is installed.
        progress: reports the verification; the hub's client shows its own progress bar of the transfer.

    Raises:
        InputError: the licence is not accepted, the model cannot be downloaded, or the file is not this model's.
        OutputError: it cannot be written.
    """
    folder = _install_folder(card, accept_licence, overwrite)
    repo, _, path = (source or card.repo or "").partition(":")
    if not repo:
        hint = f"fetch {card.file} from {card.page} with a browser, then: {card.pull_command}"
        raise InputError(f"model {card.name}", "its owners offer no direct download", hint)
    remote = look_up(repo, path or card.file)
    wanted = replace(card, sha256=card.sha256 or remote.sha256)
    with written_beside(folder) as part:
        fetched = download(remote, part / "download")
        record = _install(wanted, fetched, part, f"{repo}:{remote.path}", progress)
        record = replace(record, revision=remote.revision)
        shutil.rmtree(part / "download")
        _finish(folder, part, record)
    return record


def adopt(
    card: Card,
    source: Path,
    *,
    accept_licence: bool = False,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Record:
    """Installs the user's own file: hard-linked where possible, else copied; converted if it is pickled.

    Args:
        card: the model.
        source: the file, or a folder that contains it under its owners' name.
        accept_licence: whether the user accepts the model's licence.
        overwrite: whether to replace an installed file.
        progress: reports the verification.

    Raises:
        InputError: the licence is not accepted, or the file is missing, damaged or not this model's.
        OutputError: it cannot be written.
    """
    folder = _install_folder(card, accept_licence, overwrite)
    file = _file_of(card, source.expanduser())
    with written_beside(folder) as part:
        record = _install(card, file, part, str(file.absolute()), progress)
        _finish(folder, part, record)
    return record


def verify(card: Card, progress: Progress | None = None) -> Record | None:
    """Reads a model's whole file and compares it with its record.

    Returns:
        Its record; None for a shipped model.

    Raises:
        InputError: it is not installed, or it differs from its record.
    """
    path, record = locate(card), find_record(card)
    wanted = record.sha256 if record else card.sha256
    found = sha256_of(path, progress)
    if found != wanted:
        hint = f"get it again: {card.pull_command} --overwrite" if record else "install sphinx-nvs again"
        raise InputError(f"weights {path}", f"sha256 is {found[:12]}… where {str(wanted)[:12]}… was recorded", hint)
    check_layout(card, path, read_header(path))
    return record


def sha256_of(path: Path, progress: Progress | None = None) -> str:
    """The hash of a file, in hexadecimal digits."""
    digest, done, total = hashlib.sha256(), 0, path.stat().st_size
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
            done += len(chunk)
            if progress is not None:
                progress(f"check {path.name}", done >> 20, total >> 20)
    return digest.hexdigest()


def _install_folder(card: Card, accept_licence: bool, overwrite: bool) -> Path:
    """The folder to create, once all preconditions hold."""
    if card.is_shipped:
        raise InputError(f"model {card.name}", "it is shipped with this package", "use it: there is nothing to install")
    if card.licence.to_accept and not accept_licence:
        found = f"its licence is the {card.licence.name} ({card.licence.url})"
        raise InputError(f"model {card.name}", found, "read it, and add --accept-licence if you accept it")
    folder = weights_path(card).parent
    if folder.exists() and not overwrite:
        hint = f"check it: sphinx-nvs models verify {card.name}; or add --overwrite to get it again"
        raise InputError(f"model {card.name}", f"it is in {folder}", hint)
    return folder


def _file_of(card: Card, source: Path) -> Path:
    """The file to adopt; links are resolved, because hub caches consist of links."""
    if source.is_dir():
        names = (card.file, Path(card.file).name, f"{card.name}.safetensors")
        found = next((source / name for name in names if (source / name).is_file()), None)
        if found is None:
            wanted = ", ".join(dict.fromkeys(Path(name).name for name in names))
            raise InputError(f"folder {source}", f"it holds none of {wanted}", "name the file itself with --from")
        source = found
    if not source.is_file():
        raise InputError(f"--from {source}", "there is no such file or folder", "correct the path")
    return source.resolve()


def _install(card: Card, file: Path, part: Path, source: str, progress: Progress | None) -> Record:
    """Fills `part` with the weights; checks them before they are moved to their final place."""
    # Before anything is converted: a pickled file is read only if it is the one that was expected, where that is known.
    arrived = sha256_of(file, progress) if card.sha256 else None
    if arrived is not None and arrived != card.sha256:
        found = f"sha256 is {arrived[:12]}… where {str(card.sha256)[:12]}… should be"
        raise InputError(f"weights {file}", found, "get the file again")
    path = part / weights_path(card).name
    part.mkdir(exist_ok=True)
    shapes = _put(card, file, path)
    return Record(
        name=card.name,
        source=source,
        revision=None,
        # A hard link is the file that was just hashed; a copy or a conversion is hashed anew.
        sha256=arrived if arrived and path.samefile(file) else sha256_of(path, progress),
        num_bytes=path.stat().st_size,
        num_tensors=len(shapes),
        num_parameters=sum(math.prod(shape) for shape in shapes.values()),
    )


def _put(card: Card, file: Path, path: Path) -> Layout:
    """Links, copies or converts a file to `path`; returns its layout."""
    if not is_pickled(file):
        shapes = read_header(file)
        check_layout(card, file, shapes)
        _link_or_copy(file, path)
        return shapes
    tensors = {name: value.contiguous() for name, value in tensors_from_pickle(file, card.prefix).items()}
    check_layout(card, file, {name: tuple(value.shape) for name, value in tensors.items()})
    path.write_bytes(save(tensors))
    return read_header(path)


def _link_or_copy(file: Path, path: Path) -> None:
    try:
        # A hard link costs no space and survives the removal of the original; it cannot cross file systems.
        os.link(file, path)
    except OSError:
        shutil.copyfile(file, path)


def _finish(folder: Path, part: Path, record: Record) -> None:
    """Writes the record and removes the former folder."""
    (part / RECORD).write_text(json.dumps(asdict(record), indent=2) + "\n")
    with contextlib.suppress(FileNotFoundError):
        shutil.rmtree(folder)
