"""Every command's options: one typed field gives flag, help and default.

Nothing here imports torch, so that `--help` answers at once.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro
from tyro.conf import Positional, arg, subcommand

from sphinx_nvs.cli.options.bench_serve_options import BENCH_SERVE, BenchServe
from sphinx_nvs.cli.options.doctor_options import COMPLETION, DOCTOR, Completion, Doctor
from sphinx_nvs.cli.options.eval_options import BENCH, EVAL, Bench, Eval
from sphinx_nvs.cli.options.markers import Flag
from sphinx_nvs.cli.options.pose_options import POSES, Poses
from sphinx_nvs.cli.options.profile_options import PROFILE, PROFILE_SHOW, Profile, ProfileShow
from sphinx_nvs.cli.options.serve_options import KEYS, SERVE, KeysCommand, KeysSubcommands, Serve
from sphinx_nvs.cli.options.studio_options import STUDIO, Studio
from sphinx_nvs.sampling_params import SamplingParams

Method = Literal["sphinx", "diffusion", "regression"]
Planner = Literal["ours", "research"]
Kind = Literal["room", "corridor", "plaza", "mixed"]
Device = Literal["auto", "cpu", "cuda"]
Dtype = Literal["auto", "bfloat16", "float16", "float32"]
RandomSize = Literal["full", "tiny"]

ABOUT = """\
New views of a scene from a few photos: regression where it is sure, diffusion where it is not.

  sphinx-nvs render demo --out demo.mp4      a camera path between two real photos; nothing to download
  sphinx-nvs render PHOTOS --out new.mp4     the same of your own photos or video
  sphinx-nvs poses PHOTOS --out scene        cameras of plain photos or a video
  sphinx-nvs render --help                   scenes, cameras, methods, quality
  sphinx-nvs plan demo --deadline-s 3        predicted seconds and quality of a render, without rendering
  sphinx-nvs scene make --seed 7 --out room  a procedural scene with exact depth
  sphinx-nvs scene inspect FOLDER            views, splits and problems of a scene
  sphinx-nvs models list                     models, licences and weights
  sphinx-nvs eval --data procedural:test:3 --quick --out out/quick
                                             compare methods by speed and loss, with a report
  sphinx-nvs bench                           speed of this machine; bench serve: load test of a server
  sphinx-nvs profile --scenes DIR --out p.json
                                             fit planning rules to your own scenes, for render --profile
  sphinx-nvs serve                           the same over HTTP, for many users; keys create NAME makes an API key
  sphinx-nvs doctor                          check the installation; print commands that fix it
  sphinx-nvs completion bash                 shell completion
  sphinx-nvs --version
"""

RENDER = """\
Renders new views of a scene and writes frames, video, cameras, plan and report.

SCENE is a folder or file (transforms.json with train_test_split_N.json beside it, COLMAP, RealEstate10K text), plain
photos or a video, whose cameras are found once and kept in the cache, or a name: demo, procedural:SEED. Examples:

  sphinx-nvs render demo --out demo.mp4
  sphinx-nvs render captures/fox --split 6 --out out/fox          the held-out photos of split 6, with metrics
  sphinx-nvs render captures/fox --contexts 0,8,16 --targets orbit --frames 48 --out orbit.mp4
  sphinx-nvs render procedural:7 --method regression --json --out out/seven
  sphinx-nvs render demo --deadline-s 3 --min-quality 0.8 --out demo.mp4       the best quality within 3 seconds
  sphinx-nvs render demo --replay out/demo/plan.safetensors --out out/again    the same frames, bit for bit
  sphinx-nvs render captures/fox --preset seva-planesweep --out out/fox      see: sphinx-nvs models list
"""

PLAN = """\
Predicts seconds and quality of a render, with the reason, without refining anything; draws the plan.

The options are those of render. The first use measures this machine's speed. Examples:

  sphinx-nvs plan demo
  sphinx-nvs plan demo --quality 0.9 --plot plan.png
  sphinx-nvs plan captures/fox --split 6 --deadline-s 5 --min-quality 0.8 --json
  sphinx-nvs plan demo --save-plan demo.safetensors        for render --replay
"""

MAKE = """\
Makes a procedural scene: photos, cameras, exact depth and a split of two context views.

  sphinx-nvs scene make --seed 7 --kind room --views 12 --size 384x256 --out out/room7
  sphinx-nvs render out/room7 --out out/room7.mp4
"""

INSPECT = """\
Describes a scene: layout, sizes, baselines, splits, warnings; draws its cameras.

  sphinx-nvs scene inspect captures/fox
  sphinx-nvs scene inspect captures/fox --plot fox.png --json
