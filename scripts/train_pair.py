"""Trains the embedded pair: pools hold samples, three parts learn from them, `curve` draws, `export` ships.

    python scripts/train_pair.py pool --folder runs/pool/val --count 64 --split val
    python scripts/train_pair.py autoencoder --pool runs/pool/train --run runs/autoencoder
    python scripts/train_pair.py denoiser --stream --val runs/pool/val --run runs/nano --network nano-l --minutes 8
    python scripts/train_pair.py decoder-pool --folder runs/decoder/train --count 1000
    python scripts/train_pair.py capture-pool --captures photos --folder runs/photos/train
    python scripts/train_pair.py decoder --pool runs/decoder/train --val runs/decoder/val --run runs/reference
    python scripts/train_pair.py blend --reference runs/reference --folder runs/blend
    python scripts/train_pair.py curve --run runs/nano --out runs/nano/curve.png
    python scripts/train_pair.py export --autoencoder runs/autoencoder --denoiser runs/nano --val runs/pool/val

Every step can be cut (`--minutes`, Ctrl-C) and started again, on a CPU or a GPU; see
docs/how-to/train-the-embedded-pair.md. This script needs none of the package's user interface, so that it runs where
only torch, numpy, scipy and scikit-image are.
"""

from __future__ import annotations

import argparse
import json
import logging
import math
import os
import sys
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict
from functools import partial
from pathlib import Path

import numpy as np
import skimage.data
import torch
import torch.nn.functional as F
from jaxtyping import Int32
from safetensors.torch import load_file
from torch import Tensor

from sphinx_nvs.errors import InputError, SphinxError
from sphinx_nvs.evaluation.perceptual import load_lpips
from sphinx_nvs.models.embedded import shipped as embedded
from sphinx_nvs.models.embedded.autoencoder import BlockAutoencoder
from sphinx_nvs.models.embedded.denoiser import NETWORKS, Nano
from sphinx_nvs.models.embedded.reference_decoder import ReferenceDecoder
from sphinx_nvs.models.embedded.temporal_consistency import Agreement
from sphinx_nvs.procedural import noise, patterns, texture_library
from sphinx_nvs.scene import read_capture
from sphinx_nvs.training.agreement import (
    AgreementSample,
    make_agreement_sample,
    train_agreement,
    validate_agreement,
)
from sphinx_nvs.training.batches import Pool, Source
from sphinx_nvs.training.captures import kept_depth, make_capture_sample, origin, training_captures
from sphinx_nvs.training.decoder import (
    SQUARE_WEIGHT,
    DecoderSample,
    make_decoder_sample,
    train_decoder,
    validate_decoder,
)
from sphinx_nvs.training.pair import measure_spread, train_autoencoder, train_denoiser
from sphinx_nvs.training.pools import Mixture, StoredPool
from sphinx_nvs.training.samples import Sample, Stored, load_samples, make_sample, save_samples
from sphinx_nvs.training.state import Model, Run, Schedule, load_into, load_shards, save_shards
from sphinx_nvs.training.stream import Stream
from sphinx_nvs.training.validation import validate
from sphinx_nvs.training.workers import feed_real, feed_worlds, feeding

log = logging.getLogger("train_pair")
SHARD = 16
PHOTOS = ("astronaut", "coffee", "rocket")
AUTOENCODER_CROP = 128
SOURCES = "sources.json"
"""Of a pool and of a run: the captures that they are of, with source and licence."""

STEPS_BEFORE, SECONDS_BEFORE = "steps_before", "seconds_before"
"""Notes of a run that started from shipped weights: what these had learned."""


def make_pool(options: argparse.Namespace) -> None:
    """Renders procedural scenes and what the regressor makes of them, in shards of 16; shards that exist are kept."""
    fill(options, lambda seed: make_sample(seed, options.split, options.views, options.size, options.real_share))


def make_decoder_pool(options: argparse.Namespace) -> None:
    """The same for the decoder: with what the shipped denoiser makes of the renders."""
    nano = embedded.load_nano()
    fill(options, lambda seed: make_decoder_sample(nano, seed, options.split, options.views, options.size))


def fill(options: argparse.Namespace, make: Callable[[int], Sample | DecoderSample | None]) -> None:
    """Makes the samples of all seeds that have no shard yet."""
    check_samples(options)
    torch.set_num_threads(1)
    options.folder.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    for first in range(options.first_seed, options.first_seed + options.count, SHARD):
        path = options.folder / f"{options.split}-{first:07d}.safetensors"
        if path.exists():
            continue
        seeds = range(first, min(first + SHARD, options.first_seed + options.count))
        samples = [sample for sample in map(make, seeds) if sample is not None]
        save_samples(samples, path)
        log.info("%s: %d samples, %.0f s", path.name, len(samples), time.monotonic() - started)


