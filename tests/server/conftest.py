"""A client of an app around a fake engine."""

import sys
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

sys.path.insert(0, str(Path(__file__).parents[1] / "posing"))

from server_fakes import open_engine

from sphinx_nvs.server.app import create_app
from sphinx_nvs.server.server_config import KeyLimits, ServerConfig

HERE = "http://localhost"
FREE = KeyLimits(rate_per_s=1e6, burst=1_000_000)


@pytest.fixture
def engine(tmp_path):
    return open_engine(tmp_path)


@pytest.fixture
def make_client(engine):
    """Clients of apps with other settings."""
    clients = []

    def make(**settings):
        config = ServerConfig(**{"key": FREE, "has_demo": False, **settings})
        client = TestClient(create_app(engine, config), base_url=HERE, raise_server_exceptions=False)
        client.__enter__()
        clients.append(client)
        return client

    yield make
    for client in clients:
        client.__exit__(None, None, None)


@pytest.fixture
def client(make_client):
    return make_client()
