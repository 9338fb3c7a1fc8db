"""Whether a server stays as it is under steady, mixed load from clients that do not behave.

    python benchmarks/serve_soak.py [--minutes 60] [--clients 8] [--seed 0] [--out FILE.json]

Clients of a real server (embedded preset, one device) do one thing after another, at random:

    follow      request a view and follow its events to the end
    vanish      request a view, follow some events, and disconnect: the socket is closed, half of the time with a
                reset; the view continues without a client
    cancel      request a view, and cancel it after a while
    fetch       request a view, wait, fetch every frame, the video, the plan and its picture
    upload      upload a scene, request a view of it, then remove view and scene
    nonsense    send what the server has to refuse

Every two seconds memory, files, sockets and threads of the server are measured. In the end clients stop, and nothing
may be left: no unfinished job, no open stream, no connection. The line on stdout is a JSON
object:

    growth_mb_per_h      slope of resident memory over the second half, server and workers apart; MiB
    leaked_*             what remains after the clients have disconnected
    problems             answers that should not have been, by status; `http_5xx` counts those of the server's fault

Exit code 1 if anything leaked, or the server failed at a request.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import io
import json
import random
import signal
import socket
import struct
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from PIL import Image

from sphinx_nvs.client import ApiError, AsyncClient, Job, Retrying, UnreachableError
from sphinx_nvs.client.job_options import JobOptions
from sphinx_nvs.errors import SphinxError
from sphinx_nvs.load_testing.job_watcher import Watcher
from sphinx_nvs.load_testing.server_process import ServerProcess

SERVER = ("--log-format", "json", "--log-level", "warning", "--rate", "10000", "--window", "8", "--steps", "10")
"""Of the server."""

REMEMBER_MB = "50"
"""Size of the device's cache: so small that it is full in the first half of a short run, so that a leak shows."""

QUEUE = 16
"""Unfinished views above which clients wait before the next request, so that the load is steady."""

KEEP_H = "0.05"
"""Hours after which views go: so soon that they do in a short run, too."""

SIZES = ("64x64", "96x64", "128x128")
POLL_S = 2.0
SETTLE_S = 60.0

NONSENSE: tuple[tuple[str, str, dict[str, Any]], ...] = (
    ("POST", "/v1/jobs", {"json": {"scene": "nowhere"}}),
    ("POST", "/v1/jobs", {"json": {"scene": "demo", "quality": 7}}),
    ("POST", "/v1/jobs", {"content": b"{", "headers": {"Content-Type": "application/json"}}),
    ("POST", "/v1/scenes", {"content": b"PK\x03\x04 no zip", "headers": {"Content-Type": "application/zip"}}),
    ("POST", "/v1/scenes", {"files": {"images": ("a.png", b"no picture"), "cameras": ("t.json", b"[]")}}),
    ("GET", "/v1/jobs/job_of_nobody/events", {}),
    ("DELETE", "/v1/scenes/demo", {}),
    ("PATCH", "/v1/jobs", {}),
)
"""Requests that have to be refused: with a status from 400 to 499."""


