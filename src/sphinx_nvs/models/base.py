"""The two plug-in points: a regressor that renders in one pass, and a denoiser that refines iteratively.

Adding a model means adding one file that implements one of these protocols. Models hold no request state: a request's
data travels as `Reconstruction` or `Conditioning` values.

Shapes: V target views, H W pixels, C latent channels, h w latent cells (H / factor, W / factor).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias, runtime_checkable

from jaxtyping import Bool, Float
from torch import Tensor

from sphinx_nvs.geometry.cameras import Cameras
from sphinx_nvs.nn.active_tokens import ActiveTokens
from sphinx_nvs.nn.feature_cache import FeatureCache
from sphinx_nvs.scene.scene import Scene

Conditioning: TypeAlias = Any
"""What `Denoiser.condition` returns: each denoiser's own type, which only that denoiser looks into."""


@dataclass(frozen=True, kw_only=True)
class Render:
    """A regressor's rendering of the target views.

    Args:
        rgb: sRGB in [0, 1]; holes are filled with a plausible guess.
        alpha: share of the pixel that the reconstruction covers, [0, 1].
        depth: z-depth in world units, positive and finite everywhere (guessed in holes).
        confidence: how reliable the shown surface is, [0, 1]; 0 in holes.
        disagreement: colour difference between the context views that see the point, [0, 1]; 0 if only one does.
        context_inverse_depth: 1 / z-depth of the Vc context views, at a resolution the regressor chooses; 0 where it is
            unknown. None if the regressor provides none.
        context_confidence: confidence of `context_inverse_depth`, [0, 1]; None if the regressor provides none.
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
    """A reconstructed scene: made once, rendered from any camera."""

    def render(self, cameras: Cameras) -> Render:
        """Renders every camera; raises InputError if no target camera can see any part of the reconstruction."""
        ...


@runtime_checkable
class Regressor(Protocol):
    """Feed-forward reconstruction from posed context views."""

    @property
    def name(self) -> str:
        """Identifier used in plans, reports and messages."""
        ...

    @property
    def min_context_views(self) -> int:
        """The least number of context views that a reconstruction needs."""
        ...

    def reconstruct(self, scene: Scene) -> Reconstruction:
        """Reconstructs the scene; raises InputError if it has too few context views."""
        ...


@runtime_checkable
class Denoiser(Protocol):
    """Multi-view latent diffusion with its autoencoder.

    `factor` is the autoencoder's pixels per latent cell; image sides must be multiples of `size_multiple`.
    """

    name: str
    factor: int
    size_multiple: int
    latent_channels: int

    def encode(self, images: Float[Tensor, "V 3 H W"]) -> Float[Tensor, "V C h w"]:
        """Encodes images in [0, 1] into latents, scaled as the denoiser expects them."""
        ...

    def decode(self, latents: Float[Tensor, "V C h w"]) -> Float[Tensor, "V 3 H W"]:
        """Decodes latents into images, clamped to [0, 1]."""
        ...

    def sigmas(self, num_steps: int) -> Float[Tensor, "L"]:
        """The model's own noise levels: descending, last 0."""
        ...

    def condition(
        self,
        scene: Scene,
        targets: Cameras,
        render: Render,
        z_render: Float[Tensor, "V C h w"],
        *,
        reference: Cameras | None = None,
    ) -> Conditioning:
        """Computes everything that is constant over a request's steps, as one value that is passed to `denoise`.

        `scene` holds the context views: photos, and on long paths also finished frames. `reference` holds the cameras
        of the whole path, for a denoiser whose units depend on all cameras; None means this request's own cameras.
        """
        ...

    def denoise(
        self, latents: Float[Tensor, "V C h w"], sigma: float, conditioning: Conditioning
    ) -> Float[Tensor, "V C h w"]:
        """Estimates the clean latents of all target views at noise level `sigma`, guidance included."""
        ...


@runtime_checkable
class ContextEncoder(Protocol):
    """A denoiser that can encode the context views separately from `condition`, so that the result can be cached."""

    def encode_context(self, images: Float[Tensor, "V 3 H W"]) -> Conditioning:
        """Encodes a scene's images; the result is passed to `condition` as its keyword argument `context`."""
        ...


