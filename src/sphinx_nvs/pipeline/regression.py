"""Stages 1 and 2: the regressor reads the scene and renders every target view."""

from __future__ import annotations

from sphinx_nvs.errors import InputError
from sphinx_nvs.geometry.cameras import Cameras
from sphinx_nvs.models.base import Reconstruction, Regressor, Render
from sphinx_nvs.scene.scene import Scene

__all__ = ["Render", "reconstruct", "render_targets"]


def reconstruct(regressor: Regressor, scene: Scene) -> Reconstruction:
    """Reconstructs the scene once; the result serves any number of targets.

    Raises:
        InputError: fewer context views than the regressor needs.
    """
    if len(scene.images) < regressor.min_context_views:
        raise InputError(
            f"scene {scene.name}",
            f"{len(scene.images)} context view where {regressor.name} needs {regressor.min_context_views}",
            "choose more context views with --contexts",
        )
    return regressor.reconstruct(scene)


def render_targets(reconstruction: Reconstruction, targets: Cameras) -> Render:
    """Renders every target camera.

    Raises:
        InputError: there is no target, or no target sees anything of the scene.
    """
    if len(targets) == 0:
        raise InputError("targets", "there are 0 cameras", "give at least one")
    return reconstruction.render(targets)
