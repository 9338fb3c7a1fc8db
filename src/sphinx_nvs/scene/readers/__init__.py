"""Readers of the layouts that posed photos come in: one module a layout, one door for all."""

from sphinx_nvs.scene.readers.door import DEMO, holds_scene, read_capture, read_scene

__all__ = ["DEMO", "holds_scene", "read_capture", "read_scene"]
