"""`sphinx-nvs keys create, list, revoke`: API keys in a server's folder, also while the server runs."""

from __future__ import annotations

import json
import sys
import time
from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from sphinx_nvs.cli.key_store import opened_store
from sphinx_nvs.cli.options.serve_options import KeysCommand, KeysCreate, KeysList, KeysRevoke, server_folder
from sphinx_nvs.cli.serve_requirements import BURST, check_packages
from sphinx_nvs.errors import InputError
from sphinx_nvs.json_types import JSONObject

if TYPE_CHECKING:
    from sphinx_nvs.engine.store.row_types import KeyRow

LONGEST_NAME = 200
"""Characters."""


def keys(options: KeysCommand) -> None:
    """Runs one of the commands.

    Raises:
        InputError: the folder, a name, a limit or an id cannot be used.
        OutputError: the folder cannot be written.
    """
    check_packages()
    if isinstance(options, KeysCreate):
        _create(options)
    elif isinstance(options, KeysList):
        _list(options)
    else:
        _revoke(options)


def _create(options: KeysCreate) -> None:
    """Creates a key."""
    if not options.name.strip() or len(options.name) > LONGEST_NAME or not options.name.isprintable():
        raise InputError("NAME", f"it is {options.name[:60]!r}", f"give 1 to {LONGEST_NAME} printable characters")
    limits = _limits(options)
    with opened_store(server_folder(options.folder), options.database) as store:
        key, secret = store.add_key(options.name, now=time.time(), limits=limits)
    if options.json:
        _say_json({**_facts(key), "key": secret})
        return
    sys.stdout.write(f"{secret}\n")
    sys.stderr.write(
        f"This is the key of {key.name}; it is shown only once. Send it as Authorization: Bearer KEY.\n"
        f"To revoke it: sphinx-nvs keys revoke {key.id}\n"
    )


def _limits(options: KeysCreate) -> dict[str, float | int]:
    """The key's own limits by their names in `server.config.KeyLimits`; only those given."""
    for name in ("rate", "views", "scenes", "storage_gb", "streams"):
        value = getattr(options, name)
        if value is not None and not 0 < value < float("inf"):
            raise InputError(f"--{name.replace('_', '-')}", f"it is {value:g}", "give a number above 0")
    burst = None if options.rate is None else max(1, round(BURST * options.rate))
    stored = None if options.storage_gb is None else max(1, round(1e9 * options.storage_gb))
    given = {
        "rate_per_s": options.rate,
        "burst": burst,
        "running_jobs": options.views,
        "stored_scenes": options.scenes,
        "stored_bytes": stored,
        "streams": options.streams,
    }
    return {name: value for name, value in given.items() if value is not None}


def _list(options: KeysList) -> None:
    """Lists all keys, oldest first."""
    with opened_store(server_folder(options.folder), options.database, is_new=False) as store:
        rows = [{**_facts(key), **asdict(store.usage(key.id))} for key in store.list_keys()]
    if options.json:
        _say_json({"keys": rows})
        return
    if not rows:
        sys.stdout.write("no keys; create one: sphinx-nvs keys create NAME\n")
        return
    from rich.table import Column

    from sphinx_nvs.cli.models import say_table

    names = ("name", "made", "state", "unfinished", "scenes", "stored", "its own limits")
    say_table((Column("key", no_wrap=True), *names), [_cells(row) for row in rows])


def _revoke(options: KeysRevoke) -> None:
    """Revokes keys; all or none of them."""
    if not options.ids:
        raise InputError("keys revoke", "no key is named", "give ids; sphinx-nvs keys list shows them")
    with opened_store(server_folder(options.folder), options.database, is_new=False) as store:
        known = {key.id for key in store.list_keys()}
        for key_id in options.ids:
            if key_id not in known:
                shown = "a secret; keys are named by their ids" if key_id.startswith("snvs_") else f"no key {key_id!r}"
                raise InputError("keys revoke", f"there is {shown}", "see sphinx-nvs keys list")
        revoked = [store.revoke_key(key_id, now=time.time()) for key_id in dict.fromkeys(options.ids)]
    facts = [_facts(key) for key in revoked if key is not None]
    if options.json:
        _say_json({"keys": facts})
        return
    sys.stdout.write("".join(f"{key['id']} of {key['name']} is revoked\n" for key in facts))


def _facts(key: KeyRow) -> JSONObject:
    """A key as plain values for JSON."""
    return {
        "id": key.id,
        "name": key.name,
        "created_at": _moment(key.created_s),
        "revoked_at": None if key.revoked_s is None else _moment(key.revoked_s),
        "limits": key.limits,
    }


def _cells(row: JSONObject) -> tuple[str, ...]:
    """A row of the table."""
    state = "holds" if row["revoked_at"] is None else f"revoked {row['revoked_at'][:10]}"
    stored = f"{row['stored_bytes'] / 1e6:.1f} MB"
    counts = (str(row["running_jobs"]), str(row["stored_scenes"]))
    return (row["id"], row["name"], row["created_at"][:10], state, *counts, stored, _limits_text(row["limits"]))


def _limits_text(limits: JSONObject) -> str:
    """A key's own limits by the names of their flags."""
    units = {"stored_bytes": ("storage-gb", 1e-9), "rate_per_s": ("rate", 1.0), "running_jobs": ("views", 1.0)}
    units |= {"stored_scenes": ("scenes", 1.0), "streams": ("streams", 1.0)}
    return ", ".join(f"{name} {limits[key] * unit:g}" for key, (name, unit) in units.items() if key in limits) or "none"


def _moment(seconds: float) -> str:
    """Epoch seconds as ISO 8601."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")


def _say_json(value: JSONObject) -> None:
    sys.stdout.write(f"{json.dumps(value)}\n")