def check_samples(options: argparse.Namespace) -> None:
    """Refuses sizes and numbers of views that no sample can have."""
    multiple = embedded.load_nano().size_multiple
    if options.size < multiple or options.size % multiple:
        raise InputError("--size", f"{options.size} is no multiple of {multiple}", f"give e.g. {4 * multiple}")
    if options.views < 3:
        raise InputError("--views", f"{options.views} leave no target beside two context views", "give 3 or more")


def make_capture_pool(options: argparse.Namespace) -> None:
    """Makes samples for the decoder of posed photo sequences, in shards of one capture; shards that exist are kept."""
    check_samples(options)
    nano = embedded.load_nano()
    torch.set_num_threads(1)
    paths = training_captures(options.captures, options.split)
    options.folder.mkdir(parents=True, exist_ok=True)
    depths = options.depths or options.folder / "depth"
    turns = torch.randperm(len(paths), generator=torch.Generator().manual_seed(0)).tolist()
    for turn, first in enumerate(range(options.first_seed, options.first_seed + options.count, options.each)):
        captured = paths[turns[turn % len(turns)]]
        path = options.folder / f"{options.split}-{first:07d}-{captured.name}.safetensors"
        if path.exists():
            continue
        started = time.monotonic()
        capture = read_capture(captured)
        try:
            depth = kept_depth(capture, depths)
        except InputError as error:
            log.info("%s is left out: %s", capture.name, error)
            continue
        seeds = range(first, min(first + options.each, options.first_seed + options.count))
        made = (
            make_capture_sample(nano, capture, depth, seed, options.split, options.views, options.size)
            for seed in seeds
        )
        samples = [sample for sample in made if sample is not None]
        if samples:
            note_origins(options.folder, {capture.name: origin(captured)})
            save_samples(samples, path)
        log.info("%s: %d samples, %.0f s", path.name, len(samples), time.monotonic() - started)


def note_origins(folder: Path, origins: dict[str, dict[str, str]]) -> None:
    """Adds captures to the sources of a pool or a run."""
    noted = origins_of(folder) | origins
    beside = folder / f"{SOURCES}.{os.getpid()}.partial"
    beside.write_text(json.dumps(dict(sorted(noted.items())), indent=1) + "\n")
    beside.replace(folder / SOURCES)


def origins_of(folder: Path) -> dict[str, dict[str, str]]:
    """The captures that a pool was made of, or that a run has learned from, with source and licence."""
    path = folder / SOURCES
    return json.loads(path.read_text()) if path.exists() else {}


def feed(options: argparse.Namespace) -> None:
    """Makes data for a stream until its parent is gone (started by `denoiser --stream`, never directly)."""
    torch.set_num_threads(1)
    place = {"first": options.first, "views": options.views}
    if options.kind == "real":
        feed_real(options.folder, options.index, options.of, size=options.size, **place)
    else:
        feed_worlds(options.folder, options.index, options.of, worlds=options.worlds, **place)


def device_of(options: argparse.Namespace) -> torch.device:
    """The requested device; `auto` is a GPU where there is one."""
    name = options.device
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda":
        torch.backends.cudnn.benchmark = True
        torch.set_float32_matmul_precision("high")
        # The caster compiles one kernel per kind of shape and density; where that fails, it runs uncompiled.
        torch._dynamo.config.recompile_limit = 64
        torch._dynamo.config.suppress_errors = True
    return torch.device(name)


@contextmanager
def streaming(options: argparse.Namespace, device: torch.device, first: int) -> Iterator[Stream]:
    """Workers, and the stream that takes in what they make."""
    folder = options.run_folder / "feed"
    real = round(options.real_workers * options.workers)
    common = ["--first", str(first), "--views", str(options.views), "--worlds", str(options.worlds)]
    plans = [("worlds", i, options.workers - real) for i in range(options.workers - real)]
    plans += [("real", i, real) for i in range(real)]
    arguments = [
        ["--kind", kind, "--index", str(i), "--of", str(of), "--size", str(options.size), *common]
        for kind, i, of in plans
    ]
    with feeding(Path(__file__), folder, arguments):
        started = time.monotonic()
        textures = torch.from_numpy(kept_tiles(options.run_folder.parent)).to(device)
        log.info("textures: %.1f s", time.monotonic() - started)
        stream = Stream(
            folder,
            textures,
            options.size,
            ring_bytes=int(options.ring_gb * 1e9),
            fresh=options.fresh,
            render_share=options.render_share,
            real_share=options.real_share,
            in_step=options.in_step,
            first=first,
        )
        stream.fill(options.warm_samples)
        log.info("%d samples at hand after %.1f s", len(stream), time.monotonic() - started)
        yield stream


