"""LPIPS and DISTS on plain convolution stacks: distances between images in the features of a classifier.

    LPIPS = sum_l mean_yx  head_l . (f_l(a) / |f_l(a)| - f_l(b) / |f_l(b)|)^2           Zhang et al., 2018, eq. 1
    DISTS = 1 - sum_l (alpha_l . L(f_l(a), f_l(b)) + beta_l . S(f_l(a), f_l(b)))          Ding et al., 2020, eq. 7

f_l are a trunk's features after layer l (AlexNet: five, VGG16: five), L compares their means over the image and S
their covariance. LPIPS has a map, like the authors' `spatial=True`: each layer's distance, upsampled to the image.
DISTS has none. Images are not resized.

Weights: see `sphinx_nvs.evaluation.weights`.

Shapes: V views, H W pixels, C channels of a layer, h w its size.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from sphinx_nvs.evaluation.weights import load_weights

# Stride and padding of each convolution, and the positions of pooling layers.
_POOL = -1
_ALEX = ((4, 2), _POOL, (1, 2), _POOL, (1, 1), (1, 1), (1, 1))
_VGG = ((1, 1), (1, 1), _POOL, (1, 1), (1, 1), _POOL, *(((1, 1),) * 3 + (_POOL,)) * 2, *((1, 1),) * 3)
# Convolutions after which features are taken.
_TAPS = {"alex": (0, 1, 2, 3, 4), "vgg": (1, 3, 6, 9, 12)}
# LPIPS' normalisation of images in [-1, 1].
_SHIFT, _SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)
# DISTS' normalisation of images in [0, 1].
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_TINY = 1e-6


@dataclass(frozen=True, eq=False)
class Trunk:
    """A classifier's convolutions.

    Args:
        net: `alex` or `vgg`.
        weights: weights of each convolution.
        biases: biases of each convolution.
    """

    net: str
    weights: tuple[Tensor, ...]
    biases: tuple[Tensor, ...]

    @staticmethod
    def load(net: str) -> Trunk:
        """Loads the trunk from the cache; raises MissingWeightsError."""
        tensors = load_weights(f"lpips_{net}")
        count = sum(name.endswith(".bias") for name in tensors)
        return Trunk(
            net,
            tuple(tensors[f"conv.{i}.weight"] for i in range(count)),
            tuple(tensors[f"conv.{i}.bias"] for i in range(count)),
        )

    def features(self, x: Float[Tensor, "V 3 H W"], *, smooth_pooling: bool = False) -> list[Float[Tensor, "V _ _ _"]]:
        """Features after each tapped layer.

        Args:
            x: normalised images.
            smooth_pooling: pool with a Hanning window instead of a maximum, as DISTS does.
        """
        tapped, index = [], 0
        for layer in _ALEX if self.net == "alex" else _VGG:
            if isinstance(layer, int):
                x = _smooth_pool(x) if smooth_pooling else F.max_pool2d(x, 3 if self.net == "alex" else 2, 2)
                continue
            x = F.relu(F.conv2d(x, self.weights[index], self.biases[index], *layer))
            if index in _TAPS[self.net]:
                tapped.append(x)
            index += 1
        return tapped


def _smooth_pool(x: Float[Tensor, "V C H W"]) -> Float[Tensor, "V C h w"]:
    """Root of the mean square under a 3x3 Hanning window, at every other pixel."""
    line = torch.tensor([0.25, 0.5, 0.25], dtype=x.dtype, device=x.device)
    window = (line[:, None] * line).expand(x.shape[1], 1, 3, 3)
    return (F.conv2d(x.square(), window, stride=2, padding=1, groups=x.shape[1]) + 1e-12).sqrt()


def _normalised(images: Tensor, mean: tuple[float, ...], std: tuple[float, ...]) -> Tensor:
    return (images - images.new_tensor(mean).view(1, 3, 1, 1)) / images.new_tensor(std).view(1, 3, 1, 1)


def _views(images: Float[Tensor, "V 3 H W"]) -> list[Tensor]:
    """One view at a time, in [0, 1]: a batch of VGG features would not fit into memory."""
    return list(images.float().clamp(0, 1).split(1))


@dataclass(frozen=True, eq=False)
class Lpips:
    """LPIPS 0.1.

    Args:
        trunk: the classifier.
        heads: weights of each layer's channels, `1 C 1 1`.
    """

    trunk: Trunk
    heads: tuple[Tensor, ...]

    def features(self, image: Float[Tensor, "1 3 H W"]) -> list[Float[Tensor, "1 _ _ _"]]:
        """Unit features of an image in [0, 1]."""
        layers = self.trunk.features(_normalised(2 * image - 1, _SHIFT, _SCALE))
        return [layer / (layer.square().sum(1, keepdim=True).sqrt() + 1e-10) for layer in layers]

    def distances(self, a: list[Tensor], b: list[Tensor]) -> list[Float[Tensor, "1 1 _ _"]]:
        """Each layer's distance map."""
        return [F.conv2d((f - g).square(), head) for f, g, head in zip(a, b, self.heads, strict=True)]


