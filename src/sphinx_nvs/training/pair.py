"""Training of the embedded pair: first the autoencoder's correction, then the denoiser.

Both loops can be cut anywhere: they save a checkpoint every few minutes and go on from it with the same random numbers,
so that with an unchanged pool the result is the same as without the cut. The denoiser learns the residual F of
`models.nano` with unit weight at every noise level (Karras et al. 2022, table 1), noise levels drawn log-normally; an
exponential moving average is what gets shipped.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Generic, TypeVar, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from sphinx_nvs.models.autoencoder import BlockAutoencoder
from sphinx_nvs.models.nano import SIGMA_MAX, SIGMA_MIN, Nano, preconditioning
from sphinx_nvs.training.batches import Example, Pool, example_from_sample


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """How long and how fast to learn.

    Args:
        steps: updates in all; the last fifth lowers the learning rate to zero.
        batch: scenes (denoiser) or images (autoencoder) an update.
        learning_rate: of AdamW, after `warmup` updates.
        warmup: updates over which the rate rises from zero.
        ema: decay of the moving average.
        clip: gradients are scaled down to this norm.
        save_every_s: seconds between checkpoints.
        seed: of all random numbers.
    """

    steps: int = 10_000
    batch: int = 4
    learning_rate: float = 4e-4
    warmup: int = 200
    ema: float = 0.998
    clip: float = 0.5
    save_every_s: float = 120.0
    seed: int = 0

    def rate(self, step: int) -> float:
        """The learning rate's factor at `step`: warm-up, plateau, linear end."""
        end = max(0.0, min(1.0, (self.steps - step) / (0.2 * self.steps)))
        return min(1.0, (step + 1) / self.warmup) * end


Model = TypeVar("Model", bound=nn.Module)


