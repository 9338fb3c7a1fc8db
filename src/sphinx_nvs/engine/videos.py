"""A job's frames as one video, made of the stored pictures."""

from __future__ import annotations

import io
import tempfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image
from torch import Tensor

from sphinx_nvs import media
from sphinx_nvs.engine.artifacts import ArtifactStore


def make_video(artifacts: ArtifactStore, frames: Mapping[int, str], *, fps: float | int) -> str:
    """Writes an mp4 to the artifacts; its digest.

    Args:
        artifacts: where the frames are.
        frames: digests of PNG files by place in the video, at least one.
        fps: frames a second.
    """
    pictures = torch.stack([_picture(artifacts.read(frames[place])) for place in sorted(frames)])
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "video.mp4"
        media.write_video(path, pictures, fps=fps, effort="veryfast")
        return artifacts.put_file(path)


def _picture(data: bytes) -> UInt8[Tensor, "3 H W"]:
    """An 8-bit PNG."""
    with Image.open(io.BytesIO(data)) as image:
        return torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1)
