"""Options of `sphinx-nvs serve` and `sphinx-nvs keys`; as `cli.options`, without importing torch."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional, arg, subcommand

Keys = Literal["auto", "required", "none"]
LogFormat = Literal["auto", "text", "json"]
LogLevel = Literal["debug", "info", "warning", "error"]

SERVE = """\
Serves new views over HTTP: upload a scene, ask for views with a quality or a deadline, watch them arrive.

It listens on this machine only, needs no key and has one scene, demo, to begin with. docs/server.md is the whole story;
the address that it prints leads to the API. Examples:

  sphinx-nvs serve
  sphinx-nvs serve --port 0 --folder out/server --log-format json
  sphinx-nvs keys create alice && sphinx-nvs serve --host 0.0.0.0
  sphinx-nvs serve --preset seva-planesweep --devices 2       a worker for each of two GPUs

Ctrl-C, or SIGTERM, lets unfinished views end for a while; a second one does not wait. What is unfinished then goes on
when the same folder is served again.
"""

KEYS = "Who may use a server: its API keys."

KEYS_CREATE = """\
Makes an API key and shows it once; only its hash is kept. A running server takes it at once.

  sphinx-nvs keys create alice
  sphinx-nvs keys create batch --views 20 --storage-gb 5 --rate 10
"""

KEYS_LIST = """\
Lists API keys: whose, since when, what they take up.

  sphinx-nvs keys list
"""

KEYS_REVOKE = """\
Has API keys refused from now on; views that they asked for go on.

  sphinx-nvs keys revoke key_0123456789abcdef
"""


def _worked_out(metavar: str, hint: str) -> object:
    """For options whose default is worked out."""
    return arg(metavar=metavar, help_behavior_hint=f"(default: {hint})")


Flag = Annotated[bool, arg(help_behavior_hint="")]
Folder = Annotated[Path | None, _worked_out("DIR", "sphinx-nvs/server in the user's data folder")]
Database = Annotated[str | None, _worked_out("URL", "SQLite in the folder")]


@dataclass(frozen=True, kw_only=True)
class Serve:
    """Options of `sphinx-nvs serve`."""

    host: Annotated[str, arg(metavar="ADDRESS")] = "127.0.0.1"
    """Address to listen on; 0.0.0.0 is every one of this machine's, and needs keys."""

    port: Annotated[int, arg(metavar="N")] = 8000
    """Port to listen on; 0 takes any free one."""

    folder: Folder = None
    """Where scenes, views and keys are kept; one server at a time uses it."""

    database: Database = None
    """Where rows are kept instead, e.g. postgresql://USER@HOST/NAME; it goes with one folder."""

    artifacts: Annotated[str | None, _worked_out("PLACE", "artifacts in the folder")] = None
    """Where frames, videos and plans are kept instead: a folder, or e.g. s3://BUCKET/FOLDER."""

    preset: Annotated[str, arg(metavar="NAME")] = "embedded"
    """Pair of models."""

    devices: Annotated[int, arg(metavar="N")] = 1
    """Worker processes, each with models of its own: one for each GPU, or for each few cores."""

    keys: Keys = "auto"
    """Who needs an API key: everybody (required), nobody (none), or everybody as soon as there is one or others than
    this machine can reach the server (auto)."""

    rate: Annotated[float, arg(metavar="N")] = 50.0
    """Requests a second of a key, or of an address without one; four times as many at once."""

    views: Annotated[int, arg(metavar="N")] = 500
    """Unfinished views of a key."""

    scenes: Annotated[int, arg(metavar="N")] = 1000
    """Scenes of a key."""

    storage_gb: Annotated[float, arg(metavar="GB")] = 20.0
    """Disk that scenes and frames of a key may take."""

    streams: Annotated[int, arg(metavar="N")] = 64
    """Streams of events that a key may have open."""

    queue: Annotated[int, arg(metavar="N")] = 4096
    """Unfinished views of all keys together."""

    frames: Annotated[int, arg(metavar="N")] = 1000
    """Frames of one view, at most."""

    attempts: Annotated[int, arg(metavar="N")] = 3
    """How often a part of a view is tried on devices that fail; after that the view ends with its preview."""

    upload_mb: Annotated[float, arg(metavar="MB")] = 512.0
    """Largest upload."""

    keep_h: Annotated[float, arg(metavar="H")] = 24.0
    """Hours after which a view and its frames go."""

    keep_scenes_h: Annotated[float, arg(metavar="H")] = 168.0
    """Hours after its last use when a scene goes."""

    drain_s: Annotated[float, arg(metavar="S")] = 30.0
    """Seconds that unfinished views are given when the server is told to stop."""

    trusted_proxies: Annotated[tuple[str, ...], arg(metavar="ADDRESS...", help_behavior_hint="(default: none)")] = ()
    """Addresses or networks of reverse proxies whose X-Forwarded-For is believed, e.g. 127.0.0.1 10.0.0.0/24."""

    hosts: Annotated[tuple[str, ...], arg(metavar="NAME...", help_behavior_hint="(default: localhost, or any)")] = ()
    """Names under which the server answers beside localhost, e.g. that of a proxy in front of it."""

    cors: Annotated[tuple[str, ...], arg(metavar="ORIGIN...", help_behavior_hint="(default: none)")] = ()
    """Web pages that may call the server, e.g. https://example.org."""

    no_demo: Flag = False
    """Offer no scene demo."""

    no_metrics: Flag = False
    """Offer no /metrics."""

    log_format: LogFormat = "auto"
    """Lines for people, or one JSON object a line; auto is lines where standard error is a terminal."""

    log_level: LogLevel = "info"
    """Least weight of what is logged, to standard error."""

    model: Annotated[str | None, _worked_out("NAME|FILE|REPO", "seva-1.1")] = None
    """SEVA's U-Net, as in render (SEVA presets, as the next three)."""

    vae: Annotated[str | None, _worked_out("NAME|FILE|REPO", "sd21-vae")] = None
    """Its autoencoder."""

    clip: Annotated[str | None, _worked_out("NAME|FILE|REPO", "clip-vit-h14")] = None
    """Its image embedder."""

    mvsplat: Annotated[str | None, _worked_out("NAME|FILE|REPO", "mvsplat-re10k")] = None
    """The regressor of seva-mvsplat."""

    random_weights: Literal["full", "tiny"] | None = None
    """Untrained models in place of SEVA and MVSplat, for trials. Frames are watermarked."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where SEVA and MVSplat compute; auto takes a GPU if there is one."""

    dtype: Literal["auto", "bfloat16", "float16", "float32"] = "auto"
    """What the denoiser's network computes in; auto is half precision on a GPU, single on a CPU. A CPU is faster in
    bfloat16 if it has AVX-512; without it, it takes many times as long."""

    offload: Flag = False
    """Let SEVA's parts wait in the CPU's memory while they are not at work."""

    compile: Flag = False
    """Fuse what lies between the network's matrix products: meant for GPUs; up to a minute at first use."""

    cache_gb: Annotated[float | None, _worked_out("GB", "half of the machine's or GPU's")] = None
    """Memory of a device for features kept between network calls."""

    remember_mb: Annotated[float | None, _worked_out("MB", "a sixteenth of what there is, 2000 at most")] = None
    """Memory of a device for scenes, reconstructions and previews that may be asked for again."""

    steps: Annotated[int, arg(metavar="S")] = 50
    """Solver steps of full diffusion."""

    window: Annotated[int | None, _worked_out("T", "48, SEVA 21")] = None
    """Most views that the denoiser sees together."""

    packing: Flag = False
    """Let sparse steps of several views of one size share a network call: for GPUs that one view does not fill, while
    several are asked for at once. Views then wait for each other's steps, and on a GPU the last bit may differ."""

    calibrate: Flag = False
    """Measure this machine's speed if that was never done, some 20 s, so that quotes are closer."""


