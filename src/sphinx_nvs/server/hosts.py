"""Names under which the server answers.

A web page can have its own name resolve to 127.0.0.1 (DNS rebinding); to a browser, this server then belongs to that
page's site. The page cannot change the name in `Host`, so a server on loopback answers only loopback's names.
"""

from __future__ import annotations

import re

from sphinx_nvs.server.server_config import ServerConfig

LOOPBACK = ("localhost", "127.0.0.1", "[::1]")
"""Names of a server on loopback."""

_HOST = re.compile(r"(\[[^\]]+\]|[^:]+?)\.?(?::\d*)?")


def is_accepted(host: str | None, config: ServerConfig) -> bool:
    """Returns whether requests under this name are answered.

    Args:
        host: the header, port included; None if it is missing, which no browser does.
        config: settings; see `ServerConfig.hosts`.
    """
    if host is None or "*" in config.hosts:
        return True
    if not config.is_loopback and not config.hosts:
        return True
    own = (*LOOPBACK, f"[{config.host}]" if ":" in config.host else config.host) if config.is_loopback else ()
    return _name_of(host) in {_name_of(name) for name in (*config.hosts, *own)}


def _name_of(host: str) -> str:
    """Returns the name without its port, in lower case."""
    found = _HOST.fullmatch(host.strip().lower())
    return found[1] if found else host
