"""Shared fixtures: golden data, real captures, determinism."""

import os
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[1]


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


@pytest.fixture(autouse=True)
def _repeatable():
    """A seed, and the threads that other processes have: sums differ in their last bit between numbers of threads."""
    threads = torch.get_num_threads()
    torch.manual_seed(0)
    yield
    torch.set_num_threads(threads)
