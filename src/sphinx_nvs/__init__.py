"""Novel view synthesis as a service: regression where it is sure, diffusion where it is not.

The names below are the public API:

    scene = sphinx_nvs.read_scene("demo")
    targets = sphinx_nvs.camera_path("interpolate", scene.cameras, 8)
    result = sphinx_nvs.load_preset("embedded")(scene, targets, quality=0.95)
    result.frames                                       # 8 x 3 x H x W, sRGB in [0, 1]

They are imported at first use, so that `import sphinx_nvs` loads no torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from sphinx_nvs.errors import InputError, SphinxError
    from sphinx_nvs.geometry.cameras import Cameras
    from sphinx_nvs.geometry.paths import scene_path as camera_path
    from sphinx_nvs.models.base import Denoiser, Reconstruction, Regressor, Render
    from sphinx_nvs.pipeline.pipeline import Pipeline
    from sphinx_nvs.pipeline.request import Result
    from sphinx_nvs.plan.compute_plan import ComputePlan
    from sphinx_nvs.presets import (
        LoadOptions,
        load_preset,
        register_denoiser,
        register_preset,
        register_regressor,
    )
    from sphinx_nvs.sampling_params import SamplingParams
    from sphinx_nvs.scene.readers import read_capture, read_scene
    from sphinx_nvs.scene.scene import Scene

__all__ = [
    "Cameras",
    "ComputePlan",
    "Denoiser",
    "InputError",
    "LoadOptions",
    "Pipeline",
    "Reconstruction",
    "Regressor",
    "Render",
    "Result",
    "SamplingParams",
    "Scene",
    "SphinxError",
    "__version__",
    "camera_path",
    "load_preset",
    "read_capture",
    "read_scene",
    "register_denoiser",
    "register_preset",
    "register_regressor",
]

_PLACES = {
    "Cameras": "geometry.cameras",
    "ComputePlan": "plan.compute_plan",
    "Denoiser": "models.base",
    "InputError": "errors",
    "LoadOptions": "presets",
    "Pipeline": "pipeline.pipeline",
    "Reconstruction": "models.base",
    "Regressor": "models.base",
    "Render": "models.base",
    "Result": "pipeline.request",
    "SamplingParams": "sampling_params",
    "Scene": "scene.scene",
    "SphinxError": "errors",
    "camera_path": "geometry.paths:scene_path",
    "load_preset": "presets",
    "read_capture": "scene.readers",
    "read_scene": "scene.readers",
    "register_denoiser": "presets",
    "register_preset": "presets",
    "register_regressor": "presets",
}


def __getattr__(name: str) -> Any:
    """Imports a public name at its first use."""
    if name not in _PLACES:
        raise AttributeError(f"module 'sphinx_nvs' has no attribute {name!r}")
    module, _, attribute = _PLACES[name].partition(":")
    value = getattr(import_module(f"sphinx_nvs.{module}"), attribute or name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """Public names, imported or not."""
    return sorted({*globals(), *__all__})
