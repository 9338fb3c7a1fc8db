"""The embedded denoiser: a small SEVA-family U-Net that diffuses what a render lacks.

It works on the residual between the truth and the render, in the latents of the block autoencoder.
With r = x - z_render and sigma_d the spread of that residual, the estimate of the clean latents is (Karras et al. 2022,
"Elucidating the design space of diffusion-based generative models", section 5, around the render instead of zero)

    D(x; sigma) = z_render + c_skip r + c_out F(c_in r; c_noise, conditioning)
    c_skip = sigma_d^2 / (sigma^2 + sigma_d^2),  c_out = sigma sigma_d / sqrt(sigma^2 + sigma_d^2),
    c_in = 1 / sqrt(sigma^2 + sigma_d^2)

sigma_d is a map, not a number: a cell that the regressor saw well has a small residual, a hole a large one. So F has
unit scale everywhere, and where the render is sure an untrained network can do little harm. Context views enter as rows
of known latents beside the targets; every view carries Plücker rays relative to the first context view, in units of the
scene's depth.

Shapes: N = V_c + V rows (context first), V targets, C latent channels, h w cells, F features.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from sphinx_nvs.diffusion.sigmas import karras_grid
from sphinx_nvs.geometry.cameras import Cameras
from sphinx_nvs.geometry.rays import plucker
from sphinx_nvs.models.base import DenoiseCall, Render
from sphinx_nvs.models.embedded.autoencoder import BlockAutoencoder
from sphinx_nvs.models.embedded.decoder_inputs import DecoderInputs, Found, decoder_inputs, redraw
from sphinx_nvs.models.embedded.reference_decoder import ReferenceDecoder, search_stride
from sphinx_nvs.models.embedded.search_cache import SearchCache
from sphinx_nvs.models.embedded.serving_decoder import PhotoMaps, ServingDecoder
from sphinx_nvs.models.embedded.temporal_consistency import Agreement, Neighbours, Path, depth_of_path, neighbours_of
from sphinx_nvs.models.unet.network import UNet, UNetConfig, zero_residual_outputs
from sphinx_nvs.models.unet.operations import NetworkCall, RequestConstants
from sphinx_nvs.models.unet.selective import SelectiveUNet
from sphinx_nvs.nn.active_tokens import ActiveTokens
from sphinx_nvs.nn.cpu_features import multiplies_bfloat16
from sphinx_nvs.nn.feature_cache import FeatureCache
from sphinx_nvs.scene.scene import Scene

SIGMA_MIN, SIGMA_MAX, RHO = 0.01, 10.0, 7.0
NUM_SIGNALS = 5
LATENT_CHANNELS = BlockAutoencoder.latent_channels

NANO = UNetConfig(
    in_channels=2 * LATENT_CHANNELS + NUM_SIGNALS + 6,
    out_channels=LATENT_CHANNELS,
    model_channels=64,
    channel_mult=(1, 2, 3),
    num_res_blocks=1,
    attention_resolutions=(2, 4),
    num_head_channels=32,
    context_dim=None,
    dense_in_channels=6,
    joint=("input_ds4", "middle_ds4", "output_ds4", "output_ds2"),
    ff_mult=2,
    time_mix=False,
)

NANO_L = replace(
    NANO,
    model_channels=96,
    channel_mult=(1, 2, 2),
    joint=("input_ds2", "input_ds4", "middle_ds4", "output_ds4", "output_ds2"),
)
"""Wider, and with all views together from the second level on: 1.4 times the parameters, 1.8 times the FLOPs."""

NETWORKS = {"nano": NANO, "nano-l": NANO_L}
"""Networks that can be trained, by name."""


@dataclass(frozen=True, kw_only=True)
class NanoConditioning:
    """What stays the same over a request's steps.

    Args:
        features: network input beside the noisy latents: known latents, signals, rays.
        plucker: rays for the modulation of every residual block.
        z_render: the render's latents, the centre of the diffusion.
        sigma_data: expected spread of the residual, latent units.
        num_context: rows that are known context views.
        inputs: inputs of the reference decoder; None where nothing will be decoded with it.
        neighbours: which target views lie beside which; None likewise.
        photos: what decoding on the CPU reads of the photos; None elsewhere.
        search_cache: what the reference decoder found in the photos; decoding fills it, see `SearchCache`.
    """

    features: Float[Tensor, "N F h w"]
    plucker: Float[Tensor, "N 6 h w"]
    z_render: Float[Tensor, "V C h w"]
    sigma_data: Float[Tensor, "V C h w"]
    num_context: int
    inputs: DecoderInputs | None = None
    neighbours: Neighbours | None = None
    photos: PhotoMaps | None = None
    search_cache: SearchCache = field(default_factory=SearchCache)


@dataclass(frozen=True, kw_only=True, eq=False)
class NanoRequest:
    """A request while it is refined.

    Args:
        conditioning: what stays the same over its steps.
        constants: what the network makes of that, once.
        caches: features for sparse calls: one cache, or none if it would not fit.
    """

    conditioning: NanoConditioning
    constants: RequestConstants
    caches: tuple[FeatureCache, ...]


def signal_maps(
    alpha: Float[Tensor, "V H W"],
    confidence: Float[Tensor, "V H W"],
    disagreement: Float[Tensor, "V H W"],
    factor: int,
) -> Float[Tensor, "V 4 h w"]:
    """What the regressor says of itself, per latent cell: mean and least alpha, mean confidence, mean disagreement."""
    stacked = torch.stack([alpha, confidence, disagreement], 1)
    mean = F.avg_pool2d(stacked, factor)
    # The least alpha as well: a single hole in a cell of 64 pixels hardly changes the mean.
    least = -F.max_pool2d(-alpha[:, None], factor)
    return torch.cat([mean[:, :1], least, mean[:, 1:]], 1)


def relative_plucker(cameras: Cameras, depth_unit: float, height: int, width: int) -> Float[Tensor, "V 6 h w"]:
    """Plücker rays relative to the first camera, positions in units of `depth_unit`, on a height x width grid."""
    # Relative to the first camera and in units of the scene's depth: neither the world's origin nor its scale may
    # matter.
    c2w = torch.linalg.inv(cameras.c2w[0]) @ cameras.c2w
    c2w[:, :3, 3] /= depth_unit
    return plucker(Cameras(c2w, cameras.K, cameras.height, cameras.width), height, width)


def timestep_from_sigma(sigma: Tensor) -> Tensor:
    """The network's noise index, 0..1000, linear in log sigma."""
    low, high = math.log(SIGMA_MIN), math.log(SIGMA_MAX)
    return 1000 * (sigma.log() - low) / (high - low)


