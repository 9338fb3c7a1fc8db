"""What a server adds to a render: time to preview, overhead, and how soon a cancelled view's device is free.

    python benchmarks/serve_latency.py [--repeats 5] [--cancels 20] [--out FILE.json]

One real server (embedded preset, one device), nobody else asking, the demo's two photos, 256x256:

    preview_s            from `POST /v1/views` (2 views) to the event that tells the last preview frame
    overhead             for views of several kinds: latency from `POST` to `completed`, minus the seconds that the
                         device worked for it, over those seconds; the video that is made of the frames is in it
    cancel               a long view is cancelled at a random time: seconds from `DELETE` to its answer, and to the
                         device being free, as `/v1/capacity` tells; solver steps that ended between; a step's seconds

Steps are counted from before the `DELETE` is sent, so one that ends while it is on its way counts as well: at most 1 is
"within one step", 2 can be that one besides. The line on stdout is a JSON object.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx
import numpy as np

from sphinx_nvs.benchmarking.process import ServerProcess
from sphinx_nvs.benchmarking.watching import metrics_of
from sphinx_nvs.client import AsyncClient
from sphinx_nvs.client.wishes import Wish

SERVER = ("--log-format", "json", "--log-level", "warning", "--rate", "10000")

PREVIEW = Wish(path="interpolate", num_frames=2, size="256x256")
"""The request whose preview is timed."""

RENDERS = {
    "2 views of 256x256": PREVIEW,
    "8 views of 256x256": Wish(path="interpolate", num_frames=8, size="256x256"),
    "2 views of 256x256, full quality": Wish(path="interpolate", num_frames=2, size="256x256", quality=1.0),
    "8 views of 128x128, full quality": Wish(path="interpolate", num_frames=8, size="128x128", quality=1.0),
}
"""Requests whose overhead is measured."""

LONG = Wish(path="interpolate", num_frames=16, size="192x192", quality=1.0, min_quality=1.0)
"""The request that is cancelled."""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the benchmark."""
    options = _options(argv)
    # Whoever ends this process ends its server, too.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with tempfile.TemporaryDirectory(prefix="serve-latency-") as place:
        figures = asyncio.run(measured(Path(place) / "server", options.repeats, options.cancels))
    if options.out:
        options.out.write_text(json.dumps(figures, indent=1) + "\n")
    sys.stdout.write(json.dumps(figures) + "\n")
    return 0


async def measured(folder: Path, repeats: int, cancels: int) -> dict[str, Any]:
    """Every figure."""
    server = ServerProcess(folder, SERVER)
    server.start()
    try:
        ready_s = await server.ready()
        async with AsyncClient(server.url) as client, httpx.AsyncClient(base_url=server.url, timeout=30) as http:
            first_s = (await timed(client, http, PREVIEW))["preview_s"]
            previews = [(await timed(client, http, PREVIEW))["preview_s"] for _ in range(repeats)]
            overheads = {name: await overhead(client, http, wish, repeats) for name, wish in RENDERS.items()}
            return {
                "ready_s": round(ready_s, 2),
                "first_preview_s": round(first_s, 3),
                "preview_s": spread(previews),
                "overhead": overheads,
                "cancel": await cancelled(client, http, cancels),
            }
    finally:
        server.stop(5)


async def timed(client: AsyncClient, http: httpx.AsyncClient, wish: Wish) -> dict[str, float]:
    """One view: seconds to its preview and to its end, and those that the device worked for it."""
    busy_s = (await metrics(http))["sphinx_device_busy_seconds_total"]
    began, preview_s = time.monotonic(), 0.0
    view = await client.create_view("demo", **wish)
    answered_s = time.monotonic() - began
    async for event in client.events(view):
        if event.kind == "preview_frame":
            preview_s = time.monotonic() - began
    ended_s = time.monotonic() - began
    worked_s = (await metrics(http))["sphinx_device_busy_seconds_total"] - busy_s
    return {"answered_s": answered_s, "preview_s": preview_s, "ended_s": ended_s, "worked_s": worked_s}


async def overhead(client: AsyncClient, http: httpx.AsyncClient, wish: Wish, repeats: int) -> dict[str, Any]:
    """Of views of one kind, the median; not of the first one, for which the device learns the scene at that size."""
    await timed(client, http, wish)
    found = [await timed(client, http, wish) for _ in range(repeats)]
    share = [(one["ended_s"] - one["worked_s"]) / one["worked_s"] for one in found]
    medians = {name: round(float(np.median([one[name] for one in found])), 4) for name in found[0]}
    return {**medians, "share": round(float(np.median(share)), 4)}


async def cancelled(client: AsyncClient, http: httpx.AsyncClient, times: int) -> dict[str, Any]:
    """Views that are cancelled while they are refined."""
    rng = random.Random(0)
    answers, frees, steps, speeds = [], [], [], []
    for _ in range(times):
        view = await client.create_view("demo", **LONG)
        async for event in client.events(view):
            if event.kind == "progress":
                break
        await asyncio.sleep(rng.uniform(0, 0.8))
        speeds.append(await step_seconds(http))
        before = (await metrics(http))["sphinx_steps_total"]
        began = time.monotonic()
        (await http.delete(f"/v1/views/{view.id}")).raise_for_status()
        answers.append(time.monotonic() - began)
        while any(device.is_busy or device.held for device in (await client.capacity()).devices):
            await asyncio.sleep(0.002)
        frees.append(time.monotonic() - began)
        steps.append(int((await metrics(http))["sphinx_steps_total"] - before))
    return {
        "times": times,
        "answered_s": spread(answers),
        "free_s": spread(frees),
        "step_s": spread([speed for speed in speeds if speed]),
        "steps": {str(count): steps.count(count) for count in sorted(set(steps))},
    }


async def step_seconds(http: httpx.AsyncClient, within_s: float = 0.5) -> float:
    """Of a solver step, by those that end within this time; 0 if none does."""
    began, before = time.monotonic(), (await metrics(http))["sphinx_steps_total"]
    await asyncio.sleep(within_s)
    taken = (await metrics(http))["sphinx_steps_total"] - before
    return (time.monotonic() - began) / taken if taken else 0.0


async def metrics(http: httpx.AsyncClient) -> dict[str, float]:
    """The server's counters."""
    found = metrics_of((await http.get("/metrics")).text)
    return {"sphinx_steps_total": 0.0, "sphinx_device_busy_seconds_total": 0.0, **found}


def spread(values: Sequence[float]) -> dict[str, float]:
    """Median, 95th percentile and largest."""
    if not values:
        return {}
    p50, p95 = (float(np.quantile(values, share)) for share in (0.5, 0.95))
    return {"p50": round(p50, 4), "p95": round(p95, 4), "max": round(max(values), 4)}


def _options(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--repeats", type=int, default=5, help="of each view that is timed")
    parser.add_argument("--cancels", type=int, default=20, help="views that are cancelled")
    parser.add_argument("--out", type=Path, help="the figures as a JSON file")
    return parser.parse_args(argv)


if __name__ == "__main__":
    raise SystemExit(main())
