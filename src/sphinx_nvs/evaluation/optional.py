"""Metrics whose weights come from a model hub: computed if they are available, and reported as missing otherwise.

    MUSIQ      quality without a reference, 0..100 (Ke et al., 2021)                       package pyiqa
    DreamSim   distance in features tuned to human judgement (Fu et al., 2023)             package dreamsim
    Inception  features for FID and KID (see `sphinx_nvs.evaluation.fidelity`)             package torch-fidelity

The packages download their weights on first use and keep them in their own caches. Nothing else here needs any of them.

Shapes: V views, H W pixels, D features.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

# DreamSim takes squares of this side.
_DREAMSIM_SIDE = 224


@cache
def why_missing(load: Callable[[], object]) -> str | None:
    """The reason why a model cannot be loaded, in a few words; None if it can."""
    try:
        load()
    except ImportError as error:
        return f"package {(error.name or str(error)).replace('_', '-')} missing"
    except Exception as error:
        # Packages raise various errors if their weights are unavailable (URLError, OSError, RuntimeError, ...).
        return f"weights missing ({type(error).__name__})"
    return None


Network = Callable[..., Any]
"""A network of another package, called with images; each returns values of its own kind."""


@cache
def load_musiq() -> Network:
    """MUSIQ by pyiqa."""
    import pyiqa

    return pyiqa.create_metric("musiq", device="cpu")


@cache
def load_dreamsim() -> Network:
    """DreamSim's ensemble."""
    from dreamsim import dreamsim

    return dreamsim(pretrained=True, device="cpu")[0]


@cache
def load_inception() -> Network:
    """Inception v3 as FID uses it, by torch-fidelity."""
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    return FeatureExtractorInceptionV3("inception-v3-compat", ["2048"]).eval()


@torch.inference_mode()
def musiq(images: Float[Tensor, "V 3 H W"]) -> Float[Tensor, "V"]:
    """MUSIQ of each image in [0, 1]; the truth is unused."""
    model = load_musiq()
    return torch.stack([model(image.float().clamp(0, 1)).reshape(()) for image in images.split(1)]).cpu()


@torch.inference_mode()
def dreamsim_distance(images: Float[Tensor, "V 3 H W"], truth: Float[Tensor, "V 3 H W"]) -> Float[Tensor, "V"]:
    """DreamSim of each pair of images in [0, 1]."""
    model = load_dreamsim()

    def squares(x: Tensor) -> Tensor:
        side = (_DREAMSIM_SIDE, _DREAMSIM_SIDE)
        return F.interpolate(x.float().clamp(0, 1), size=side, mode="bicubic", antialias=True).clamp(0, 1)

    pairs = zip(squares(images).split(1), squares(truth).split(1), strict=True)
    return torch.stack([model(a, b).reshape(()) for a, b in pairs]).cpu()


@torch.inference_mode()
def inception_features(images: Float[Tensor, "V 3 H W"]) -> Float[Tensor, "V D"]:
    """Pooled Inception features of each image in [0, 1]."""
    model = load_inception()
    pixels = (255 * images.float().clamp(0, 1)).round().to(torch.uint8)
    return torch.cat([model(image)[0].float() for image in pixels.split(1)]).cpu()
