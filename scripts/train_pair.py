"""Trains the embedded pair: `pool` makes samples, `autoencoder` and `denoiser` learn from them, `export` ships.

    python scripts/train_pair.py pool --folder runs/pool/train --count 3000
    python scripts/train_pair.py pool --folder runs/pool/val --count 64 --split val
    python scripts/train_pair.py autoencoder --pool runs/pool/train --run runs/autoencoder
    python scripts/train_pair.py denoiser --pool runs/pool/train --val runs/pool/val --run runs/nano
    python scripts/train_pair.py export --run runs/nano

Every step can be cut (`--minutes`, Ctrl-C) and started again; the denoiser takes in samples that `pool` adds meanwhile.
"""

from __future__ import annotations

import json
import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import skimage.data
import torch
import torch.nn.functional as F
import tyro
from torch import Tensor

from sphinx_nvs.models import embedded
from sphinx_nvs.models.autoencoder import BlockAutoencoder
from sphinx_nvs.models.nano import Nano
from sphinx_nvs.training.batches import Pool
from sphinx_nvs.training.pair import Run, Schedule, measure_spread, train_autoencoder, train_denoiser
from sphinx_nvs.training.samples import Sample, make_sample, save_samples
from sphinx_nvs.training.validation import validate

log = logging.getLogger("train_pair")
SHARD = 16
PHOTOS = ("astronaut", "coffee", "rocket")


@dataclass(frozen=True, kw_only=True)
class MakePool:
    """Renders procedural scenes and what the regressor makes of them, in shards of 16."""

    folder: Path
    """Where the shards go; shards that are there are kept."""
    count: int = 3000
    """Samples in all."""
    split: str = "train"
    """train, val or test: disjoint seeds and textures."""
    first_seed: int = 0
    """Seeds count up from here."""
    size: int = 128
    """Pixels of a side."""
    views: int = 8
    """Context and target views together."""
    real_share: float = 0.25
    """Share rendered by the real plane sweep instead of spoilt exact depth."""

    def run(self) -> None:
        """Makes the shards that are missing."""
        self.folder.mkdir(parents=True, exist_ok=True)
        started = time.monotonic()
        for first in range(self.first_seed, self.first_seed + self.count, SHARD):
            path = self.folder / f"{self.split}-{first:07d}.safetensors"
            if path.exists():
                continue
            made = [
                make_sample(s, self.split, self.views, self.size, self.real_share) for s in range(first, first + SHARD)
            ]
            samples: list[Sample] = [sample for sample in made if sample is not None]
            save_samples(samples, path)
            log.info("%s: %d samples, %.0f s", path.name, len(samples), time.monotonic() - started)