class Pictures:
    """A view's latents as pictures, with the detail that the autoencoder loses of the render added back.

    Args:
        decode: latents to an image.
        rendered: the render.
        known: its latents.
    """

    def __init__(
        self,
        decode: Callable[[Float[Tensor, "1 C h w"]], Float[Tensor, "1 3 H W"]],
        rendered: Float[Tensor, "1 3 H W"],
        known: Float[Tensor, "1 C h w"],
    ) -> None:
        self._decode, self._rendered, self._known = decode, rendered, known

    @cached_property
    def _detail(self) -> Float[Tensor, "1 3 H W"]:
        """What the autoencoder loses."""
        return self._rendered - self._decode(self._known)

    def of(self, latents: Float[Tensor, "1 C h w"]) -> Float[Tensor, "1 3 H W"]:
        """The picture; the render itself for its own latents."""
        return self._rendered if torch.equal(latents, self._known) else self._detail + self._decode(latents)


class Nano(nn.Module):
    """The embedded denoiser with its autoencoder; meets the `Denoiser` protocol.

    `spread` holds, per latent channel, the residual's standard deviation where the render is sure and what is added as
    it becomes unsure; it is measured on the training data before training.
    """

    name = "nano"
    factor = BlockAutoencoder.factor
    size_multiple = BlockAutoencoder.factor * 4
    latent_channels = LATENT_CHANNELS
    compiled = False
    """Whether selective calls run compiled kernels, see `nn.token_ops`; to be set before the first."""

    decoding_dtype: torch.dtype | None = None
    """What decoding on the CPU computes in; None for bfloat16 where the processor multiplies it, else float32."""

    spread: Tensor

    def __init__(self, config: UNetConfig = NANO) -> None:
        super().__init__()
        self.autoencoder = BlockAutoencoder()
        self.unet = zero_residual_outputs(UNet(config))
        self.reference = ReferenceDecoder()
        self.agreement = Agreement()
        self.register_buffer("spread", torch.tensor([[0.05], [0.2]]).repeat(1, LATENT_CHANNELS))
        self._serving: tuple[object, list[nn.Module], ServingDecoder] | None = None

    @torch.no_grad()
    def encode(self, images: Float[Tensor, "V 3 H W"]) -> Float[Tensor, "V C h w"]:
        """Images in [0, 1] to latents."""
        return self.autoencoder.encode(images)

    def encode_context(self, images: Float[Tensor, "V 3 H W"]) -> Float[Tensor, "V C h w"]:
        """See `ContextEncoder`."""
        return self.encode(images)

    @torch.no_grad()
    def decode(self, latents: Float[Tensor, "V C h w"]) -> Float[Tensor, "V 3 H W"]:
        """Latents to images in [0, 1], one view at a time to bound memory."""
        return torch.cat([self.autoencoder.decode(view[None]) for view in latents])

    @torch.no_grad()
    def decode_with_references(
        self,
        latents: Float[Tensor, "V C h w"],
        conditioning: NanoConditioning,
        views: Sequence[int],
        estimate: Float[Tensor, "V C h w"] | None = None,
        decoding: str = "search",
    ) -> Float[Tensor, "v 3 H W"]:
        """See `ReferenceDecoding`: the render's detail is added back, then `ReferenceDecoder` refines it.

        One view at a time: no frame depends on which others are decoded. Where the photos are searched with an
        estimate, that is done once for it, however often its view is decoded.
        """
        inputs = conditioning.inputs
        assert inputs is not None
        stride, frames = search_stride(*inputs.rendered.shape[-2:]), []
        for view in views:
            one = slice(view, view + 1)
            pictures = Pictures(self._plain, inputs.rendered[one], conditioning.z_render[one])
            if decoding == "search":
                found = self._found(conditioning, view, pictures, (latents if estimate is None else estimate)[one])
            else:
                found = inputs.of(view).drawn.surfaces(stride)
                conditioning.search_cache.keep(view, None, found)
            frames.append(self._composed(conditioning, view, pictures.of(latents[one]), found))
        return torch.cat(frames)

    def redrawn(self, conditioning: NanoConditioning) -> Float[Tensor, "V 3 H W"]:
        """See `ReferenceDecoding`."""
        assert conditioning.inputs is not None
        return conditioning.inputs.drawn.rgb

    def _found(
        self,
        conditioning: NanoConditioning,
        view: int,
        pictures: Pictures,
        first: Float[Tensor, "1 C h w"],
    ) -> Found:
        """What searching the photos for a view finds, with the first estimate of its latents."""
        # The search sees the first estimate, not the refined latents: the same estimate gives the same surfaces, so
        # the probe's search serves the refined frame as well.
        found = conditioning.search_cache.known(view, first)
        if found is None:
            assert conditioning.inputs is not None
            picture, of_view = pictures.of(first), conditioning.inputs.of(view)
            serving, photos = self.serving_decoder, conditioning.photos
            if serving is None or photos is None:
                found = self.reference.find(picture, of_view)
            else:
                found = serving.find(picture, of_view, photos)
            conditioning.search_cache.keep(view, first, found)
        return found

    def _composed(
        self, conditioning: NanoConditioning, view: int, picture: Float[Tensor, "1 3 H W"], found: Found
    ) -> Float[Tensor, "1 3 H W"]:
        """A view's frame, its surfaces known."""
        assert conditioning.inputs is not None
        of_view = conditioning.inputs.of(view)
        serving, photos = self.serving_decoder, conditioning.photos
        if serving is None or photos is None:
            return self.reference.compose(picture, of_view, found).clamp(0, 1)
        return serving.compose(picture, of_view, found, photos)

    def _plain(self, latents: Float[Tensor, "V C h w"]) -> Float[Tensor, "V 3 H W"]:
        """Images of latents alone."""
        serving = self.serving_decoder
        return self.decode(latents) if serving is None else serving.decode(latents)

    @property
    def serving_decoder(self) -> ServingDecoder | None:
        """The decoders laid out for the CPU; made anew when weights have changed. None on other devices."""
        if self.spread.device.type != "cpu":
            return None
        dtype = self.decoding_dtype or (torch.bfloat16 if multiplies_bfloat16() else torch.float32)
        parts = (self.autoencoder, self.reference, self.agreement)
        if self._serving is None or self._serving[0] != (dtype, parts, _state_of(self._serving[1])):
            # Kept, since a walk over all modules takes milliseconds, and a request asks at each view.
            holders = [module for part in parts for module in part.modules() if module._parameters]
            self._serving = (dtype, parts, _state_of(holders)), holders, ServingDecoder(*parts, dtype)
        return self._serving[2]

    @torch.no_grad()
    def make_consistent(
        self, frames: Float[Tensor, "V 3 H W"], conditioning: NanoConditioning, views: Sequence[int]
    ) -> Float[Tensor, "v 3 H W"]:
        """See `TemporalConsistency`: each frame beside its neighbours as they came in, one view at a time."""
        inputs, neighbours = conditioning.inputs, conditioning.neighbours
        assert inputs is not None
        assert neighbours is not None
        chosen, inverse_depth = list(views), inputs.inverse_depth.clone()
        found = conditioning.search_cache.inverse_depths(chosen)
        inverse_depth[chosen] = depth_of_path(inputs.inverse_depth[chosen], found, inputs.signals[chosen])
        path = Path(
            frames=frames.to(inputs.rendered),
            rendered=inputs.rendered,
            signals=inputs.signals,
            inverse_depth=inverse_depth,
            neighbours=neighbours,
        )
        serving = self.serving_decoder
        if serving is not None:
            return serving.agreed(path, chosen)
        return torch.stack([self.agreement(path, view).clamp(0, 1) for view in chosen])

    def sigmas(self, num_steps: int) -> Float[Tensor, "L"]:
        """Karras grid from `SIGMA_MAX` to `SIGMA_MIN`, 0 appended."""
        return karras_grid(num_steps, sigma_min=SIGMA_MIN, sigma_max=SIGMA_MAX, rho=RHO)

    def sigma_data(self, signals: Float[Tensor, "*B 4 h w"]) -> Float[Tensor, "*B C h w"]:
        """Expected spread of the residual: `spread[0] + spread[1] (1 - mean confidence)`."""
        doubt = (1 - signals[..., 2:3, :, :]).clamp(0, 1)
        base, slope = self.spread.view(2, -1, 1, 1)
        return base + slope * doubt

    @torch.no_grad()
    def condition(
        self,
        scene: Scene,
        targets: Cameras,
        render: Render,
        z_render: Float[Tensor, "V C h w"],
        *,
        reference: Cameras | None = None,
        context: Float[Tensor, "Vc C h w"] | None = None,
    ) -> NanoConditioning:
        """Encodes the context views and gathers what does not change from step to step, and the inputs of decoding.

        `reference` is not used: units are the depth of these targets. `context` is `encode_context` of the scene's
        images, where that is known already.
        """
        h, w = z_render.shape[-2:]
        z_context = self.encode_context(scene.images) if context is None else context
        rays = relative_plucker(Cameras.cat([scene.cameras, targets]), float(render.depth.median()), h, w)
        signals = signal_maps(render.alpha, render.confidence, render.disagreement, self.factor)
        conditioning = self.assemble(z_context, z_render, signals, rays)
        inputs = decoder_inputs(scene.images, scene.cameras, targets, render)
        serving = self.serving_decoder
        photos = None if serving is None else serving.photo_maps(scene.images)
        found = None if serving is None or photos is None else serving.survey(inputs, photos)
        survey = found or self.reference.survey(inputs)
        return replace(
            conditioning,
            inputs=replace(inputs, redrawn=redraw(inputs, scene.cameras, targets, survey)),
            neighbours=neighbours_of(targets, z_render.device),
            photos=photos,
        )

    def assemble(
        self,
        z_context: Float[Tensor, "Vc C h w"],
        z_render: Float[Tensor, "V C h w"],
        signals: Float[Tensor, "V 4 h w"],
        rays: Float[Tensor, "N 6 h w"],
    ) -> NanoConditioning:
        """The conditioning of one scene from its parts."""
        # Signals of a photo: fully covered, sure, no disagreement; the last channel tells known views from targets.
        known = torch.tensor([1.0, 1.0, 1.0, 0.0, 1.0], dtype=z_context.dtype, device=z_context.device)
        context_signals = known.view(1, 5, 1, 1).expand(len(z_context), -1, *z_context.shape[-2:])
        target_signals = torch.cat([signals, torch.zeros_like(signals[:, :1])], 1)
        features = torch.cat([torch.cat([z_context, z_render]), torch.cat([context_signals, target_signals]), rays], 1)
        return NanoConditioning(
            features=features,
            plucker=rays,
            z_render=z_render,
            sigma_data=self.sigma_data(signals),
            num_context=len(z_context),
        )

    @torch.no_grad()
    def denoise(
        self, latents: Float[Tensor, "V C h w"], sigma: float, conditioning: NanoConditioning
    ) -> Float[Tensor, "V C h w"]:
        """The clean latents' estimate; `sigma` above 0."""
        sigma_map = latents.new_full((1, 1, 1, 1), sigma)
        residual = latents - conditioning.z_render
        c_skip, c_out, c_in = preconditioning(sigma_map, conditioning.sigma_data)
        estimate = self.predict([conditioning], [c_in * residual], sigma_map.view(1))[0]
        return conditioning.z_render + c_skip * residual + c_out * estimate

    @property
    def dtype(self) -> torch.dtype:
        """The type that the network computes in; latents stay in single precision."""
        return next(self.unet.parameters()).dtype

    @cached_property
    def selective(self) -> SelectiveUNet:
        """The network laid out for serving, made at first use: weights must not change after that."""
        # Its joint attention decides little: in bfloat16 estimates differ by 1e-4 of what the network changes.
        return SelectiveUNet(self.unet, self.latent_channels, compiled=self.compiled, joint_in_bfloat16=True)

    @torch.no_grad()
    def begin(self, conditioning: NanoConditioning, cache_bytes: float | int = math.inf) -> NanoRequest:
        """See `SelectiveDenoiser.begin`; drops the modulation maps first, then the features."""
        rows, _, height, width = conditioning.features.shape
        film_bytes, feature_bytes = self.selective.memory(rows, height, width)
        constants = self.selective.constants(
            conditioning.features.to(self.dtype),
            conditioning.plucker.to(self.dtype),
            None,
            keep_film=film_bytes + feature_bytes <= cache_bytes,
        )
        caches = (FeatureCache(),) if feature_bytes <= cache_bytes else ()
        return NanoRequest(conditioning=conditioning, constants=constants, caches=caches)

    def active_tokens(self, request: NanoRequest, cells: Bool[Tensor, "V h w"]) -> ActiveTokens:
        """See `SelectiveDenoiser.active_tokens`; context views are never active."""
        return ActiveTokens.of_targets(cells, request.conditioning.num_context, self.unet.config.num_levels)

    @torch.no_grad()
    def denoise_calls(self, calls: Sequence[DenoiseCall]) -> list[Float[Tensor, "V C h w"]]:
        """See `SelectiveDenoiser.denoise_calls`: equal to `denoise` where a call is dense."""
        outputs = self.selective([self._network_call(call) for call in calls])
        return [self._estimate(call, output) for call, output in zip(calls, outputs, strict=True)]

    def _network_call(self, call: DenoiseCall) -> NetworkCall:
        conditioning, sigma = call.request.conditioning, torch.tensor(call.sigma)
        _, _, c_in = preconditioning(sigma, conditioning.sigma_data)
        residual = c_in * (call.latents - conditioning.z_render)
        known = residual.new_zeros(conditioning.num_context, *residual.shape[1:])
        return NetworkCall(
            x=torch.cat([known, residual]).to(self.dtype),
            timestep=float(timestep_from_sigma(sigma)),
            constants=call.request.constants,
            cache=call.request.caches[0] if call.keep or call.active else None,
            active=call.active,
            sigma=call.sigma,
        )

    def _estimate(self, call: DenoiseCall, output: Tensor) -> Float[Tensor, "V C h w"]:
        """The clean latents from the network's answer; 0 stands for F where it was not asked."""
        conditioning = call.request.conditioning
        if call.active is not None:
            # Zeros where nothing was computed: the estimate there is undefined by contract, and the loop does not read
            # it.
            output = call.active.levels[0].map_of(output)
        residual = call.latents - conditioning.z_render
        c_skip, c_out, _ = preconditioning(torch.tensor(call.sigma), conditioning.sigma_data)
        estimate = output[conditioning.num_context :].float()
        return conditioning.z_render + c_skip * residual + c_out * estimate

    def predict(
        self,
        conditionings: list[NanoConditioning],
        residuals: list[Float[Tensor, "V C h w"]],
        sigmas: Float[Tensor, "B"],
    ) -> list[Float[Tensor, "V C h w"]]:
        """The network F for several scenes of one shape in one call; residuals are already scaled by c_in."""
        num_rows = len(conditionings[0].features)
        rows = []
        for conditioning, residual in zip(conditionings, residuals, strict=True):
            known = residual.new_zeros(conditioning.num_context, *residual.shape[1:])
            rows.append(torch.cat([torch.cat([known, residual]), conditioning.features], 1))
        timesteps = timestep_from_sigma(sigmas).repeat_interleave(num_rows)
        rays = torch.cat([c.plucker for c in conditionings])
        out = self.unet(torch.cat(rows), timesteps, rays, None, num_rows)
        return [part[c.num_context :].float() for part, c in zip(out.split(num_rows), conditionings, strict=True)]


def _state_of(holders: Sequence[nn.Module]) -> list[tuple[int, int | None]]:
    """What changes with the weights: updates in place raise a tensor's version, replaced ones lie elsewhere."""
    weights = [weight for module in holders for weight in module._parameters.values() if weight is not None]
    return [(weight.data_ptr(), None if weight.is_inference() else weight._version) for weight in weights]


def preconditioning(sigma: Tensor, sigma_data: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """c_skip, c_out, c_in of the module's equations; the shapes broadcast."""
    total = (sigma**2 + sigma_data**2).sqrt()
    return (sigma_data / total) ** 2, sigma * sigma_data / total, 1 / total
