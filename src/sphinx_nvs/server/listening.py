"""The server's socket: it listens before anything is loaded, so that an address that is taken is told at once."""

from __future__ import annotations

import socket

from sphinx_nvs.errors import InputError
from sphinx_nvs.server.config import ServerConfig


def bound_socket(config: ServerConfig) -> socket.socket:
    """A socket that listens.

    Raises:
        InputError: the address is taken, or is none of this machine's.
    """
    family = socket.AF_INET6 if ":" in config.host else socket.AF_INET
    try:
        listening = socket.create_server((config.host, config.port), family=family, backlog=2048)
    except (OSError, UnicodeError) as error:
        found = f"{config.host} port {config.port} cannot be used ({_reason(error)})"
        raise InputError("--host, --port", found, "choose another port, or stop what listens there") from error
    # Connections inherit it. Without it, every answer of two packets waits 40 ms for the first one's acknowledgement.
    listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listening


def url_of(listening: socket.socket) -> str:
    """The address of a server that listens there."""
    host, port = listening.getsockname()[:2]
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"


def _reason(error: OSError | UnicodeError) -> str:
    """The system's own words."""
    text = getattr(error, "strerror", None) or str(error)
    # create_server adds the address, which the sentence has already.
    return text.partition(" (while attempting")[0]
