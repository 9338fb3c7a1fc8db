"""Options of `sphinx-nvs eval` and `sphinx-nvs bench`; imports no torch, so that help is fast."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import arg

from sphinx_nvs.cli.options.markers import Flag, computed

Clock = Literal["auto", "wall", "cpu"]
EvalDevice = Literal["auto", "cpu", "cuda"]

EVAL = """\
Compares methods on scenes with held-out photos: their speed, and their loss against full diffusion.

  sphinx-nvs eval --data procedural:test:3 --methods regression,full-50,ours-0.95 --quick --out out/quick
  sphinx-nvs eval --data procedural:test:50,captures:captures --out out/eval
  sphinx-nvs eval --preset seva-mvsplat --data re10k:re10k/test --methods warm,research,ours-0.95 --out out/re10k

If interrupted, run it again with the same options to continue. docs/reference/metrics.md explains the figures.
"""

BENCH = """\
Times methods on this machine and prints a table to publish; does not measure quality.

  sphinx-nvs bench
  sphinx-nvs bench --size 256 --methods full-50,ours-0.95 --repeats 5
"""


@dataclass(frozen=True, kw_only=True)
class Eval:
    """Options of `sphinx-nvs eval`."""

    data: Annotated[str, arg(metavar="NAME,...")]
    """Scenes: procedural:SPLIT:N, captures:DIR, re10k:DIR, acid:DIR, or a scene or a folder of scenes; joined by
    commas."""

    methods: Annotated[str | None, computed("NAME,...", "ten of them")] = None
    """regression, full-N, skip-K, warm, d4, research, research-code, rt, r, r-plus, ours-Q, deadline-F; full-50 is
    always included."""

    out: Annotated[Path, arg(metavar="DIR")]
    """Folder for results, summary and report; an unfinished evaluation with the same options is continued."""

    preset: Annotated[str, arg(metavar="NAME")] = "embedded"
    """Model pair."""

    quick: Flag = False
    """At most 3 views of 96 pixels, 2 seeds: a first impression within minutes."""

    size: Annotated[str | None, computed("N|WxH", "short side 256, SEVA 576; quick 96")] = None
    """Short side of the frames in pixels, or their width and height."""

    views: Annotated[int | None, computed("N", "8; quick 3")] = None
    """Maximum number of held-out views per scene."""

    splits: Annotated[str | None, computed("N,...", "all")] = None
    """Splits of captures."""

    seeds: Annotated[int | None, computed("N", "3; quick 2")] = None
    """Noise seeds per method."""

    repeats: Annotated[int, arg(metavar="N")] = 1
    """Timed runs per method and seed."""

    metrics: Annotated[str | None, computed("NAME,...", "all that can be computed")] = None
    """psnr, rmse, ssim, ms_ssim, lpips_alex, lpips_vgg, dists, flip, dreamsim, musiq."""

    clock: Clock = "auto"
    """Clock of the speed-ups: wall time, or CPU time of this process; auto is wall on a GPU, else cpu."""

    device: EvalDevice = "auto"
    """Device of SEVA and MVSplat."""

    random_weights: Literal["full", "tiny"] | None = None
    """Untrained models in place of SEVA and MVSplat: for timing only, their losses are meaningless."""

    json: Flag = False
    """Print the summary as one JSON object, the last line of standard output."""


@dataclass(frozen=True, kw_only=True)
class Bench:
    """Options of `sphinx-nvs bench`."""

    preset: Annotated[str, arg(metavar="NAME")] = "embedded"
    """Model pair."""

    methods: Annotated[str | None, computed("NAME,...", "regression, full-50, full-14, research, ours-0.95")] = None
    """As for eval."""

    scene: Annotated[str, arg(metavar="NAME")] = "procedural:test:1"
    """As eval's --data; its first scene is rendered."""

    size: Annotated[str | None, computed("N|WxH", "short side 256, SEVA 576")] = None
    """Short side of the frames in pixels, or their width and height."""

    repeats: Annotated[int, arg(metavar="N")] = 3
    """Timed runs per method."""

    clock: Literal["wall", "cpu"] = "wall"
    """Wall time, or CPU time of this process; the latter is more repeatable on a shared machine."""

    device: EvalDevice = "auto"
    """Device of SEVA and MVSplat."""

    random_weights: Literal["full", "tiny"] | None = None
    """Untrained models in place of SEVA and MVSplat."""

    json: Flag = False
    """Print all times as one JSON object, the last line of standard output."""
