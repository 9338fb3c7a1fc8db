"""Encoded context views, cached for other requests with the same photos.

    context = memory[hash of all pictures together]        else denoiser.encode_context(pictures)

All of a request's pictures are encoded in one call, kept as one value and found again only together: what is found is
what the model would make, bit for bit.

Shapes: V context views, H W pixels.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

from jaxtyping import Float
from torch import Tensor

from sphinx_nvs.engine.device.lru import Memory
from sphinx_nvs.geometry.cameras import Cameras
from sphinx_nvs.models.base import ContextEncoder, Denoiser, Render
from sphinx_nvs.scene.scene import Scene


def with_context_cache(denoiser: Denoiser, memory: Memory) -> Any:
    """The denoiser with a cache of encoded context views; itself if it cannot identify them."""
    return CachingDenoiser(inner=denoiser, memory=memory) if isinstance(denoiser, ContextEncoder) else denoiser


@dataclass(frozen=True, kw_only=True, eq=False)
class CachingDenoiser:
    """A denoiser that is `inner` in all but one respect.

    Args:
        inner: meets `ContextEncoder`.
        memory: the device's cache.
    """

    inner: Any
    memory: Memory

    # Everything else is the inner denoiser's, so that protocols are met by whichever methods it has.
    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def condition(
        self, scene: Scene, targets: Cameras, render: Render, z_render: Tensor, *, reference: Cameras | None = None
    ) -> Any:
        """See `Denoiser`."""
        context = self.memory.get(
            ("context", self.inner.name, digest_of(scene.images)), lambda: self.inner.encode_context(scene.images)
        )
        return self.inner.condition(scene, targets, render, z_render, reference=reference, context=context)


def digest_of(images: Float[Tensor, "V 3 H W"]) -> bytes:
    """A key that identifies the photos."""
    # The shape is part of the key: the same bytes can be photos of another size.
    digest = hashlib.blake2b(repr(tuple(images.shape)).encode(), digest_size=32)
    digest.update(images.cpu().contiguous().numpy().tobytes())
    return digest.digest()
