"""A training run's state: model, moving average, optimiser and progress, in files small enough to carry anywhere.

Tensors go to safetensors shards of at most `SHARD_BYTES`. A full checkpoint (float32, with the optimiser's moments)
resumes to the same weights as if it had never been cut. A *portable* one (float16, without moments) is a quarter of its
size or less; what is lost is the optimiser's memory of the last twenty updates, which a short warm-up rebuilds.

    average' = average + (1 - d) (model - average),    d = min(decay, (1 + step) / (10 + step))
"""

from __future__ import annotations

import copy
import json
import math
import shutil
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Generic, TypeVar

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from sphinx_nvs.errors import InputError

SHARD_BYTES = 15 * 2**20
"""Most bytes of tensors in one file."""


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """How long and how fast to learn.

    Args:
        steps: updates in all; the last fifth lowers the learning rate to zero.
        seconds: training time in all, over all starts; whichever of the two is further decides the rate.
        batch: scenes (denoiser) or images (autoencoder) an update.
        learning_rate: AdamW's learning rate, after `warmup` updates.
        warmup: updates over which the rate rises from zero, after every start without the optimiser's moments.
        ema: decay of the moving average.
        clip: gradients are scaled down to this norm.
        save_every_s: seconds between checkpoints.
        seed: seed of all random numbers.
    """

    steps: int = 10_000
    seconds: float = math.inf
    batch: int = 4
    learning_rate: float = 4e-4
    warmup: int = 200
    ema: float = 0.998
    clip: float = 0.5
    save_every_s: float = 120.0
    seed: int = 0

    def rate(self, step: int, seconds: float = 0.0, since_start: int | None = None) -> float:
        """The learning rate's factor: warm-up over the updates `since_start`, plateau, linear end."""
        left = 1 - max(step / self.steps, seconds / self.seconds)
        rise = ((step if since_start is None else since_start) + 1) / self.warmup
        return min(1.0, rise) * max(0.0, min(1.0, left / 0.2))

    def is_over(self, step: int, seconds: float) -> bool:
        """Whether nothing is left to do."""
        return step >= self.steps or seconds >= self.seconds


Model = TypeVar("Model", bound=nn.Module)
Drawn = TypeVar("Drawn")
Draw = Callable[[torch.Generator], Drawn]
"""Draws a sample, with all that is random about it from the generator."""


