"""Options of `sphinx-nvs profile` and `sphinx-nvs profile-show`; imports no torch, so that help is fast."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional, arg

from sphinx_nvs.cli.options.markers import Flag, computed

Metric = Literal["ssim", "flip", "lpips_alex", "lpips_vgg", "rmse"]
Against = Literal["full", "truth"]
Signal = Literal["redraw", "change", "uncertainty"]

PROFILE = """\
Measures on scenes what quality a model pair loses by skipping computation, and fits rules for render --profile.

Every scene is rendered in full and by some twenty cheaper plans; rules are fitted and checked on held-out scenes.
If interrupted, run it again with the same options to continue. Examples:

  sphinx-nvs profile --scenes procedural:val:48 --out out/mine.json
  sphinx-nvs profile --preset seva-mvsplat --scenes scenes/train scenes/more --out out/seva.json
  sphinx-nvs profile --scenes procedural:val:8 --quick --out out/trial.json

It also writes FILE.report.html, with plots, and the folder FILE.scenes, with the measurements.
"""

PROFILE_SHOW = """\
Prints a profile: its scenes, its errors on held-out scenes, and the compute that qualities typically take.

  sphinx-nvs profile-show out/mine.json
  sphinx-nvs profile-show embedded                 the profile of a preset
"""


@dataclass(frozen=True, kw_only=True)
class Profile:
    """Options of `sphinx-nvs profile`."""

    preset: Annotated[str, arg(metavar="NAME")] = "embedded"
    """Model pair."""

    scenes: Annotated[tuple[str, ...], arg(metavar="DIR|NAME...", help_behavior_hint="")]
    """A scene, a folder of scenes, procedural:val:N, re10k:DIR or acid:DIR, as eval's --data; five scenes or more."""

    out: Annotated[Path, arg(metavar="FILE.json")]
    """The profile to write."""

    name: Annotated[str | None, computed("NAME", "the file's")] = None
    """Name of the profile in plans."""

    metric: Metric = "ssim"
    """Metric of quality."""

    against: Against = "full"
    """Reference of quality: frames of full diffusion, or the held-out photos."""

    signal: Annotated[Signal | None, computed("NAME", "redraw for the embedded pair, else change")] = None
    """Signal that separates regions: how targets differ when drawn anew from the photos' surfaces, change by the
    denoiser's first call, or uncertainty of the render."""

    quick: Flag = False
    """Three lever sets, 3 views of 64 pixels: a first impression within minutes."""

    size: Annotated[str | None, computed("N|WxH", "short side 128, SEVA 576; quick 64")] = None
    """Short side of the frames in pixels, or their width and height."""

    views: Annotated[int | None, computed("N", "8; quick 3")] = None
    """Maximum number of held-out views per scene."""

    steps: Annotated[int, arg(metavar="S")] = 50
    """Solver steps of full diffusion."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Device of SEVA and MVSplat."""

    random_weights: Literal["full", "tiny"] | None = None
    """Untrained models in place of SEVA and MVSplat: for trials, the rules are meaningless."""

    calibrate: Flag = False
    """Measure this machine's speed again."""

    overwrite: Flag = False
    """Replace an earlier profile and report; measurements of the same scenes are reused."""

    json: Flag = False
    """Print a summary as one JSON object, the last line of standard output."""

    @property
    def folder(self) -> Path:
        """Folder of the measurements."""
        return self.out.with_suffix(".scenes")

    @property
    def report(self) -> Path:
        """Path of the report."""
        return self.out.with_suffix(".report.html")


@dataclass(frozen=True, kw_only=True)
class ProfileShow:
    """Options of `sphinx-nvs profile-show`."""

    profile: Annotated[Positional[str], arg(metavar="FILE|PRESET")]
    """A profile's file, or a preset for its own profile."""

    json: Flag = False
    """Print one JSON object, the last line of standard output."""
