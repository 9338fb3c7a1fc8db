"""Statements about API keys.

A secret is 32 random bytes, so that its plain sha256 gives nothing away and need not be slow.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets

import sqlalchemy as sa

from sphinx_nvs.engine.store.row_codec import key_from
from sphinx_nvs.engine.store.row_types import KeyRow
from sphinx_nvs.engine.store.tables import KEYS
from sphinx_nvs.json_types import JSONObject


def insert_key(conn: sa.Connection, name: str, limits: JSONObject, now: float | int) -> tuple[KeyRow, str]:
    """Creates a key; returns its row and its secret."""
    secret = f"snvs_{secrets.token_urlsafe(32)}"
    key = KeyRow(id=f"key_{secrets.token_hex(8)}", name=name, hash=hash_of(secret), created_s=float(now), limits=limits)
    conn.execute(sa.insert(KEYS).values(**vars(key)))
    return key, secret


def find_key(conn: sa.Connection, secret: str) -> KeyRow | None:
    """The key of a secret, unless it was revoked.

    The lookup is by hash, which a client that guesses secrets cannot control; the comparison takes constant time.
    """
    wanted = hash_of(secret)
    row = conn.execute(sa.select(KEYS).where(KEYS.c.hash == wanted)).mappings().first()
    if row is None or not hmac.compare_digest(row["hash"], wanted) or row["revoked_s"] is not None:
        return None
    return key_from(row)


def revoke_key(conn: sa.Connection, key_id: str, now: float | int) -> KeyRow | None:
    """Revokes a key; one that is revoked already keeps its first time."""
    is_holding = sa.and_(KEYS.c.id == key_id, KEYS.c.revoked_s.is_(None))
    conn.execute(sa.update(KEYS).where(is_holding).values(revoked_s=float(now)))
    row = conn.execute(sa.select(KEYS).where(KEYS.c.id == key_id)).mappings().first()
    return None if row is None else key_from(row)


def list_keys(conn: sa.Connection) -> list[KeyRow]:
    """Every key, oldest first."""
    return [key_from(row) for row in conn.execute(sa.select(KEYS).order_by(KEYS.c.created_s, KEYS.c.id)).mappings()]


def hash_of(secret: str) -> str:
    """The stored hash of a secret."""
    return hashlib.sha256(secret.encode(errors="surrogatepass")).hexdigest()
