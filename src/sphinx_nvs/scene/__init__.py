"""Scenes in: readers for the usual layouts, one convention inside, procedural scenes, a real demo."""

from sphinx_nvs.scene.capture import Capture, PosedView, Split
from sphinx_nvs.scene.readers import read_capture
from sphinx_nvs.scene.scene import Scene

__all__ = ["Capture", "PosedView", "Scene", "Split", "read_capture"]
