"""Under which names the server answers.

A page of another site may have its own name lead to 127.0.0.1 (DNS rebinding): to a browser it then is this server's
own page. What it cannot change is the name in `Host`. So on loopback only loopback's names are answered.
"""

from __future__ import annotations

import re

from sphinx_nvs.server.config import ServerConfig

LOOPBACK = ("localhost", "127.0.0.1", "[::1]")
"""What a server on loopback is called."""

_HOST = re.compile(r"(\[[^\]]+\]|[^:]+?)\.?(?::\d*)?")


def is_answered(host: str | None, config: ServerConfig) -> bool:
    """Whether requests under this name are answered.

    Args:
        host: the header, port included; None if there is none, which no browser does.
        config: settings; see `ServerConfig.hosts`.
    """
    if host is None or "*" in config.hosts:
        return True
    if not config.is_loopback and not config.hosts:
        return True
    own = (*LOOPBACK, f"[{config.host}]" if ":" in config.host else config.host) if config.is_loopback else ()
    return _name_in(host) in {_name_in(name) for name in (*config.hosts, *own)}


def _name_in(host: str) -> str:
    """The name without its port, in small letters."""
    found = _HOST.fullmatch(host.strip().lower())
    return found[1] if found else host