class Run(Generic[Model]):
    """A loop's state on disk: model, moving average, optimiser, step; and its curve as JSON lines."""

    def __init__(self, model: Model, parameters: Iterable[nn.Parameter], schedule: Schedule, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.model, self.schedule, self.folder = model, schedule, folder
        # A short memory of squared gradients: residuals are heavy-tailed, and with 0.999 one bad batch at the full rate
        # was seen to blow up the activations of the coarse levels.
        self.optimiser = torch.optim.AdamW(parameters, lr=schedule.learning_rate, betas=(0.9, 0.95), weight_decay=0.03)
        self.average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(schedule.ema))
        self.step = 0
        self.gradient_norm = 0.0
        self._saved = time.monotonic()
        if self._path.exists():
            self._load()

    @property
    def averaged(self) -> Model:
        """The moving average: what gets shipped."""
        return cast(Model, self.average.module)

    @property
    def _path(self) -> Path:
        return self.folder / "checkpoint.pt"

    def _load(self) -> None:
        state = torch.load(self._path, weights_only=True)
        self.model.load_state_dict(state["model"])
        self.average.load_state_dict(state["average"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.step = state["step"]

    def save(self) -> None:
        """Writes the checkpoint beside the old one, then renames."""
        state = {
            "model": self.model.state_dict(),
            "average": self.average.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "step": self.step,
        }
        beside = self._path.with_suffix(".partial")
        torch.save(state, beside)
        beside.replace(self._path)
        self._saved = time.monotonic()

    def update(self, loss: Tensor) -> None:
        """One optimiser step on `loss`, then the moving average."""
        for group in self.optimiser.param_groups:
            group["lr"] = self.schedule.learning_rate * self.schedule.rate(self.step)
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        parameters = [p for group in self.optimiser.param_groups for p in group["params"]]
        self.gradient_norm = float(nn.utils.clip_grad_norm_(parameters, self.schedule.clip))
        self.optimiser.step()
        self.average.update_parameters(self.model)
        self.step += 1
        if time.monotonic() - self._saved > self.schedule.save_every_s:
            self.save()

    def log(self, **values: float | int) -> None:
        """Adds one line to the curve."""
        with (self.folder / "curve.jsonl").open("a") as file:
            file.write(json.dumps({"step": self.step, "time": time.time(), **values}) + "\n")


def train_autoencoder(
    autoencoder: BlockAutoencoder,
    crops: Callable[[int, torch.Generator], Float[Tensor, "B 3 H W"]],
    schedule: Schedule,
    folder: Path,
    deadline_s: float = math.inf,
) -> BlockAutoencoder:
    """Fits the decoder's correction to images, with slightly noisy latents so that it also mends a denoiser's grain.

    Args:
        autoencoder: trained in place.
        crops: draws images in [0, 1], sides multiples of 8.
        schedule: see `Schedule`.
        folder: checkpoint and curve.
        deadline_s: stop (and save) after so many seconds; call again to go on.

    Returns:
        The moving average.
    """
    run = Run(autoencoder, autoencoder.parameters(), schedule, folder)
    started = time.monotonic()
    while run.step < schedule.steps and time.monotonic() - started < deadline_s:
        generator = torch.Generator().manual_seed(schedule.seed * 1_000_003 + run.step)
        images = crops(schedule.batch, generator)
        with torch.no_grad():
            latents = autoencoder.encode(images)
            level = 0.06 * torch.rand(len(images), 1, 1, 1, generator=generator)
            latents = latents + level * torch.randn(latents.shape, generator=generator)
        error = autoencoder.decode_raw(latents) - images
        loss = (error.square() + 1e-4).sqrt().mean() + 2 * error.square().mean()
        run.update(loss)
        if run.step % 100 == 0:
            run.log(loss=float(loss.detach()), psnr_db=-10 * math.log10(float(error.detach().square().mean())))
    run.save()
    return run.averaged


def measure_spread(nano: Nano, pool: Pool, count: int = 200) -> Float[Tensor, "2 C"]:
    """Fits the residual's spread against the render's doubt, per latent channel: `spread` of `Nano`.

    A line through the root mean squares of truth - render over the quarter of cells with least and the quarter with
    most doubt (1 - mean confidence), at least 0.03 and rising by at least 0.05.
    """
    doubts, squares = [], []
    for sample in islice(pool.each(), count):
        example = example_from_sample(nano, sample, None)
        conditioning = example.conditioning
        signals = conditioning.features[conditioning.num_context :, nano.latent_channels :]
        doubts.append(1 - signals[:, 2].flatten())
        squares.append((example.truth - conditioning.z_render).square().permute(0, 2, 3, 1).flatten(0, 2))
    doubt, square = torch.cat(doubts), torch.cat(squares)
    order = doubt.argsort()
    quarter = max(1, len(order) // 4)
    low, high = (square[part].mean(0).sqrt() for part in (order[:quarter], order[-quarter:]))
    least, most = (float(doubt[part].mean()) for part in (order[:quarter], order[-quarter:]))
    slope = (high - low) / max(most - least, 1e-3)
    return torch.stack([(low - slope * least).clamp_min(0.03), slope.clamp_min(0.05)])


def draw_sigmas(count: int, generator: torch.Generator) -> Float[Tensor, "B"]:
    """Log-normal noise levels somewhat above the residual's spread, where what to fill in is decided, clipped."""
    log_sigma = math.log(0.8) + 1.6 * torch.randn(count, generator=generator)
    return log_sigma.exp().clamp(SIGMA_MIN, SIGMA_MAX)


def denoising_loss(nano: Nano, examples: list[Example], generator: torch.Generator) -> Float[Tensor, ""]:
    """Mean square error of F over the target views of a batch, channels and cells weighted by what they mean in pixels.

    In F's units every cell counts the same; weighting by the residual's expected spread turns the network towards what
    the regressor could not see, where nearly all of the picture's error is.
    """
    sigmas = draw_sigmas(len(examples), generator)
    inputs, goals, weights = [], [], []
    for example, sigma in zip(examples, sigmas, strict=True):
        clean = example.truth - example.conditioning.z_render
        noisy = clean + sigma * torch.randn(clean.shape, generator=generator)
        sigma_data = example.conditioning.sigma_data
        c_skip, c_out, c_in = preconditioning(sigma, sigma_data)
        inputs.append(c_in * noisy)
        goals.append((clean - c_skip * noisy) / c_out)
        weights.append((sigma_data / sigma_data.mean((0, 2, 3), keepdim=True)).expand_as(clean))
    outputs = nano.predict([e.conditioning for e in examples], inputs, sigmas)
    error = (torch.cat(outputs) - torch.cat(goals)).square()
    # Residuals have heavy tails (an occluded foreground edge is far more than its expected spread): beyond five
    # spreads the square is bent so that single cells do not steer the update.
    bent = torch.where(error < 25, error, 10 * (error + 1e-9).sqrt() - 25)
    return (bent * torch.cat(weights) * channel_weights(nano)).mean()


def channel_weights(nano: Nano) -> Float[Tensor, "C 1 1"]:
    """Spread of each channel's residual in pixel units, mean 1: a hole's mean colour matters more than its grain."""
    weights = nano.spread.sum(0).view(-1, 1, 1) / nano.autoencoder.scale[0]
    return weights / weights.mean()


def train_denoiser(
    nano: Nano,
    pool: Pool,
    schedule: Schedule,
    folder: Path,
    deadline_s: float = math.inf,
    on_log: Callable[[Nano, Run], None] | None = None,
    log_every: int = 50,
) -> Nano:
    """Trains the U-Net (the autoencoder stays as it is).

    Args:
        nano: trained in place, `spread` already measured.
        pool: training samples; looked through for new shards as it goes.
        schedule: see `Schedule`.
        folder: checkpoint and curve.
        deadline_s: stop (and save) after so many seconds; call again to go on.
        on_log: called with the moving average now and then, for validation.
        log_every: updates between log lines.

    Returns:
        The moving average.
    """
    run = Run(nano, nano.unet.parameters(), schedule, folder)
    started, losses = time.monotonic(), []
    while run.step < schedule.steps and time.monotonic() - started < deadline_s:
        generator = torch.Generator().manual_seed(schedule.seed * 1_000_003 + run.step)
        samples = pool.draw(schedule.batch, generator)
        num_targets = len(samples[0].rgb) - int(samples[0].num_context)
        drop = int(torch.randint(0, min(3, num_targets), (), generator=generator))
        examples = [example_from_sample(nano, sample, generator, drop) for sample in samples]
        with torch.autocast("cpu", torch.bfloat16):
            loss = denoising_loss(nano, examples, generator)
        run.update(loss)
        losses.append(float(loss.detach()))
        if run.step % log_every == 0:
            run.log(
                loss=sum(losses) / len(losses),
                gradient_norm=run.gradient_norm,
                elapsed_s=time.monotonic() - started,
                pool=len(pool),
            )
            losses.clear()
            pool.refresh()
        if on_log and run.step % (log_every * 10) == 0:
            on_log(run.averaged, run)
    run.save()
    return run.averaged