@runtime_checkable
class ReferenceDecoding(Protocol):
    """A denoiser that decodes frames with the render and the context views as references, not from latents alone."""

    def redrawn(self, conditioning: Conditioning) -> Float[Tensor, "V 3 H W"]:
        """The target views as surfaces found in the photos show them, in [0, 1]: what decoding starts from."""
        ...

    def decode_with_references(
        self,
        latents: Float[Tensor, "V C h w"],
        conditioning: Conditioning,
        views: Sequence[int],
        estimate: Float[Tensor, "V C h w"] | None = None,
        decoding: str = "search",
    ) -> Float[Tensor, "v 3 H W"]:
        """Decodes the latents of `views` into images in [0, 1]; see `decode_frames` for the arguments."""
        ...


def decode_frames(
    denoiser: Denoiser,
    latents: Float[Tensor, "V C h w"],
    conditioning: Conditioning,
    views: Sequence[int] | None = None,
    estimate: Float[Tensor, "V C h w"] | None = None,
    decoding: str = "search",
) -> Float[Tensor, "v 3 H W"]:
    """Decodes refined latents into frames, with the denoiser's reference views where it supports them.

    Args:
        denoiser: the model.
        latents: the latents of all target views.
        conditioning: the value returned by `denoiser.condition`.
        views: indices of the target views to decode; None decodes all.
        estimate: the clean latents estimated by the network's first call, from which correspondences with the photos
            can be searched before refinement ends; None if they were not kept, then `latents` serve instead.
        decoding: where a `ReferenceDecoding` denoiser takes the surfaces of a target view from: `search` finds them for
            each view, `survey` takes those that were found in the photos.
    """
    chosen = list(range(len(latents)) if views is None else views)
    if isinstance(denoiser, ReferenceDecoding):
        return denoiser.decode_with_references(latents, conditioning, chosen, estimate, decoding)
    return denoiser.decode(latents if views is None else latents[chosen])


@runtime_checkable
class TemporalConsistency(Protocol):
    """A denoiser that makes the finished frames of a path consistent with their neighbours."""

    def make_consistent(
        self, frames: Float[Tensor, "V 3 H W"], conditioning: Conditioning, views: Sequence[int]
    ) -> Float[Tensor, "v 3 H W"]:
        """The consistent frames of `views`; see `consistent_frames` for the arguments."""
        ...


def consistent_frames(
    denoiser: Denoiser, frames: Float[Tensor, "V 3 H W"], conditioning: Conditioning, views: Sequence[int]
) -> Float[Tensor, "v 3 H W"]:
    """Frames made consistent with their neighbours if the denoiser supports it, else unchanged.

    Args:
        denoiser: the model.
        frames: all target views in path order, in [0, 1]; the render where a view was not refined.
        conditioning: the value returned by `denoiser.condition`, including what decoding `views` stored in it.
        views: indices of the decoded views, which may change; all others are only read.
    """
    if isinstance(denoiser, TemporalConsistency) and len(frames) > 1:
        return denoiser.make_consistent(frames, conditioning, views)
    return frames[list(views)]


@runtime_checkable
class DenoiserRequest(Protocol):
    """One request's state inside a denoiser: precomputed values and caches. Owned by the refinement loop."""

    @property
    def caches(self) -> tuple[FeatureCache, ...]:
        """One per guidance branch; empty if memory does not suffice, then every call must be dense."""
        ...


@dataclass(frozen=True, kw_only=True, eq=False)
class DenoiseCall:
    """One request's part in a network call.

    Args:
        request: the value returned by `SelectiveDenoiser.begin`.
        latents: noisy latents of all target views.
        sigma: noise level of `latents`, above 0.
        active: tokens to compute, from `SelectiveDenoiser.active_tokens`; None computes all.
        keep: whether a dense call stores its features in the caches for later sparse calls.
        fresh_guidance: whether a guided denoiser also computes its unconditional branch; if not, it reuses the
            difference between the branches from the last call that computed both.
    """

    request: Any
    latents: Float[Tensor, "V C h w"]
    sigma: float
    active: ActiveTokens | None = None
    keep: bool = False
    fresh_guidance: bool = True


@runtime_checkable
class SelectiveDenoiser(Denoiser, Protocol):
    """A denoiser that can compute selected cells and read the features of all others from caches."""

    def begin(self, conditioning: Conditioning, cache_bytes: float | int) -> DenoiserRequest:
        """Precomputes what a request's calls share; it and the caches together use at most `cache_bytes`."""
        ...

    def active_tokens(self, request: Any, cells: Bool[Tensor, "V h w"]) -> ActiveTokens:
        """Index lists of the cells to compute; callers should reuse them while the cells stay the same."""
        ...

    def denoise_calls(self, calls: Sequence[DenoiseCall]) -> list[Float[Tensor, "V C h w"]]:
        """Estimates the clean latents of several requests at once; sparse estimates are undefined at inactive cells."""
        ...
