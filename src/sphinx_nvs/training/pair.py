"""Training of the embedded pair: first the autoencoder's correction, then the denoiser; on whatever device it lies.

Both loops can be cut anywhere (see `state`). Random numbers depend on the seed and the update alone, so that with the
same samples the result is the same as without the cut: bit for bit on a CPU, up to the order of atomic sums on a GPU.

The denoiser learns the residual F of `models.nano`. With unit weight at every noise level (Karras et al. 2022, table 1)
the loss is that of the posterior mean of truth given noisy latents; noise levels are drawn log-normally around the
residual's own spread, where what goes into a hole is decided. An exponential moving average is what gets shipped.

Shapes: B scenes, N views, V targets, C latent channels, h w cells.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable
from itertools import islice
from pathlib import Path
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from sphinx_nvs.models.embedded.autoencoder import BlockAutoencoder
from sphinx_nvs.models.embedded.denoiser import SIGMA_MAX, SIGMA_MIN, Nano, preconditioning, timestep_from_sigma
from sphinx_nvs.training.batches import Batch, Source, augmented, batch_from_samples
from sphinx_nvs.training.precision import in_bfloat16
from sphinx_nvs.training.samples import Sample, stack_samples
from sphinx_nvs.training.state import Run, Schedule

Crops = Callable[[int, torch.Generator], Float[Tensor, "B 3 H W"]]
LOG_SIGMA_MEAN, LOG_SIGMA_SPREAD = math.log(0.5), 1.6


@runtime_checkable
class Network(Protocol):
    """`UNet.forward`, compiled or not."""

    def __call__(self, x: Tensor, timesteps: Tensor, dense: Tensor, context: None, num_frames: int) -> Tensor:
        """One row out for each row in."""


def train_autoencoder(
    autoencoder: BlockAutoencoder, crops: Crops, schedule: Schedule, folder: Path, deadline_s: float = math.inf
) -> Run[BlockAutoencoder]:
    """Fits the decoder's correction to images, with slightly noisy latents so that it also removes a denoiser's grain.

    Args:
        autoencoder: trained in place, on its device.
        crops: draws images in [0, 1] on that device, sides multiples of 8; the generator is the CPU's.
        schedule: see `Schedule`.
        folder: checkpoint and curve.
        deadline_s: stop (and save) after so many seconds; call again to go on.

    Returns:
        The run; its `averaged` is what to ship.
    """
    run = Run(autoencoder, autoencoder.parameters(), schedule, folder)
    device = autoencoder.basis.device
    started = time.monotonic()
    while not run.is_over and time.monotonic() - started < deadline_s:
        cpu, local = _generators(schedule.seed, run.step, device)
        images = crops(schedule.batch, cpu)
        with torch.no_grad():
            latents = autoencoder.encode(images)
            level = 0.06 * torch.rand(len(images), 1, 1, 1, generator=local, device=device)
            latents = latents + level * torch.randn(latents.shape, generator=local, device=device)
        error = autoencoder.decode_raw(latents) - images
        squared = error.square().mean()
        # Charbonnier's smooth absolute error, which edges do not dominate, and the square, which PSNR measures.
        loss = (error.square() + 1e-4).sqrt().mean() + 2 * squared
        run.update(loss)
        run.save_if_due()
        if run.step % 100 == 0:
            run.log(loss=float(loss.detach()), psnr_db=-10 * math.log10(float(squared.detach())))
    run.save()
    return run


def _generators(seed: int, step: int, device: torch.device) -> tuple[torch.Generator, torch.Generator]:
    """The update's random numbers: a generator on the CPU, for choices, and one on the device, for noise."""
    number = seed * 1_000_003 + step
    return torch.Generator().manual_seed(number), torch.Generator(device).manual_seed(number)


