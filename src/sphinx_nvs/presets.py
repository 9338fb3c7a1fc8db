"""Presets: a regressor, a denoiser and the rules that join them, by one name.

embedded           plane sweep (no weights) + the nano U-Net whose weights the package ships
seva-mvsplat       the paper's pair: MVSplat + SEVA, whose weights the user brings
seva-planesweep    plane sweep + SEVA: any number of context views, one model less to fetch
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from sphinx_nvs.errors import InputError
from sphinx_nvs.long_paths.run import DEFAULT_WINDOW
from sphinx_nvs.models.base import Denoiser, Regressor
from sphinx_nvs.models.embedded.shipped import load_nano
from sphinx_nvs.models.placement import device_named, dtype_named, memory_bytes
from sphinx_nvs.models.planesweep import PlaneSweep
from sphinx_nvs.models.registry import CARDS, Card, resolve_all
from sphinx_nvs.nn.token_ops import check_compiler
from sphinx_nvs.pipeline.pipeline import Pipeline
from sphinx_nvs.pipeline.request import Result, Running
from sphinx_nvs.plan import Levers, PlanConfig
from sphinx_nvs.plan.levers import NO_SAVINGS, RESEARCH
from sphinx_nvs.plan.profile import PAPER_PROFILE, AnyProfile, shipped_profile
from sphinx_nvs.watermark import watermarked

RANDOM_SIZES = ("full", "tiny")
"""Sizes of untrained models: the true one, for benchmarks, or one that a CPU runs in seconds, for trials."""

WATERMARK = "RANDOM WEIGHTS"
"""What stands across frames of untrained models."""


@dataclass(frozen=True, kw_only=True)
class _Wanted:
    """How a preset's models are to be made; see `load_preset`."""

    device: torch.device
    dtype: torch.dtype
    compile: bool
    offload: bool
    random_weights: str | None
    weights: Mapping[str, str | Path]


_Pair = tuple[Regressor, Denoiser]


@dataclass(frozen=True, kw_only=True)
class _Preset:
    """How a pair is made.

    Args:
        load: makes it.
        parts: which weights it needs, and the models they come from unless the user says otherwise.
        short_side: of frames in pixels, unless the user says otherwise.
        window: most views that its denoiser is best given together, see `windows`.
        levers: what its plans save beside their map where the profile does not say, see docs/engine.md.
        profile: the shipped file of its rules; SEVA's is the paper's until one is fitted with its weights.
        temperature: below 1 where a denoiser's samples are better drawn nearer its mean.
    """

    load: Callable[[_Wanted], _Pair]
    parts: Mapping[str, str]
    short_side: int
    window: int
    levers: Levers
    profile: str = "paper-seva-mvsplat"
    temperature: float = 1.0


def _embedded(wanted: _Wanted) -> _Pair:
    """The pair that every machine has."""
    nano = load_nano()
    nano.unet.to(wanted.dtype)
    nano.compiled = wanted.compile
    return PlaneSweep(), nano


def _seva_mvsplat(wanted: _Wanted) -> _Pair:
    """The paper's pair."""
    from sphinx_nvs.models.mvsplat import load_mvsplat, random_mvsplat

    size = wanted.random_weights
    if size is not None:
        return random_mvsplat(device=wanted.device, size=size), _random_seva(wanted, size)
    paths = resolve_all(wanted.weights)
    return load_mvsplat(paths["mvsplat"], device=wanted.device), _seva(wanted, paths)


def _seva_planesweep(wanted: _Wanted) -> _Pair:
    """SEVA after a regressor without weights."""
    if wanted.random_weights is not None:
        return PlaneSweep(), _random_seva(wanted, wanted.random_weights)
    return PlaneSweep(), _seva(wanted, resolve_all(wanted.weights))


def _seva(wanted: _Wanted, paths: Mapping[str, Path]) -> Denoiser:
    from sphinx_nvs.models.seva.checkpoint import load_seva

    seva = load_seva(
        paths["unet"], paths["vae"], paths["clip"], device=wanted.device, dtype=wanted.dtype, offload=wanted.offload
    )
    seva.compiled = wanted.compile
    return seva


