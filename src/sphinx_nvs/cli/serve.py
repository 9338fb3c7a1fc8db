"""`sphinx-nvs serve`: runs a server around one engine until it is stopped.

address and folder checked ─► workers start to load ─► meanwhile the server's packages are imported ─► ready

Nothing heavy is imported at the top: an address in use is reported at once, and startup takes as long as the slower of
the two, not their sum.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import sys
import time
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from sphinx_nvs.cli.options.serve_options import Serve, server_folder
from sphinx_nvs.cli.serve_requirements import BURST, check_packages
from sphinx_nvs.errors import InputError
from sphinx_nvs.json_types import JSONObject
from sphinx_nvs.server.server_config import KeyLimits, ServerConfig, UploadLimits

if TYPE_CHECKING:
    from sphinx_nvs.engine.config import EngineConfig
    from sphinx_nvs.engine.types.device_setup import DeviceSetup
    from sphinx_nvs.server.backend import Backend

FIRST_VIEW = {"scene": "demo", "path": "interpolate", "num_frames": 8, "size": "256x256"}
"""The example request that the server prints."""


def serve(options: Serve, on_ready: Callable[[str], None] | None = None) -> None:
    """Runs the command.

    Args:
        options: the command's options.
        on_ready: called with the server's URL once it answers.

    Raises:
        InputError: an option, the address or the folder cannot be used, or weights or packages are missing.
        SphinxError: no worker becomes ready.
    """
    started = time.perf_counter()
    check_packages()
    check_options(options)
    # Photos, frames and keys' hashes are private to this user; the workers inherit it.
    os.umask(0o077)
    config, folder = server_config(options), server_folder(options.folder)
    if folder.is_dir():
        folder.chmod(0o700)
    check_has_keys(options, config, folder)
    with bound(config) as listening:
        asyncio.run(_life(options, config, folder, listening, started, on_ready))


def check_options(options: Serve) -> None:
    """Raises InputError for numbers outside their range; names their flags."""
    if not 0 <= options.port <= 65_535:
        raise InputError("--port", f"it is {options.port}", "give a number in 0..65535")
    if not 0 <= options.drain_s < float("inf"):
        raise InputError("--drain-s", f"it is {options.drain_s:g}", "give a number of seconds from 0")
    counts = ("devices", "views", "scenes", "streams", "queue", "frames", "steps", "attempts")
    for name in (*counts, "rate", "storage_gb", "upload_mb", "keep_h", "keep_scenes_h"):
        if not 0 < getattr(options, name) < float("inf"):
            flag = f"--{name.replace('_', '-')}"
            raise InputError(flag, f"it is {getattr(options, name):g}", "give a number above 0")
    if options.remember_mb is not None and not 0 <= options.remember_mb < float("inf"):
        raise InputError("--remember-mb", f"it is {options.remember_mb:g}", "give a number from 0")
    if options.window is not None and options.window < 2:
        raise InputError("--window", f"it is {options.window}", "give at least 2 views")


def check_has_keys(options: Serve, config: ServerConfig, folder: Path) -> None:
    """Raises InputError if a server that other machines can reach requires keys and has none."""
    if config.is_loopback or config.require_keys is False:
        return
    from sphinx_nvs.cli.key_store import opened_store

    with opened_store(folder, options.database) as store:
        if any(key.revoked_s is None for key in store.list_keys()):
            return
    where = "" if options.folder is None else f" --folder {options.folder}"
    where += "" if options.database is None else " --database URL"
    hint = f"create one: sphinx-nvs keys create NAME{where}; or allow requests without keys: --keys none"
    raise InputError(f"--host {options.host}", "other machines can reach it, and there is no API key", hint)


def server_config(options: Serve) -> ServerConfig:
    """Settings of the HTTP layer."""
    return ServerConfig(
        host=options.host,
        port=options.port,
        upload=UploadLimits(body_bytes=round(1e6 * options.upload_mb)),
        key=KeyLimits(
            rate_per_s=options.rate,
            burst=max(1, round(BURST * options.rate)),
            stored_bytes=round(1e9 * options.storage_gb),
            stored_scenes=options.scenes,
            running_jobs=options.views,
            streams=options.streams,
        ),
        hosts=options.hosts,
        cors_origins=options.cors,
        trusted_proxies=options.trusted_proxies,
        require_keys={"auto": None, "required": True, "none": False}[options.keys],
        scene_ttl_s=3600 * options.keep_scenes_h,
        drain_s=options.drain_s,
        metrics=not options.no_metrics,
        has_demo=not options.no_demo,
    )


def engine_config(options: Serve, folder: Path) -> EngineConfig:
    """Settings of the engine.

    Raises:
        InputError: there is no such preset.
    """
    from sphinx_nvs.engine.config import EngineConfig
    from sphinx_nvs.engine.scheduler.types import SchedulerConfig
    from sphinx_nvs.engine.types.job_validation import Limits

    return EngineConfig(
        folder=folder,
        database=options.database,
        artifacts=artifacts_place(options, folder),
        preset=options.preset,
        options=preset_options(options),
        devices=options.devices,
        window=options.window,
        limits=Limits(max_views=options.frames, max_attempts=options.attempts, ttl_s=3600 * options.keep_h),
        # Limits per key are enforced by the HTTP layer, which knows each key's own limits.
        scheduler=SchedulerConfig(max_queue=options.queue, max_queue_per_key=options.queue, packing=options.packing),
    )


def artifacts_place(options: Serve, folder: Path) -> str:
    """The location of frames and videos: the same for this process and its workers, wherever they run."""
    place = options.artifacts
    if place is not None and "://" in place:
        return place
    return str(folder / "artifacts" if place is None else Path(place).expanduser().absolute())


def preset_options(options: Serve) -> JSONObject:
    """Arguments of `load_preset`."""
    named = {"unet": options.model, "vae": options.vae, "clip": options.clip, "mvsplat": options.mvsplat}
    return {
        "num_steps": options.steps,
        "cache_gb": options.cache_gb,
        "compile": options.compile,
        "device": options.device,
        "dtype": options.dtype,
        "offload": options.offload,
        "random_weights": options.random_weights,
        "weights": {part: spec for part, spec in named.items() if spec is not None},
    }


def bound(config: ServerConfig) -> socket.socket:
    """A listening socket; see `bound_socket`."""
    from sphinx_nvs.server.listening import bound_socket

    return bound_socket(config)


async def _life(
    options: Serve,
    config: ServerConfig,
    folder: Path,
    listening: socket.socket,
    started: float,
    on_ready: Callable[[str], None] | None,
) -> None:
    """Runs the server from loading to shutdown."""
    from sphinx_nvs.engine.executor.pool import PoolExecutor
    from sphinx_nvs.engine.logs import LOG_FORMAT

    if options.log_format != "auto":
        os.environ[LOG_FORMAT] = options.log_format
    workers = PoolExecutor(setup_from(options, folder), options.devices)
    try:
        workers.begin()
        # Yields to the event loop once, so that the workers' processes start before this one is busy importing.
        await asyncio.sleep(0)
        settings = await asyncio.to_thread(_imported, options, folder)
        from sphinx_nvs.engine.engine import Engine
        from sphinx_nvs.server.uvicorn_runner import serving

        async def opened() -> Backend:
            return await Engine.open(settings, workers)

        def ready(url: str) -> None:
            _announce(options, config, folder, url, started)
            if on_ready is not None:
                on_ready(url)

        await serving(opened, config, listening, ready)
    finally:
        await workers.close()


def setup_from(options: Serve, folder: Path) -> DeviceSetup:
    """The setup from which workers create their devices."""
    from sphinx_nvs.engine.types.device_setup import setup_of

    place, models = artifacts_place(options, folder), preset_options(options)
    memory_mb = options.remember_mb
    return setup_of(options.preset, place, models, calibrate=options.calibrate, memory_mb=memory_mb)


def _imported(options: Serve, folder: Path) -> EngineConfig:
    """Imports the slow packages, and sets up logging.

    Raises:
        InputError: there is no such preset.
    """
    # The last is needed by the first request for a path; importing it now saves it time.
    for module in ("sphinx_nvs.engine.engine", "sphinx_nvs.server.uvicorn_runner", "scipy.spatial.transform"):
        import_module(module)
    from sphinx_nvs.engine.logs import wants_json
    from sphinx_nvs.server.log_setup import configure_logs

    configure_logs(level=options.log_level.upper(), is_json=wants_json())
    return engine_config(options, folder)


def _announce(options: Serve, config: ServerConfig, folder: Path, url: str, started: float) -> None:
    """Prints that the server is ready, and example requests."""
    view = json.dumps(FIRST_VIEW if config.has_demo else {**FIRST_VIEW, "scene": "SCENE"})
    key = " -H 'Authorization: Bearer KEY'" if config.require_keys or not config.is_loopback else ""
    first = f"curl -s{key} {url}/v1/jobs -H 'Content-Type: application/json' -d '{view}'"
    lines = [
        f"sphinx-nvs serves {options.preset} at {url} (ready in {time.perf_counter() - started:.1f} s)",
        f"  open in a browser          {url}/",
        f"  API reference              {url}/docs",
        f"  a first view               {first}",
        f"  ... follow its progress    curl -sN{key} {url}/v1/jobs/ID/events",
        f"  scenes, views, keys        {folder}",
        f"Ctrl-C stops it; unfinished views get {config.drain_s:g} s, or continue at the next start (twice: at once).",
    ]
    sys.stdout.write("\n".join(lines) + "\n")
    sys.stdout.flush()
