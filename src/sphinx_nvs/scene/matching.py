"""Things that two photos of a scene both show, found without their cameras.

SIFT keypoints at a low resolution are matched, and matches are kept that one fundamental matrix explains: whatever
intrinsics and poses a file gives, these are right with few exceptions.

Shapes: N keypoints or matches, V photos.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from sphinx_nvs import media
from sphinx_nvs.errors import InputError
from sphinx_nvs.geometry import se3

_SIDE = 640
_KEYPOINTS = 1500
_NUMBERS = 128
"""Of a descriptor."""

_RATIO = 0.8
_PLACES = (1 / 6, 1 / 2, 5 / 6)
"""Where in the order of the photos neighbours are compared."""

_MORE_PLACES = (0.02, 0.25, 0.38, 0.62, 0.75)
"""Where else, if these tell too little."""

_MOST_UNORDERED, _FEW_KEYPOINTS, _MOST_LIKELY = 20, 500, 12
"""Where the order tells nothing: photos that are compared, by so many keypoints, and pairs of them that are matched."""

_FRAMES = 16
"""Share of the photos that lies between others that are compared."""

_FEW = 5
"""So few photos are all compared with each other."""

LEAST_MATCHES = 20
"""Of two photos: fewer that one matrix explains are chance."""

_LEAST_SHARE = 0.4
"""Of all matches: as for `LEAST_MATCHES`."""

_PIXELS = 2.0

_STILL, _LEAST_OVERLAY, _SPREAD, _MOST_OVERLAY = 0.0015, 8, 0.05, 0.4
"""Of what is laid over all photos: movement as a share of a side, matches at least, share of outliers on each side, and
share of the picture at most."""

Photo = Callable[[], Float[np.ndarray, "H W"]]
"""Reads a stored photo as grey levels in [0, 1]."""


@dataclass(frozen=True, kw_only=True)
class Pair:
    """Two photos, by number, and points that show the same things, as shares of the stored width and height.

    `keypoints` is how many could have matched.
    """

    first: int
    second: int
    keypoints: int
    here: Float[Tensor, "N 2"]
    there: Float[Tensor, "N 2"]

    def __len__(self) -> int:
        return len(self.here)


@dataclass(frozen=True, kw_only=True)
class Features:
    """Keypoints of a photo.

    Args:
        at: as shares of its width and height.
        descriptors: of length 1.
        height: height that it was examined at, pixels.
        width: width that it was examined at, pixels.
        contrast: between its darkest and its brightest grey level.
    """

    at: Float[Tensor, "N 2"]
    descriptors: Float[Tensor, "N D"]
    height: int
    width: int
    contrast: float = 1.0


def matched_pairs(
    photos: Sequence[Photo], c2w: Float[Tensor, "V 4 4"], known: dict[int, Features] | None = None
) -> Iterator[Pair]:
    """Pairs of photos with their matches, plenty or none; photos are read as pairs are taken.

    Args:
        photos: the stored photos, in the order that they were probably taken in.
        c2w: their poses, to find neighbours by; they may be wrong.
        known: keypoints of photos, which are added; None begins without.
    """
    yield from _matched_in(photos, _neighbours(c2w), {} if known is None else known)


def more_pairs(photos: Sequence[Photo], tried: Sequence[Pair], known: dict[int, Features]) -> Iterator[Pair]:
    """Pairs of photos that are next to each other in order, at other places than `matched_pairs` takes.

    Args:
        photos: see `matched_pairs`.
        tried: pairs that need not be matched again.
        known: see `matched_pairs`.
    """
    count = len(photos)
    starts = [min(int(count * place), count - 2) for place in _MORE_PLACES]
    groups = [list(range(start, min(start + 3, count))) for start in starts] if count > _FEW else []
    return _matched_in(photos, groups, known, {(pair.first, pair.second) for pair in tried})


def pairs_at(
    photos: Sequence[Photo], places: Sequence[tuple[int, int]], tried: Sequence[Pair], known: dict[int, Features]
) -> Iterator[Pair]:
    """Certain pairs of photos.

    Args:
        photos: see `matched_pairs`.
        places: their numbers.
        tried: pairs that need not be matched again.
        known: see `matched_pairs`.
    """
    return _matched_in(photos, places, known, {(pair.first, pair.second) for pair in tried})


def likely_pairs(photos: Sequence[Photo], tried: Sequence[Pair], known: dict[int, Features]) -> Iterator[Pair]:
    """Pairs of some photos, wherever in the order, of which a few keypoints match best.

    Args:
        photos: see `matched_pairs`.
        tried: pairs that need not be matched again.
        known: see `matched_pairs`.
    """
    step = -(-len(photos) // _MOST_UNORDERED)
    for index in range(0, len(photos), step):
        if index not in known:
            known[index] = features_of(photos[index]())
    some = {index: _thinned(features) for index, features in known.items()}
    seen = {(pair.first, pair.second) for pair in tried}
    pairs = [pair for pair in combinations(sorted(known), 2) if pair not in seen]
    pairs.sort(key=lambda pair: -len(_matched(some[pair[0]], some[pair[1]])[0]))
    return _matched_in(photos, pairs[:_MOST_LIKELY], known)


def likenesses(places: Sequence[tuple[int, int]], known: Mapping[int, Features]) -> Iterator[Pair]:
    """Pairs of photos with all points that look alike, however few they are and whatever they fit.

    Args:
        places: their numbers.
        known: keypoints of the photos.
    """
    for first, second in places:
        here, there = _matched(known[first], known[second])
        keypoints = min(len(known[first].at), len(known[second].at))
        yield Pair(first=first, second=second, keypoints=keypoints, here=here, there=there)


def _thinned(features: Features) -> Features:
    """A few of the keypoints, all over the photo."""
    step = -(-len(features.at) // _FEW_KEYPOINTS) or 1
    return replace(features, at=features.at[::step], descriptors=features.descriptors[::step])


def _matched_in(
    photos: Sequence[Photo],
    groups: Sequence[Sequence[int]],
    known: dict[int, Features],
    tried: Collection[tuple[int, int]] = (),
) -> Iterator[Pair]:
    """Every two photos of a group, with their matches."""
    seen = set(tried)
    for group in groups:
        for first, second in combinations(group, 2):
            if (first, second) in seen:
                continue
            seen.add((first, second))
            for index in (first, second):
                if index not in known:
                    known[index] = features_of(photos[index]())
            here, there = _consistent(known[first], known[second])
            keypoints = min(len(known[first].at), len(known[second].at))
            yield Pair(first=first, second=second, keypoints=keypoints, here=here, there=there)


def _neighbours(c2w: Float[Tensor, "V 4 4"]) -> list[list[int]]:
    """Groups of photos that probably show the same: next to each other in order, and by their poses."""
    count = len(c2w)
    if count <= _FEW:
        return [list(range(count))]
    groups = []
    for place in _PLACES:
        index = int(count * place)
        # Of a video, the next frame is nearly the same.
        others = {min(count - 1, index + 1), min(count - 1, index + max(1, count // _FRAMES))} - {index}
        groups.append(sorted({index, _nearest(c2w, index, others), *others}))
    return groups


def _nearest(c2w: Float[Tensor, "V 4 4"], index: int, others: set[int]) -> int:
    """The photo besides others whose pose is nearest, yet in another place."""
    distance = (c2w[:, :3, 3] - c2w[index, :3, 3]).norm(dim=-1)
    extent = float(distance.max())
    cost = distance / max(extent, 1e-12) + se3.rotation_angle(c2w, c2w[index : index + 1])
    cost[distance <= 1e-3 * extent] = torch.inf
    cost[[index, *others]] = torch.inf
    return int(cost.argmin())


@lru_cache(maxsize=1)
def _sift() -> Any:
    """COLMAP's SIFT on the CPU; the import is here because it takes half a second."""
    import pycolmap

    # It reports on every extractor that it makes.
    pycolmap.logging.minloglevel = max(1, pycolmap.logging.minloglevel)
    options = pycolmap.FeatureExtractionOptions()
    options.use_gpu, options.num_threads = False, 1
    # Octave -1 doubles the photo: four times the seconds for keypoints that are not needed here.
    options.sift.first_octave, options.sift.max_num_features = 0, _KEYPOINTS
    return pycolmap.FeatureExtractor.create(options)