"""

MODELS_LIST = """\
Lists models: licence, size, and whether their weights are installed.

  sphinx-nvs models list
  sphinx-nvs models list --json
"""

MODELS_SHOW = """\
Shows a model's source, licence, requirements, and where its weights are.

  sphinx-nvs models show seva-1.1
"""

MODELS_PULL = """\
Installs weights from the Hugging Face hub or from a local file, after checking them.

  sphinx-nvs models pull seva-1.1 sd21-vae clip-vit-h14 --accept-licence
  sphinx-nvs models pull sd21-vae --source OWNER/NAME             another repository, or OWNER/NAME:FILE
  sphinx-nvs models pull seva-1.1 --from modelv1.1.safetensors --accept-licence
  sphinx-nvs models pull mvsplat-re10k --from re10k.ckpt          converted without running its code
"""

MODELS_VERIFY = """\
Verifies installed weights against their recorded checksums.

  sphinx-nvs models verify
  sphinx-nvs models verify seva-1.1
"""

SceneName = Annotated[Positional[str], arg(metavar="SCENE")]


def _without_default(metavar: str, hint: str = "") -> object:
    """An option whose default depends on the scene."""
    return arg(metavar=metavar, help_behavior_hint=f"(default: {hint})" if hint else "")


@dataclass(frozen=True, kw_only=True)
class Request:
    """Options that `render` and `plan` share."""

    scene: SceneName
    """Folder, file or name of the scene."""

    contexts: Annotated[str | None, _without_default("I,J,...|N", "those of the split, else all views")] = None
    """Context views: view numbers, or how many to choose, spread over the scene."""

    split: Annotated[int | None, _without_default("N", "the only one there is, else none")] = None
    """Use train_test_split_N.json: its train views are context."""

    targets: Annotated[str | None, _without_default("test|FILE|PRESET", "test with a split, else interpolate")] = None
    """Views to render: `test` (held-out photos), a camera file (transforms.json, nerfstudio camera path, ours), or a
    path: interpolate, spiral-through, orbit, spiral, lemniscate, roll, move-forward, move-backward, move-left,
    move-right, move-up, move-down, zoom-in, zoom-out, dolly-zoom-in, dolly-zoom-out."""

    frames: Annotated[int | None, _without_default("N", "24 on a path, else all")] = None
    """Number of frames. From test views or a camera file, this many are chosen, spread evenly."""

    dataparser: Annotated[Path | None, _without_default("FILE", "the one beside the camera path or the scene")] = None
    """nerfstudio's dataparser_transforms.json of the run whose viewer saved the camera path in --targets."""

    size: Annotated[str | None, _without_default("WxH", "the photos' own, or smaller")] = None
    """Size of context views and frames in pixels. By default the photos' own up to 720 on the short side if that takes
    under a minute here, else smaller, down to 256 (SEVA 576)."""

    method: Method = "sphinx"
    """`sphinx` refines where the render is uncertain; `diffusion` everywhere; `regression` nowhere."""

    window: Annotated[int | None, _without_default("T", "48, SEVA 21")] = None
    """Most views that the denoiser takes together, context included; a longer path is made in units, see --chunks."""

    chunks: Annotated[str | None, _without_default("STRATEGY", "interp on a path, nearest-gt for test views")] = None
    """How a path longer than the window is cut: interp, interp-gt, nearest, nearest-gt, nearest-K (after
    anchors all along the path), gt, gt-ltr, gt-nearest (from beginning to end)."""

    quality: Annotated[float | None, _without_default("Q", "0.98; with --deadline-s the best that it allows")] = None
    """Fraction of full diffusion's quality to keep, 0..1 (method sphinx, as the next three)."""

    deadline_s: Annotated[float | None, _without_default("S")] = None
    """Seconds for all frames, not counting the loading of models and scene; the first use measures this machine."""

    min_quality: Annotated[float, arg(metavar="Q", help_behavior_hint="(default: none)")] = 0.0
    """Floor of the quality under a deadline, 0..1: frames that would fall below it are late instead."""

    strict: Flag = False
    """Fail if the deadline cannot be met, instead of making the nearest plan."""

    profile: Annotated[Path | None, _without_default("FILE", "the preset's")] = None
    """Profile to plan by, a file that sphinx-nvs profile wrote."""

    calibrate: Flag = False
    """Measure this machine's speed again."""

    plan: Planner = "ours"
    """Planner of method sphinx: `ours`, or `research` for the rules of the paper's released code, at quality 0.95 or
    0.98; SEVA presets then also compute as that code does."""

    preset: Annotated[str, arg(metavar="NAME")] = "embedded"
    """Pair of models: embedded, seva-mvsplat, seva-planesweep, or a plug-in's."""

    model: Annotated[str | None, _without_default("NAME|FILE|REPO", "seva-1.1")] = None
    """SEVA's U-Net: a model's name, a .safetensors file, or the hub repository that it was pulled from (SEVA presets,
    as the next three)."""

    vae: Annotated[str | None, _without_default("NAME|FILE|REPO", "sd21-vae")] = None
    """SEVA's autoencoder."""

    clip: Annotated[str | None, _without_default("NAME|FILE|REPO", "clip-vit-h14")] = None
    """SEVA's image embedder."""

    mvsplat: Annotated[str | None, _without_default("NAME|FILE|REPO", "mvsplat-re10k")] = None
    """The regressor of seva-mvsplat."""

    random_weights: RandomSize | None = None
    """Untrained models in place of SEVA and MVSplat, of full size or tiny: for benchmarks and trials. Frames are
    watermarked."""

    device: Device = "auto"
    """Device of SEVA and MVSplat; auto takes a GPU if there is one."""

    dtype: Dtype = "auto"
    """Number type of the denoiser's network; auto is half precision on a GPU, single on a CPU. On a CPU bfloat16 is
    faster with AVX-512, and many times slower without."""

    offload: bool = False
    """Keep idle parts of SEVA in the CPU's memory."""

    steps: Annotated[int, arg(metavar="S")] = 50
    """Solver steps of full diffusion."""

    exact: bool = False
    """Compute every token at every step of the plan, on the full grid of noise levels: slower, without approximation
    (method sphinx)."""

    cache_gb: Annotated[float | None, _without_default("GB", "half of the machine's or GPU's")] = None
    """Memory for features kept between network calls; what does not fit is computed again."""

    compile: bool = False
    """Fuse the work between the network's matrix products; for GPUs, up to a minute at first use."""

    seed: Annotated[int, arg(metavar="SEED")] = 0
    """Seed of the noise; the same seed gives the same frames on the same machine."""

    @property
    def params(self) -> SamplingParams:
        """Quality, deadline and seed as one value; raises InputError for a number outside its range."""
        return SamplingParams(
            method=self.method,
            quality=self.quality,
            min_quality=self.min_quality,
            deadline_s=self.deadline_s,
            strict=self.strict,
            seed=self.seed,
        )


