"""Options of `sphinx-nvs studio`; imports no torch, so that help is fast."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from sphinx_nvs.cli.options.markers import Flag
from sphinx_nvs.cli.options.serve_options import Folder

STUDIO = """\
Opens the page on which to fly through a scene, plan a camera path and make a video.

Starts a server unless one runs at the address. SCENE is a scene's folder, a transforms.json, a zip, a folder of plain
photos or a video, whose cameras the server finds; without it the page shows the demo. Examples:

  sphinx-nvs studio
  sphinx-nvs studio captures/fox
  sphinx-nvs studio holiday/statue --port 9000
  sphinx-nvs studio --no-browser        prints the address, e.g. to open it through an SSH tunnel

Ctrl-C stops a server that this command started. serve has more options.
"""


@dataclass(frozen=True, kw_only=True)
class Studio:
    """Options of `sphinx-nvs studio`."""

    scene: Annotated[Positional[Path | None], arg(metavar="[SCENE|PHOTOS]", help_behavior_hint="(default: demo)")] = (
        None
    )
    """Scene or photos to upload."""

    port: Annotated[int, arg(metavar="N")] = 8000
    """Port of the server on this machine; 0 starts one on a free port."""

    folder: Folder = None
    """Folder of a server that is started: scenes, videos and keys."""

    preset: Annotated[str, arg(metavar="NAME")] = "embedded"
    """Model pair of a server that is started."""

    api_key: Annotated[str | None, arg(metavar="KEY", help_behavior_hint="(default: none)")] = None
    """API key for the upload, if the running server needs one; the page asks for it again."""

    no_browser: Flag = False
    """Print the page's address and open no browser."""
