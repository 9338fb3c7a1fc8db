"""JSON as it is read and written: objects whose values are not checked yet, or need no check.

These aliases are for what comes from a file or a request, before it becomes a dataclass, and for what leaves as a
report. What is passed on inside is a type of its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

JSONObject: TypeAlias = dict[str, Any]
"""An object that its holder may change."""

JSONMapping: TypeAlias = Mapping[str, Any]
"""An object to read."""
