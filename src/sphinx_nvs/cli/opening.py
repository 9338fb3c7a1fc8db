"""What `render` and `plan` begin with: options checked, models loaded, the scene read, views chosen."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from pathlib import Path

from sphinx_nvs.cli.options.render import Request
from sphinx_nvs.cli.progress import say
from sphinx_nvs.cli.selection import Selection, Wish, select
from sphinx_nvs.cli.sizes import height_width_from
from sphinx_nvs.cli.speed import with_known_seconds, with_seconds
from sphinx_nvs.errors import InputError
from sphinx_nvs.geometry import Cameras
from sphinx_nvs.geometry.padding import padded_cameras, padded_size
from sphinx_nvs.pipeline.pipeline import DEFAULT_QUALITY, Pipeline
from sphinx_nvs.plan.profile import load_profile
from sphinx_nvs.presets import SHORT_SIDES, WINDOWS, load_preset
from sphinx_nvs.released_code.plan import QUALITIES
from sphinx_nvs.scene import Capture, Scene, read_capture


@dataclass(frozen=True, kw_only=True)
class Opened:
    """A request of the command line, ready to be planned.

    Args:
        pipeline: with this machine's seconds where they are known.
        capture: where the scene comes from.
        selection: views given and rendered, at the size of the frames.
        scene: the views given, at the padded size.
        targets: the cameras to render, at the padded size.
        window: most views together.
        strategy: how a longer path is cut.
        quality: asked for; None leaves it to the deadline.
        read_s: seconds that reading took.
    """

    pipeline: Pipeline
    capture: Capture
    selection: Selection
    scene: Scene
    targets: Cameras
    window: int
    strategy: str
    quality: float | None
    read_s: float


def opened(options: Request, *, needs_seconds: bool) -> Opened:
    """Loads what the options name.

    Args:
        options: checked already, see `check_request`.
        needs_seconds: whether this machine is to be measured if it never was.

    Raises:
        InputError: anything that the user gave cannot be used.
    """
    pipeline = _pipeline(options)
    started = time.perf_counter()
    capture = read_capture(options.scene)
    size = (
        height_width_from(options.size)
        if options.size
        else capture.default_size(SHORT_SIDES[options.preset], pipeline.denoiser.size_multiple)
    )
    wish = Wish(
        contexts=options.contexts,
        split=options.split,
        targets=options.targets,
        frames=options.frames,
        dataparser=options.dataparser,
    )
    selection = select(capture, wish, *size)
    for note in selection.notes:
        say(note)
    # Networks take multiples only: context views fill the padded size, frames are cropped when they are written.
    multiple = pipeline.denoiser.size_multiple
    scene = capture.load(selection.context_ids, *padded_size(*size, multiple))
    read_s = time.perf_counter() - started
    again = options.calibrate
    pipeline = with_seconds(pipeline, again=again) if needs_seconds or again else with_known_seconds(pipeline)
    _check_deadline(options, pipeline, scene, selection)
    window = WINDOWS[options.preset] if options.window is None else options.window
    return Opened(
        pipeline=pipeline,
        capture=capture,
        selection=selection,
        scene=scene,
        targets=padded_cameras(selection.targets, multiple),
        window=window,
        strategy=options.chunks or _strategy(selection, window),
        quality=quality_asked(options),
        read_s=read_s,
    )


def quality_asked(options: Request) -> float | None:
    """The quality to reach; None is the best that the deadline allows."""
    if options.quality is None and options.deadline_s is None:
        return DEFAULT_QUALITY
    return options.quality


def check_request(options: Request) -> None:
    """Before anything is loaded.

    Raises:
        InputError: a number outside its range, or options that contradict each other.
    """
    for flag, value in (("--quality", options.quality), ("--min-quality", options.min_quality)):
        if value is not None and not 0 <= value <= 1:
            raise InputError(flag, f"it is {value:g}", "give a number in 0..1, e.g. 0.95")
    if options.deadline_s is not None and not 0 < options.deadline_s < float("inf"):
        raise InputError("--deadline-s", f"it is {options.deadline_s:g}", "give seconds above 0, e.g. 2.5")
    if options.quality is not None and options.min_quality > options.quality:
        found = f"it is {options.min_quality:g}, above the --quality of {options.quality:g}"
        raise InputError("--min-quality", found, "give one that is not above it")
    if options.deadline_s is None and (options.min_quality or options.strict):
        flag = "--min-quality" if options.min_quality else "--strict"
        raise InputError(flag, "there is no deadline that it could stand against", "give --deadline-s, too")
    if options.cache_gb is not None and not options.cache_gb >= 0:
        raise InputError("--cache-gb", f"it is {options.cache_gb:g}", "give a number of gigabytes from 0")
    if options.seed < 0:
        raise InputError("--seed", f"it is {options.seed}", "give a whole number from 0")
    if options.method != "sphinx":
        _check_unplanned(options)
    if options.exact and options.profile is not None:
        raise InputError("--exact", "a profile decides what is approximated", "leave --exact or --profile out")
    if options.plan == "research":
        _check_research(options)


def _check_unplanned(options: Request) -> None:
    """Methods that leave no choice."""
    for flag, given in (("--deadline-s", options.deadline_s), ("--profile", options.profile)):
        if given is not None:
            raise InputError(flag, f"--method {options.method} leaves no choice", "leave one of them out")


def _check_research(options: Request) -> None:
    """The research code plans in one way only."""
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
    """The models that the user names, by their part in the pair."""
    named = {"unet": options.model, "vae": options.vae, "clip": options.clip, "mvsplat": options.mvsplat}
    return {part: spec for part, spec in named.items() if spec is not None}


def _pipeline(options: Request) -> Pipeline:
    """The preset, with the models, the profile and the planner that the user names."""
    # A wrong file is told before models are loaded.
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
    """How to cut what is longer than the window: photos held out need not stand in the order of a path."""
    if selection.target_name != "test":
        return "interp"
    return "nearest-gt" if len(selection.context_ids) + 2 <= window else "nearest"


def _check_deadline(options: Request, pipeline: Pipeline, scene: Scene, selection: Selection) -> None:
    """Where a deadline must be met: that the render alone can meet it."""
    if not options.strict or options.deadline_s is None or pipeline.cost_model is None:
        return
    targets = selection.targets
    needs = pipeline.cost_model.regression_seconds(
        num_context=len(scene.images), views=len(targets), height=targets.height, width=targets.width
    )
    if needs.median > options.deadline_s:
        found = f"it is {options.deadline_s:g} s, the render alone takes {needs.median:.2f} s"
        raise InputError("--deadline-s", found, "allow more time, or take the render: leave --strict out")
