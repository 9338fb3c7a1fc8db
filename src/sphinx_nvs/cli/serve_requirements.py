"""What the commands `serve`, `keys` and `bench-serve` need before they start."""

from __future__ import annotations

from importlib.util import find_spec

from sphinx_nvs.errors import InputError

PACKAGES = ("fastapi", "uvicorn", "multipart", "sse_starlette", "prometheus_client", "sqlalchemy", "alembic", "zmq")
"""Of the extra `serve`: modules without which there is no server."""

BURST = 4
"""Requests at once, as a multiple of requests a second."""


def check_packages() -> None:
    """Raises InputError unless the packages of the extra `serve` are installed."""
    missing = [name for name in (*PACKAGES, "msgspec", "structlog") if find_spec(name) is None]
    if missing:
        found = f"the package {missing[0]} is not installed"
        raise InputError("serve", found, 'install what servers need: pip install "sphinx-nvs[serve]"')
