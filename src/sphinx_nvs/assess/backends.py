"""Metrics of views and descriptors of scenes: the embedded ones, or the paper's networks where their weights are.

    quality of a view      embedded    sharpness, see `quality`
                           musiq       MUSIQ, trained on KonIQ-10k (Ke et al., 2021), by pyiqa
    kind of a scene        embedded    colours of a 4x4 grid, see `quality`
                           clip        CLIP ViT-B/32 (Radford et al., 2021), by open_clip; mean over context views

The networks come with `pip install 'sphinx-nvs[iqa]'`. Their packages fetch weights at first use; here they
are called only once the file lies where they keep it, so no request waits for a download. MUSIQ's file is a pickle,
so it must be the one that its authors' package is known to offer, by its sha256.

Shapes: V views, V_c context views, H W pixels, D descriptor length.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from sphinx_nvs.assess.quality import image_quality, scene_descriptor
from sphinx_nvs.errors import InputError
from sphinx_nvs.media import resize_cover
from sphinx_nvs.models.registry.installation import sha256_of
from sphinx_nvs.models.seva.clip_embedder import MEAN, STD

EMBEDDED, MUSIQ, CLIP = "embedded", "musiq", "clip"

MUSIQ_REPO, MUSIQ_FILE = "chaofengc/IQA-PyTorch-Weights", "musiq_koniq_ckpt-e95806b9.pth"
MUSIQ_SHA256 = "e95806b9eae5f3814c410f574ba8e552362bd5bc63d758ed5b97860f5d6185aa"

CLIP_REPO, CLIP_FILE = "timm/vit_base_patch32_clip_224.openai", "open_clip_model.safetensors"
CLIP_NETWORK = "ViT-B-32-quickgelu"
"""OpenAI's weights were trained with its quick approximation of GELU."""
CLIP_SIDE = 224

Score = Callable[[Tensor], Tensor]
"""Quality of images `V 3 H W` in [0, 1] without a reference: `V` positive numbers, larger is better."""

Describe = Callable[[Tensor], Tensor]
"""A unit vector `D` from context views `V_c 3 H W` in [0, 1]."""


def musiq(images: Float[Tensor, "V 3 H W"]) -> Float[Tensor, "V"]:
    """MUSIQ of each image, 0..100.

    Raises:
        InputError: its package or its weights are not here, or the file is another one.
    """
    model = _load_musiq(str(images.device))
    with torch.inference_mode():
        return torch.stack([model(image.float().clamp(0, 1)).reshape(()) for image in images.split(1)]).to(images)


def clip_descriptor(images: Float[Tensor, "V_c 3 H W"]) -> Float[Tensor, "D"]:
    """Mean over views of CLIP's unit embeddings, brought to unit length again; 512 numbers.

    Raises:
        InputError: its package or its weights are not here.
    """
    model = _load_clip(str(images.device))
    mean, std = (torch.tensor(values).to(images).view(1, 3, 1, 1) for values in (MEAN, STD))
    with torch.inference_mode():
        squares = (resize_cover(images.clamp(0, 1), CLIP_SIDE, CLIP_SIDE) - mean) / std
        return F.normalize(F.normalize(model.encode_image(squares), dim=1).mean(0), dim=0).to(images)


METRICS: dict[str, Score] = {EMBEDDED: image_quality, MUSIQ: musiq}
"""No-reference metrics by name."""

DESCRIPTORS: dict[str, Describe] = {EMBEDDED: scene_descriptor, CLIP: clip_descriptor}
"""Scene descriptors by name."""


@cache
def _load_musiq(device: str) -> Any:
    pyiqa = _package("pyiqa", "metric", MUSIQ)
    # Where pyiqa keeps its weights (its README); it looks there before it downloads.
    path = Path(torch.hub.get_dir()) / "pyiqa" / MUSIQ_FILE
    command = f"hf download {MUSIQ_REPO} {MUSIQ_FILE} --local-dir {path.parent}"
    if not path.is_file():
        raise InputError("metric", f"'{MUSIQ}' needs {path}, which is not there", f"fetch it once: {command}")
    found = sha256_of(path)
    if found != MUSIQ_SHA256:
        wrong = f"sha256 of {path} is {found[:12]}… where {MUSIQ_SHA256[:12]}… should be"
        raise InputError("metric", wrong, f"remove it and fetch it again: {command}")
    return pyiqa.create_metric("musiq", device=torch.device(device))


@cache
def _load_clip(device: str) -> Any:
    open_clip = _package("open_clip", "descriptor", CLIP)
    hub = _package("huggingface_hub", "descriptor", CLIP)
    path = hub.try_to_load_from_cache(CLIP_REPO, CLIP_FILE)
    if not isinstance(path, str):
        found = f"'{CLIP}' needs {CLIP_FILE} of {CLIP_REPO}, which is not in the hub's cache"
        raise InputError("descriptor", found, f"fetch it once: hf download {CLIP_REPO} {CLIP_FILE}")
    return open_clip.create_model(CLIP_NETWORK, pretrained=path, device=device).eval()


def _package(module: str, where: str, value: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        found = f"'{value}' needs the package {module}, which cannot be imported ({error})"
        raise InputError(where, found, "run: pip install 'sphinx-nvs[iqa]'") from error
