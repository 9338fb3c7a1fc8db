"""The CUDA back end: gsplat's rasteriser, with colours evaluated here.

gsplat clamps alpha at 0.999 instead of 0.99 and culls at 3.33 standard deviations, so opacities are clamped
before the call and images agree with the other back ends to about 1e-2.
"""

from __future__ import annotations

from typing import Any

from jaxtyping import Float
from torch import Tensor

from sphinx_nvs.errors import InputError
from sphinx_nvs.geometry.cameras import Cameras
from sphinx_nvs.models.gaussians.cloud import Gaussians


def import_gsplat() -> Any:
    """Imports gsplat; raises InputError if it is not installed or does not import."""
    try:
        import gsplat
    except ImportError as error:
        raise InputError(
            "backend", "gsplat is not importable", "install sphinx-nvs[cuda] beside a CUDA build of torch"
        ) from error
    return gsplat


def composite_gsplat(
    gaussians: Gaussians,
    camera: Cameras,
    values: Float[Tensor, "N C"],
    near: float,
    blur: float,
    max_alpha: float,
) -> tuple[Float[Tensor, "C H W"], Float[Tensor, "H W"]]:
    """Composited channels and alpha of one camera, on the Gaussians' device, which must be CUDA."""
    gsplat = import_gsplat()
    means = gaussians.means.float()
    if means.device.type != "cuda":
        raise InputError("backend", f"gsplat needs CUDA tensors, got {means.device}", "use auto, torch or numba")
    image, alpha, _ = gsplat.rasterization(
        means=means,
        quats=None,
        scales=None,
        covars=gaussians.covariances.float(),
        opacities=gaussians.opacities.float().clamp_max(max_alpha),
        colors=values.float()[None],
        viewmats=camera.w2c.to(means),
        Ks=camera.K.to(means),
        width=camera.width,
        height=camera.height,
        near_plane=near,
        eps2d=blur,
        packed=False,
        render_mode="RGB",
    )
    return image[0].permute(2, 0, 1), alpha[0, ..., 0]