@dataclass
class Run:
    """The record of a run: actions by kind, wrong answers, and the end."""

    until: float
    done: Counter[str] = field(default_factory=Counter)
    problems: Counter[str] = field(default_factory=Counter)

    @property
    def is_over(self) -> bool:
        """Whether clients start nothing more."""
        return time.monotonic() > self.until


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the benchmark."""
    options = _options(argv)
    # When this process ends, its servers end too.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with tempfile.TemporaryDirectory(prefix="serve-soak-") as temporary:
        place = options.folder or Path(temporary)
        figures = asyncio.run(soak(place / "server", 60 * options.minutes, options.clients, options.seed))
    if options.out:
        options.out.write_text(json.dumps(figures, indent=1) + "\n")
    sys.stdout.write(json.dumps({name: value for name, value in figures.items() if name != "samples"}) + "\n")
    leaked = sum(value for name, value in figures.items() if name.startswith("leaked"))
    return int(leaked > 0 or figures["http_5xx"] > 0)


async def soak(folder: Path, seconds: float, clients: int, seed: int) -> dict[str, Any]:
    """Load for a duration, and what remains after it."""
    server = ServerProcess(folder, (*SERVER, "--keep-h", KEEP_H, "--streams", "1000", "--remember-mb", REMEMBER_MB))
    server.start()
    try:
        await server.ready()
        watcher, run = Watcher(server), Run(until=time.monotonic() + seconds)
        await watcher.sample()
        busy = [asyncio.create_task(behave(server.url, run, number, seed)) for number in range(clients)]
        watching = asyncio.create_task(watch(watcher, run))
        await asyncio.wait(busy, timeout=seconds + SETTLE_S)
        stuck = [task for task in busy if not task.done()]
        for task in stuck:
            task.cancel()
        for error in await asyncio.gather(*busy, return_exceptions=True):
            if isinstance(error, Exception):
                run.problems[f"{type(error).__name__}: {error}"[:200]] += 1
        watching.cancel()
        await settle(watcher)
        return figures_of(watcher, run, len(stuck), server)
    finally:
        server.stop()


def figures_of(watcher: Watcher, run: Run, stuck: int, server: ServerProcess) -> dict[str, Any]:
    """All results."""
    first, last = watcher.samples[0], watcher.samples[-1]
    names = ("server_mb", "worker_mb", "fds", "threads")
    middle = watcher.samples[len(watcher.samples) // 2]
    return {
        "minutes": round(last.at_s / 60, 2),
        "done": dict(run.done),
        "growth_per_h": {name: round(watcher.growth_per_h(name), 2) for name in names},
        **{name: [round(getattr(s, name), 1) for s in (first, middle, last)] for name in names},
        "most_sockets": max(sample.sockets for sample in watcher.samples),
        "most_streams": max(sample.streams for sample in watcher.samples),
        "most_unfinished": max(sample.unfinished for sample in watcher.samples),
        "leaked_jobs": last.unfinished,
        "leaked_streams": last.streams,
        "leaked_sockets": last.sockets,
        "leaked_clients": stuck,
        "http_5xx": sum(count for status, count in run.problems.items() if status.startswith("5")),
        "problems": dict(run.problems),
        "missed_samples": watcher.missed,
        "died": server.lives - 1 + (not server.is_alive),
        "samples": [vars(sample) for sample in watcher.samples],
    }


async def watch(watcher: Watcher, run: Run) -> None:
    """Takes samples until it is over."""
    while not run.is_over:
        await watcher.sample()
        await asyncio.sleep(POLL_S)


async def settle(watcher: Watcher) -> None:
    """Waits for jobs to end and for connections to close, at most `SETTLE_S`."""
    until = time.monotonic() + SETTLE_S
    while time.monotonic() < until:
        sample = await watcher.sample()
        if sample and not sample.unfinished and not sample.streams and not sample.sockets:
            return
        await asyncio.sleep(0.5)


# Clients --------------------------------------------------------------------------------------------------------------


async def behave(url: str, run: Run, number: int, seed: int) -> None:
    """One client, until it is over."""
    rng = random.Random(f"{seed} {number}")
    weights = [weight for weight, _ in ACTIONS.values()]
    while not run.is_over:
        name = rng.choices(list(ACTIONS), weights)[0]
        try:
            # Connections of its own each time: clients come and go.
            async with AsyncClient(url, retrying=Retrying(attempts=2)) as client:
                await have_patience(client, run)
                await ACTIONS[name][1](client, url, rng, run)
            run.done[name] += 1
        except ApiError as error:
            run.problems[str(error.status)] += 1
            sys.stderr.write(f"{name}: {error}\n")
        except (UnreachableError, SphinxError, TimeoutError) as error:
            run.problems[type(error).__name__] += 1
            sys.stderr.write(f"{name}: {error}\n")


async def have_patience(client: AsyncClient, run: Run) -> None:
    """Waits while the queue is long."""
    while not run.is_over and (capacity := await client.capacity()).queued + capacity.running > QUEUE:
        await asyncio.sleep(0.5)


async def ask(client: AsyncClient, rng: random.Random, scene: str = "demo") -> Job:
    """A view of some kind; now and then one with a deadline."""
    request = JobOptions(
        path="interpolate", num_frames=rng.randint(2, 12), size=rng.choice(SIZES), seed=rng.randrange(1000)
    )
    if rng.random() < 0.3:
        request["deadline_s"], request["min_quality"] = rng.uniform(1, 20), 0.5
    else:
        request["quality"] = rng.choice((0.8, 0.9, 0.98, 1.0))
    return await client.create_job(scene, **request)


async def follow(client: AsyncClient, url: str, rng: random.Random, run: Run) -> None:
    """To the end."""
    await client.wait(await ask(client, rng), timeout_s=300)


async def vanish(client: AsyncClient, url: str, rng: random.Random, run: Run) -> None:
    """Reads some of a stream, and closes the socket."""
    view = await ask(client, rng)
    host, port = url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    path = f"/v1/jobs/{view.id}/events"
    writer.write(f"GET {path} HTTP/1.1\r\nHost: {host}\r\nAccept: text/event-stream\r\n\r\n".encode())
    with contextlib.suppress(TimeoutError):
        for _ in range(rng.randint(0, 40)):
            await asyncio.wait_for(reader.readline(), rng.uniform(0.05, 1.0))
    if rng.random() < 0.5:
        # No lingering: the server's side sees a reset in place of an end.
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


async def cancel(client: AsyncClient, url: str, rng: random.Random, run: Run) -> None:
    """Cancels at some point of a view's life."""
    view = await ask(client, rng)
    await asyncio.sleep(rng.uniform(0, 2))
    ended = await client.cancel(view)
    if not ended.is_final:
        run.problems["cancelled view continues"] += 1


