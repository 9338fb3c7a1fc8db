"""The server's socket. It listens before models are loaded, so that an address in use is reported at once."""

from __future__ import annotations

import socket

from sphinx_nvs.errors import InputError
from sphinx_nvs.server.server_config import ServerConfig


def bound_socket(config: ServerConfig) -> socket.socket:
    """Returns a listening socket.

    Raises:
        InputError: the address is in use, or is not one of this machine's.
    """
    family = socket.AF_INET6 if ":" in config.host else socket.AF_INET
    try:
        listening = socket.create_server((config.host, config.port), family=family, backlog=2048)
    except (OSError, UnicodeError) as error:
        found = f"{config.host} port {config.port} cannot be used ({_reason(error)})"
        raise InputError("--host, --port", found, "choose another port, or stop the program that uses it") from error
    # Accepted connections inherit it. Without it, a response of two packets waits 40 ms for an acknowledgement.
    listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if hasattr(socket, "TCP_USER_TIMEOUT"):
        # A client that acknowledges nothing, or reads nothing of what the system still holds, loses its connection:
        # the server has closed it by then, so that no timer of its own could.
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, round(1000 * config.wait_s))
    return listening


def url_of(listening: socket.socket) -> str:
    """Returns the URL of a server that listens on a socket."""
    host, port = listening.getsockname()[:2]
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"


def _reason(error: OSError | UnicodeError) -> str:
    """Returns the operating system's description."""
    text = getattr(error, "strerror", None) or str(error)
    # create_server appends the address, which the sentence already names.
    return text.partition(" (while attempting")[0]
