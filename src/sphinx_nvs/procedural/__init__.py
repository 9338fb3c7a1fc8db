"""Procedural scenes: seeded, endless, textured worlds with exact depth, rendered in plain torch."""

from sphinx_nvs.procedural.layout import KINDS, make_world
from sphinx_nvs.procedural.paths import MIN_CLEARANCE, MOTIONS, make_path
from sphinx_nvs.procedural.views import procedural_views
from sphinx_nvs.procedural.world import World

__all__ = ["KINDS", "MIN_CLEARANCE", "MOTIONS", "World", "make_path", "make_world", "procedural_views"]
