"""SEVA's denoiser: a multi-view latent U-Net with classifier-free guidance, for any of its sizes.

The network predicts the unit noise at the noise levels q of a table, of which k is the index (see `NoisePrediction`).
It runs twice per step. Both branches get every view's Plücker rays; only the conditional one c gets the mask of known
views, their clean latents in place of noisy ones, and a cross-attention token, the mean embedding of the context
images. The unconditional one u has 0 there, and gets the context views as noisy as the targets.

    D_b = x_b - q F(x_b / sqrt(q^2 + 1), k; b),   b in {c, u}
    D = D_u + w (D_c - D_u) = D_c + (w - 1) r,    r = D_c - D_u,   w per view

r changes slowly with the noise level. So a call may skip the unconditional branch and reuse the last r: that halves
its cost, and is exact for an unchanged input.

The original samples all rows, context views too, and drops the latter in the end. Here context rows are not part of
the state: in the unconditional branch they are z + sigma eps, with noise fixed per request, which is the line along
which a perfect denoiser would move them.
References: Stable Virtual Camera (SEVA; Zhou et al., 2025); Classifier-Free Diffusion Guidance (Ho and Salimans, 2022).

Shapes: N = Vc + V rows (context first), V targets, h w latent cells, H W pixels, X channels of the token.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from sphinx_nvs.diffusion.guidance import constant_scale, guide, multiview_scale, temporal_scale
from sphinx_nvs.diffusion.preconditioning import NoisePrediction, Scalings, denoise, insert_known
from sphinx_nvs.diffusion.sigmas import SigmaTable
from sphinx_nvs.errors import InputError
from sphinx_nvs.geometry.cameras import Cameras
from sphinx_nvs.geometry.normalise import normalise_cameras
from sphinx_nvs.geometry.rays import plucker
from sphinx_nvs.models.base import DenoiseCall, Render
from sphinx_nvs.models.unet.network import UNet
from sphinx_nvs.models.unet.operations import NetworkCall, RequestConstants
from sphinx_nvs.models.unet.selective import SelectiveUNet
from sphinx_nvs.nn.active_tokens import ActiveTokens
from sphinx_nvs.nn.feature_cache import FeatureCache
from sphinx_nvs.scene.scene import Scene

LATENT_CHANNELS = 4
RAY_CHANNELS = 6
IN_CHANNELS = LATENT_CHANNELS + 1 + RAY_CHANNELS
FACTOR = 8

GUIDERS = (0, 1, 2)

CONTEXT_SEED = 0x5E7A_C0DE_0001
"""Seed of the context views' noise; unlikely as a user's seed, since the targets' noise is drawn in the same way."""


@runtime_checkable
class Autoencoder(Protocol):
    """Maps images to latents of 4 channels at an eighth of the size, and back, in chunks where memory is short."""

    def encode(self, images: Float[Tensor, "V 3 H W"]) -> Float[Tensor, "V 4 h w"]:
        """Encodes images in [0, 1] into latents, scaled as the network expects them."""
        ...

    def decode(self, latents: Float[Tensor, "V 4 h w"]) -> Float[Tensor, "V 3 H W"]:
        """The inverse; values may be outside [0, 1]."""
        ...


@runtime_checkable
class ImageEmbedder(Protocol):
    """Maps an image to one vector that describes its content."""

    def embed(self, images: Float[Tensor, "V 3 H W"]) -> Float[Tensor, "V X"]:
        """A vector per image in [0, 1], with as many channels as the network's context."""
        ...


