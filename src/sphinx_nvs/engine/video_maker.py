"""Makes a job's video from its stored frames, on a thread of its own."""

from __future__ import annotations

import asyncio
import io
import tempfile
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image
from torch import Tensor

from sphinx_nvs import media
from sphinx_nvs.engine.artifacts import ArtifactStore, DamagedError
from sphinx_nvs.errors import InputError

REMEMBERED = 64
"""Number of remembered videos that have no row: those of unfinished jobs."""


class VideoMaker:
    """Makes videos, one after another. Encoding may take minutes, so it has a thread of its own.

    Args:
        artifacts: the store of frames and videos.
    """

    def __init__(self, artifacts: ArtifactStore) -> None:
        self._artifacts = artifacts
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="films")
        self._made: dict[tuple[object, ...], str] = {}

    async def film(self, frames: Mapping[int, str], *, fps: float | int) -> str:
        """Digest of the video of these frames, see `make_video`; encoded once, however many callers there are."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._filmed, dict(frames), fps)

    def close(self) -> None:
        """Waits for the video that is being encoded; those in the queue are not started."""
        self._thread.shutdown(cancel_futures=True)

    def _filmed(self, frames: dict[int, str], fps: float | int) -> str:
        """On the thread; the newest are remembered, as long as their files are not swept."""
        wanted = (fps, *sorted(frames.items()))
        # Taken out and put back at the end: a dict in order of use.
        digest = self._made.pop(wanted, None)
        # A remembered video has no row that keeps its file, so the sweep may have taken it.
        if digest is None or not self._artifacts.has(digest):
            digest = make_video(self._artifacts, frames, fps=fps)
        self._made[wanted] = digest
        if len(self._made) > REMEMBERED:
            del self._made[next(iter(self._made))]
        return digest


def make_video(artifacts: ArtifactStore, frames: Mapping[int, str], *, fps: float | int) -> str:
    """Writes an mp4 to the artifacts; its digest.

    Args:
        artifacts: the store of the frames.
        frames: digests of PNG files by place in the video, at least one.
        fps: frames a second.

    Raises:
        DamagedError: a frame is missing or damaged.
    """
    pictures = torch.stack([_picture(_read(artifacts, frames[place])) for place in sorted(frames)])
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "video.mp4"
        media.write_video(path, pictures, fps=fps, effort="veryfast")
        return artifacts.put_file(path)


def _read(artifacts: ArtifactStore, digest: str) -> bytes:
    """A frame's file."""
    try:
        return artifacts.read(digest)
    except InputError as error:
        raise DamagedError(str(error)) from error


def _picture(data: bytes) -> UInt8[Tensor, "3 H W"]:
    """An 8-bit PNG."""
    with Image.open(io.BytesIO(data)) as image:
        return torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1)