def kept_tiles(folder: Path) -> Int32[np.ndarray, "M texels"]:
    """All training textures: made once (ten seconds), then read from `folder` while their code stays as it is."""
    code = b"".join(Path(str(module.__file__)).read_bytes() for module in (texture_library, noise, patterns))
    path = folder / f"tiles-{zlib.crc32(code):08x}.npy"
    if not path.exists():
        beside = path.with_suffix(".partial.npy")
        np.save(beside, texture_library.all_tiles("train"))
        beside.replace(path)
    return np.load(path)


def schedule_of(options: argparse.Namespace) -> Schedule:
    """The schedule that the options say."""
    names = ("steps", "batch", "learning_rate", "warmup", "ema", "seed")
    return Schedule(seconds=60 * options.total_minutes, **{name: getattr(options, name) for name in names})


def learn_autoencoder(options: argparse.Namespace) -> None:
    """Fits the decoder's correction to procedural pictures and photos."""
    device = device_of(options)
    photos = [torch.from_numpy(getattr(skimage.data, name)()).permute(2, 0, 1).to(device) for name in PHOTOS]
    autoencoder = embedded.load_nano().autoencoder if options.init == "shipped" else BlockAutoencoder()
    autoencoder = autoencoder.to(device).train().requires_grad_(True)
    with streaming(options, device, 0) if options.stream else nullcontext(Pool(options.pool, device)) as source:

        def crops(count: int, generator: torch.Generator) -> Tensor:
            samples = source.draw(count - count // 4, generator)
            source.refresh()
            view = int(torch.randint(samples.rgb.shape[1], (), generator=generator))
            scenes = samples.rgb[:, view].float() / 255
            if scenes.shape[-1] != AUTOENCODER_CROP:
                top, left = torch.randint(scenes.shape[-1] - AUTOENCODER_CROP + 1, (2,), generator=generator).tolist()
                scenes = scenes[:, :, top : top + AUTOENCODER_CROP, left : left + AUTOENCODER_CROP]
            parts = [photo_crop(photos, scenes.shape[-1], generator)[None] for _ in range(count // 4)]
            return torch.cat([scenes, *parts])

        run = train_autoencoder(autoencoder, crops, schedule_of(options), options.run_folder, 60 * options.minutes)
    if options.home:
        run.save_portable(options.home / "checkpoint", average_only=True)


def photo_crop(photos: list[Tensor], size: int, generator: torch.Generator) -> Tensor:
    """A square window of a photo at a random scale, mirrored half of the time."""
    photo = photos[int(torch.randint(len(photos), (), generator=generator))].float() / 255
    zoom = 0.3 + 0.7 * float(torch.rand((), generator=generator))
    side = min(min(photo.shape[1:]), round(size / zoom))
    top, left = (int(torch.randint(0, n - side + 1, (), generator=generator)) for n in photo.shape[1:])
    window = photo[None, :, top : top + side, left : left + side]
    window = F.interpolate(window, size=(size, size), mode="bicubic", antialias=True, align_corners=False)[0]
    window = window.clamp(0, 1)
    return window.flip(-1) if torch.rand((), generator=generator) < 0.5 else window


def learn_denoiser(options: argparse.Namespace) -> None:
    """Trains the U-Net on a pool or on a stream."""
    device = device_of(options)
    torch.set_num_threads(options.threads)
    torch.manual_seed(options.seed)
    nano = fresh_nano(options).to(device)
    options.run_folder.mkdir(parents=True, exist_ok=True)
    (options.run_folder / "network.json").write_text(json.dumps(asdict(nano.unet.config)))
    first = resume_point(options)
    with streaming(options, device, first) if options.stream else nullcontext(Pool(options.pool, device)) as source:
        nano.spread.copy_(measure_spread(nano, spread_samples(source, options.seed)))
        network = torch.compile(nano.unet, dynamic=False) if options.compile else None
        run = train_denoiser(
            nano,
            source,
            schedule_of(options),
            options.run_folder,
            60 * options.minutes,
            lambda run: report(run, options, source),
            log_every=options.log_every,
            validate_every_s=options.validate_every_s,
            network=network,
        )
        log.info("step %d after %.0f s of training", run.step, run.trained_s)


def fresh_nano(options: argparse.Namespace) -> Nano:
    """The network to start from: the shipped one, or a new one between the shipped decoders."""
    shipped = embedded.load_nano()
    if options.init == "shipped":
        return shipped.train().requires_grad_(True)
    nano = Nano(NETWORKS[options.network])
    nano.autoencoder.load_state_dict(shipped.autoencoder.state_dict())
    nano.reference.load_state_dict(shipped.reference.state_dict())
    if options.init not in ("new", "shipped"):
        average, *_ = average_of(Path(options.init))
        nano.load_state_dict({k: v.float() for k, v in average.items()})
    return nano


def spread_samples(source: Source, seed: int) -> Iterator[Sample]:
    """Some samples to measure the residual's spread on, one by one."""
    generator = torch.Generator().manual_seed(seed)
    for _ in range(100):
        drawn = source.draw(1, generator)
        parts = {name: part[0].cpu() for name, part in drawn.tensors().items()}
        parts["depth_unit"] = parts["depth_unit"].view(1)
        yield Sample(num_context=torch.tensor([drawn.num_context], dtype=torch.uint8), **parts)


def resume_point(options: argparse.Namespace) -> int:
    """Number of the first packet that this run has not seen."""
    progress = options.run_folder / "checkpoint" / "progress.json"
    return json.loads(progress.read_text())["notes"].get("packets", 0) if progress.exists() else 0


def report(run: Run[Nano], options: argparse.Namespace, source: Source) -> None:
    """Validates the moving average on what validation samples there are by now, notes how far the stream has come."""
    val = [sample for sample in Pool(options.val).each() if sample.rgb.shape[-1] == options.size]
    if isinstance(source, Stream):
        run.notes["packets"] = source.next_packet
    if val:
        figures = validate(run.averaged, val[: options.val_count], num_steps=12)
        run.log(**figures)
        log.info("step %d: %s", run.step, figures)
    run.save()
    if options.home:
        run.save_portable(options.home / "checkpoint", average_only=options.home_average)
        for name in ("curve.jsonl", "network.json"):
            if (options.run_folder / name).exists():
                (options.home / name).write_bytes((options.run_folder / name).read_bytes())


def make_agreement_pool(options: argparse.Namespace) -> None:
    """Decodes a decoder's pool, shard by shard, for `agreement` to learn from; shards that exist are kept."""
    check_count(options.count, "shards")
    torch.set_num_threads(options.threads)
    decoder = trained_decoder(options.reference)
    options.folder.mkdir(parents=True, exist_ok=True)
    for path in shards_of(options.pool)[: options.count]:
        if not (options.folder / path.name).exists():
            samples = [make_agreement_sample(decoder, sample) for sample in load_samples(path, DecoderSample)]
            save_samples(samples, options.folder / path.name)
            log.info("%s: %d samples", path.name, len(samples))


def check_count(count: int | None, what: str) -> None:
    """Refuses to work on nothing."""
    if count is not None and count < 1:
        raise InputError("--count", f"{count} {what} are none", "give 1 or more, or leave it out for all")


def trained_decoder(run: Path | None) -> ReferenceDecoder:
    """The moving average of a run, or the shipped reference decoder."""
    if run is None:
        return embedded.load_nano().reference
    decoder = ReferenceDecoder().eval()
    load_into(decoder, average_of(run)[0], run)
    return decoder


def score(options: argparse.Namespace) -> None:
    """Scores a reference decoder on a pool; with another pool beside it, overfitting shows."""
    check_count(options.count, "samples")
    torch.set_num_threads(options.threads)
    samples = samples_of(options.pool, DecoderSample)[: options.count]
    log.info("%s", json.dumps(validate_decoder(trained_decoder(options.reference), samples)))


def blend(options: argparse.Namespace) -> None:
    """Averages the shipped reference decoder and a run that went on from it, weight by weight; a run's folder again."""
    if not 0 <= options.share <= 1:
        raise InputError("--share", f"{options.share} is no share", "give the run's, from 0 to 1")
    folder = options.folder / "checkpoint"
    if folder.exists():
        raise InputError("--folder", f"{options.folder} holds a run already", "give a new folder for the mean")
    shipped, run = trained_decoder(None).state_dict(), trained_decoder(options.reference).state_dict()
    mixed = {name: torch.lerp(shipped[name], run[name], options.share).half() for name in shipped}
    folder.mkdir(parents=True)
    save_shards(mixed, folder, "average")
    (folder / "progress.json").write_bytes((options.reference / "checkpoint" / "progress.json").read_bytes())
    note_origins(options.folder, origins_of(options.reference))


def learn_agreement(options: argparse.Namespace) -> None:
    """Trains the network that brings neighbouring frames to agree, on a pool of `agreement-pool`."""
    torch.set_num_threads(1)
    torch.manual_seed(options.seed)
    network, notes = start_of("agreement", Agreement, options.init)
    val = samples_of(options.val, AgreementSample)[: options.val_count]
    train_agreement(
        network,
        samples_of(options.pool, AgreementSample),
        schedule_of(options),
        options.run_folder,
        deadline_s=60 * options.minutes,
        workers=options.threads,
        lpips=load_lpips("alex") if options.lpips_weight else None,
        lpips_weight=options.lpips_weight,
        motion_weight=options.motion_weight,
        notes=notes,
        on_log=partial(log_figures, lambda network: validate_agreement(network, val)),
        validate_every_s=options.validate_every_s,
    )


def start_of(part: str, new: Callable[[], Model], init: str) -> tuple[Model, dict[str, int]]:
    """A part to train, new or the shipped one; of the latter, for the card, how much it had learned already."""
    if init == "new":
        return new().train(), {}
    shipped: Model = getattr(embedded.load_nano(), part)
    card = embedded.load_card()
    notes = {STEPS_BEFORE: card["steps"][part], SECONDS_BEFORE: round(3600 * card["training_hours"][part])}
    return shipped.train().requires_grad_(True), notes


def log_figures(validated: Callable[[Model], dict[str, float]], run: Run[Model]) -> None:
    """Puts what the moving average is worth into the run's curve."""
    figures = validated(run.averaged)
    run.log(**figures)
    log.info("step %d: %s", run.step, figures)


def shards_of(folder: Path) -> list[Path]:
    """A pool's files in order of names; at least one."""
    paths = sorted(folder.glob("*.safetensors"))
    if not paths:
        raise InputError(f"pool {folder}", "it holds no samples", "make them with decoder-pool or agreement-pool")
    return paths


def samples_of(folder: Path, kind: type[Stored]) -> list[Stored]:
    """All samples of a folder's shards, in order of names; at least one."""
    return [sample for path in shards_of(folder) for sample in load_samples(path, kind)]


def training_samples(options: argparse.Namespace) -> list[DecoderSample] | Mixture[DecoderSample]:
    """The samples of `--pool`, all at hand; or with `--photos` a mixture of both pools, which may still grow."""
    if not options.photos:
        return samples_of(options.pool, DecoderSample)
    if not 0 < options.photo_share < 1:
        raise InputError("--photo-share", f"{options.photo_share}", "give a share between 0 and 1")
    pools = [StoredPool(folder, DecoderSample) for folder in (options.photos, options.pool)]
    return Mixture(pools, (options.photo_share, 1 - options.photo_share))


def spread_over(samples: list[Stored], count: int) -> list[Stored]:
    """`count` of the samples, evenly over their order."""
    return [samples[i * len(samples) // count] for i in range(count)] if len(samples) > count else samples


def learn_decoder(options: argparse.Namespace) -> None:
    """Trains the reference decoder on a pool of `decoder-pool`."""
    torch.set_num_threads(1)
    torch.manual_seed(options.seed)
    decoder, notes = start_of("reference", ReferenceDecoder, options.init)
    lpips = load_lpips("alex") if options.lpips_weight else None
    val = samples_of(options.val, DecoderSample)[: options.val_count]
    photo_val = (
        spread_over(samples_of(options.photo_val, DecoderSample), options.val_count) if options.photo_val else []
    )

    def validated(decoder: ReferenceDecoder) -> dict[str, float]:
        figures = validate_decoder(decoder, val)
        if photo_val:
            figures |= {f"photo_{name}": value for name, value in validate_decoder(decoder, photo_val).items()}
        if options.photos:
            note_origins(options.run_folder, origins_of(options.photos))
        return figures

    train_decoder(
        decoder,
        training_samples(options),
        schedule_of(options),
        options.run_folder,
        deadline_s=60 * options.minutes,
        workers=options.threads,
        lpips=lpips,
        lpips_weight=options.lpips_weight,
        motion_weight=options.motion_weight,
        square_weight=options.square_weight,
        speck_weight=options.speck_weight,
        notes=notes,
        on_log=partial(log_figures, validated),
        validate_every_s=options.validate_every_s,
    )


def draw_curve(options: argparse.Namespace) -> None:
    """Draws the curve of a denoiser's run as a PNG: loss, and gains over the render in unseen regions."""
    # Here, since trainings run where matplotlib may be missing.
    from sphinx_nvs.visualization.training_curve import curve_figure, read_curve

    options.out.parent.mkdir(parents=True, exist_ok=True)
    curve_figure(read_curve(options.run_folder), options.title).savefig(options.out, dpi=110)
    log.info("%s", options.out)


def export(options: argparse.Namespace) -> None:
    """Ships the moving averages of the parts that were trained: weights and card into the package."""
    package = Path(embedded.__file__).parent
    card = embedded.load_card()
    state = {k: v.float() for k, v in load_file(package / embedded.WEIGHTS).items()}
    steps, hours = dict(card["steps"]), dict(card["training_hours"])
    if options.denoiser:
        state, steps["denoiser"], hours["denoiser"] = average_of(options.denoiser)
        described = options.denoiser / "network.json"
        card["network"] = json.loads(described.read_text()) if described.exists() else asdict(NETWORKS["nano"])
    nano = Nano(embedded.network_from_card(card.get("network")))
    for part in ("autoencoder", "reference", "agreement"):
        run = getattr(options, part)
        if run:
            trained, steps[part], hours[part] = average_of(run)
            # Loaded here, so that the error of a part of another network names its own run.
            load_into(getattr(nano, part), trained, run)
            state |= {f"{part}.{name}": value for name, value in trained.items()}
    load_into(nano, state, options.denoiser or package)
    data, digest = embedded.pack_weights(nano)
    sources = {"reference": card.get("sources", {}).get("reference", {})}
    if options.reference:
        sources["reference"] = sources["reference"] | origins_of(options.reference)
    figures = validate(nano.eval(), list(Pool(options.val).each())[: options.val_count], num_steps=25)
    if options.reference_val:
        decoded = validate_decoder(
            nano.reference, samples_of(options.reference_val, DecoderSample)[: options.val_count]
        )
        figures |= {f"reference_{name}": value for name, value in decoded.items()}
    if options.agreement_val:
        agreed = validate_agreement(
            nano.agreement, samples_of(options.agreement_val, AgreementSample)[: options.val_count]
        )
        figures |= {f"agreement_{name}": value for name, value in agreed.items()}
    card |= {
        "name": "nano",
        "sha256": digest,
        "bytes": len(data),
        "network": asdict(nano.unet.config),
        "licence": "Apache-2.0",
        "data": "procedural scenes of sphinx_nvs.procedural, split train; textures partly cut from photos in "
        "scikit-image's wheel (public domain or CC0); the autoencoder also saw those photos themselves; LPIPS "
        "(AlexNet) is part of the reference decoder's loss and of the agreement's" + data_of(sources["reference"]),
        "sources": sources,
        "parameters": sum(p.numel() for p in nano.parameters()),
        "steps": steps,
        "training_hours": hours,
        "hardware": options.hardware,
        "validation": figures,
        "made_by": "python scripts/train_pair.py",
    }
    folder = options.into or package
    folder.mkdir(parents=True, exist_ok=True)
    (folder / embedded.WEIGHTS).write_bytes(data)
    (folder / embedded.CARD).write_text(json.dumps(card, indent=2) + "\n")
    log.info("%s", json.dumps(card, indent=2))


def data_of(captures: dict[str, dict[str, str]]) -> str:
    """What the card says of photos in a sentence; nothing where there are none."""
    if not captures:
        return ""
    return (
        f"; the reference decoder also saw {len(captures)} posed photo sequences, "
        "each with its source and licence under `sources`"
    )


def average_of(folder: Path) -> tuple[dict[str, Tensor], int, float]:
    """The moving average's state of a run, its step, and its hours of training, with those before it."""
    path = folder / "checkpoint" / "progress.json"
    if not path.is_file():
        raise InputError(f"run {folder}", "it holds no checkpoint", "name the folder of a run, or what it brought home")
    progress = json.loads(path.read_text())
    steps = progress["step"] + progress["notes"].get(STEPS_BEFORE, 0)
    seconds = progress["trained_s"] + progress["notes"].get(SECONDS_BEFORE, 0)
    return load_shards(folder / "checkpoint", "average"), steps, round(seconds / 3600, 2)


def parser() -> argparse.ArgumentParser:
    """All commands and their options."""
    top = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = top.add_subparsers(required=True)
    for name, work, views in (("pool", make_pool, 8), ("decoder-pool", make_decoder_pool, 7)):
        pool = _command(commands, name, work)
        pool.add_argument("--folder", type=Path, required=True, help="where the shards go")
        pool.add_argument("--count", type=int, default=1000, help="samples in all")
        pool.add_argument("--split", default="train", choices=("train", "val", "test"))
        pool.add_argument("--first-seed", type=int, default=0)
        pool.add_argument("--size", type=int, default=128, help="pixels of a side")
        pool.add_argument("--views", type=int, default=views, help="context and target views together")
        if work is make_pool:
            pool.add_argument("--real-share", type=float, default=0.25, help="share rendered by the real plane sweep")
    photos = _command(commands, "capture-pool", make_capture_pool)
    photos.add_argument("--captures", type=Path, required=True, help="folder of captures, each with transforms.json")
    photos.add_argument("--folder", type=Path, required=True, help="where the shards go")
    photos.add_argument("--depths", type=Path, help="where depth of captures is kept (default: depth in --folder)")
    photos.add_argument("--count", type=int, default=1000, help="samples in all")
    photos.add_argument("--each", type=int, default=SHARD, help="samples of a capture before the next one's turn")
    photos.add_argument("--split", default="train", choices=("train", "val"), help="by splits.json of --captures")
    photos.add_argument("--first-seed", type=int, default=0)
    photos.add_argument("--size", type=int, default=128, help="pixels of a side")
    photos.add_argument("--views", type=int, default=8, help="context and target views together, at most")
    feeder = _command(commands, "feed", feed)
    feeder.add_argument("--folder", type=Path, required=True)
    feeder.add_argument("--kind", choices=("worlds", "real"), required=True)
    for name, default in (("index", 0), ("of", 1), ("first", 0), ("size", 128), ("views", 8), ("worlds", 32)):
        feeder.add_argument(f"--{name}", type=int, default=default)
    for name, work, batch, rate, ema in (
        ("autoencoder", learn_autoencoder, 8, 1e-3, 0.995),
        ("denoiser", learn_denoiser, 4, 4e-4, 0.998),
    ):
        _add_training(_command(commands, name, work), batch, rate, ema)
    learned = _command(commands, "decoder", learn_decoder)
    _add_threads(learned, "decoder-pool", validate_every_s=240.0)
    square = "of squared errors in the loss: more is safer and softer where photos disagree"
    learned.add_argument("--speck-weight", type=float, default=0.0, help="of contrast that the truth does not have")
    learned.add_argument("--photos", type=Path, help="folder of samples of captures, made by capture-pool")
    learned.add_argument("--photo-share", type=float, default=0.7, help="how often a sample is one of --photos")
    learned.add_argument("--photo-val", type=Path, help="folder of validation samples of captures")
    learned.add_argument("--photo-val-count", type=int, default=36, help="how many of those are used, evenly spread")
    learned.add_argument("--square-weight", type=float, default=SQUARE_WEIGHT, help=square)
    mixed = _command(commands, "blend", blend)
    mixed.add_argument("--reference", type=Path, required=True, help="the run's folder, begun with --init shipped")
    mixed.add_argument("--share", type=float, default=0.5, help="of the run; the rest is of the shipped weights")
    mixed.add_argument("--folder", type=Path, required=True, help="where the mean goes, to be used as a run")
    settled = _command(commands, "agreement-pool", make_agreement_pool)
    settled.add_argument("--folder", type=Path, required=True, help="where the shards go")
    scored = _command(commands, "score", score)
    for command, what in ((settled, "shards"), (scored, "samples")):
        command.add_argument("--pool", type=Path, required=True, help="folder of samples, made by decoder-pool")
        command.add_argument("--reference", type=Path, help="its run folder; none is the shipped reference decoder")
        command.add_argument("--count", type=int, help=f"at most so many {what}")
        command.add_argument("--threads", type=int, default=2, help="CPU threads")
    agreed = _command(commands, "agreement", learn_agreement)
    _add_threads(agreed, "agreement-pool", validate_every_s=120.0)
    drawn = _command(commands, "curve", draw_curve)
    drawn.add_argument("--run", dest="run_folder", type=Path, required=True, help="a run's folder, or its --home")
    drawn.add_argument("--out", type=Path, required=True, help="a PNG")
    drawn.add_argument("--title", default="", help="over the picture")
    ship = _command(commands, "export", export)
    ship.add_argument("--denoiser", type=Path, help="its run folder, full or as brought home; none keeps the shipped")
    ship.add_argument("--autoencoder", type=Path, help="its run folder; none keeps the decoder that the denoiser has")
    ship.add_argument("--reference", type=Path, help="the reference decoder's run folder; none keeps the shipped")
    ship.add_argument("--val", type=Path, required=True, help="validation samples, for the card's figures")
    ship.add_argument("--reference-val", type=Path, help="the same for the reference decoder, made by decoder-pool")
    ship.add_argument("--agreement", type=Path, help="the agreement's run folder; none keeps the shipped")
    ship.add_argument("--agreement-val", type=Path, help="the same for it, made by agreement-pool")
    ship.add_argument("--val-count", type=int, default=32)
    ship.add_argument("--hardware", default="2 CPU cores", help="what it was trained on, for the card")
    ship.add_argument("--into", type=Path, help="folder for weights and card; none puts them into the package")
    return top


def _command(
    commands: argparse._SubParsersAction[argparse.ArgumentParser], name: str, work: object
) -> argparse.ArgumentParser:
    command = commands.add_parser(name, help=(work.__doc__ or "").splitlines()[0])
    command.set_defaults(work=work)
    return command


def _add_threads(command: argparse.ArgumentParser, made_by: str, validate_every_s: float) -> None:
    """Options of trainings whose batches are computed in threads."""
    add = command.add_argument
    add("--run", dest="run_folder", type=Path, required=True, help="checkpoint and curve")
    add("--init", default="new", choices=("new", "shipped"), help="weights that a new run starts from")
    add("--pool", type=Path, required=True, help=f"folder of training samples, made by {made_by}")
    add("--val", type=Path, required=True, help=f"folder of validation samples, made by {made_by}")
    add("--val-count", type=int, default=16, help="how many of them are used")
    add("--minutes", type=float, default=math.inf, help="stop and save after this long")
    add("--total-minutes", type=float, default=math.inf, help="training time over all starts; the rate ends with it")
    add("--threads", type=int, default=2, help="scenes of a batch at a time")
    weights = "its weights: scripts/setup --metrics"
    add("--lpips-weight", type=float, default=0.1, help=f"of LPIPS (AlexNet) in the loss; {weights}")
    add("--motion-weight", type=float, default=1.0, help="of what flickers, in the loss")
    for name, default in (("steps", 20_000), ("batch", 2), ("warmup", 100), ("seed", 0)):
        add(f"--{name}", type=int, default=default)
    for name, value in (("learning-rate", 1.5e-3), ("ema", 0.998), ("validate-every-s", validate_every_s)):
        add(f"--{name}", type=float, default=value)


def _add_training(command: argparse.ArgumentParser, batch: int, rate: float, ema: float) -> None:
    """Options of both trainings."""
    add = command.add_argument
    add("--run", dest="run_folder", type=Path, required=True, help="checkpoint and curve")
    add("--pool", type=Path, help="folder of training samples; new shards are taken in as they appear")
    add("--val", type=Path, default=Path("runs/pool/val"), help="folder of validation samples; those of --size count")
    add("--val-count", type=int, default=12, help="how many of them are used while training")
    add("--home", type=Path, help="folder for the portable checkpoint, saved at every validation")
    add("--home-average", action="store_true", help="leave the model itself out of it")
    add("--device", default="auto", choices=("auto", "cpu", "cuda"))
    add("--compile", action="store_true", help="compile the network: a minute at the start of each size")
    add("--threads", type=int, default=1, help="CPU threads")
    add("--minutes", type=float, default=math.inf, help="stop and save after this long")
    add("--total-minutes", type=float, default=math.inf, help="training time over all starts; the rate ends with it")
    add("--network", default="nano", choices=sorted(NETWORKS))
    add("--init", default="new", help="new, shipped, or a run folder whose moving average to start from")
    add("--steps", type=int, default=10_000)
    add("--batch", type=int, default=batch)
    add("--learning-rate", type=float, default=rate)
    add("--warmup", type=int, default=200)
    add("--ema", type=float, default=ema)
    add("--seed", type=int, default=0)
    add("--log-every", type=int, default=50, help="updates between lines of the curve")
    add("--validate-every-s", type=float, default=120.0)
    add("--stream", action="store_true", help="draw fresh samples for ever instead of a pool's")
    add("--size", type=int, default=128, help="of streamed samples, pixels of a side")
    add("--views", type=int, default=8, help="of streamed samples, context and targets together")
    add("--worlds", type=int, default=32, help="worlds in a packet")
    add("--workers", type=int, default=max(1, (os.cpu_count() or 2) - 1), help="processes that make data")
    add("--real-workers", type=float, default=0.35, help="share of them that run the real plane sweep")
    add("--real-share", type=float, default=0.3, help="how often a batch is of the real plane sweep's samples")
    add("--fresh", type=float, default=0.25, help="new samples per drawn one, at most")
    add("--render-share", type=float, default=0.3, help="share of the time for rendering new samples, at most")
    add("--ring-gb", type=float, default=2.0, help="memory for streamed samples on the device")
    add("--warm-samples", type=int, default=256, help="samples to wait for before the first update")
    add("--in-step", action="store_true", help="wait for data so that the run depends on the seed alone")


def main() -> None:
    """Runs the chosen command."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    options = parser().parse_args()
    try:
        options.work(options)
    except SphinxError as error:
        sys.exit(f"train_pair: {error}")


if __name__ == "__main__":
    main()
