"""Novel view synthesis as a service: regression where it is sure, diffusion where it is not."""

__version__ = "0.1.0"
