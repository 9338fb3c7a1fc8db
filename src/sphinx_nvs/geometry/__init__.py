"""Cameras, poses, rays and paths: pure geometry, no networks and no files."""

from sphinx_nvs.geometry.cameras import Cameras
from sphinx_nvs.geometry.interpolation import interpolate_path
from sphinx_nvs.geometry.normalise import normalise_cameras
from sphinx_nvs.geometry.paths import PATH_NAMES, scene_path
from sphinx_nvs.geometry.rays import plucker, rays
from sphinx_nvs.geometry.trajectories import PRESETS, preset_path

__all__ = [
    "PATH_NAMES",
    "PRESETS",
    "Cameras",
    "interpolate_path",
    "normalise_cameras",
    "plucker",
    "preset_path",
    "rays",
    "scene_path",
]
