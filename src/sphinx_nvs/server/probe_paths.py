"""Addresses of probes and metrics, which stay reachable when a server is crowded, without a key."""

from __future__ import annotations

_NAMES = ("healthz", "readyz", "metrics", "health")
PROBES = frozenset({*(f"/{name}" for name in _NAMES), *(f"/v1/{name}" for name in _NAMES[:3])})
"""Paths; `/health` is what load generators expect."""


def is_probe(path: str) -> bool:
    """Returns whether a path is a probe's."""
    return path in PROBES