def measure_spread(nano: Nano, samples: Iterable[Sample], count: int = 200) -> Float[Tensor, "2 C"]:
    """Fits the residual's spread against the render's doubt, per latent channel: `spread` of `Nano`.

    A line through the root mean squares of truth - render over the quarter of cells with least and the quarter with
    most doubt (1 - mean confidence), at least 0.03 and rising by at least 0.05.
    """
    doubts, squares = [], []
    for sample in islice(samples, count):
        batch = batch_from_samples(nano, stack_samples([sample]).to(nano.spread.device))
        signals = batch.features[0, batch.num_context :, nano.latent_channels :]
        doubts.append(1 - signals[:, 2].flatten())
        squares.append((batch.truth - batch.z_render)[0].square().permute(0, 2, 3, 1).flatten(0, 2))
    doubt, square = torch.cat(doubts), torch.cat(squares)
    order = doubt.argsort()
    quarter = max(1, len(order) // 4)
    low, high = (square[part].mean(0).sqrt() for part in (order[:quarter], order[-quarter:]))
    least, most = (float(doubt[part].mean()) for part in (order[:quarter], order[-quarter:]))
    slope = (high - low) / max(most - least, 1e-3)
    return torch.stack([(low - slope * least).clamp_min(0.03), slope.clamp_min(0.05)])


def draw_sigmas(count: int, generator: torch.Generator | None, device: torch.device | str) -> Float[Tensor, "B"]:
    """Log-normal noise levels somewhat above the residual's spread, where what to fill in is decided, clipped."""
    log_sigma = LOG_SIGMA_MEAN + LOG_SIGMA_SPREAD * torch.randn(count, generator=generator, device=device)
    return log_sigma.exp().clamp(SIGMA_MIN, SIGMA_MAX)


def denoising_loss(
    nano: Nano, batch: Batch, generator: torch.Generator | None, network: Network | None = None
) -> Float[Tensor, ""]:
    """Mean square error of F over the target views of a batch, channels and cells weighted by what they mean in pixels.

    In F's units every cell counts the same; weighting by the residual's expected spread turns the network towards what
    the regressor could not see, where nearly all of the picture's error is.

    Args:
        nano: whose network is trained.
        batch: the scenes.
        generator: on the batch's device; None for the global one.
        network: what to call instead of `nano.unet`, e.g. that network compiled.
    """
    clean, sigma_data, device = batch.truth - batch.z_render, batch.sigma_data, batch.truth.device
    sigmas = draw_sigmas(len(clean), generator, device)
    sigma = sigmas.view(-1, 1, 1, 1, 1)
    noisy = clean + sigma * torch.randn(clean.shape, generator=generator, device=device)
    c_skip, c_out, c_in = preconditioning(sigma, sigma_data)
    goal = (clean - c_skip * noisy) / c_out
    error = (_network_output(nano, batch, c_in * noisy, sigmas, network) - goal).square()
    # Residuals have heavy tails (an occluded foreground edge is far more than its expected spread): beyond five
    # spreads the square is bent so that single cells do not steer the update.
    bent = torch.where(error < 25, error, 10 * (error + 1e-9).sqrt() - 25)
    weight = sigma_data / sigma_data.mean((1, 3, 4), keepdim=True)
    return (bent * weight * channel_weights(nano)).mean()


def _network_output(
    nano: Nano, batch: Batch, residual: Float[Tensor, "B V C h w"], sigmas: Float[Tensor, "B"], network: Network | None
) -> Float[Tensor, "B V C h w"]:
    """F for the target views, in bfloat16 where that pays; the rest is float32."""
    # Context views have no residual: what is known of them stands in their features.
    known = torch.zeros_like(batch.features[:, : batch.num_context, : nano.latent_channels])
    rows = torch.cat([torch.cat([known, residual], 1), batch.features], 2).flatten(0, 1)
    num_views = batch.features.shape[1]
    timesteps = timestep_from_sigma(sigmas).repeat_interleave(num_views)
    with in_bfloat16(rows.device):
        out = (nano.unet if network is None else network)(rows, timesteps, batch.plucker.flatten(0, 1), None, num_views)
    return out.float().unflatten(0, (-1, num_views))[:, batch.num_context :]


def channel_weights(nano: Nano) -> Float[Tensor, "C 1 1"]:
    """Spread of each channel's residual in pixel units, mean 1: a hole's mean colour matters more than its grain."""
    weights = nano.spread.sum(0).view(-1, 1, 1) / nano.autoencoder.scale[0]
    return weights / weights.mean()


def train_denoiser(
    nano: Nano,
    source: Source,
    schedule: Schedule,
    folder: Path,
    deadline_s: float = math.inf,
    on_log: Callable[[Run[Nano]], None] | None = None,
    log_every: int = 50,
    validate_every_s: float = 120.0,
    network: Network | None = None,
) -> Run[Nano]:
    """Trains the U-Net (the autoencoder stays as it is) on the device where it lies.

    Args:
        nano: trained in place, `spread` already measured.
        source: training samples, on the same device.
        schedule: see `Schedule`.
        folder: checkpoint and curve.
        deadline_s: stop (and save) after so many seconds; call again to go on.
        on_log: called every `validate_every_s` and at the end, for validation.
        log_every: updates between log lines.
        validate_every_s: seconds between validations.
        network: what to call instead of `nano.unet`, e.g. that network compiled.

    Returns:
        The run; its `averaged` is what to ship.
    """
    run = Run(nano, nano.unet.parameters(), schedule, folder)
    started = validated = time.monotonic()
    losses: list[Tensor] = []
    while not run.is_over and time.monotonic() - started < deadline_s:
        losses.append(_update(run, source, network))
        figures = source.refresh()
        run.save_if_due()
        if run.step % log_every == 0:
            _log(run, losses, len(source), figures)
        if on_log and time.monotonic() - validated > validate_every_s:
            on_log(run)
            validated = time.monotonic()
            run.rest()
    run.save()
    if on_log:
        on_log(run)
    return run


def _update(run: Run[Nano], source: Source, network: Network | None) -> Tensor:
    """One update; returns its loss, still on the device."""
    nano = run.model
    cpu, local = _generators(run.schedule.seed, run.step, nano.spread.device)
    samples = source.draw(run.schedule.batch, cpu)
    num_targets = samples.rgb.shape[1] - samples.num_context
    # Two lengths only: a compiled network is built once for each.
    drop = 2 * int(torch.randint(0, 2, (), generator=cpu)) if num_targets > 2 else 0
    batch = batch_from_samples(nano, augmented(samples, local, drop))
    loss = denoising_loss(nano, batch, local, network)
    run.update(loss)
    return loss.detach()


def _log(run: Run[Nano], losses: list[Tensor], num_samples: int, figures: dict[str, float]) -> None:
    """Writes a line to the curve; goes back to the last checkpoint where the loss is lost."""
    # Read here only: each reading waits until the device has caught up.
    loss = float(torch.stack(losses).mean())
    losses.clear()
    if not math.isfinite(loss):
        run.recover()
        run.log(recovered=1)
        return
    run.log(loss=loss, gradient_norm=float(run.gradient_norm), samples=num_samples, **figures)
