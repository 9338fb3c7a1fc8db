"""Options of `sphinx-nvs serve` and `sphinx-nvs keys`; imports no torch, so that help is fast."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional, arg, subcommand

from sphinx_nvs.cli.options.markers import Flag, computed

Keys = Literal["auto", "required", "none"]
LogFormat = Literal["auto", "text", "json"]
LogLevel = Literal["debug", "info", "warning", "error"]

SERVE = """\
Serves novel views over HTTP: upload a scene, request views with a quality or a deadline, and follow their progress.

By default it listens on this machine only, needs no key and offers one scene, demo. The printed address leads to the
API reference; docs/reference/http-api.md has the details. Examples:

  sphinx-nvs serve
  sphinx-nvs serve --port 0 --folder out/server --log-format json
  sphinx-nvs keys create alice && sphinx-nvs serve --host 0.0.0.0
  sphinx-nvs serve --preset seva-planesweep --devices 2       a worker for each of two GPUs

Ctrl-C or SIGTERM gives unfinished views some time to finish; a second one stops at once. Unfinished views continue
when the same folder is served again.
"""

KEYS = "Manages the API keys of a server."

KEYS_CREATE = """\
Creates an API key and shows it once; only its hash is stored. A running server accepts it at once.

  sphinx-nvs keys create alice
  sphinx-nvs keys create batch --views 20 --storage-gb 5 --rate 10
"""

KEYS_LIST = """\
Lists API keys: names, dates and usage.

  sphinx-nvs keys list
"""

KEYS_REVOKE = """\
Revokes API keys; views that they requested continue.

  sphinx-nvs keys revoke key_0123456789abcdef
"""


Folder = Annotated[Path | None, computed("DIR", "sphinx-nvs/server in the user's data folder")]
Database = Annotated[str | None, computed("URL", "SQLite in the folder")]


@dataclass(frozen=True, kw_only=True)
class Serve:
    """Options of `sphinx-nvs serve`."""

    host: Annotated[str, arg(metavar="ADDRESS")] = "127.0.0.1"
    """Address to listen on; 0.0.0.0 is all of this machine's addresses, and requires keys."""

    port: Annotated[int, arg(metavar="N")] = 8000
    """Port to listen on; 0 selects a free one."""

    folder: Folder = None
    """Folder of scenes, views and keys; used by one server at a time."""

    database: Database = None
    """Database to use instead of SQLite, e.g. postgresql://USER@HOST/NAME; it belongs to one folder."""

    artifacts: Annotated[str | None, computed("PLACE", "artifacts in the folder")] = None
    """Location of frames, videos and plans: a folder, or e.g. s3://BUCKET/FOLDER."""

    preset: Annotated[str, arg(metavar="NAME")] = "embedded"
    """Model pair."""

    devices: Annotated[int, arg(metavar="N")] = 1
    """Worker processes, each with its own models: one per GPU, or per few cores."""

    keys: Keys = "auto"
    """Whether requests need an API key: always (required), never (none), or if there is a key or other machines can
    reach the server (auto)."""

    rate: Annotated[float, arg(metavar="N")] = 50.0
    """Requests per second of a key, or of an address without one; bursts of four times as many."""

    views: Annotated[int, arg(metavar="N")] = 500
    """Unfinished views per key."""

    scenes: Annotated[int, arg(metavar="N")] = 1000
    """Scenes per key."""

    storage_gb: Annotated[float, arg(metavar="GB")] = 20.0
    """Disk space for the scenes and frames of a key."""

    streams: Annotated[int, arg(metavar="N")] = 64
    """Open event streams per key."""

    queue: Annotated[int, arg(metavar="N")] = 4096
    """Unfinished views of all keys together."""

    frames: Annotated[int, arg(metavar="N")] = 1000
    """Maximum number of frames per view request."""

    attempts: Annotated[int, arg(metavar="N")] = 3
    """Attempts per part of a view if devices fail; after that the view ends with its preview."""

    upload_mb: Annotated[float, arg(metavar="MB")] = 512.0
    """Largest upload."""

    keep_h: Annotated[float, arg(metavar="H")] = 24.0
    """Hours until a finished view and its frames are deleted."""

    keep_scenes_h: Annotated[float, arg(metavar="H")] = 168.0
    """Hours after its last use until a scene is deleted."""

    drain_s: Annotated[float, arg(metavar="S")] = 30.0
    """Seconds that unfinished views get when the server stops."""

    trusted_proxies: Annotated[tuple[str, ...], arg(metavar="ADDRESS...", help_behavior_hint="(default: none)")] = ()
    """Addresses or networks of reverse proxies whose X-Forwarded-For is believed, e.g. 127.0.0.1 10.0.0.0/24."""

    hosts: Annotated[tuple[str, ...], arg(metavar="NAME...", help_behavior_hint="(default: localhost, or any)")] = ()
    """Host names that the server accepts besides localhost, e.g. of a proxy in front of it."""

    cors: Annotated[tuple[str, ...], arg(metavar="ORIGIN...", help_behavior_hint="(default: none)")] = ()
    """Origins of web pages that may call the server, e.g. https://example.org."""

    no_demo: Flag = False
    """Do not offer the scene demo."""

    no_metrics: Flag = False
    """Do not offer /metrics."""

    log_format: LogFormat = "auto"
    """Readable lines, or one JSON object per line; auto is lines if standard error is a terminal."""

    log_level: LogLevel = "info"
    """Least severity that is logged to standard error."""

    model: Annotated[str | None, computed("NAME|FILE|REPO", "seva-1.1")] = None
    """SEVA's U-Net, as in render (SEVA presets, as the next three)."""

    vae: Annotated[str | None, computed("NAME|FILE|REPO", "sd21-vae")] = None
    """Its autoencoder."""

    clip: Annotated[str | None, computed("NAME|FILE|REPO", "clip-vit-h14")] = None
    """Its image embedder."""

    mvsplat: Annotated[str | None, computed("NAME|FILE|REPO", "mvsplat-re10k")] = None
    """The regressor of seva-mvsplat."""

    random_weights: Literal["full", "tiny"] | None = None
    """Untrained models in place of SEVA and MVSplat, for trials. Frames are watermarked."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Device of SEVA and MVSplat; auto is a GPU if there is one."""

    dtype: Literal["auto", "bfloat16", "float16", "float32"] = "auto"
    """Number type of the denoiser's network; auto is half precision on a GPU, single on a CPU. On a CPU bfloat16 is
    faster with AVX-512 and many times slower without it."""

    offload: Flag = False
    """Keep SEVA's parts in CPU memory while they are idle."""

    compile: Flag = False
    """Fuse operations between the network's matrix products: for GPUs; up to a minute at first use."""

    cache_gb: Annotated[float | None, computed("GB", "half of the machine's or GPU's")] = None
    """Memory per device for features cached between network calls."""

    remember_mb: Annotated[float | None, computed("MB", "a sixteenth of what there is, 2000 at most")] = None
    """Memory per device for cached scenes, reconstructions and previews."""

    steps: Annotated[int, arg(metavar="S")] = 50
    """Solver steps of full diffusion."""

    window: Annotated[int | None, computed("T", "48, SEVA 21")] = None
    """Maximum number of views that the denoiser processes together."""

    packing: Flag = False
    """Let sparse steps of several views of the same size share a network call: for GPUs that one view does not fill,
    under concurrent requests. Views then wait for each other's steps, and on a GPU the last bit may differ."""

    calibrate: Flag = False
    """Measure this machine's speed if it is not cached, some 20 s, for more accurate quotes."""


