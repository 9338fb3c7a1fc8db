"""The two plug-in points: a regressor that renders at once, a denoiser that refines.

Adding a model means adding one file that meets one of these protocols. Nothing about a request is kept in a
model: what a request needs travels as `Reconstruction` or `Conditioning` values.

Shapes: V target views, H W pixels, C latent channels, h w latent cells (H / factor, W / factor).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from jaxtyping import Bool, Float
from torch import Tensor

from sphinx_nvs.geometry.cameras import Cameras
from sphinx_nvs.nn.active import ActiveTokens
from sphinx_nvs.nn.feature_cache import FeatureCache
from sphinx_nvs.scene.scene import Scene


@dataclass(frozen=True, kw_only=True)
class Render:
    """A regressor's picture of the target views.

    Args:
        rgb: sRGB in [0, 1]; holes are filled with a plausible guess.
        alpha: how much of a pixel the reconstruction covers, [0, 1].
        depth: z-depth in world units, positive and finite everywhere (guessed in holes).
        confidence: how sure the regressor is of what it shows, [0, 1]; 0 in holes.
        disagreement: colour difference between the context views that see the point, [0, 1]; 0 if only one does.
        context_inverse_depth: 1 / z-depth of the Vc known views, at a size of the regressor's choice; 0 where it has
            none. None if it never has.
        context_confidence: how sure it is of that, [0, 1]; None likewise.
    """

    rgb: Float[Tensor, "V 3 H W"]
    alpha: Float[Tensor, "V H W"]
    depth: Float[Tensor, "V H W"]
    confidence: Float[Tensor, "V H W"]
    disagreement: Float[Tensor, "V H W"]
    context_inverse_depth: Float[Tensor, "Vc hc wc"] | None = None
    context_confidence: Float[Tensor, "Vc hc wc"] | None = None


@runtime_checkable
class Reconstruction(Protocol):
    """A scene as a regressor understands it: made once, rendered from any camera."""

    def render(self, cameras: Cameras) -> Render:
        """Renders every camera; raises InputError if no context view could ever be seen from there."""
        ...


@runtime_checkable
class Regressor(Protocol):
    """Feed-forward reconstruction from posed context views."""

    @property
    def name(self) -> str:
        """For plans, reports and messages."""
        ...

    @property
    def min_context_views(self) -> int:
        """Fewer cannot be used."""
        ...

    def reconstruct(self, scene: Scene) -> Reconstruction:
        """Understands the scene; raises InputError with too few context views."""
        ...


@runtime_checkable
class Denoiser(Protocol):
    """Multi-view latent diffusion with its autoencoder.

    `factor` is the autoencoder's pixels per latent cell; images' sides must be multiples of `size_multiple`.
    """

    name: str
    factor: int
    size_multiple: int
    latent_channels: int

    def encode(self, images: Float[Tensor, "V 3 H W"]) -> Float[Tensor, "V C h w"]:
        """Images in [0, 1] to latents in the denoiser's own scale."""
        ...

    def decode(self, latents: Float[Tensor, "V C h w"]) -> Float[Tensor, "V 3 H W"]:
        """Latents to images, clamped to [0, 1]."""
        ...

    def sigmas(self, num_steps: int) -> Float[Tensor, "L"]:
        """The model's own grid of noise levels: descending, last 0."""
        ...

    def condition(
        self,
        scene: Scene,
        targets: Cameras,
        render: Render,
        z_render: Float[Tensor, "V C h w"],
        *,
        reference: Cameras | None = None,
    ) -> Any:
        """Everything constant over a request's steps, as one value that `denoise` takes back.

        `scene` holds the known views: photos, on long paths finished frames, too. `reference` are the cameras of the
        whole path, for a denoiser whose units depend on where all cameras are; None for those of this request.
        """
        ...

    def denoise(self, latents: Float[Tensor, "V C h w"], sigma: float, conditioning: Any) -> Float[Tensor, "V C h w"]:
        """The estimate of the clean latents of all target views at noise level `sigma`, guidance included."""
        ...


@runtime_checkable
class ContextEncoder(Protocol):
    """A denoiser whose `condition` takes what it makes of context views alone, which can thus be kept for others."""

    def encode_context(self, images: Float[Tensor, "V 3 H W"]) -> Any:
        """What `condition` would make of a scene's images, for its keyword argument `context`."""
        ...