async def fetch(client: AsyncClient, url: str, rng: random.Random, run: Run) -> None:
    """Fetches everything that there is of a view."""
    view = await client.wait(await ask(client, rng), timeout_s=300)
    for index in range(view.num_frames):
        await client.frame(view, index)
    await client.video(view)
    await client.plan(view)
    await client.plan_image(view, 0)
    await client.cameras(view)


async def upload(client: AsyncClient, url: str, rng: random.Random, run: Run) -> None:
    """A scene of its own, and everything away again."""
    photos, cameras = made_scene(rng)
    scene = await client.upload_scene(images=photos, cameras=cameras)
    try:
        view = await client.wait(await ask(client, rng, scene.id), timeout_s=300)
        await client.delete_job(view)
    finally:
        await client.delete_scene(scene)


async def nonsense(client: AsyncClient, url: str, rng: random.Random, run: Run) -> None:
    """Requests that have to be refused."""
    method, path, said = rng.choice(NONSENSE)
    async with httpx.AsyncClient(base_url=url, timeout=60) as http:
        status = (await http.request(method, path, **said)).status_code
    if not 400 <= status < 500:
        run.problems[str(status)] += 1


def made_scene(rng: random.Random) -> tuple[list[bytes], dict[str, Any]]:
    """Two photos of noise with stripes, side by side, and their cameras."""
    chance = np.random.default_rng(rng.randrange(2**32))
    photos, frames = [], []
    for number in range(2):
        pixels = chance.integers(0, 255, (64, 96, 3), dtype=np.uint8)
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, "PNG")
        photos.append(file.getvalue())
        pose = np.eye(4)
        pose[0, 3] = 0.2 * number
        frames.append({"file_path": f"{number}.png", "transform_matrix": pose.tolist()})
    return photos, {"fl_x": 80.0, "fl_y": 80.0, "cx": 48.0, "cy": 32.0, "w": 96, "h": 64, "frames": frames}


Action = Callable[[AsyncClient, str, random.Random, Run], Awaitable[None]]

ACTIONS: dict[str, tuple[int, Action]] = {
    "follow": (3, follow),
    "vanish": (4, vanish),
    "cancel": (3, cancel),
    "fetch": (2, fetch),
    "upload": (1, upload),
    "nonsense": (2, nonsense),
}
"""What clients do, each with how often."""


def _options(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--minutes", type=float, default=60.0, help="of load")
    parser.add_argument("--clients", type=int, default=8, help="at once")
    parser.add_argument("--seed", type=int, default=0, help="of what clients do")
    parser.add_argument("--folder", type=Path, help="for the server's folder and log, kept; default: a temporary one")
    parser.add_argument("--out", type=Path, help="the figures and all samples as a JSON file")
    return parser.parse_args(argv)


if __name__ == "__main__":
    raise SystemExit(main())