@dataclass(frozen=True, kw_only=True)
class KeysCreate:
    """Options of `sphinx-nvs keys create`."""

    name: Annotated[Positional[str], arg(metavar="NAME")]
    """Whose key it is, for people."""

    rate: Annotated[float | None, _worked_out("N", "the server's")] = None
    """Requests a second; four times as many at once."""

    views: Annotated[int | None, _worked_out("N", "the server's")] = None
    """Unfinished views."""

    scenes: Annotated[int | None, _worked_out("N", "the server's")] = None
    """Scenes."""

    storage_gb: Annotated[float | None, _worked_out("GB", "the server's")] = None
    """Disk that scenes and frames may take."""

    streams: Annotated[int | None, _worked_out("N", "the server's")] = None
    """Streams of events that may be open."""

    folder: Folder = None
    """The server's folder."""

    database: Database = None
    """The server's database, if it has one of its own."""

    json: Flag = False
    """Print one JSON object, the last line of standard output."""


@dataclass(frozen=True, kw_only=True)
class KeysList:
    """Options of `sphinx-nvs keys list`."""

    folder: Folder = None
    """The server's folder."""

    database: Database = None
    """The server's database, if it has one of its own."""

    json: Flag = False
    """Print one JSON object, the last line of standard output."""


@dataclass(frozen=True, kw_only=True)
class KeysRevoke:
    """Options of `sphinx-nvs keys revoke`."""

    ids: Annotated[Positional[tuple[str, ...]], arg(metavar="ID...", help_behavior_hint="")]
    """The keys, as list shows them."""

    folder: Folder = None
    """The server's folder."""

    database: Database = None
    """The server's database, if it has one of its own."""

    json: Flag = False
    """Print one JSON object, the last line of standard output."""


KeysCommand = KeysCreate | KeysList | KeysRevoke

KeysSubcommands = (
    Annotated[KeysCreate, subcommand("create", description=KEYS_CREATE)]
    | Annotated[KeysList, subcommand("list", description=KEYS_LIST)]
    | Annotated[KeysRevoke, subcommand("revoke", description=KEYS_REVOKE)]
)


def server_folder(given: Path | None) -> Path:
    """Where a server keeps its things.

    Args:
        given: by the user; None is $SPHINX_NVS_HOME/server, else sphinx-nvs/server in $XDG_DATA_HOME or ~/.local/share.
    """
    if given is not None:
        return given.expanduser().absolute()
    home = os.environ.get("SPHINX_NVS_HOME")
    if home:
        return Path(home).expanduser().absolute() / "server"
    data = os.environ.get("XDG_DATA_HOME")
    return (Path(data) if data else Path.home() / ".local" / "share") / "sphinx-nvs" / "server"
