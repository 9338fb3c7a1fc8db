"""A view's results as files, laid out as `sphinx-nvs render` lays out its own.

frames/000.png ...    video.mp4    transforms.json
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sphinx_nvs.client import calls
from sphinx_nvs.client.calls import Call
from sphinx_nvs.client.values import Level, View
from sphinx_nvs.errors import OutputError

CAMERAS = "transforms.json"


def result_calls(view: View) -> dict[str, Call[Any]]:
    """What has to be fetched, by the names of files; frames are those of the view's level."""
    level: Level = "final" if view.level == "final" else "preview"
    frames = {name: calls.frame(view, index, level) for index, name in enumerate(_names(view))}
    return {**frames, "video.mp4": calls.video(view), CAMERAS: calls.cameras(view)}


def write_result(folder: Path, name: str, content: bytes | Mapping[str, Any], view: View) -> Path:
    """Writes one of the files, in place of one of that name; cameras name the frames as they lie here.

    Raises:
        OutputError: it cannot be written.
    """
    path = folder / name
    if not isinstance(content, bytes):
        frames = [{**frame, "file_path": own} for frame, own in zip(content["frames"], _names(view), strict=True)]
        content = (json.dumps({**content, "frames": frames}, indent=2) + "\n").encode()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    except OSError as error:
        raise OutputError(
            f"output {path}", f"it cannot be written ({error.strerror})", "choose another place"
        ) from error
    return path


def _names(view: View) -> list[str]:
    """Of the frames' files."""
    digits = max(3, len(str(view.num_frames - 1)))
    return [f"frames/{index:0{digits}d}.png" for index in range(view.num_frames)]
