"""Stored scenes as a device sees them: photos at a job's size, understood once, rendered once.

    scene            photos of a path at H x W, all of them that have a picture
    reconstruction   the regressor's output for them
    render           of one set of cameras: the preview's, which the refinement of the same views starts from

Shapes: V views, H W pixels.
"""

from __future__ import annotations

from dataclasses import dataclass

from sphinx_nvs.engine.device.lru import Memory
from sphinx_nvs.geometry.cameras import Cameras
from sphinx_nvs.models.base import Reconstruction, Regressor, Render
from sphinx_nvs.pipeline.regression import reconstruct
from sphinx_nvs.scene.readers import read_capture
from sphinx_nvs.scene.scene import Scene

SceneKey = tuple[str, int, int]
"""Path, height, width."""


@dataclass(frozen=True, kw_only=True, eq=False)
class CachedScene:
    """A scene at one size; a `Reconstruction` that caches its renders.

    Args:
        key: see `SceneKey`.
        scene: its photos.
        inner: the regressor's reconstruction.
        memory: the device's cache.
    """

    key: SceneKey
    scene: Scene
    inner: Reconstruction
    memory: Memory

    def render(self, cameras: Cameras) -> Render:
        """See `Reconstruction`."""
        where = cameras.c2w.numpy().tobytes(), cameras.K.numpy().tobytes(), cameras.height, cameras.width
        return self.memory.get(("render", self.key, where), lambda: self.inner.render(cameras))


@dataclass(frozen=True, kw_only=True)
class SceneCache:
    """Reads scenes, and has them understood.

    Args:
        regressor: understands them.
        memory: the device's cache.
    """

    regressor: Regressor
    memory: Memory

    def scene(self, path: str, height: int, width: int) -> CachedScene:
        """A stored scene at a size.

        Raises:
            InputError: it cannot be read, or has too few photos.
        """
        key = path, height, width
        scene = self.memory.get(("photos", key), lambda: read_photos(*key))
        inner = self.memory.get(("reconstruction", key), lambda: reconstruct(self.regressor, scene))
        return CachedScene(key=key, scene=scene, inner=inner, memory=self.memory)


def read_photos(path: str, height: int, width: int) -> Scene:
    """All views of a stored scene, scaled until they cover the size and cut at the centre."""
    capture = read_capture(path)
    return capture.load(range(len(capture)), height, width)