@dataclass(frozen=True, kw_only=True)
class KeysCreate:
    """Options of `sphinx-nvs keys create`."""

    name: Annotated[Positional[str], arg(metavar="NAME")]
    """Name of the key's owner."""

    rate: Annotated[float | None, computed("N", "the server's")] = None
    """Requests per second; bursts of four times as many."""

    views: Annotated[int | None, computed("N", "the server's")] = None
    """Unfinished views."""

    scenes: Annotated[int | None, computed("N", "the server's")] = None
    """Scenes."""

    storage_gb: Annotated[float | None, computed("GB", "the server's")] = None
    """Disk space for scenes and frames."""

    streams: Annotated[int | None, computed("N", "the server's")] = None
    """Open event streams."""

    folder: Folder = None
    """The server's folder."""

    database: Database = None
    """The server's database, if it is not in its folder."""

    json: Flag = False
    """Print one JSON object, the last line of standard output."""


@dataclass(frozen=True, kw_only=True)
class KeysList:
    """Options of `sphinx-nvs keys list`."""

    folder: Folder = None
    """The server's folder."""

    database: Database = None
    """The server's database, if it is not in its folder."""

    json: Flag = False
    """Print one JSON object, the last line of standard output."""


@dataclass(frozen=True, kw_only=True)
class KeysRevoke:
    """Options of `sphinx-nvs keys revoke`."""

    ids: Annotated[Positional[tuple[str, ...]], arg(metavar="ID...", help_behavior_hint="")]
    """Ids of the keys, as shown by list."""

    folder: Folder = None
    """The server's folder."""

    database: Database = None
    """The server's database, if it is not in its folder."""

    json: Flag = False
    """Print one JSON object, the last line of standard output."""


KeysCommand = KeysCreate | KeysList | KeysRevoke

KeysSubcommands = (
    Annotated[KeysCreate, subcommand("create", description=KEYS_CREATE)]
    | Annotated[KeysList, subcommand("list", description=KEYS_LIST)]
    | Annotated[KeysRevoke, subcommand("revoke", description=KEYS_REVOKE)]
)


def server_folder(given: Path | None) -> Path:
    """The folder of a server.

    Args:
        given: the user's option; None is $SPHINX_NVS_HOME/server, else sphinx-nvs/server in $XDG_DATA_HOME or
            ~/.local/share.
    """
    if given is not None:
        return given.expanduser().absolute()
    home = os.environ.get("SPHINX_NVS_HOME")
    if home:
        return Path(home).expanduser().absolute() / "server"
    data = os.environ.get("XDG_DATA_HOME")
    return (Path(data) if data else Path.home() / ".local" / "share") / "sphinx-nvs" / "server"