def _random_seva(wanted: _Wanted, size: str) -> Denoiser:
    from sphinx_nvs.models.seva.checkpoint import random_seva

    seva = random_seva(device=wanted.device, dtype=wanted.dtype, size=size, offload=wanted.offload)
    seva.compiled = wanted.compile
    return seva


_SEVA_PARTS = {"unet": "seva-1.1", "vae": "sd21-vae", "clip": "clip-vit-h14"}

# The nano U-Net guesses too boldly what it does not know. At temperature 0.25 its pictures are nearly as sharp in
# unseen regions as the truth is after the autoencoder, and closer to it than the render is; at 1 they are not.
# SEVA's plans are those of the paper's code: nothing cheaper has been measured with its weights.
_PRESETS = {
    "embedded": _Preset(
        load=_embedded,
        parts={},
        short_side=256,
        window=48,
        levers=Levers(width_nats=0.8, refresh_nats=1.6),
        profile="embedded",
        temperature=0.25,
    ),
    "seva-mvsplat": _Preset(
        load=_seva_mvsplat,
        parts={"mvsplat": "mvsplat-re10k", **_SEVA_PARTS},
        short_side=576,
        window=DEFAULT_WINDOW,
        levers=RESEARCH,
    ),
    "seva-planesweep": _Preset(
        load=_seva_planesweep, parts=_SEVA_PARTS, short_side=576, window=DEFAULT_WINDOW, levers=RESEARCH
    ),
}

PRESETS: tuple[str, ...] = tuple(_PRESETS)
"""The names that `load_preset` knows."""

LEVERS = {name: preset.levers for name, preset in _PRESETS.items()}
"""What plans of a preset save beside their map."""

SHORT_SIDES = {name: preset.short_side for name, preset in _PRESETS.items()}
"""Frames' shorter side in pixels, unless the user says otherwise."""

WINDOWS = {name: preset.window for name, preset in _PRESETS.items()}
"""Most views that the denoiser sees together, unless the user says otherwise: longer paths are made in two passes."""


@dataclass(frozen=True, kw_only=True)
class WatermarkedPipeline(Pipeline):
    """A pipeline of untrained models: whatever runs it gets frames that say so."""

    def finish(self, running: Running) -> Result:
        """As `Pipeline.finish`, with `WATERMARK` across each frame."""
        result = super().finish(running)
        return replace(result, frames=watermarked(result.frames, WATERMARK))


def load_preset(
    name: str = "embedded",
    *,
    num_steps: int = 50,
    exact: bool = False,
    cache_gb: float | int | None = None,
    compile: bool = False,
    device: str = "auto",
    dtype: str = "auto",
    offload: bool = False,
    random_weights: str | None = None,
    weights: Mapping[str, str | Path] | None = None,
) -> Pipeline:
    """A pipeline that is ready to run.

    Args:
        name: one of `PRESETS`.
        num_steps: solver steps of full diffusion, at least 1.
        exact: whether to leave all levers be: plans then save by their map alone, and nothing is approximated.
        cache_gb: memory for features kept between network calls, 10^9 bytes; what does not fit is computed again. None
            is half of the memory of the models' device, whatever is free: the same seed must give the same frames.
        compile: whether what lies between the network's matrix products is fused by a compiler, see `nn.token_ops`.
        device: `auto`, `cpu` or `cuda`; the embedded pair computes on the CPU.
        dtype: `auto`, `bfloat16`, `float16` or `float32`; what the denoiser's network computes in (embedded: no
            float16).
        offload: whether parts that are not at work wait in the CPU's memory; needs a GPU.
        random_weights: `full` or `tiny` for untrained models of that size, whose frames are watermarked.
        weights: what to use in place of the preset's models, by part (`unet`, `vae`, `clip`, `mvsplat`): a model's
            name, a file or folder, or the hub repository that it was pulled from; see `models.registry.resolve`.

    Raises:
        InputError: an unknown name, no steps, a negative memory, options that do not fit the preset, or weights that
            are not here.
        SphinxError: shipped weights are damaged.
    """
    preset = _preset_named(name)
    if num_steps < 1:
        raise InputError("steps", f"it is {num_steps}", "give at least 1")
    if cache_gb is not None and not cache_gb >= 0:
        raise InputError("cache_gb", f"it is {cache_gb:g}", "give a number of gigabytes from 0")
    wanted = _wanted(name, preset, device, dtype, compile, offload, random_weights, weights or {})
    regressor, denoiser = preset.load(wanted)
    kind = Pipeline if random_weights is None else WatermarkedPipeline
    return kind(
        regressor=regressor,
        denoiser=denoiser,
        profile=PAPER_PROFILE if exact else shipped_profile(preset.profile),
        num_steps=num_steps,
        plan_config=PlanConfig(temperature=preset.temperature, levers=NO_SAVINGS if exact else preset.levers),
        cache_bytes=memory_bytes(wanted.device) / 2 if cache_gb is None else 1e9 * cache_gb,
    )