@dataclass(frozen=True, kw_only=True)
class Render(Request):
    """Options of `sphinx-nvs render`."""

    replay: Annotated[Path | None, _without_default("FILE|DIR")] = None
    """Run this plan.safetensors, or the plans in an earlier result's folder, instead of planning."""

    out: Annotated[Path, arg(metavar="DIR|FILE.mp4")]
    """A folder for everything, or an mp4 for the video alone."""

    overwrite: Flag = False
    """Replace an earlier result."""

    json: Flag = False
    """Print the report as one JSON object, the last line of standard output."""


@dataclass(frozen=True, kw_only=True)
class Plan(Request):
    """Options of `sphinx-nvs plan`."""

    plot: Annotated[Path | None, _without_default("FILE.png")] = None
    """Draw the start steps of each frame, the schedule, and the seconds of other qualities."""

    save_plan: Annotated[Path | None, _without_default("FILE.safetensors")] = None
    """Write the plan, for render --replay."""

    overwrite: Flag = False
    """Replace an earlier plot or plan."""

    json: Flag = False
    """Print the quote as one JSON object, the last line of standard output."""


@dataclass(frozen=True, kw_only=True)
class SceneMake:
    """Options of `sphinx-nvs scene make`."""

    seed: Annotated[int, arg(metavar="SEED")] = 0
    """Seed of the scene; the same seed gives the same scene."""

    kind: Kind = "mixed"
    """Kind of place."""

    views: Annotated[int, arg(metavar="N")] = 12
    """Photos along a camera path."""

    size: Annotated[str, arg(metavar="WxH")] = "256x256"
    """Size of the photos in pixels."""

    out: Annotated[Path, arg(metavar="DIR")]
    """The scene's folder."""

    overwrite: Flag = False
    """Replace an earlier scene."""

    json: Flag = False
    """Print a description of the scene as one JSON object, the last line of standard output."""


@dataclass(frozen=True, kw_only=True)
class SceneInspect:
    """Options of `sphinx-nvs scene inspect`."""

    scene: SceneName
    """Folder, file or name of the scene."""

    plot: Annotated[Path | None, _without_default("FILE.png")] = None
    """Draw the cameras from above and from the side."""

    overwrite: Flag = False
    """Replace an earlier plot."""

    json: Flag = False
    """Print the description as one JSON object, the last line of standard output."""


