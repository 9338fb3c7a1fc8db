"""Versions that results depend on, for reports."""

from __future__ import annotations

import platform

import numpy as np
import torch

from sphinx_nvs import __version__


def versions() -> dict[str, str]:
    """Versions of this package, its numerical libraries and Python."""
    return {
        "sphinx_nvs": __version__,
        "torch": str(torch.__version__),
        "numpy": np.__version__,
        "python": platform.python_version(),
    }