@dataclass(frozen=True, kw_only=True)
class SevaSettings:
    """How a request is conditioned and guided.

    Args:
        guidance_scale: w of new views, from 0; 1 is no guidance.
        guidance_scale_min: w of views that coincide with a context view, from 0.
        guider: 0 uses `guidance_scale` for all views, 1 less for views that coincide with a context view, 2 also raises
            it with the number of rows to the nearest context view.
        camera_scale: distance of the first context view from the centroid of all cameras, in the network's units.

    Raises:
        InputError: a number is out of range.
    """

    guidance_scale: float = 2.0
    guidance_scale_min: float = 1.2
    guider: int = 1
    camera_scale: float = 2.0

    def __post_init__(self) -> None:
        for name in ("guidance_scale", "guidance_scale_min"):
            if not 0 <= getattr(self, name) < math.inf:
                raise InputError(f"SevaSettings.{name}", f"it is {getattr(self, name):g}", "give a number from 0")
        if not 0 < self.camera_scale < math.inf:
            raise InputError("SevaSettings.camera_scale", f"it is {self.camera_scale:g}", "give a positive number")
        if self.guider not in GUIDERS:
            raise InputError("SevaSettings.guider", f"it is {self.guider}", "choose 0, 1 or 2")


@dataclass(frozen=True, kw_only=True)
class SevaConditioning:
    """What is constant over a request's steps.

    Args:
        z_context: clean latents of the context views.
        eps_context: unit noise on them in the unconditional branch.
        plucker: rays of all views, relative to the first context view.
        token: mean embedding of the context images.
        scale: w of each target view.
    """

    z_context: Float[Tensor, "Vc 4 h w"]
    eps_context: Float[Tensor, "Vc 4 h w"]
    plucker: Float[Tensor, "N 6 h w"]
    token: Float[Tensor, "X"]
    scale: Float[Tensor, "V"]

    @property
    def num_context(self) -> int:
        """Vc."""
        return len(self.z_context)

    @property
    def num_rows(self) -> int:
        """N."""
        return len(self.plucker)

    @property
    def mask(self) -> Float[Tensor, "N 1 h w"]:
        """1 on the rows of known views."""
        mask = torch.zeros_like(self.plucker[:, :1])
        mask[: self.num_context] = 1
        return mask

    def features(self) -> tuple[Float[Tensor, "N 7 h w"], Float[Tensor, "N 7 h w"]]:
        """Mask and rays, the network's input besides the latents, for the conditional and the unconditional branch."""
        known = torch.cat([self.mask, self.plucker], 1)
        return known, torch.cat([torch.zeros_like(self.mask), self.plucker], 1)

    def contexts(self) -> tuple[Float[Tensor, "N 1 X"], Float[Tensor, "N 1 X"]]:
        """Cross-attention tokens of the two branches."""
        # Zeros and not an empty context in the unconditional branch: that is what the network was trained with.
        tokens = self.token.expand(self.num_rows, 1, -1)
        return tokens, torch.zeros_like(tokens)

    def rows(
        self, latents: Float[Tensor, "V 4 h w"], sigma: float
    ) -> tuple[Float[Tensor, "N 4 h w"], Float[Tensor, "N 4 h w"]]:
        """x_c and x_u: the noisy latents of all views; the conditional branch has the context views' clean latents."""
        noisy = torch.cat([self.z_context + sigma * self.eps_context, latents])
        known = torch.cat([self.z_context, torch.zeros_like(latents)])
        return insert_known(noisy, known, self.mask), noisy


@dataclass(kw_only=True, eq=False)
class SevaRequest:
    """A request's state during refinement.

    Args:
        conditioning: what is constant over its steps.
        constants: the network's precomputed values for the conditional and the unconditional branch; values that depend
            only on the rays are shared.
        caches: features for sparse calls, per branch in the same order; empty if memory does not suffice.
        residual: r of the last call that computed both branches; a sparse call updates it where it is active.
    """

    conditioning: SevaConditioning
    constants: tuple[RequestConstants, RequestConstants]
    caches: tuple[FeatureCache, ...]
    residual: Float[Tensor, "V 4 h w"] | None = None


