"""Presets: a regressor, a denoiser and the rules that join them, by one name.

embedded           plane sweep (no weights) + the nano U-Net whose weights the package ships
seva-mvsplat       the paper's pair: MVSplat + SEVA, whose weights the user brings
seva-planesweep    plane sweep + SEVA: any number of context views, one model less to fetch

They are registered as a plug-in's are, see `plugins`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from sphinx_nvs.errors import InputError
from sphinx_nvs.models.base import Denoiser, Regressor
from sphinx_nvs.models.embedded.denoiser import Nano
from sphinx_nvs.models.embedded.shipped import load_nano
from sphinx_nvs.models.placement import device_named, dtype_named, memory_bytes
from sphinx_nvs.models.planesweep import PlaneSweep
from sphinx_nvs.models.registry import CARDS, Card, resolve_all
from sphinx_nvs.models.seva.seva_denoiser import Seva
from sphinx_nvs.nn.token_ops import check_compiler
from sphinx_nvs.pipeline.pipeline import Pipeline
from sphinx_nvs.pipeline.request import Result, Running
from sphinx_nvs.plan import Levers, PlanConfig
from sphinx_nvs.plan.levers import NO_SAVINGS, RESEARCH
from sphinx_nvs.plan.profile import PAPER_PROFILE, AnyProfile, load_profile, shipped_profile
from sphinx_nvs.plugins import (
    LoadOptions,
    Preset,
    preset_named,
    register_denoiser,
    register_preset,
    register_regressor,
)
from sphinx_nvs.watermark import watermarked

__all__ = [
    "RANDOM_SIZES",
    "SHIPPED",
    "WATERMARK",
    "LoadOptions",
    "WatermarkedPipeline",
    "load_preset",
    "preset_cards",
    "preset_named",
    "preset_profile",
    "register_denoiser",
    "register_preset",
    "register_regressor",
]

RANDOM_SIZES = ("full", "tiny")
"""Sizes of untrained models: the true one, for benchmarks, or one that a CPU runs in seconds, for trials."""

WATERMARK = "RANDOM WEIGHTS"
"""Text across frames of untrained models."""


def _load_planesweep(options: LoadOptions) -> Regressor:
    return PlaneSweep()


def _load_mvsplat(options: LoadOptions) -> Regressor:
    # Imported late, as SEVA is below: the embedded pair starts without either.
    from sphinx_nvs.models.mvsplat import load_mvsplat, random_mvsplat

    if options.random_weights is not None:
        return random_mvsplat(device=options.device, size=options.random_weights)
    return load_mvsplat(options.paths["mvsplat"], device=options.device)


def _load_nano(options: LoadOptions) -> Denoiser:
    nano = load_nano()
    # The network alone: the autoencoder stays in float32, whatever is chosen.
    nano.unet.to(options.dtype)
    nano.compiled = options.compile
    return nano


def _load_seva(options: LoadOptions) -> Denoiser:
    from sphinx_nvs.models.seva.checkpoint import load_seva, random_seva

    device, dtype, offload, paths = options.device, options.dtype, options.offload, options.paths
    if options.random_weights is not None:
        seva = random_seva(device=device, dtype=dtype, size=options.random_weights, offload=offload)
    else:
        seva = load_seva(paths["unet"], paths["vae"], paths["clip"], device=device, dtype=dtype, offload=offload)
    seva.compiled = options.compile
    return seva


register_regressor("planesweep", _load_planesweep)
register_regressor("mvsplat", _load_mvsplat, parts={"mvsplat": "mvsplat-re10k"})
register_denoiser("nano", _load_nano, size_multiple=Nano.size_multiple, cpu_only=True)
register_denoiser(
    "seva",
    _load_seva,
    size_multiple=Seva.size_multiple,
    parts={"unet": "seva-1.1", "vae": "sd21-vae", "clip": "clip-vit-h14"},
)

# The nano U-Net guesses too boldly what it does not know. At temperature 0.25 its pictures are nearly as sharp in
# unseen regions as the truth is after the autoencoder, and closer to it than the render is; at 1 they are not.
register_preset(
    "embedded",
    regressor="planesweep",
    denoiser="nano",
    window=48,
    levers=Levers(width_nats=0.8, refresh_nats=1.6),
    profile="embedded",
    temperature=0.25,
)
# SEVA's plans are those of the paper's code: nothing cheaper has been measured with its weights.
register_preset("seva-mvsplat", regressor="mvsplat", denoiser="seva", short_side=576, levers=RESEARCH)
register_preset("seva-planesweep", regressor="planesweep", denoiser="seva", short_side=576, levers=RESEARCH)

SHIPPED: tuple[str, ...] = ("embedded", "seva-mvsplat", "seva-planesweep")
"""The presets of this package; `plugins.preset_names` has plug-ins' too."""