def preset_profile(name: str) -> AnyProfile:
    """The shipped profile that a preset plans by.

    Args:
        name: one of `PRESETS`.

    Raises:
        InputError: an unknown name.
    """
    return shipped_profile(_preset_named(name).profile)


def preset_cards(name: str, weights: Mapping[str, str | Path] | None = None) -> tuple[Card, ...]:
    """The cards of the models behind a preset; their licences are those of its outputs.

    Args:
        name: one of `PRESETS`.
        weights: as for `load_preset`; a file of the user's own counts as the preset's model of that part.

    Raises:
        InputError: an unknown name.
    """
    preset = _preset_named(name)
    if not preset.parts:
        return (CARDS[name],)
    chosen = {part: str((weights or {}).get(part, default)) for part, default in preset.parts.items()}
    return tuple(CARDS.get(spec, CARDS[preset.parts[part]]) for part, spec in chosen.items())


def _preset_named(name: str) -> _Preset:
    if name not in _PRESETS:
        raise InputError("preset", f"there is no {name!r}", f"choose one of: {', '.join(PRESETS)}")
    return _PRESETS[name]


def _wanted(
    name: str,
    preset: _Preset,
    device: str,
    dtype: str,
    compile: bool,
    offload: bool,
    random_weights: str | None,
    weights: Mapping[str, str | Path],
) -> _Wanted:
    """The options, once they are known to fit each other and the preset."""
    if random_weights is not None and random_weights not in RANDOM_SIZES:
        found, hint = f"there is no {random_weights!r}", f"choose one of: {', '.join(RANDOM_SIZES)}"
        raise InputError("random_weights", found, hint)
    if random_weights is not None and not preset.parts:
        raise InputError("random_weights", f"the preset {name} ships its weights", "leave it out")
    if random_weights is not None and weights:
        given = ", ".join(weights)
        raise InputError("random_weights", f"weights are given, too, for {given}", "leave one of them out")
    for part in weights:
        if part not in preset.parts:
            known = ", ".join(preset.parts) or "none"
            raise InputError(part, f"the preset {name} has no such part", f"its parts are: {known}")
    if not preset.parts and not (device in ("auto", "cpu") and dtype in ("auto", "float32", "bfloat16")):
        hint = "leave --device and --dtype out, or choose another preset"
        raise InputError(f"preset {name}", "it computes on the CPU in float32 or bfloat16", hint)
    place = device_named(device) if preset.parts else torch.device("cpu")
    if offload and place.type == "cpu":
        raise InputError("offload", "the models are in the CPU's memory already", "leave it out, or choose device cuda")
    if compile:
        check_compiler()
    return _Wanted(
        device=place,
        dtype=dtype_named(dtype, place),
        compile=compile,
        offload=offload,
        random_weights=random_weights,
        weights={**preset.parts, **weights},
    )