class Seva(nn.Module):
    """SEVA's network with its autoencoder and image embedder; implements the `SelectiveDenoiser` protocol.

    The network computes in the dtype of its parameters; latents stay in float32.

    Args:
        unet: 11 input channels (latents, mask, rays), 4 output channels, 6 dense ones, and a cross-attention context;
            `models.unet.SEVA` is the full size.
        autoencoder: factor 8, 4 channels.
        embedder: as wide as the network's context.
        settings: guidance and units.

    Raises:
        InputError: the network has other channels, or takes no context.
    """

    name = "seva"
    factor = FACTOR
    size_multiple = 64
    latent_channels = LATENT_CHANNELS
    compiled = False
    """Whether selective calls use compiled kernels, see `nn.token_ops`; set it before the first call."""

    def __init__(
        self, unet: UNet, autoencoder: Autoencoder, embedder: ImageEmbedder, settings: SevaSettings | None = None
    ) -> None:
        super().__init__()
        config = unet.config
        found = config.in_channels, config.out_channels, config.dense_in_channels
        wanted = IN_CHANNELS, LATENT_CHANNELS, RAY_CHANNELS
        if found != wanted:
            raise InputError("Seva.unet", f"its input, output and dense channels are {found}", f"give {wanted}")
        if config.context_dim is None:
            raise InputError("Seva.unet", "its context_dim is None", "give a network that takes a context")
        self.unet = unet
        self.autoencoder = autoencoder
        self.embedder = embedder
        self.settings = settings or SevaSettings()
        self.prediction = NoisePrediction(SigmaTable.seva())

    @torch.no_grad()
    def encode(self, images: Float[Tensor, "V 3 H W"]) -> Float[Tensor, "V 4 h w"]:
        """Encodes images in [0, 1] into latents; the autoencoder chooses the chunk size."""
        return self.autoencoder.encode(images).float()

    @torch.no_grad()
    def decode(self, latents: Float[Tensor, "V 4 h w"]) -> Float[Tensor, "V 3 H W"]:
        """Decodes latents into images in [0, 1]; the autoencoder chooses the chunk size."""
        return self.autoencoder.decode(latents).float().clamp(0, 1)

    def sigmas(self, num_steps: int) -> Float[Tensor, "L"]:
        """SEVA's grid of trained levels, with 0 appended."""
        return self.prediction.table.grid(num_steps)

    @torch.no_grad()
    def condition(
        self,
        scene: Scene,
        targets: Cameras,
        render: Render,
        z_render: Float[Tensor, "V 4 h w"],
        generator: torch.Generator | None = None,
        *,
        reference: Cameras | None = None,
        context: tuple[Tensor, Tensor] | None = None,
    ) -> SevaConditioning:
        """Encodes and embeds the context views, and converts the cameras to the network's units.

        Args:
            scene: the context views.
            targets: the requested cameras.
            render: unused: SEVA uses renders only as a plan's starting point.
            z_render: gives the latents' size and device.
            generator: CPU generator of the context views' noise in the unconditional branch; None uses `CONTEXT_SEED`,
                so that the noise depends only on the number and size of context views.
            reference: all cameras of the path, whose centroid becomes the origin; None for context views and targets.
            context: `encode_context` of the scene's images, if already computed.
        """
        z_context, token = self.encode_context(scene.images) if context is None else context
        generator = generator or torch.Generator().manual_seed(CONTEXT_SEED)
        cameras = Cameras.cat([scene.cameras, targets])
        cameras = normalise_cameras(cameras, reference=reference, camera_scale=self.settings.camera_scale)
        return SevaConditioning(
            z_context=z_context,
            eps_context=torch.randn(z_context.shape, generator=generator).to(z_context),
            plucker=plucker(cameras, *z_render.shape[-2:]).to(z_render),
            token=token.to(z_render),
            scale=self.guidance_scale(cameras, len(z_context)).to(z_render),
        )

    def encode_context(self, images: Float[Tensor, "V 3 H W"]) -> tuple[Float[Tensor, "V 4 h w"], Tensor]:
        """See `ContextEncoder`: latents of the images, and the mean of their embeddings."""
        return self.encode(images), self.embedder.embed(images).mean(0)

    def guidance_scale(self, cameras: Cameras, num_context: int) -> Float[Tensor, "V"]:
        """The guider's w of each target view.

        Args:
            cameras: cameras of all rows, context first, in the network's units.
            num_context: number of rows that are context views.
        """
        strength = {"scale": self.settings.guidance_scale, "scale_min": self.settings.guidance_scale_min}
        if self.settings.guider == 0:
            return constant_scale(len(cameras) - num_context, self.settings.guidance_scale)
        is_known = torch.arange(len(cameras)) < num_context
        scale_of = multiview_scale if self.settings.guider == 1 else temporal_scale
        return scale_of(cameras.c2w, cameras.K_norm, is_known, **strength)[num_context:]

    @torch.no_grad()
    def denoise(
        self, latents: Float[Tensor, "V 4 h w"], sigma: float, conditioning: SevaConditioning
    ) -> Float[Tensor, "V 4 h w"]:
        """Estimates the clean latents, with both branches stacked in one pass of the plain network.

        This is the readable reference for a dense call of `denoise_calls`.
        """
        features, context = torch.cat(conditioning.features()), torch.cat(conditioning.contexts())
        rays = conditioning.plucker.repeat(2, 1, 1, 1)

        def network(scaled: Tensor, timestep: Tensor) -> Tensor:
            x = torch.cat([scaled, features], 1).to(self.dtype)
            num_frames = conditioning.num_rows
            return self.unet(x, timestep, rays.to(self.dtype), context.to(self.dtype), num_frames).to(scaled.dtype)

        rows = torch.cat(conditioning.rows(latents, sigma))
        conditional, unconditional = denoise(self.prediction, network, rows, sigma).chunk(2)
        targets = slice(conditioning.num_context, None)
        return guide(unconditional[targets], conditional[targets], conditioning.scale)

    @property
    def dtype(self) -> torch.dtype:
        """The type in which the network computes."""
        return next(self.unet.parameters()).dtype

    @cached_property
    def selective(self) -> SelectiveUNet:
        """The network laid out for serving, built on first use; weights must not change afterwards."""
        return SelectiveUNet(self.unet, self.latent_channels, compiled=self.compiled)

    @torch.no_grad()
    def begin(self, conditioning: SevaConditioning, cache_bytes: float | int = math.inf) -> SevaRequest:
        """See `SelectiveDenoiser.begin`; if memory is short, drops the modulation maps first, then both caches."""
        film_bytes, feature_bytes = self.selective.memory(conditioning.num_rows, *conditioning.plucker.shape[-2:])
        # A cache per guidance branch, or none: one alone could not serve a guided sparse step.
        both_bytes = 2 * feature_bytes
        caches = (FeatureCache(), FeatureCache()) if both_bytes <= cache_bytes else ()
        constants = self._constants(conditioning, keep_film=film_bytes + both_bytes <= cache_bytes)
        return SevaRequest(conditioning=conditioning, constants=constants, caches=caches)

    def _constants(
        self, conditioning: SevaConditioning, *, keep_film: bool
    ) -> tuple[RequestConstants, RequestConstants]:
        """Constants of both branches; values that depend only on the rays are computed once and shared."""
        features = [part.to(self.dtype) for part in conditioning.features()]
        contexts = [part.to(self.dtype) for part in conditioning.contexts()]
        rays = conditioning.plucker.to(self.dtype)
        conditional = self.selective.constants(features[0], rays, contexts[0], keep_film=keep_film)
        unconditional = self.selective.constants(features[1], rays, contexts[1], keep_film=False)
        # The branches differ in mask, latents and token; the modulation depends only on the rays.
        return conditional, replace(unconditional, dense=conditional.dense, film=conditional.film)

    def active_tokens(self, request: SevaRequest, cells: Bool[Tensor, "V h w"]) -> ActiveTokens:
        """See `SelectiveDenoiser.active_tokens`; context views are never active."""
        return ActiveTokens.of_targets(cells, request.conditioning.num_context, self.unet.config.num_levels)

    @torch.no_grad()
    def denoise_calls(self, calls: Sequence[DenoiseCall]) -> list[Float[Tensor, "V 4 h w"]]:
        """See `SelectiveDenoiser.denoise_calls`: equal to `denoise` where a call is dense and its guidance fresh.

        Raises:
            ValueError: a call without fresh guidance is its request's first, so that there is no r yet, or it would
                fill the caches, which then would be inconsistent with each other.
        """
        parts = [self._network_calls(call) for call in calls]
        outputs = iter(self.selective([branch for part in parts for branch in part]))
        return [self._guided(call, [next(outputs) for _ in part]) for call, part in zip(calls, parts, strict=True)]

    def _network_calls(self, call: DenoiseCall) -> list[NetworkCall]:
        """The conditional branch's call, and the unconditional one's if guidance is fresh."""
        request = call.request
        if not call.fresh_guidance and (call.keep or request.residual is None):
            raise ValueError("a request's first call, and every call that fills its caches, needs fresh guidance")
        scalings = self._scalings(call.sigma)
        rows = request.conditioning.rows(call.latents, call.sigma)
        # A dense call that no sparse call follows skips the cost of filling the caches.
        caches = request.caches if call.keep or call.active else (None, None)
        branches = list(zip(rows, request.constants, caches, strict=True))
        return [
            NetworkCall(
                x=(float(scalings.c_in) * x).to(self.dtype),
                timestep=float(scalings.timestep),
                constants=constants,
                cache=cache,
                active=call.active,
                sigma=call.sigma,
            )
            for x, constants, cache in branches[: 2 if call.fresh_guidance else 1]
        ]

    def _guided(self, call: DenoiseCall, outputs: list[Tensor]) -> Float[Tensor, "V 4 h w"]:
        """D from the branches' outputs; with one branch it reuses the request's r, with two it stores a new one."""
        request = call.request
        conditional, *unconditional = [self._estimate(call, output) for output in outputs]
        if unconditional:
            fresh = conditional - unconditional[0]
            # A sparse call's difference is undefined at inactive cells: there the last one stays.
            request.residual = fresh if call.active is None else _updated(request.residual, fresh, call.active)
        return conditional + (request.conditioning.scale - 1)[:, None, None, None] * request.residual

    def _estimate(self, call: DenoiseCall, output: Tensor) -> Float[Tensor, "V 4 h w"]:
        """D of one branch; 0 stands in for the network's output where it was not computed."""
        if call.active is not None:
            output = call.active.levels[0].map_of(output)
        scalings = self._scalings(call.sigma)
        # Context rows are inputs only: their outputs are not part of the state.
        raw = output[call.request.conditioning.num_context :].to(call.latents.dtype)
        return float(scalings.c_skip) * call.latents + float(scalings.c_out) * raw

    def _scalings(self, sigma: float) -> Scalings:
        """The preconditioning's coefficients, on the CPU."""
        return self.prediction.scalings(torch.tensor([sigma]))


def _updated(
    before: Float[Tensor, "V C h w"], fresh: Float[Tensor, "V C h w"], active: ActiveTokens
) -> Float[Tensor, "V C h w"]:
    """`before` with the active cells' values replaced by those of `fresh`."""
    finest = active.levels[0]
    cells = torch.zeros(finest.num_tokens, dtype=torch.bool, device=fresh.device).index_fill(0, finest.index, True)
    # Rows are context views first, so the last ones are the targets.
    targets = cells.view(-1, 1, *fresh.shape[-2:])[-len(fresh) :]
    return torch.where(targets, fresh, before)
