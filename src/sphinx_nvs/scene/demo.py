"""The demo that every machine has: scikit-image's real stereo pair with its public calibration.

"Motorcycle" of the Middlebury 2014 stereo benchmark (Scharstein et al., "High-Resolution Stereo Datasets with
Subpixel-Accurate Ground Truth", GCPR 2014), reduced four times to 741x500 by averaging. Rectified: the right
camera is the left one moved by the baseline, with its principal point further right. A left pixel with
disparity d shows a point at depth

    z = f B / (d + cx_right - cx_left)

World = left camera, units = metres. The benchmark counts pixels from the first pixel's centre, so half a pixel
of the full size is added to principal points.

Shapes: H W pixels (500, 741).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import skimage
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from sphinx_nvs.scene.capture import Capture, PosedView
from sphinx_nvs.scene.intrinsics import intrinsics_matrix

_REDUCTION = 4
_FOCAL = 3979.911 / _REDUCTION
_CX_LEFT = (1244.772 + 0.5) / _REDUCTION
_CX_RIGHT = (1369.115 + 0.5) / _REDUCTION
_CY = (1019.507 + 0.5) / _REDUCTION
_BASELINE_M = 0.193001


def read_demo() -> Capture:
    """The stereo pair as a capture of two views, `left` and `right`, in metres."""
    left, right = _photos()
    return Capture(
        name="demo",
        views=(_view("left", left, 0.0, _CX_LEFT), _view("right", right, _BASELINE_M, _CX_RIGHT)),
        layout="scikit-image stereo_motorcycle",
    )


def demo_depth() -> Float[Tensor, "H W"]:
    """Measured z-depth of the left view in metres; infinite where the benchmark has no measurement."""
    disparity = torch.from_numpy(_stereo_pair()[2].astype(np.float64))
    depth = _FOCAL * _BASELINE_M / (disparity + _CX_RIGHT - _CX_LEFT)
    return torch.where(torch.isfinite(disparity), depth, torch.inf)


def _photos() -> tuple[np.ndarray, np.ndarray]:
    """Left and right; read as files where they are, because scikit-image's readers take half a second to load."""
    folder = Path(skimage.__file__).parent / "data"
    files = [folder / f"motorcycle_{side}.png" for side in ("left", "right")]
    if not all(file.is_file() for file in files):
        return _stereo_pair()[:2]
    left, right = (np.array(Image.open(file)) for file in files)
    return left, right


def _stereo_pair() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Left, right, disparity."""
    return skimage.data.stereo_motorcycle()


def _view(name: str, image: np.ndarray, x: float, cx: float) -> PosedView:
    """One of the two cameras, `x` metres right of the left one."""
    c2w = torch.eye(4, dtype=torch.float64)
    c2w[0, 3] = x
    pixels = torch.from_numpy(image.astype(np.float32) / 255).permute(2, 0, 1).contiguous()
    height, width = image.shape[:2]
    return PosedView(
        name=name, c2w=c2w, K=intrinsics_matrix(_FOCAL, _FOCAL, cx, _CY), height=height, width=width, image=pixels
    )
