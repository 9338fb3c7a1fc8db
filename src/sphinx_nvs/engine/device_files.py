"""What a device writes to the artifacts, and reads back: frames as pictures and as they are, plans.

Shapes: V target views, H W pixels.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from jaxtyping import Float
from safetensors.torch import load, save
from torch import Tensor

from sphinx_nvs.engine.artifacts import ArtifactStore
from sphinx_nvs.errors import InputError
from sphinx_nvs.media import png_bytes
from sphinx_nvs.plan import ComputePlan

FLOATS = "frame"
"""Name of the tensor in the file of a frame in floats."""


@dataclass(frozen=True)
class Files:
    """A device's files; every digest names a file that is there whole."""

    artifacts: ArtifactStore

    def pictures(self, targets: Sequence[int], frames: Float[Tensor, "V 3 H W"]) -> dict[int, str]:
        """Writes frames in [0, 1] as 8-bit PNGs; their digests by target."""
        data = {target: png_bytes(frame) for target, frame in zip(targets, frames.cpu(), strict=True)}
        return {target: self.artifacts.put(each, suffix=".png") for target, each in data.items()}

    def floats(self, targets: Sequence[int], frames: Float[Tensor, "V 3 H W"]) -> dict[int, str]:
        """Writes frames as they are; their digests by target."""
        data = {target: save({FLOATS: frame.contiguous()}) for target, frame in zip(targets, frames.cpu(), strict=True)}
        return {target: self.artifacts.put(each, suffix=".safetensors") for target, each in data.items()}

    def frame(self, digest: str) -> Float[Tensor, "3 H W"]:
        """A frame that `floats` wrote.

        Raises:
            LookupError: it is gone, which is no fault of the user's.
        """
        try:
            return load(self.artifacts.read(digest))[FLOATS]
        except InputError as error:
            raise LookupError(f"a finished frame is gone: {error}") from error

    def plan(self, plan: ComputePlan) -> str:
        """Writes a plan; its digest."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "plan.safetensors"
            plan.save(path)
            return self.artifacts.put_file(path)
