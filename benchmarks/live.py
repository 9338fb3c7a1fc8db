"""How fast a live session is: frames while the camera moves, a still when it rests, and what that costs a job.

    python benchmarks/live.py [--quick] [--rounds 2] [--out FILE.json]

A real server (embedded preset, one device) shows its scene `demo` to one client over loopback, at 256x256. The client
sends 60 cameras a second along a circle. One JSON object on stdout:

    fps_256        frames a second while the camera moves, with the scene in memory
    still_s        from the last camera to its refined still, median of a few rests
    job_slowdown   seconds of a job beside a session that moves all the time, over those of the same job alone (A/B/A/B)
    job_fps        frames a second of that session beside the job
    dropped        share of the cameras that were never shown, since a newer one had come: 0 if frames are as fast

`--quick` moves for 5 s, rests 3 times and takes one round.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import websockets

from sphinx_nvs.client import AsyncClient
from sphinx_nvs.json_types import JSONObject
from sphinx_nvs.load_testing.server_process import ServerProcess

SIDE, RATE_HZ, RADIUS, REST_TIMEOUT_S = 256, 60, 0.02, 60.0
FRAMES = 8


@dataclass(kw_only=True)
class Viewer:
    """A client of one live session.

    Args:
        socket: the connection.
        start: pose that the camera circles around, 4x4.
        K: intrinsics of frames of `SIDE` pixels.
    """

    socket: websockets.ClientConnection
    start: np.ndarray
    K: list[list[float]]
    sent: int = 0
    frames: list[tuple[float, JSONObject]] = field(default_factory=list)

    async def listen(self) -> None:
        """Notes every frame with its time."""
        async for message in self.socket:
            if isinstance(message, bytes):
                length = int.from_bytes(message[:4], "little")
                self.frames.append((time.perf_counter(), json.loads(message[4 : 4 + length])))

    async def send(self) -> None:
        """Sends the next camera of the circle."""
        self.sent += 1
        angle, c2w = self.sent / 40, self.start.copy()
        c2w[:3, 3] += RADIUS * (math.cos(angle) * c2w[:3, 0] + math.sin(angle) * c2w[:3, 1])
        camera = {"type": "camera", "id": self.sent, "c2w": c2w.tolist(), "K": self.K, "width": SIDE, "height": SIDE}
        await self.socket.send(json.dumps(camera))

    async def move(self, seconds: float = math.inf) -> float:
        """Moves for some time; returns the frames a second."""
        began, first = time.perf_counter(), len(self.frames)
        while time.perf_counter() - began < seconds:
            await self.send()
            await asyncio.sleep(1 / RATE_HZ)
        return (len(self.frames) - first) / (time.perf_counter() - began)

    async def rest(self) -> float:
        """Seconds from the last camera to its refined still."""
        await self.send()
        began = time.perf_counter()
        while time.perf_counter() - began < REST_TIMEOUT_S:
            for at, header in reversed(self.frames):
                if header["id"] == self.sent and header["level"] == "refined":
                    return at - began
            await asyncio.sleep(0.005)
        raise TimeoutError(f"no still within {REST_TIMEOUT_S:g} s")


async def viewer_of(url: str) -> Viewer:
    """A session in the demo scene, halfway between its photos."""
    async with AsyncClient(url) as client:
        frames = (await client.scene_cameras("demo"))["frames"]
    first, second = (np.array(frame["transform_matrix"]) for frame in frames[:2])
    c2w = first @ np.diag([1.0, -1.0, -1.0, 1.0])
    c2w[:3, 3] = (first[:3, 3] + second[:3, 3]) / 2
    focal = frames[0]["fl_x"] * SIDE / frames[0]["h"]
    K = [[focal, 0, SIDE / 2], [0, focal, SIDE / 2], [0, 0, 1]]
    address = url.replace("http", "ws", 1) + "/v1/scenes/demo/live"
    socket = await websockets.connect(address, subprotocols=[websockets.Subprotocol("sphinx-live.v1")])
    return Viewer(socket=socket, start=c2w, K=K)


async def job_s(url: str) -> float:
    """Seconds of a job."""
    began = time.perf_counter()
    async with AsyncClient(url) as client:
        job = await client.create_job("demo", path="interpolate", num_frames=FRAMES, size=f"{SIDE}x{SIDE}")
        async for _ in client.events(job.id):
            pass
    return time.perf_counter() - began


async def measure(url: str, *, seconds: float, rests: int, rounds: int) -> dict[str, float]:
    """All figures."""
    viewer = await viewer_of(url)
    listening = asyncio.create_task(viewer.listen())
    await viewer.rest()
    await job_s(url)
    before, shown = viewer.sent, len(viewer.frames)
    fps = await viewer.move(seconds)
    dropped = 1 - (len(viewer.frames) - shown) / (viewer.sent - before)
    stills = []
    for _ in range(rests):
        await viewer.move(0.5)
        stills.append(await viewer.rest())
    alone, beside, rates = [], [], []
    for _ in range(rounds):
        alone.append(await job_s(url))
        moving, shown, began = asyncio.create_task(viewer.move()), len(viewer.frames), time.perf_counter()
        beside.append(await job_s(url))
        rates.append((len(viewer.frames) - shown) / (time.perf_counter() - began))
        moving.cancel()
    listening.cancel()
    await viewer.socket.close()
    figures = {
        "fps_256": fps,
        "still_s": statistics.median(stills),
        "job_slowdown": statistics.median(beside) / statistics.median(alone),
        "job_fps": statistics.median(rates),
        "dropped": dropped,
    }
    return {name: round(value, 3) for name, value in figures.items()}


async def run(options: argparse.Namespace) -> dict[str, float]:
    """Starts a server and measures it."""
    with tempfile.TemporaryDirectory() as folder:
        server = ServerProcess(Path(folder) / "server")
        server.start()
        try:
            await server.ready()
            rounds = 1 if options.quick else options.rounds
            return await measure(
                server.url, seconds=5 if options.quick else 15, rests=3 if options.quick else 8, rounds=rounds
            )
        finally:
            server.stop(5)


def main() -> None:
    """Prints the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one short round")
    parser.add_argument("--rounds", type=int, default=2, help="pairs of jobs, alone and beside a session")
    parser.add_argument("--out", type=Path, help="file for the figures, JSON")
    options = parser.parse_args()
    figures = asyncio.run(run(options))
    text = json.dumps(figures)
    if options.out:
        options.out.write_text(text + "\n")
    sys.stdout.write(text + "\n")


if __name__ == "__main__":
    main()