Models = Annotated[Positional[tuple[str, ...]], arg(metavar="NAME...", help_behavior_hint="")]


@dataclass(frozen=True, kw_only=True)
class ModelsList:
    """Options of `sphinx-nvs models list`."""

    json: Flag = False
    """Print one JSON object, the last line of standard output."""


@dataclass(frozen=True, kw_only=True)
class ModelsShow:
    """Options of `sphinx-nvs models show`."""

    name: Annotated[Positional[str], arg(metavar="NAME")]
    """The model."""

    json: Flag = False
    """Print one JSON object, the last line of standard output."""


@dataclass(frozen=True, kw_only=True)
class ModelsPull:
    """Options of `sphinx-nvs models pull`."""

    names: Models
    """The models."""

    from_: Annotated[Path | None, arg(name="from", metavar="FILE|DIR", help_behavior_hint="")] = None
    """Install this file instead of downloading one; linked where possible, else copied."""

    source: Annotated[str | None, arg(metavar="REPO[:FILE]", help_behavior_hint="(default: see models show)")] = None
    """Download from another repository of the hub."""

    accept_licence: Flag = False
    """Accept the model's licence."""

    overwrite: Flag = False
    """Install again."""


@dataclass(frozen=True, kw_only=True)
class ModelsVerify:
    """Options of `sphinx-nvs models verify`."""

    names: Annotated[Positional[tuple[str, ...]], arg(metavar="NAME...", help_behavior_hint="(default: all)")] = ()
    """The models."""

    json: Flag = False
    """Print one JSON object, the last line of standard output."""


_Scene = (
    Annotated[SceneMake, subcommand("make", description=MAKE)]
    | Annotated[SceneInspect, subcommand("inspect", description=INSPECT)]
)

_Models = (
    Annotated[ModelsList, subcommand("list", description=MODELS_LIST)]
    | Annotated[ModelsShow, subcommand("show", description=MODELS_SHOW)]
    | Annotated[ModelsPull, subcommand("pull", description=MODELS_PULL)]
    | Annotated[ModelsVerify, subcommand("verify", description=MODELS_VERIFY)]
)

ModelsCommand = ModelsList | ModelsShow | ModelsPull | ModelsVerify

BENCH_SERVE_NAME = "bench serve"

Command = (
    Render
    | Plan
    | Poses
    | SceneMake
    | SceneInspect
    | ModelsCommand
    | Eval
    | Bench
    | BenchServe
    | Profile
    | ProfileShow
    | Serve
    | Studio
    | KeysCommand
    | Doctor
    | Completion
)


def parse(argv: list[str]) -> Command:
    """The options in `argv`; prints help or a hint and leaves with 0 or 2 where there are none to return."""
    commands = (
        Annotated[Render, subcommand("render", description=RENDER)]
        | Annotated[Plan, subcommand("plan", description=PLAN)]
        | Annotated[Poses, subcommand("poses", description=POSES)]
        | Annotated[_Scene, subcommand("scene", description="Makes or describes scenes.")]
        | Annotated[_Models, subcommand("models", description="Models, their licences and their weights.")]
        | Annotated[Eval, subcommand("eval", description=EVAL)]
        | Annotated[Bench, subcommand("bench", description=BENCH)]
        | Annotated[BenchServe, subcommand(BENCH_SERVE_NAME, description=BENCH_SERVE)]
        | Annotated[Profile, subcommand("profile", description=PROFILE)]
        | Annotated[ProfileShow, subcommand("profile-show", description=PROFILE_SHOW)]
        | Annotated[Serve, subcommand("serve", description=SERVE)]
        | Annotated[Studio, subcommand("studio", description=STUDIO)]
        | Annotated[KeysSubcommands, subcommand("keys", description=KEYS)]
        | Annotated[Doctor, subcommand("doctor", description=DOCTOR)]
        | Annotated[Completion, subcommand("completion", description=COMPLETION)]
    )
    return tyro.cli(
        commands,
        prog="sphinx-nvs",
        description=ABOUT,
        args=_joined(argv),
        config=(tyro.conf.FlagCreatePairsOff, tyro.conf.OmitArgPrefixes),
    )


def print_completion(shell: str) -> None:
    """Writes the script with which a shell completes all of these commands to standard output."""
    with contextlib.suppress(SystemExit):
        parse(["--tyro-print-completion", shell])


def _joined(argv: list[str]) -> list[str]:
    """`bench serve` as one word: `bench` has options of its own, and commands have either those or commands."""
    return [BENCH_SERVE_NAME, *argv[2:]] if argv[:2] == BENCH_SERVE_NAME.split() else argv