@dataclass(frozen=True, kw_only=True)
class WatermarkedPipeline(Pipeline):
    """A pipeline of untrained models, whose frames are watermarked."""

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
        name: name of a preset, see `plugins.preset_names`.
        num_steps: solver steps of full diffusion, at least 1.
        exact: whether plans save by their map alone: every call dense, nothing approximated.
        cache_gb: memory for features kept between network calls, 10^9 bytes; what does not fit is computed again. None
            is half of the memory of the models' device, whatever is free: the same seed must give the same frames.
        compile: whether elementwise work between the network's matrix products is fused by a compiler, see
            `nn.token_ops`.
        device: `auto`, `cpu` or `cuda`; the embedded pair computes on the CPU.
        dtype: `auto`, `bfloat16`, `float16` or `float32`; what the denoiser's network computes in (embedded: no
            float16).
        offload: whether idle parts wait in the CPU's memory; needs a GPU.
        random_weights: `full` or `tiny` for untrained models of that size, whose frames are watermarked.
        weights: weights in place of the preset's, by part (`unet`, `vae`, `clip`, `mvsplat`): a model's name, a file
            or folder, or the hub repository that it was pulled from; see `models.registry.resolve`.

    Raises:
        InputError: an unknown name, no steps, a negative memory, options that do not fit the preset, or weights that
            are not here.
        SphinxError: shipped weights are damaged.
    """
    preset = preset_named(name)
    if num_steps < 1:
        raise InputError("steps", f"it is {num_steps}", "give at least 1")
    if cache_gb is not None and not cache_gb >= 0:
        raise InputError("cache_gb", f"it is {cache_gb:g}", "give a number of gigabytes from 0")
    options = _load_options(name, preset, device, dtype, compile, offload, random_weights, weights or {})
    kind = Pipeline if random_weights is None else WatermarkedPipeline
    return kind(
        regressor=preset.regressor.load(options),
        denoiser=preset.denoiser.load(options),
        profile=PAPER_PROFILE if exact else preset_profile(name),
        num_steps=num_steps,
        plan_config=PlanConfig(temperature=preset.temperature, levers=NO_SAVINGS if exact else preset.levers),
        cache_bytes=memory_bytes(options.device) / 2 if cache_gb is None else 1e9 * cache_gb,
    )


def preset_profile(name: str) -> AnyProfile:
    """The profile that a preset plans by.

    Args:
        name: name of a preset.

    Raises:
        InputError: an unknown name, or a plug-in's profile cannot be read.
    """
    profile = preset_named(name).profile
    return shipped_profile(profile) if isinstance(profile, str) else load_profile(profile)


def preset_cards(name: str, weights: Mapping[str, str | Path] | None = None) -> tuple[Card, ...]:
    """The cards of the models behind a preset; their licences are those of its outputs.

    Args:
        name: name of a preset.
        weights: as for `load_preset`; a file of the user's own counts as the preset's model of that part.

    Raises:
        InputError: an unknown name.
    """
    parts = preset_named(name).parts
    if not parts:
        return (CARDS[name],) if name in CARDS else ()
    chosen = {part: str((weights or {}).get(part, default)) for part, default in parts.items()}
    return tuple(CARDS.get(spec, CARDS[parts[part]]) for part, spec in chosen.items())


def _load_options(
    name: str,
    preset: Preset,
    device: str,
    dtype: str,
    compile: bool,
    offload: bool,
    random_weights: str | None,
    weights: Mapping[str, str | Path],
) -> LoadOptions:
    """The options, once they are known to fit each other and the preset."""
    _check_weights(name, preset, random_weights, weights)
    cpu_only = preset.denoiser.cpu_only
    if cpu_only and not (device in ("auto", "cpu") and dtype in ("auto", "float32", "bfloat16")):
        hint = "leave --device and --dtype out, or choose another preset"
        raise InputError(f"preset {name}", "it computes on the CPU in float32 or bfloat16", hint)
    place = torch.device("cpu") if cpu_only else device_named(device)
    if offload and place.type == "cpu":
        raise InputError("offload", "the models are in the CPU's memory already", "leave it out, or choose device cuda")
    if compile:
        check_compiler()
    return LoadOptions(
        device=place,
        dtype=dtype_named(dtype, place),
        compile=compile,
        offload=offload,
        random_weights=random_weights,
        paths={} if random_weights else resolve_all({**preset.parts, **weights}),
    )


def _check_weights(name: str, preset: Preset, random_weights: str | None, weights: Mapping[str, str | Path]) -> None:
    """Raises InputError for weights that the preset has no use for, or that contradict each other."""
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
