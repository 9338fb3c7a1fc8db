"""Durable jobs: rows, events, scenes and keys in SQLite or PostgreSQL; see docs/explanation/durability.md."""

from sphinx_nvs.engine.store.row_types import KeyRow, SceneRow, Swept, Usage
from sphinx_nvs.engine.store.store import JobStore

__all__ = ["JobStore", "KeyRow", "SceneRow", "Swept", "Usage"]
