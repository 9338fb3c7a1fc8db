"""The artifacts that a device writes and reads: frames as PNG and as floats, plans.

Shapes: V target views, H W pixels.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from jaxtyping import Float
from safetensors.torch import load, save
from torch import Tensor

from sphinx_nvs.engine.artifacts import ArtifactStore, DamagedError
from sphinx_nvs.errors import InputError
from sphinx_nvs.media import png_bytes, uint8_from_float
from sphinx_nvs.plan import ComputePlan

FLOATS = "frame"
"""Name of the tensor in the file of a frame in floats."""

WRITERS = 4
"""Files that are written at a time."""


@dataclass(frozen=True)
class Files:
    """A device's files; every digest names a whole file."""

    artifacts: ArtifactStore

    def pictures(self, targets: Sequence[int], frames: Float[Tensor, "V 3 H W"]) -> dict[int, str]:
        """Writes frames in [0, 1] as 8-bit PNGs; their digests by target."""
        return self._put(targets, uint8_from_float(frames).cpu(), png_bytes, ".png")

    def floats(self, targets: Sequence[int], frames: Float[Tensor, "V 3 H W"]) -> dict[int, str]:
        """Writes frames as they are; their digests by target."""
        return self._put(targets, frames.cpu(), _float_bytes, ".safetensors")

    def _put(
        self, targets: Sequence[int], frames: Iterable[Tensor], encode: Callable[[Tensor], bytes], suffix: str
    ) -> dict[int, str]:
        """Writes several files at a time: each waits for the disk twice, and packing them leaves other cores idle."""

        def written(frame: Tensor) -> str:
            return self.artifacts.put(encode(frame), suffix=suffix)

        with ThreadPoolExecutor(WRITERS) as threads:
            return dict(zip(targets, threads.map(written, frames), strict=True))

    def frame(self, digest: str) -> Float[Tensor, "3 H W"]:
        """A frame that `floats` wrote.

        Raises:
            LookupError: it is missing, which is no fault of the user's.
        """
        try:
            return load(self.artifacts.read(digest))[FLOATS]
        except InputError as error:
            raise LookupError(f"a finished frame is missing: {error}") from error

    def plan(self, plan: ComputePlan) -> str:
        """Writes a plan; its digest."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "plan.safetensors"
            plan.save(path)
            return self.artifacts.put_file(path)

    def stored_plan(self, digest: str) -> ComputePlan | None:
        """A plan that `plan` wrote; None if it is missing or damaged."""
        try:
            data = self.artifacts.read(digest)
        except (InputError, DamagedError):
            return None
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "plan.safetensors"
            path.write_bytes(data)
            return ComputePlan.load(path)


def _float_bytes(frame: Float[Tensor, "3 H W"]) -> bytes:
    """A frame as safetensors."""
    return save({FLOATS: frame.contiguous()})
