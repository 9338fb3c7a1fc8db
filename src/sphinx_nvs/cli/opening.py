"""How `render` and `plan` begin: options checked, models loaded, the scene read, views chosen."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from pathlib import Path

from sphinx_nvs.cli.default_size import Shape, default_size, preset_size
from sphinx_nvs.cli.machine_speed import with_known_seconds, with_seconds
from sphinx_nvs.cli.options.render_options import Request
from sphinx_nvs.cli.poses import posed
from sphinx_nvs.cli.progress import say
from sphinx_nvs.cli.selection import Selection, ViewOptions, select
from sphinx_nvs.cli.sizes import frame_size_from
from sphinx_nvs.errors import InputError
from sphinx_nvs.geometry import Cameras
from sphinx_nvs.geometry.padding import padded_cameras, padded_size
from sphinx_nvs.pipeline.pipeline import Pipeline
from sphinx_nvs.plan.profile import load_profile
from sphinx_nvs.presets import load_preset, preset_named
from sphinx_nvs.released_code.released_plan import QUALITIES
from sphinx_nvs.sampling_params import SamplingParams
from sphinx_nvs.scene import Capture, Scene, read_capture
from sphinx_nvs.scene.conventions import with_checked_poses

SAMPLING_FIELDS = frozenset(field.name for field in fields(SamplingParams))


@dataclass(frozen=True, kw_only=True)
class Opened:
    """A request of the command line, ready to be planned.

    Args:
        pipeline: the models, with this machine's seconds where they are known.
        capture: the scene's source.
        selection: context views and target cameras, at the size of the frames.
        scene: the context views, at the padded size.
        targets: the cameras to render, at the padded size.
        window: most views that the denoiser sees together.
        strategy: how a longer path is cut.
        read_s: seconds that reading took.
    """

    pipeline: Pipeline
    capture: Capture
    selection: Selection
    scene: Scene
    targets: Cameras
    window: int
    strategy: str
    read_s: float


def opened(options: Request, *, needs_seconds: bool) -> Opened:
    """Loads what the options name.

    Args:
        options: options that passed `check_request`.
        needs_seconds: whether to measure this machine if it was never measured.

    Raises:
        InputError: an option or an input cannot be used.
    """
    pipeline = _pipeline(options)
    source = posed(options.scene)
    started = time.perf_counter()
    capture = with_checked_poses(read_capture(source))
    views = ViewOptions(
        contexts=options.contexts,
        split=options.split,
        targets=options.targets,
        frames=options.frames,
        dataparser=options.dataparser,
    )
    window = preset_named(options.preset).window if options.window is None else options.window
    size = preset_size(capture, pipeline, options.preset) if options.size is None else frame_size_from(options.size)
    selection = select(capture, views, *size)
    for note in selection.notes:
        say(note)
    read_s, again = time.perf_counter() - started, options.calibrate
    # Only now, when the options are known to be good: a measurement takes long. Sizes may depend on it.
    pipeline = with_seconds(pipeline, again=again) if needs_seconds or again else with_known_seconds(pipeline)
    if options.size is None:
        shape = Shape(contexts=len(selection.context_ids), views=len(selection.targets), window=window)
        height, width, note = default_size(capture, pipeline, options, shape)
        if note:
            say(note)
        size, selection = (height, width), select(capture, views, height, width)
    # Networks take multiples only: context views fill the padded size, frames are cropped when they are written.
    multiple, started = pipeline.denoiser.size_multiple, time.perf_counter()
    scene = capture.load(selection.context_ids, *padded_size(*size, multiple))
    read_s += time.perf_counter() - started
    pipeline.check_deadline(scene, selection.targets, options.params)
    return Opened(
        pipeline=pipeline,
        capture=capture,
        selection=selection,
        scene=scene,
        targets=padded_cameras(selection.targets, multiple),
        window=window,
        strategy=options.chunks or _strategy(selection, window),
        read_s=read_s,
    )


@contextmanager
def fields_as_flags() -> Iterator[None]:
    """Renames fields of `SamplingParams` in errors to the flags that set them, e.g. `--min-quality`."""
    try:
        yield
    except InputError as error:
        if error.where not in SAMPLING_FIELDS:
            raise
        flag = f"--{error.where.replace('_', '-')}"
        raise InputError(flag, error.found, error.hint) from error


def check_request(options: Request) -> None:
    """Checks options before anything is loaded.

    Raises:
        InputError: a number outside its range, or options that contradict each other.
    """
    params = options.params
    if options.size is not None:
        frame_size_from(options.size)
    if params.deadline_s is None and (params.min_quality or params.strict):
        flag = "--min-quality" if params.min_quality else "--strict"
        raise InputError(flag, "there is no deadline that it could stand against", "give --deadline-s, too")
    if options.cache_gb is not None and not options.cache_gb >= 0:
        raise InputError("--cache-gb", f"it is {options.cache_gb:g}", "give a number of gigabytes from 0")
    if options.method != "sphinx":
        _check_unplanned(options)
    if options.exact and options.profile is not None:
        raise InputError("--exact", "a profile decides what is approximated", "leave --exact or --profile out")
    if options.plan == "research":
        _check_research(options)


def _check_unplanned(options: Request) -> None:
    """Raises InputError for options that methods without a planner ignore."""
    for flag, given in (("--deadline-s", options.deadline_s), ("--profile", options.profile)):
        if given is not None:
            raise InputError(flag, f"--method {options.method} leaves no choice", "leave one of them out")


def _check_research(options: Request) -> None:
    """Raises InputError for options that the released code's planner ignores."""
    if options.method != "sphinx":
        raise InputError("--plan research", f"--method {options.method} needs no planner", "leave one of them out")
    others = {"--exact": options.exact, "--profile": options.profile, "--deadline-s": options.deadline_s}
    for flag, given in others.items():
        if given:
            raise InputError("--plan research", f"{flag} would be another plan", "leave one of them out")
    if options.quality not in (None, *QUALITIES):
        known = " or ".join(f"{quality:g}" for quality in QUALITIES)
        raise InputError("--plan research", f"--quality is {options.quality:g}", f"give {known}: it has no other rules")


def weights_of(options: Request) -> dict[str, str]:
    """The models that the options name, by their part in the pair."""
    named = {"unet": options.model, "vae": options.vae, "clip": options.clip, "mvsplat": options.mvsplat}
    return {part: spec for part, spec in named.items() if spec is not None}


def _pipeline(options: Request) -> Pipeline:
    """The preset, with the models, the profile and the planner that the options name."""
    # Read first, so that a wrong file is reported before models are loaded.
    profile = None if options.profile is None else load_profile(Path(options.profile), options.preset)
    pipeline = load_preset(
        options.preset,
        num_steps=options.steps,
        exact=options.exact,
        cache_gb=options.cache_gb,
        compile=options.compile,
        device=options.device,
        dtype=options.dtype,
        offload=options.offload,
        random_weights=options.random_weights,
        weights=weights_of(options),
    )
    return replace(pipeline, planner=options.plan, profile=pipeline.profile if profile is None else profile)


def _strategy(selection: Selection, window: int) -> str:
    """The strategy for paths longer than the window; held-out photos need not be in the order of a path."""
    if selection.target_name != "test":
        return "interp"
    return "nearest-gt" if len(selection.context_ids) + 2 <= window else "nearest"
