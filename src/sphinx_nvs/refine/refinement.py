"""The denoising loop, pulled one step at a time.

Noise eps is drawn once. At step i, with noise level sigma_i, a cell that has not
started yet *is*

    x = z_render + sigma_i eps                                                     (consistent re-noising)

so active cells always see a plausible neighbourhood at the right noise level; a cell leaves that line at its start step
and follows the solver from there, its first step at order one. Held cells end as z_render exactly, since the last sigma
is 0. At the plan's dense steps every token is computed; at the others the active ones are, against the features that
all others left in the request's caches. With every step dense, or with a denoiser without caches, nothing is
approximated. At a temperature T below 1 a cell ends between its sample x and its first estimate D, the model's mean
given nothing but the render: D + T (x - D).

Shapes: V target views, C latent channels, h w cells, H W pixels, S steps.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from sphinx_nvs.diffusion.solvers import Euler, History, Multistep
from sphinx_nvs.errors import InputError
from sphinx_nvs.models.base import Conditioning, DenoiseCall, Denoiser, DenoiserRequest, SelectiveDenoiser
from sphinx_nvs.nn.active_tokens import ActiveTokens
from sphinx_nvs.plan import ComputePlan


@dataclass(frozen=True, kw_only=True)
class StepReport:
    """Report of one step.

    Args:
        step: index into the plan's sigmas.
        sigma: noise level before the step.
        active_cells: cells that followed the solver.
        computed_cells: cells of target views that the network computed.
        dense: whether every token was.
        drift: drift of the caches before the step, see `FeatureCache`.
    """

    step: int
    sigma: float
    active_cells: int
    computed_cells: int
    dense: bool
    drift: float


@dataclass(frozen=True, kw_only=True, eq=False)
class FirstCall:
    """The outcome of a dense call at the first step.

    Args:
        denoised: the network's estimate.
        request: the denoiser's state, its caches filled by the call; None for denoisers without caches.
    """

    denoised: Float[Tensor, "V C h w"]
    request: DenoiserRequest | None


class Refinement:
    """One request's refinement; holds all its state, shares the denoiser with others.

    Args:
        denoiser: the model.
        conditioning: what `denoiser.condition` returned for this request.
        z_render: latents of the renders.
        plan: what to compute.
        seed: seed of the request's noise; the same seed gives the same latents, whatever else runs.
        cache_bytes: memory for features kept between calls; where they do not fit, every step is dense.
        first: the first step's call, where it was made already with the same noise; see `probe`.

    Attributes:
        latents: latents of all target views after the steps so far.
        estimate: the first call's estimate for all target views; None before it.

    Raises:
        InputError: the plan is for other view counts or sizes.
    """

    def __init__(
        self,
        denoiser: Denoiser,
        conditioning: Conditioning,
        z_render: Float[Tensor, "V C h w"],
        plan: ComputePlan,
        seed: int,
        cache_bytes: float | int = math.inf,
        first: FirstCall | None = None,
    ) -> None:
        if plan.start_step.shape != (len(z_render), *z_render.shape[-2:]):
            raise InputError(
                "plan",
                f"it is for {tuple(plan.start_step.shape)} (views, rows, columns) of cells",
                f"make one for {(len(z_render), *z_render.shape[-2:])}",
            )
        # On the CPU, whatever the device, and in the latents' own shape: so a seed means the same noise on every
        # machine.
        generator = torch.Generator().manual_seed(seed)
        self.eps = torch.randn(z_render.shape, generator=generator).to(z_render)
        self.denoiser, self.conditioning, self.z_render, self.plan = denoiser, conditioning, z_render, plan
        self.solver = Euler() if plan.solver == "euler" else Multistep()
        self.next_step = plan.first_step
        self.latents = self._held(self.next_step)
        self._history: History | None = None
        self._first = z_render
        self.estimate: Tensor | None = None
        self._active: tuple[Tensor, ActiveTokens] | None = None
        self._request: DenoiserRequest | None = None
        self._known = None if first is None else first.denoised
        if first is not None:
            self._request = first.request
        elif isinstance(denoiser, SelectiveDenoiser) and not self.done:
            self._request = denoiser.begin(conditioning, cache_bytes)

    @property
    def done(self) -> bool:
        """Whether the last step has been taken."""
        return self.next_step >= self.plan.num_steps

    @property
    def next_is_dense(self) -> bool:
        """Whether the next step computes every token."""
        caches = self._request.caches if self._request else ()
        # A known first call was dense; without a cache, or with an empty one, there is nothing that a sparse call could
        # read.
        if self._known is not None or self._planned_dense(self.next_step) or not caches or caches[0].sigma is None:
            return True
        return self.plan.refresh_drift is not None and self.drift > self.plan.refresh_drift

    @property
    def drift(self) -> float:
        """How far the caches' features have moved since the last dense call, see `FeatureCache`."""
        return max((cache.drift for cache in self._request.caches), default=0.0) if self._request else 0.0

    def step(self) -> StepReport:
        """Takes one solver step."""
        return step_together([self])[0]

    def first_call(self) -> FirstCall:
        """Makes the first step's call without taking the step, its features kept whatever the plan."""
        if not isinstance(self.denoiser, SelectiveDenoiser):
            sigma = self._sigma(self.next_step)
            return FirstCall(denoised=self.denoiser.denoise(self.latents, sigma, self.conditioning), request=None)
        # The plan is not made yet: whatever it will be, a sparse second step must find both branches' features.
        call = replace(self.next_call(), keep=bool(self._request and self._request.caches), fresh_guidance=True)
        return FirstCall(denoised=self.denoiser.denoise_calls([call])[0], request=self._request)

    def take_known(self) -> Tensor | None:
        """The next call's estimate if the call was made already, once."""
        known, self._known = self._known, None
        return known

    def next_call(self) -> DenoiseCall:
        """The network call of the next step; only for a `SelectiveDenoiser`.

        A step that fills the caches fills those of both guidance branches: so a later sparse step may compute either.
        """
        dense = self.next_is_dense
        keep = dense and self._keeps()
        return DenoiseCall(
            request=self._request,
            latents=self.latents,
            sigma=self._sigma(self.next_step),
            active=None if dense else self._active_tokens(),
            keep=keep,
            fresh_guidance=keep or self.plan.asks_unconditional(self.next_step),
        )

    def advance(self, denoised: Float[Tensor, "V C h w"], *, dense: bool, drift: float) -> StepReport:
        """Takes the next step with the network's estimate."""
        i = self.next_step
        self.estimate = denoised if self.estimate is None else self.estimate
        # The mask is needed as numbers only here; index lists of active tokens are built from the plan, and only when
        # it changes.
        active = self.plan.active(i)[:, None].to(self.z_render.device)
        moved, history = self.solver.step(self.latents, denoised, self._sigma(i), self._sigma(i + 1), self._history)
        # A cell that was held has followed the line to the render, not the solver: its past estimates are not on its
        # trajectory, so its first step is of first order.
        self._history = history.within(active)
        # The first estimate of each cell by itself: cells start at different steps.
        starting = (self.plan.start_step == i)[:, None].to(active.device)
        self._first = torch.where(starting, denoised, self._first)
        # Held cells are set anew at every level from the same noise, so nothing accumulates in them.
        self.latents = torch.where(active, moved, self._held(i + 1))
        self.next_step += 1
        if self.done and self.plan.temperature < 1:
            # Held cells' first estimate is the render, which they are by now: nothing changes for them.
            self.latents = torch.lerp(self._first, self.latents, self.plan.temperature)
        num_active = int(active.sum())
        return StepReport(
            step=i,
            sigma=self._sigma(i),
            active_cells=num_active,
            computed_cells=active.numel() if dense else num_active,
            dense=dense,
            drift=drift,
        )

    def _planned_dense(self, step: int) -> bool:
        return step in self.plan.dense_steps

    def _keeps(self) -> bool:
        """Whether a sparse step may follow before the next dense one; otherwise nothing reads the features."""
        caches = self._request.caches if self._request else ()
        after = self.next_step + 1
        return bool(caches) and after < self.plan.num_steps and not self._planned_dense(after)

    def _active_tokens(self) -> ActiveTokens:
        """Index lists of the next step's active cells, made once for as long as the cells stay."""
        cells = self.plan.active(self.next_step).to(self.z_render.device)
        # Cells change only where some of them start, so the same lists serve many steps.
        if self._active is None or not torch.equal(self._active[0], cells):
            assert isinstance(self.denoiser, SelectiveDenoiser)
            self._active = cells, self.denoiser.active_tokens(self._request, cells)
        return self._active[1]

    def _sigma(self, step: int) -> float:
        return float(self.plan.sigmas[step])

    def _held(self, step: int) -> Float[Tensor, "V C h w"]:
        """The render at the noise level of `step`."""
        sigma = self.plan.sigmas[step].to(self.z_render)
        return self.z_render + sigma * self.eps