@runtime_checkable
class ReferenceDecoding(Protocol):
    """A denoiser whose frames are made beside the render and the context views, not of latents alone."""

    def decode_beside(
        self,
        latents: Float[Tensor, "V C h w"],
        conditioning: Any,
        views: Sequence[int],
        estimate: Float[Tensor, "V C h w"] | None = None,
    ) -> Float[Tensor, "v 3 H W"]:
        """The latents of `views` to images in [0, 1]; for the arguments see `decode_frames`."""
        ...


def decode_frames(
    denoiser: Denoiser,
    latents: Float[Tensor, "V C h w"],
    conditioning: Any,
    views: Sequence[int] | None = None,
    estimate: Float[Tensor, "V C h w"] | None = None,
) -> Float[Tensor, "v 3 H W"]:
    """Refined latents as frames, beside whatever the denoiser can look at.

    Args:
        denoiser: the model.
        latents: of all target views.
        conditioning: what `denoiser.condition` returned.
        views: those to decode; None is all.
        estimate: of the network's first call, which tells where in the photos to look, and is there before the latents
            are; None where nobody kept it: then the latents tell that themselves.
    """
    chosen = list(range(len(latents)) if views is None else views)
    if isinstance(denoiser, ReferenceDecoding):
        return denoiser.decode_beside(latents, conditioning, chosen, estimate)
    return denoiser.decode(latents if views is None else latents[chosen])


@runtime_checkable
class PathAgreement(Protocol):
    """A denoiser that brings the finished frames of a path to agree with their neighbours."""

    def agree(
        self, frames: Float[Tensor, "V 3 H W"], conditioning: Any, views: Sequence[int]
    ) -> Float[Tensor, "v 3 H W"]:
        """The frames of `views` beside all others; for the arguments see `agreed_frames`."""
        ...


def agreed_frames(
    denoiser: Denoiser, frames: Float[Tensor, "V 3 H W"], conditioning: Any, views: Sequence[int]
) -> Float[Tensor, "v 3 H W"]:
    """Frames that agree with their neighbours, by a denoiser that knows how; else as they are.

    Args:
        denoiser: the model.
        frames: of all target views in the order of the path, in [0, 1]; the render's where nothing was refined.
        conditioning: what `denoiser.condition` returned, and what decoding `views` left there.
        views: those that were decoded; all others are looked at, but stay.
    """
    if isinstance(denoiser, PathAgreement) and len(frames) > 1:
        return denoiser.agree(frames, conditioning, views)
    return frames[list(views)]


@runtime_checkable
class DenoiserRequest(Protocol):
    """One request's state inside a denoiser: what is computed once, and the caches. Owned by whoever refines."""

    @property
    def caches(self) -> tuple[FeatureCache, ...]:
        """One per guidance branch; none if memory is too short, then every call must be dense."""
        ...


@dataclass(frozen=True, kw_only=True, eq=False)
class DenoiseCall:
    """One request's part in a network call.

    Args:
        request: what `SelectiveDenoiser.begin` returned.
        latents: of all target views.
        sigma: their noise level, above 0.
        active: tokens to compute, by `SelectiveDenoiser.active_tokens`; None is all.
        keep: whether a dense call leaves its features in the caches, for sparse calls to come.
        fresh_guidance: whether a guided denoiser computes its unconditional branch, too; if not, it takes the
            difference between the branches from the last call that did.
    """

    request: Any
    latents: Float[Tensor, "V C h w"]
    sigma: float
    active: ActiveTokens | None = None
    keep: bool = False
    fresh_guidance: bool = True


@runtime_checkable
class SelectiveDenoiser(Denoiser, Protocol):
    """A denoiser that can compute some cells and take the features of all others from caches."""

    def begin(self, conditioning: Any, cache_bytes: float | int) -> DenoiserRequest:
        """Computes what a request's calls share, within `cache_bytes` of memory for it and for caches."""
        ...

    def active_tokens(self, request: Any, cells: Bool[Tensor, "V h w"]) -> ActiveTokens:
        """Index lists for the cells to compute; worth keeping for as long as the cells stay."""
        ...

    def denoise_calls(self, calls: Sequence[DenoiseCall]) -> list[Float[Tensor, "V C h w"]]:
        """Estimates of the clean latents for several requests at once; a sparse call's mean nothing where inactive."""
        ...
