"""Baselines without a model: the nearest photo, or a cross-fade between the two nearest.

With d_1 <= d_2 the distances of a target from its two nearest context views (`geometry.views`), the cross-fade is

    (d_2 x_1 + d_1 x_2) / (d_1 + d_2)

Shapes: V target views, H W pixels.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from sphinx_nvs.geometry.cameras import Cameras
from sphinx_nvs.geometry.views import between_contexts, nearest_contexts
from sphinx_nvs.scene.scene import Scene


def nearest_context(scene: Scene, targets: Cameras) -> Float[Tensor, "V 3 H W"]:
    """The unchanged photo of the nearest context view, for every target."""
    return scene.images[nearest_contexts(targets, scene.cameras, 1)[:, 0]]


def cross_fade(scene: Scene, targets: Cameras) -> Float[Tensor, "V 3 H W"]:
    """The two nearest context views' photos, blended by distance, for every target; see the module docstring."""
    between = between_contexts(targets, scene.cameras)
    share = between.position.to(scene.images).view(-1, 1, 1, 1)
    return torch.lerp(scene.images[between.before], scene.images[between.after], share)
