"""Scenes in: readers for the usual layouts, one convention inside, procedural scenes, a real demo."""

from sphinx_nvs.scene.camera_files import Targets, read_targets, write_cameras
from sphinx_nvs.scene.capture import Capture, PosedView, Split
from sphinx_nvs.scene.readers import read_capture, read_scene
from sphinx_nvs.scene.scene import Scene
from sphinx_nvs.scene.transforms import write_transforms

__all__ = [
    "Capture",
    "PosedView",
    "Scene",
    "Split",
    "Targets",
    "read_capture",
    "read_scene",
    "read_targets",
    "write_cameras",
    "write_transforms",
]
