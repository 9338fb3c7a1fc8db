"""What a view is asked for with: the arguments of `create_view` and `quote`, and the JSON that they become."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypedDict

from sphinx_nvs.client.uploads import plain_cameras
from sphinx_nvs.errors import InputError


class Wish(TypedDict, total=False):
    """Fields of a view; what is left out is the server's choice. The OpenAPI document explains each.

    path: a camera path by name (`interpolate`, `orbit`, ...), or an object with `name` and its settings.
    cameras: in place of it: a transforms.json (path or content), or a list of 4x4 `c2w` matrices (OpenCV axes).
    num_frames: length of the path, 24 if left out.
    size: of the frames, `"WxH"` or (width, height) in pixels.
    quality: share of full diffusion's quality that is asked for, 0..1.
    deadline_s: seconds by which all frames must be there; the best quality that fits is chosen.
    min_quality: quality is never planned below this.
    fps: frames a second of the video.
    seed: of the noise.
    priority: larger goes first among equals, -10..10.
    """

    path: str | Mapping[str, Any]
    cameras: str | Path | Mapping[str, Any] | Sequence[Any]
    num_frames: int
    size: str | tuple[int, int]
    quality: float | int | None
    deadline_s: float | int | None
    min_quality: float | int
    fps: float | int
    seed: int
    priority: int


def body_of(scene: str, wish: Wish) -> dict[str, Any]:
    """The JSON of a wish.

    Raises:
        InputError: there is no such field, or the cameras' file cannot be read.
    """
    body: dict[str, Any] = {"scene": scene, **wish}
    unknown = sorted(set(body) - {"scene", *Wish.__annotations__})
    if unknown:
        raise InputError(
            unknown[0], "there is no such field of a view", f"give some of: {', '.join(Wish.__annotations__)}"
        )
    if isinstance(body.get("size"), tuple | list):
        width, height = body["size"]
        body["size"] = f"{width}x{height}"
    if body.get("cameras") is not None:
        body["cameras"] = _cameras(body["cameras"])
    return {key: value for key, value in body.items() if value is not None}


def _cameras(cameras: Any) -> dict[str, Any]:
    """Target cameras as the server reads them."""
    if not isinstance(cameras, str | Path):
        return plain_cameras(cameras)
    try:
        data = json.loads(Path(cameras).expanduser().read_text(encoding="utf-8-sig"))
    except (OSError, ValueError) as error:
        raise InputError(f"cameras {cameras}", "they cannot be read", "give a transforms.json") from error
    return plain_cameras(data)
