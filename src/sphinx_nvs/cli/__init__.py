"""The command line: `sphinx-nvs`; each command's options are in `cli.options`, its work in a module here."""

from sphinx_nvs.cli.main import main

__all__ = ["main"]
