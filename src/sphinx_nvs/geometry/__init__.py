"""Cameras, poses, rays and paths: pure geometry, no networks and no files."""

from sphinx_nvs.geometry.cameras import Cameras

__all__ = ["Cameras"]
