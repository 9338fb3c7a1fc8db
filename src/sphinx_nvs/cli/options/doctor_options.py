"""Options of `sphinx-nvs doctor` and `sphinx-nvs completion`; as `cli.options`, without importing torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from tyro.conf import Positional, arg

from sphinx_nvs.cli.options.markers import Flag

Shell = Literal["bash", "zsh", "fish"]

DOCTOR = """\
Checks this installation: packages, devices, weights, folders; for each thing missing, the command that fixes it.

Renders a few small frames with the default pair of models. The exit code is 0 if that works, else 1; optional things
that are missing do not change it. Examples:

  sphinx-nvs doctor
  sphinx-nvs doctor --json
"""

COMPLETION = """\
Prints a script that completes commands and options in your shell. Examples:

  source <(sphinx-nvs completion bash)                                      this shell alone; or put it into ~/.bashrc
  sphinx-nvs completion zsh > ~/.zfunc/_sphinx-nvs                          a folder on your fpath
  sphinx-nvs completion fish > ~/.config/fish/completions/sphinx-nvs.fish
"""


@dataclass(frozen=True, kw_only=True)
class Doctor:
    """Options of `sphinx-nvs doctor`."""

    json: Flag = False
    """Print the findings as one JSON object, the last line of standard output."""


@dataclass(frozen=True, kw_only=True)
class Completion:
    """Options of `sphinx-nvs completion`."""

    shell: Annotated[Positional[Shell], arg(metavar="bash|zsh|fish")]
    """The shell to print it for."""
