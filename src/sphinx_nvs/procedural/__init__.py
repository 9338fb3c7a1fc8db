"""Procedural scenes: seeded, textured worlds with exact depth, in unlimited number, rendered in plain torch."""

from sphinx_nvs.procedural.camera_paths import MIN_CLEARANCE, MOTIONS, make_path
from sphinx_nvs.procedural.layout import KINDS, make_world
from sphinx_nvs.procedural.rendered_views import procedural_views
from sphinx_nvs.procedural.world import World

__all__ = ["KINDS", "MIN_CLEARANCE", "MOTIONS", "World", "make_path", "make_world", "procedural_views"]
