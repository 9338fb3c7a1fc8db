"""A job's results as files, in the layout of `sphinx-nvs render`.

frames/000.png ...    video.mp4    transforms.json
"""

from __future__ import annotations

import json
from pathlib import Path

from sphinx_nvs.client import calls
from sphinx_nvs.client.calls import Call
from sphinx_nvs.client.values import Job, Level
from sphinx_nvs.errors import OutputError
from sphinx_nvs.json_types import JSONMapping

CAMERAS = "transforms.json"


def result_calls(job: Job) -> dict[str, Call[bytes | JSONMapping]]:
    """Returns the requests for all files by name; frames have the job's level."""
    level: Level = "final" if job.level == "final" else "preview"
    frames = {name: calls.frame(job, index, level) for index, name in enumerate(_names(job))}
    return {**frames, "video.mp4": calls.video(job), CAMERAS: calls.cameras(job)}


def write_result(folder: Path, name: str, content: bytes | JSONMapping, job: Job) -> Path:
    """Writes one of the files, replacing an existing one; cameras name the frames by their files.

    Returns:
        The path.

    Raises:
        OutputError: the file cannot be written.
    """
    path = folder / name
    if not isinstance(content, bytes):
        frames = [{**frame, "file_path": own} for frame, own in zip(content["frames"], _names(job), strict=True)]
        content = (json.dumps({**content, "frames": frames}, indent=2) + "\n").encode()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    except OSError as error:
        raise OutputError(
            f"output {path}", f"it cannot be written ({error.strerror})", "choose another place"
        ) from error
    return path


def _names(job: Job) -> list[str]:
    """Returns the names of the frames' files."""
    digits = max(3, len(str(job.num_frames - 1)))
    return [f"frames/{index:0{digits}d}.png" for index in range(job.num_frames)]
