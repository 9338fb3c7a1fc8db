"""Fixtures for tests that run with both clients of a real server around a fake engine."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "server"))
sys.path.insert(0, str(Path(__file__).parents[1] / "posing"))

from client_fakes import QUICK, Served, Waiting
from server_fakes import open_engine

from sphinx_nvs.client import Client


@pytest.fixture
def engine(tmp_path):
    folder = tmp_path / "engine"
    folder.mkdir()
    return open_engine(folder)


@pytest.fixture
def served(engine):
    server = Served(engine)
    yield server
    server.stop()


@pytest.fixture(params=[Client, Waiting], ids=["sync", "async"])
def kind(request):
    return request.param


@pytest.fixture
def client(served, kind):
    with kind(served.url, retrying=QUICK) as made:
        yield made