@dataclass(frozen=True, eq=False)
class Dists:
    """DISTS; `alpha` weights means, `beta` covariances, over the channels of the image and of all layers."""

    trunk: Trunk
    alpha: Float[Tensor, "C"]
    beta: Float[Tensor, "C"]

    def features(self, image: Float[Tensor, "1 3 H W"]) -> list[Float[Tensor, "1 _ _ _"]]:
        """The image itself and its features."""
        return [image, *self.trunk.features(_normalised(image, _MEAN, _STD), smooth_pooling=True)]

    def distance(self, a: list[Tensor], b: list[Tensor]) -> Float[Tensor, ""]:
        """The distance of the module docstring."""
        likeness = torch.cat([torch.stack(_likeness(f, g)) for f, g in zip(a, b, strict=True)], 1)
        weights = torch.stack((self.alpha, self.beta))
        return 1 - (weights * likeness).sum() / weights.sum()


def _likeness(
    f: Float[Tensor, "1 C h w"], g: Float[Tensor, "1 C h w"]
) -> tuple[Float[Tensor, "C"], Float[Tensor, "C"]]:
    """Similarity of two layers in mean and in structure, per channel."""
    f, g = f[0].flatten(1).double(), g[0].flatten(1).double()
    mean_f, mean_g = f.mean(1), g.mean(1)
    covariance = (f * g).mean(1) - mean_f * mean_g
    texture = (2 * mean_f * mean_g + _TINY) / (mean_f.square() + mean_g.square() + _TINY)
    structure = (2 * covariance + _TINY) / (f.var(1, correction=0) + g.var(1, correction=0) + _TINY)
    return texture, structure


class TruthMemory:
    """A model's features of the last truth: the frames of many methods are compared with the same photos.

    Truths of more than `MOST_PIXELS` are not cached; VGG's features take half a kilobyte per pixel.
    """

    MOST_PIXELS = 8 * 256 * 256

    def __init__(self) -> None:
        self._truth: Tensor | None = None
        self._checksum = 0.0
        self._features: list[list[Tensor]] = []

    def features(self, model: Lpips | Dists, truth: Float[Tensor, "V 3 H W"]) -> Iterator[list[Tensor]]:
        """Features of each view; computed once for the same tensor with the same content."""
        checksum = float(truth.double().sum())
        if self._truth is truth and self._checksum == checksum:
            yield from self._features
            return
        keep = truth[:, 0].numel() <= self.MOST_PIXELS
        found: list[list[Tensor]] = []
        for view in _views(truth):
            features = model.features(view)
            if keep:
                found.append(features)
            yield features
        self._truth, self._checksum, self._features = (truth if keep else None), checksum, found


@cache
def _memory(model: str) -> TruthMemory:
    """The cache of a model, by name."""
    return TruthMemory()


@cache
def load_lpips(net: str) -> Lpips:
    """LPIPS with AlexNet or VGG16, loaded once.

    Raises:
        MissingWeightsError: its weights are not in the cache.
    """
    tensors = load_weights(f"lpips_{net}")
    return Lpips(Trunk.load(net), tuple(tensors[f"head.{i}"] for i in range(5)))


@cache
def load_dists() -> Dists:
    """DISTS, loaded once.

    Raises:
        MissingWeightsError: its weights or the trunk's are not in the cache.
    """
    tensors = load_weights("dists")
    return Dists(Trunk.load("vgg"), tensors["alpha"].double(), tensors["beta"].double())


@torch.inference_mode()
def lpips(
    images: Float[Tensor, "V 3 H W"], truth: Float[Tensor, "V 3 H W"], net: str = "alex"
) -> tuple[Float[Tensor, "V"], Float[Tensor, "V H W"]]:
    """LPIPS of each image, and its map.

    Args:
        images: images in [0, 1].
        truth: images in [0, 1].
        net: `alex` (the authors' choice for comparisons) or `vgg` (usual in view synthesis).

    Raises:
        MissingWeightsError: its weights are not in the cache.
    """
    model, size = load_lpips(net), images.shape[-2:]
    values, maps = [], []
    for image, known in zip(_views(images), _memory(net).features(model, truth), strict=True):
        layers = model.distances(model.features(image), known)
        values.append(torch.stack([layer.mean() for layer in layers]).sum())
        enlarged = [F.interpolate(layer, size=size, mode="bilinear", align_corners=False) for layer in layers]
        maps.append(torch.stack(enlarged).sum(0)[0, 0])
    return torch.stack(values).cpu(), torch.stack(maps).cpu()


@torch.inference_mode()
def dists(images: Float[Tensor, "V 3 H W"], truth: Float[Tensor, "V 3 H W"]) -> Float[Tensor, "V"]:
    """DISTS of each image.

    Args:
        images: images in [0, 1].
        truth: images in [0, 1].

    Raises:
        MissingWeightsError: its weights are not in the cache.
    """
    model = load_dists()
    pairs = zip(_views(images), _memory("dists").features(model, truth), strict=True)
    return torch.stack([model.distance(model.features(image), known) for image, known in pairs]).cpu()