def step_together(refinements: Sequence[Refinement]) -> list[StepReport]:
    """One solver step of several requests of one denoiser, with sparse steps' tokens packed into one network call.

    Every request gets what it would get alone.

    Raises:
        ValueError: the requests do not share one denoiser.
    """
    denoiser = refinements[0].denoiser
    if any(refinement.denoiser is not denoiser for refinement in refinements):
        raise ValueError("refinements must share one denoiser to be stepped together")
    dense = [refinement.next_is_dense for refinement in refinements]
    # Read before the calls: a dense call sets the drift back to zero.
    drifts = [refinement.drift for refinement in refinements]
    known = [refinement.take_known() for refinement in refinements]
    computed = iter(_estimates([r for r, estimate in zip(refinements, known, strict=True) if estimate is None]))
    estimates = [next(computed) if estimate is None else estimate for estimate in known]
    return [
        refinement.advance(estimate, dense=is_dense, drift=drift)
        for refinement, estimate, is_dense, drift in zip(refinements, estimates, dense, drifts, strict=True)
    ]


def _estimates(refinements: Sequence[Refinement]) -> list[Tensor]:
    """The network's estimates for the next step of requests of one denoiser."""
    if not refinements:
        return []
    denoiser = refinements[0].denoiser
    if isinstance(denoiser, SelectiveDenoiser):
        return denoiser.denoise_calls([refinement.next_call() for refinement in refinements])
    return [denoiser.denoise(r.latents, r._sigma(r.next_step), r.conditioning) for r in refinements]


def blend_held(
    decoded: Float[Tensor, "V 3 H W"], rendered: Float[Tensor, "V 3 H W"], ever_active: Bool[Tensor, "V h w"]
) -> Float[Tensor, "V 3 H W"]:
    """The render where cells were held, the decoded picture where any was refined, with a ramp one cell wide between.

    Held regions thus keep the render's own pixels instead of their round trip through the autoencoder.
    """
    factor = decoded.shape[-1] // ever_active.shape[-1]
    # Grown by one cell first: so the ramp lies outside of what was refined, and no refined pixel is mixed with the
    # render.
    grown = F.max_pool2d(ever_active[:, None].float(), 3, 1, 1)
    weight = F.interpolate(grown, scale_factor=float(factor))
    # Odd, so that the window has a centre and the ramp is symmetric.
    ramp = factor + 1 - factor % 2
    # Along one axis, then the other: the mean over a square, for a fraction of its sums.
    for side in ((1, ramp), (ramp, 1)):
        weight = F.avg_pool2d(weight, side, 1, (side[0] // 2, side[1] // 2), count_include_pad=False)
    return torch.lerp(rendered, decoded, weight)
