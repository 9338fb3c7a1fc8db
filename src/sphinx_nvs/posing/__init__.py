"""Plain photos or a video in, a scene with cameras out: structure from motion, checked before it is believed."""

from sphinx_nvs.posing.photo_sources import is_plain, pose_source
from sphinx_nvs.posing.posing import PosedScene, pose_photos

__all__ = ["PosedScene", "is_plain", "pose_photos", "pose_source"]