def features_of(grey: Float[np.ndarray, "H W"]) -> Features:
    """SIFT keypoints; none where a photo has no texture."""
    import pycolmap

    levels = np.ascontiguousarray((grey * 255).round().astype(np.uint8))
    keypoints, found = _sift().extract(pycolmap.Bitmap.from_array(levels))
    height, width = grey.shape
    at = torch.tensor([(point.x, point.y) for point in keypoints], dtype=torch.float64).view(-1, 2)
    descriptors = torch.from_numpy(np.asarray(found.data, dtype=np.float32)).view(-1, _NUMBERS)
    descriptors = torch.nn.functional.normalize(descriptors, dim=1)
    shares = at / at.new_tensor([width, height])
    contrast = float(grey.max() - grey.min())
    return Features(at=shares, descriptors=descriptors, height=height, width=width, contrast=contrast)


def _consistent(first: Features, second: Features) -> tuple[Float[Tensor, "N 2"], Float[Tensor, "N 2"]]:
    """Matches that one fundamental matrix explains; none if these are few."""
    import pycolmap

    here, there = _matched(first, second)
    if len(here) < LEAST_MATCHES:
        return here[:0], there[:0]
    options = pycolmap.RANSACOptions()
    options.max_error, options.max_num_trials, options.random_seed = _PIXELS, 2000, 0
    sizes = ((first.width, first.height), (second.width, second.height))
    first_px, second_px = ((at * at.new_tensor(size)).numpy() for at, size in zip((here, there), sizes, strict=True))
    found = pycolmap.estimate_fundamental_matrix(first_px, second_px, options)
    if found is None:
        return here[:0], there[:0]
    kept = torch.from_numpy(np.asarray(found["inlier_mask"], dtype=bool))
    if int(kept.sum()) < max(LEAST_MATCHES, _LEAST_SHARE * len(here)):
        return here[:0], there[:0]
    return here[kept], there[kept]


