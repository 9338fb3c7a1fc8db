"""The arguments of `create_job` and `quote`, and the JSON that they become."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TypedDict

from sphinx_nvs.client.scene_upload import plain_cameras
from sphinx_nvs.errors import InputError
from sphinx_nvs.json_types import JSONMapping, JSONObject


class JobOptions(TypedDict, total=False):
    """Fields of a job, all optional; the OpenAPI document describes them and their defaults.

    path: a camera path by name (`interpolate`, `orbit`, ...), or an object with `name` and its settings.
    cameras: in place of `path`: a transforms.json (path or content), or a list of 4x4 `c2w` matrices (OpenCV axes).
    num_frames: length of the path, 24 by default.
    size: size of the frames, `"WxH"` or (width, height), pixels.
    quality: requested share of full diffusion's quality, 0..1.
    deadline_s: seconds by which all frames must be ready; the best quality that fits is chosen.
    min_quality: quality is never planned below this.
    fps: frame rate of the video.
    seed: seed of the noise.
    priority: larger goes first among jobs with equal slack, -10..10.
    """

    path: str | JSONMapping
    cameras: str | Path | JSONMapping | Sequence[object]
    num_frames: int
    size: str | tuple[int, int]
    quality: float | int | None
    deadline_s: float | int | None
    min_quality: float | int
    fps: float | int
    seed: int
    priority: int


def body_of(scene: str, options: JobOptions) -> JSONObject:
    """Returns the JSON of a job.

    Raises:
        InputError: an option does not exist, or the cameras' file cannot be read.
    """
    body: JSONObject = {"scene": scene, **options}
    unknown = sorted(set(body) - {"scene", *JobOptions.__annotations__})
    if unknown:
        raise InputError(
            unknown[0], "there is no such option of a job", f"use only: {', '.join(JobOptions.__annotations__)}"
        )
    if isinstance(body.get("size"), tuple | list):
        width, height = body["size"]
        body["size"] = f"{width}x{height}"
    if body.get("cameras") is not None:
        body["cameras"] = _cameras(body["cameras"])
    return {key: value for key, value in body.items() if value is not None}


def _cameras(cameras: str | Path | JSONMapping | Sequence[object]) -> JSONObject:
    """Converts target cameras to the server's format."""
    if not isinstance(cameras, str | Path):
        return plain_cameras(cameras)
    try:
        data = json.loads(Path(cameras).expanduser().read_bytes())
    except (OSError, ValueError) as error:
        raise InputError(f"cameras {cameras}", "they cannot be read", "give a transforms.json") from error
    return plain_cameras(data)