@dataclass(frozen=True, kw_only=True)
class TrainAutoencoder:
    """Fits the decoder's correction."""

    pool: Path
    """Folder of training samples."""
    run_folder: Annotated[Path, tyro.conf.arg(name="run")]
    """Checkpoint and curve."""
    schedule: Schedule = field(default_factory=lambda: Schedule(steps=4000, batch=8, learning_rate=1e-3, ema=0.995))
    minutes: float = math.inf
    """Stop and save after this long."""

    def run(self) -> None:
        """Trains, or goes on training."""
        pool = Pool(self.pool)
        pictures = [picture for sample in pool.each() for picture in sample.rgb]
        photos = [torch.from_numpy(getattr(skimage.data, name)()).permute(2, 0, 1) for name in PHOTOS]

        def crops(count: int, generator: torch.Generator) -> Tensor:
            chosen = torch.randint(len(pictures), (count,), generator=generator).tolist()
            drawn = [pictures[i].float() / 255 for i in chosen[: count // 2]]
            while len(drawn) < count:
                drawn.append(_photo_crop(photos, 128, generator))
            return torch.stack(drawn)

        train_autoencoder(BlockAutoencoder(), crops, self.schedule, self.run_folder, 60 * self.minutes)


def _photo_crop(photos: list[Tensor], size: int, generator: torch.Generator) -> Tensor:
    """A square window of a photo at a random scale, mirrored half of the time."""
    photo = photos[int(torch.randint(len(photos), (), generator=generator))].float() / 255
    zoom = 0.3 + 0.7 * float(torch.rand((), generator=generator))
    side = min(min(photo.shape[1:]), round(size / zoom))
    top, left = (int(torch.randint(0, n - side + 1, (), generator=generator)) for n in photo.shape[1:])
    window = photo[None, :, top : top + side, left : left + side]
    window = F.interpolate(window, size=(size, size), mode="bicubic", antialias=True, align_corners=False)[0].clamp(
        0, 1
    )
    return window.flip(-1) if torch.rand((), generator=generator) < 0.5 else window


@dataclass(frozen=True, kw_only=True)
class TrainDenoiser:
    """Trains the U-Net on the pool."""

    pool: Path
    """Folder of training samples; new shards are taken in as they appear."""
    val: Path
    """Folder of validation samples."""
    run_folder: Annotated[Path, tyro.conf.arg(name="run")]
    """Checkpoint and curve."""
    schedule: Schedule = field(default_factory=Schedule)
    minutes: float = math.inf
    """Stop and save after this long."""
    threads: int = 1
    """CPU threads."""

    def run(self) -> None:
        """Trains, or goes on training."""
        torch.set_num_threads(self.threads)
        torch.manual_seed(self.schedule.seed)
        pool, val = Pool(self.pool), list(Pool(self.val).each())
        nano = Nano()
        nano.spread.copy_(measure_spread(nano, pool))

        def on_log(average: Nano, run: Run) -> None:
            figures = validate(average, val[:12], num_steps=12)
            run.log(**figures)
            log.info("step %d: %s", run.step, figures)

        train_denoiser(nano, pool, self.schedule, self.run_folder, 60 * self.minutes, on_log)


@dataclass(frozen=True, kw_only=True)
class Export:
    """Ships the moving averages of both parts: weights and card into the package."""

    autoencoder: Path
    """Run folder of the autoencoder."""
    denoiser: Path
    """Run folder of the denoiser."""
    val: Path
    """Folder of validation samples, for the card's figures."""
    hardware: str = "2 CPU cores"
    """What it was trained on, for the card."""

    def run(self) -> None:
        """Writes `nano.safetensors` and `card.json` beside `sphinx_nvs.models.embedded`."""
        nano = Nano()
        state, step = _average(self.denoiser)
        nano.load_state_dict(state)
        autoencoder, autoencoder_step = _average(self.autoencoder)
        nano.autoencoder.load_state_dict(autoencoder)
        data, digest = embedded.pack_weights(nano)
        figures = validate(nano.eval(), list(Pool(self.val).each())[:32], num_steps=25)
        curve = [json.loads(line) for line in (self.denoiser / "curve.jsonl").read_text().splitlines()]
        card = {
            "name": "nano",
            "sha256": digest,
            "bytes": len(data),
            "licence": "Apache-2.0",
            "data": "procedural scenes of sphinx_nvs.scene.procedural, split train; textures partly cut from photos "
            "in scikit-image's wheel (public domain or CC0); the autoencoder also saw those photos themselves",
            "parameters": sum(p.numel() for p in nano.parameters()),
            "steps": {"autoencoder": autoencoder_step, "denoiser": step},
            "training_hours": round(_seconds(curve) / 3600, 2),
            "hardware": self.hardware,
            "validation": figures,
            "made_by": "python scripts/train_pair.py",
        }
        folder = Path(embedded.__file__).parent
        (folder / embedded.WEIGHTS).write_bytes(data)
        (folder / embedded.CARD).write_text(json.dumps(card, indent=2) + "\n")
        log.info("%s", json.dumps(card, indent=2))


def _average(folder: Path) -> tuple[dict[str, Tensor], int]:
    """The moving average's state of a run, and its step."""
    state = torch.load(folder / "checkpoint.pt", weights_only=True)
    prefix = "module."
    average = {k.removeprefix(prefix): v for k, v in state["average"].items() if k.startswith(prefix)}
    return average, state["step"]


def _seconds(curve: list[dict]) -> float:
    """Time spent training, over all starts of a run."""
    elapsed = [line["elapsed_s"] for line in curve if "elapsed_s" in line]
    ends = [a for a, b in zip(elapsed, [*elapsed[1:], 0.0], strict=True) if b < a]
    return sum(ends)


def main() -> None:
    """Runs the chosen step."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    commands: dict[str, Callable[..., Any]] = {
        "pool": MakePool,
        "autoencoder": TrainAutoencoder,
        "denoiser": TrainDenoiser,
        "export": Export,
    }
    tyro.extras.subcommand_cli_from_dict(commands, description=__doc__).run()


if __name__ == "__main__":
    main()
