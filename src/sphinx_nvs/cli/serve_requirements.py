"""Requirements that the commands `serve`, `keys` and `bench serve` check before they start."""

from __future__ import annotations

from importlib.util import find_spec

from sphinx_nvs.errors import InputError

PACKAGES = ("fastapi", "uvicorn", "multipart", "sse_starlette", "prometheus_client", "sqlalchemy", "alembic", "zmq")
"""Modules of the extra `serve` without which there is no server."""

BURST = 4
"""Burst of a rate limit, as a multiple of requests per second."""


def check_packages() -> None:
    """Raises InputError unless the packages of the extra `serve` are installed."""
    missing = [name for name in (*PACKAGES, "msgspec", "structlog") if find_spec(name) is None]
    if missing:
        found = f"the package {missing[0]} is not installed"
        raise InputError("serve", found, 'install the server\'s packages: pip install "sphinx-nvs[serve]"')
