"""FID and KID: distances between a set of frames and the set of held-out photos, in Inception features.

    FID = |m_a - m_b|^2 + tr(C_a + C_b - 2 (C_a C_b)^(1/2))                            Heusel et al., 2017, eq. 6
    KID = mean k(a, a') + mean k(b, b') - 2 mean k(a, b),   k(x, y) = (x.y / D + 1)^3    Bińkowski et al., 2018, eq. 4

m and C are a set's mean and covariance. KID is unbiased (an image is not compared with itself), FID is not: it
decreases with the number of images and is not reported below `FEWEST_FOR_FID`.

Shapes: N, M images, D features.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float
from scipy.linalg import sqrtm

from sphinx_nvs.errors import InputError
from sphinx_nvs.json_types import JSONMapping, JSONObject

FEWEST_FOR_FID = 2048
"""With fewer images than features the covariance is singular and FID is unreliable."""


def frechet_distance(a: Float[np.ndarray, "N D"], b: Float[np.ndarray, "M D"]) -> float:
    """FID of two sets of features.

    Raises:
        InputError: a set has fewer than two images.
    """
    _check(a, b)
    a, b = a.astype(np.float64), b.astype(np.float64)
    cov_a, cov_b = (np.atleast_2d(np.cov(x, rowvar=False)) for x in (a, b))
    # The product of covariances is not symmetric; rounding gives its root a tiny imaginary part.
    root = sqrtm(cov_a @ cov_b).real
    return float(np.square(a.mean(0) - b.mean(0)).sum() + np.trace(cov_a + cov_b - 2 * root))


def kernel_distance(a: Float[np.ndarray, "N D"], b: Float[np.ndarray, "M D"]) -> float:
    """KID of two sets of features; may be slightly negative.

    Raises:
        InputError: a set has fewer than two images.
    """
    _check(a, b)
    a, b = a.astype(np.float64), b.astype(np.float64)

    def kernel(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        return (x @ y.T / x.shape[1] + 1) ** 3

    def among(x: np.ndarray) -> float:
        values = kernel(x, x)
        # Without the diagonal the estimate is unbiased.
        return float((values.sum() - np.trace(values)) / (len(x) * (len(x) - 1)))

    return among(a) + among(b) - 2 * float(kernel(a, b).mean())


def _check(a: np.ndarray, b: np.ndarray) -> None:
    if min(len(a), len(b)) < 2:
        raise InputError("images", f"there are {len(a)} and {len(b)}", "give at least 2 of each")


def text_from_features(features: Float[np.ndarray, "N D"]) -> JSONObject:
    """Encodes features as JSON values, in half precision."""
    data = np.ascontiguousarray(features, np.float16)
    return {"shape": list(data.shape), "float16": base64.b64encode(data.tobytes()).decode("ascii")}


def features_from_text(value: JSONMapping) -> Float[np.ndarray, "N D"]:
    """The inverse of `text_from_features`."""
    data = np.frombuffer(base64.b64decode(value["float16"]), np.float16)
    return data.reshape(value["shape"]).astype(np.float64)


def set_distances(cases: Sequence[JSONMapping]) -> dict[str, dict[str, float | int | None]]:
    """FID and KID of every method's frames against the held-out photos of all cases.

    Args:
        cases: the harness's results; those without features are left out.

    Returns:
        By method: `fid` (None below `FEWEST_FOR_FID` images), `kid`, `pictures` (their number). Empty without features.
    """
    with_features = [case["features"] for case in cases if case.get("features")]
    if not with_features:
        return {}
    truth = np.concatenate([features_from_text(case["truth"]) for case in with_features])
    if len(truth) < 2:
        return {}
    said: dict[str, dict[str, float | int | None]] = {}
    for name in with_features[0]["methods"]:
        frames = np.concatenate([features_from_text(case["methods"][name]) for case in with_features])
        fid = frechet_distance(frames, truth) if len(frames) >= FEWEST_FOR_FID else None
        said[name] = {"fid": fid, "kid": kernel_distance(frames, truth), "pictures": len(frames)}
    return said