def _matched(first: Features, second: Features) -> tuple[Float[Tensor, "N 2"], Float[Tensor, "N 2"]]:
    """Points that are each other's best match, and clearly better than the second best."""
    if len(first.at) < 2 or len(second.at) < 2:
        return first.at[:0], second.at[:0]
    likeness = first.descriptors @ second.descriptors.T
    best, index = likeness.topk(2, dim=1)
    # Squared distances of descriptors of length 1.
    near, far = ((2 - 2 * best[:, place]).clamp_min(0) for place in (0, 1))
    is_mutual = likeness.argmax(dim=0)[index[:, 0]] == torch.arange(len(first.at))
    kept = is_mutual & (near < _RATIO**2 * far)
    return _without_overlay(first.at[kept], second.at[index[kept, 0]])


def _without_overlay(
    here: Float[Tensor, "N 2"], there: Float[Tensor, "N 2"]
) -> tuple[Float[Tensor, "_ 2"], Float[Tensor, "_ 2"]]:
    """Matches without those at one place in both photos, as of a logo, if these are in a part of the photos only."""
    is_still = ((here - there).abs() < _STILL).all(dim=1)
    if int(is_still.sum()) < _LEAST_OVERLAY:
        return here, there
    still = here[is_still]
    low, high = (still.quantile(share, dim=0) for share in (_SPREAD, 1 - _SPREAD))
    is_local = float((high - low).prod()) < _MOST_OVERLAY
    return (here[~is_still], there[~is_still]) if is_local else (here, there)


def grey_of(image: Path | Tensor, side: int = _SIDE) -> Float[np.ndarray, "H W"]:
    """A stored photo as grey levels, scaled down to the size that matching works at.

    Args:
        image: the photo, or its file.
        side: longer side of the result at most, pixels.

    Raises:
        InputError: it cannot be read.
    """
    rgb = image if isinstance(image, Tensor) else media.read_image(image, oriented=False, at_least=(side, side))
    if rgb.shape[0] != 3:
        raise InputError("photo", f"it has {rgb.shape[0]} channels", "give a colour photo")
    height, width = rgb.shape[-2:]
    scale = min(1.0, side / max(height, width))
    small = media.resize(rgb[None], max(1, round(height * scale)), max(1, round(width * scale)))[0]
    return small.mean(dim=0).numpy()
