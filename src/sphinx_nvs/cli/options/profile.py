"""Options of `sphinx-nvs profile` and `sphinx-nvs profile-show`; as `cli.options`, without importing torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional, arg

Metric = Literal["ssim", "flip", "lpips_alex", "lpips_vgg", "rmse"]
Against = Literal["full", "truth"]
Signal = Literal["change", "uncertainty"]

PROFILE = """\
Learns from scenes what a pair of models loses by not computing: rules for any quality, for render --profile.

Every scene is rendered in full and by some twenty cheaper plans; rules are fitted and checked on scenes left out.
Stopped and started again with the same options, it goes on where it was. Examples:

  sphinx-nvs profile --scenes procedural:val:48 --out out/mine.json
  sphinx-nvs profile --preset seva-mvsplat --scenes scenes/train scenes/more --out out/seva.json
  sphinx-nvs profile --scenes procedural:val:8 --quick --out out/first-look.json

Beside FILE.json come FILE.report.html, with plots, and the folder FILE.scenes, with what was measured.
"""

PROFILE_SHOW = """\
Prints what a profile holds: what it was made of, how well it holds on scenes left out, what qualities usually take.

  sphinx-nvs profile-show out/mine.json
  sphinx-nvs profile-show embedded                 that of a preset
"""


def _worked_out(metavar: str, hint: str) -> object:
    """For options whose default is worked out."""
    return arg(metavar=metavar, help_behavior_hint=f"(default: {hint})")


@dataclass(frozen=True, kw_only=True)
class Profile:
    """Options of `sphinx-nvs profile`."""

    preset: Annotated[str, arg(metavar="NAME")] = "embedded"
    """Pair of models."""

    scenes: Annotated[tuple[str, ...], arg(metavar="DIR|NAME...", help_behavior_hint="")]
    """A scene, a folder of scenes, procedural:val:N, re10k:DIR or acid:DIR, as eval's --data; five scenes or more."""

    out: Annotated[Path, arg(metavar="FILE.json")]
    """The profile."""

    name: Annotated[str | None, _worked_out("NAME", "the file's")] = None
    """What plans call it."""

    metric: Metric = "ssim"
    """What quality is measured by."""

    against: Against = "full"
    """What quality is measured against: frames of full diffusion, or the held-out photos."""

    signal: Signal = "change"
    """What tells regions apart: how much the denoiser's first call changes them, or how sure the render is."""

    quick: Annotated[bool, arg(help_behavior_hint="")] = False
    """Three lever sets, 3 views of 64 pixels: for a first look, within minutes."""

    size: Annotated[str | None, _worked_out("N|WxH", "short side 128, SEVA 576; quick 64")] = None
    """Short side of the frames in pixels, or their width and height."""

    views: Annotated[int | None, _worked_out("N", "8; quick 3")] = None
    """At most so many held-out views a scene."""

    steps: Annotated[int, arg(metavar="S")] = 50
    """Solver steps of full diffusion."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where SEVA and MVSplat compute."""

    random_weights: Literal["full", "tiny"] | None = None
    """Untrained models in place of SEVA and MVSplat: for trials, the rules mean nothing then."""

    calibrate: Annotated[bool, arg(help_behavior_hint="")] = False
    """Measure this machine's speed again."""

    overwrite: Annotated[bool, arg(help_behavior_hint="")] = False
    """Replace an earlier profile and report; what was measured of the same scenes is used again."""

    json: Annotated[bool, arg(help_behavior_hint="")] = False
    """Print what was made as one JSON object, the last line of standard output."""

    @property
    def folder(self) -> Path:
        """Where what is measured is kept."""
        return self.out.with_suffix(".scenes")

    @property
    def report(self) -> Path:
        """The page."""
        return self.out.with_suffix(".report.html")


@dataclass(frozen=True, kw_only=True)
class ProfileShow:
    """Options of `sphinx-nvs profile-show`."""

    profile: Annotated[Positional[str], arg(metavar="FILE|PRESET")]
    """A profile's file, or the preset whose own it is."""

    json: Annotated[bool, arg(help_behavior_hint="")] = False
    """Print one JSON object, the last line of standard output."""
