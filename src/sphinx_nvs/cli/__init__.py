"""The command line: `sphinx-nvs render`, `sphinx-nvs scene make`, `sphinx-nvs scene inspect`."""

from sphinx_nvs.cli.main import main

__all__ = ["main"]