class Run(Generic[Model]):
    """A loop's state on disk and its curve as JSON lines.

    Args:
        model: where it is trained, on its device; what the folder holds is loaded into it.
        parameters: those to train.
        schedule: see `Schedule`.
        folder: made if missing.
        notes: whole numbers kept with the checkpoint; those of a checkpoint that is there already win.
    """

    def __init__(
        self,
        model: Model,
        parameters: Iterable[nn.Parameter],
        schedule: Schedule,
        folder: Path,
        notes: Mapping[str, int] | None = None,
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.model, self.schedule, self.folder = model, schedule, folder
        self.averaged: Model = copy.deepcopy(model).eval().requires_grad_(False)
        self.parameters = list(parameters)
        # A short memory of squared gradients: residuals are heavy-tailed, and with 0.999 one bad batch at the full rate
        # was seen to blow up the activations of the coarse levels.
        self.optimiser = torch.optim.AdamW(
            self.parameters,
            lr=schedule.learning_rate,
            betas=(0.9, 0.95),
            weight_decay=0.03,
            fused=self.parameters[0].is_cuda,
        )
        self.step, self.trained_s = 0, 0.0
        self.notes = dict(notes or {})
        self._moments_from = 0
        self._saved = self._ticked = time.monotonic()
        self.gradient_norm = torch.zeros(())
        if (self.checkpoint / "progress.json").exists():
            self.load(self.checkpoint)

    @property
    def checkpoint(self) -> Path:
        """Where the full state lies."""
        return self.folder / "checkpoint"

    @property
    def is_over(self) -> bool:
        """Whether the schedule is done."""
        return self.schedule.is_over(self.step, self.trained_s)

    def update(self, loss: Tensor) -> None:
        """One optimiser step on `loss`, then the moving average; waits for nothing."""
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        self._step()

    def follow(self, gradients: Sequence[Tensor]) -> None:
        """The same by gradients that were computed elsewhere, one a parameter."""
        for parameter, gradient in zip(self.parameters, gradients, strict=True):
            parameter.grad = gradient
        self._step()

    def _step(self) -> None:
        """Moves parameters by their gradients."""
        rate = self.schedule.rate(self.step, self.trained_s, self.step - self._moments_from)
        for group in self.optimiser.param_groups:
            group["lr"] = self.schedule.learning_rate * rate
        self.gradient_norm = nn.utils.clip_grad_norm_(self.parameters, self.schedule.clip)
        self.optimiser.step()
        self._average()
        self.step += 1
        now = time.monotonic()
        self.trained_s, self._ticked = self.trained_s + now - self._ticked, now

    @torch.no_grad()
    def _average(self) -> None:
        """Moves the average towards the model."""
        # A shorter memory at first: the initial weights should not stay in the average.
        decay = min(self.schedule.ema, (1 + self.step) / (10 + self.step))
        pairs = [(a, p) for a, p in zip(self.averaged.parameters(), self.model.parameters(), strict=True)]
        torch._foreach_lerp_([a for a, _ in pairs], [p.detach() for _, p in pairs], 1 - decay)

    def rest(self) -> None:
        """Leaves the time since the last update out of the training time (validation, waiting, saving)."""
        self._ticked = time.monotonic()

    def save_if_due(self) -> None:
        """Saves when `save_every_s` have passed."""
        if time.monotonic() - self._saved > self.schedule.save_every_s:
            self.save()

    def save(self) -> None:
        """Writes the full checkpoint beside the old one, then renames."""
        states = {"model": self.model.state_dict(), "average": self.averaged.state_dict(), "moments": self._moments()}
        beside = self.folder / "checkpoint.partial"
        self._write(beside, states)
        if self.checkpoint.exists():
            shutil.rmtree(self.checkpoint)
        # A kill before this line leaves the partial folder, and at worst no checkpoint for a moment; never half of one.
        beside.rename(self.checkpoint)
        self._saved = time.monotonic()

    def save_portable(self, folder: Path, *, average_only: bool = False) -> None:
        """Writes the portable checkpoint, which `load` reads as well; a run can go on from the average alone."""
        states = {"average": self.averaged.state_dict()}
        if not average_only:
            states["model"] = self.model.state_dict()
        self._write(folder, {k: {n: _halved(t) for n, t in v.items()} for k, v in states.items()})

    def _write(self, folder: Path, states: Mapping[str, Mapping[str, Tensor]]) -> None:
        """Shards and progress into an emptied folder."""
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        for stem, tensors in states.items():
            save_shards(tensors, folder, stem)
        progress = {"step": self.step, "trained_s": self.trained_s, "notes": self.notes}
        (folder / "progress.json").write_text(json.dumps(progress))

    def _moments(self) -> dict[str, Tensor]:
        """The optimiser's tensors, by parameter and name; empty before the first update."""
        state = self.optimiser.state_dict()["state"]
        return {f"{index}.{name}": t for index, each in state.items() for name, t in each.items()}

    def load(self, folder: Path) -> None:
        """Takes up a full or portable checkpoint.

        Raises:
            InputError: it is of another network.
        """
        progress = json.loads((folder / "progress.json").read_text())
        self.step, self.trained_s, self.notes = progress["step"], progress["trained_s"], progress["notes"]
        average = load_shards(folder, "average")
        load_into(self.averaged, average, folder)
        load_into(self.model, load_shards(folder, "model") or average, folder)
        moments = load_shards(folder, "moments")
        if not moments:
            self._moments_from = self.step
            return
        state: dict[int, dict[str, Tensor]] = {}
        for key, value in moments.items():
            index, name = key.split(".")
            state.setdefault(int(index), {})[name] = value
        groups = self.optimiser.state_dict()["param_groups"]
        self.optimiser.load_state_dict({"state": state, "param_groups": groups})

    def recover(self) -> None:
        """Goes back to the last checkpoint, for when the weights are lost to a number that is none.

        Raises:
            InputError: there is no checkpoint yet.
        """
        if not (self.checkpoint / "progress.json").exists():
            raise InputError(f"run {self.folder}", "the loss is not finite", "lower the learning rate and start again")
        step, seconds = self.step, self.trained_s
        self.load(self.checkpoint)
        self.step, self.trained_s = step, seconds

    def log(self, **values: float | int) -> None:
        """Adds one line to the curve."""
        line = {"step": self.step, "trained_s": round(self.trained_s, 1), "time": round(time.time(), 1), **values}
        with (self.folder / "curve.jsonl").open("a") as file:
            file.write(json.dumps(line) + "\n")


def follow_in_threads(
    run: Run[Model],
    samples: Sequence[Drawn] | Draw[Drawn],
    loss: Callable[[Drawn, torch.Generator], Tensor],
    *,
    deadline_s: float,
    workers: int,
    on_log: Callable[[Run[Model]], None] | None,
    validate_every_s: float,
) -> Run[Model]:
    """Trains on the CPU, each sample of a batch in a thread of its own; what is drawn depends on seed and update alone.

    Args:
        run: whose schedule and parameters.
        samples: to draw from, evenly; or what draws one by itself.
        loss: computes a sample's loss; everything random about it comes from the generator.
        deadline_s: stop (and save) after so many seconds; call again to go on.
        workers: threads.
        on_log: called every `validate_every_s` and at the end.
        validate_every_s: seconds between.
    """
    schedule = run.schedule
    draw = samples if callable(samples) else partial(_evenly, samples)
    started = validated = time.monotonic()

    def gradients(index: int) -> tuple[list[Tensor], float]:
        generator = torch.Generator().manual_seed(schedule.seed * 1_000_003 + run.step * schedule.batch + index)
        sample = draw(generator)
        value = loss(sample, generator)
        return list(torch.autograd.grad(value, run.parameters)), float(value.detach())

    losses: list[float] = []
    with ThreadPoolExecutor(workers) as pool:
        while not run.is_over and time.monotonic() - started < deadline_s:
            parts = list(pool.map(gradients, range(schedule.batch)))
            run.follow([torch.stack(each).mean(0) for each in zip(*(part[0] for part in parts), strict=True)])
            losses.extend(part[1] for part in parts)
            run.save_if_due()
            if run.step % 50 == 0:
                run.log(loss=sum(losses) / len(losses), gradient_norm=float(run.gradient_norm))
                losses.clear()
            if on_log and time.monotonic() - validated > validate_every_s:
                on_log(run)
                validated = time.monotonic()
                run.rest()
    run.save()
    if on_log:
        on_log(run)
    return run


def _evenly(samples: Sequence[Drawn], generator: torch.Generator) -> Drawn:
    return samples[int(torch.randint(len(samples), (), generator=generator))]


def _halved(tensor: Tensor) -> Tensor:
    return tensor.to(torch.float16) if tensor.is_floating_point() else tensor


def load_into(module: nn.Module, state: Mapping[str, Tensor], where: Path) -> None:
    """Loads a state of any precision.

    Raises:
        InputError: names or shapes differ from the module's.
    """
    own = module.state_dict()
    strange = sorted(set(own) ^ set(state)) or [k for k in own if own[k].shape != state[k].shape]
    if strange:
        raise InputError(
            f"checkpoint {where}", f"{strange[0]} does not fit", "resume with the network it was made with"
        )
    module.load_state_dict({key: value.to(own[key].dtype) for key, value in state.items()})


def save_shards(tensors: Mapping[str, Tensor], folder: Path, stem: str, most: int = SHARD_BYTES) -> list[Path]:
    """Writes tensors to `stem-00.safetensors`, `stem-01…`, each of at most `most` bytes unless one tensor is larger."""
    shards: list[dict[str, Tensor]] = []
    room = 0
    for key, value in tensors.items():
        size = value.numel() * value.element_size()
        if not shards or size > room:
            shards.append({})
            room = most
        shards[-1][key] = value.detach().cpu().contiguous()
        room -= size
    paths = [folder / f"{stem}-{index:02d}.safetensors" for index in range(len(shards))]
    for path, shard in zip(paths, shards, strict=True):
        save_file(shard, path)
    return paths


def load_shards(folder: Path, stem: str) -> dict[str, Tensor]:
    """What `save_shards` wrote; empty where there is nothing."""
    return {k: v for path in sorted(folder.glob(f"{stem}-*.safetensors")) for k, v in load_file(path).items()}
