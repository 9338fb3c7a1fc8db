"""Shared fixtures: golden data, real captures, determinism. Which tests `scripts/test --fast` leaves out.

`medium.txt` lists the test functions that take a core for longer than `MEDIUM_S`, and files of which most do; they get
the marker `medium`. `scripts/test --record` writes the list anew, function by function, for the files that it runs. A
test that is not on the list counts as quick.
"""

import os
from collections import Counter
from pathlib import Path

import pytest
import shape_checks
import torch

shape_checks.install()

ROOT = Path(__file__).parents[1]
MEDIUM = Path(__file__).with_name("medium.txt")
MEDIUM_S = 0.3


def pytest_addoption(parser):
    parser.addoption("--record-medium", action="store_true", help="write tests/medium.txt anew for the tests that run")


def pytest_configure(config):
    if config.getoption("--record-medium") and not hasattr(config, "workerinput"):
        config.pluginmanager.register(_Recorder())


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """Marks what `medium.txt` lists, before pytest deselects by marks."""
    medium = set(MEDIUM.read_text().split())
    for item in items:
        if {_function(item.nodeid), item.nodeid.partition("::")[0]} & medium:
            item.add_marker(pytest.mark.medium)


def _function(nodeid):
    """A test's name without its parameters."""
    return nodeid.partition("[")[0]


class _Recorder:
    """Adds up the seconds of each test function, fixtures and child processes included, and writes `medium.txt`.

    Seconds are the processor's: they are nearly the same on a busy machine.
    """

    def __init__(self):
        self._seconds = Counter()

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_protocol(self, item):
        before = sum(os.times()[:4])
        try:
            return (yield)
        finally:
            self._seconds[_function(item.nodeid)] += sum(os.times()[:4]) - before

    def pytest_sessionfinish(self):
        measured = {name.partition("::")[0] for name in self._seconds}
        others = set(MEDIUM.read_text().split()) - set(self._seconds) - measured
        kept = {name for name in others if (ROOT / name.partition("::")[0]).is_file()}
        slow = {name for name, seconds in self._seconds.items() if seconds > MEDIUM_S}
        MEDIUM.write_text("".join(f"{name}\n" for name in sorted(kept | slow)))


def _folder(variable: str, default: str) -> Path:
    folder = Path(os.environ.get(variable, ROOT / default))
    if not folder.is_dir():
        pytest.skip(f"{folder} is absent (set {variable} to the folder that holds it)")
    return folder


@pytest.fixture(scope="session")
def parity_dir() -> Path:
    """Golden tensors of the original models; skips where they are absent."""
    return _folder("SPHINX_PARITY_DIR", "../shared/parity")


@pytest.fixture(scope="session")
def captures_dir() -> Path:
    """Real posed photo sequences; skips where they are absent."""
    return _folder("SPHINX_CAPTURES_DIR", "../shared/captures")


@pytest.fixture(scope="session")
def field_dir() -> Path:
    """Small inputs as people really have them; skips where they are absent."""
    return _folder("SPHINX_FIELD_DIR", "../shared/field")


@pytest.fixture(scope="session")
def design_dir() -> Path:
    """The design's documents and models of cost; skips where they are absent."""
    return _folder("SPHINX_DESIGN_DIR", "../shared/design")


@pytest.fixture(autouse=True)
def _repeatable():
    """A seed, and the threads that other processes have: sums differ in their last bit between numbers of threads."""
    threads = torch.get_num_threads()
    torch.manual_seed(0)
    yield
    torch.set_num_threads(threads)
