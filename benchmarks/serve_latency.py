"""What a server adds to a render: time to preview, overhead, quotes, and how soon a cancelled view's device is free.

    python benchmarks/serve_latency.py [--repeats 5] [--quotes 20] [--cancels 20] [--out FILE.json]

One real server (embedded preset, one device), no other load, the demo's two photos, 256x256:

    preview_s            from `POST /v1/jobs` (2 views) to the event of the last preview frame
    overhead             for views of several kinds: latency from `POST` to `completed`, minus the seconds that the
                         device worked for it: over what the same render takes in the library (`share_of_render`: same
                         plan, models loaded, nothing remembered of the scene, no files written), and over what the
                         device worked, which does remember the scene (`share_of_work`). `video_s` is from `completed`
                         to the last byte of the video, for clients that request it
    quotes               views of mixed sizes, lengths and qualities: latency over what was quoted
    cancel               a long view is cancelled at a random time: seconds from `DELETE` to its answer, and to the
                         device being free, by `/v1/capacity`; solver steps that ended between; a step's seconds

Steps are counted from before the `DELETE` is sent, so one that ends while it is on its way counts as well: at most 1 is
"within one step", 2 can be that one besides. The line on stdout is a JSON object.
"""

from __future__ import annotations

import argparse
import asyncio
import functools
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

from sphinx_nvs.client import AsyncClient
from sphinx_nvs.client.job_options import JobOptions
from sphinx_nvs.geometry.paths import scene_path
from sphinx_nvs.load_testing.job_watcher import metrics_of
from sphinx_nvs.load_testing.server_process import ServerProcess
from sphinx_nvs.long_paths.long_path import run_path
from sphinx_nvs.pipeline.pipeline import Pipeline
from sphinx_nvs.presets import load_preset
from sphinx_nvs.sampling_params import SamplingParams
from sphinx_nvs.scene import Capture
from sphinx_nvs.scene.demo import read_demo

SERVER = ("--log-format", "json", "--log-level", "warning", "--rate", "10000")

PHOTOS = 2
"""Photos of the demo."""

PREVIEW = JobOptions(path="interpolate", num_frames=2, size="256x256")
"""The request whose preview is timed."""

RENDERS = {
    "2 views of 256x256": PREVIEW,
    "8 views of 256x256": JobOptions(path="interpolate", num_frames=8, size="256x256"),
    "2 views of 256x256, full quality": JobOptions(path="interpolate", num_frames=2, size="256x256", quality=1.0),
    "8 views of 128x128, full quality": JobOptions(path="interpolate", num_frames=8, size="128x128", quality=1.0),
}
"""Requests whose overhead is measured."""

MOST_PIXELS = 300_000
"""Most pixels of a job whose quote is compared with its latency, so that it takes seconds."""

LONG = JobOptions(path="interpolate", num_frames=16, size="192x192", quality=1.0, min_quality=1.0)
"""The request that is cancelled."""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the benchmark."""
    options = _options(argv)
    # When this process ends, its server ends too.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with tempfile.TemporaryDirectory(prefix="serve-latency-") as place:
        figures = asyncio.run(measured(Path(place) / "server", options.repeats, options.quotes, options.cancels))
    if options.out:
        options.out.write_text(json.dumps(figures, indent=1) + "\n")
    sys.stdout.write(json.dumps(figures) + "\n")
    return 0


async def measured(folder: Path, repeats: int, quotes: int, cancels: int) -> dict[str, Any]:
    """Every figure."""
    renders = {name: rendered(request, repeats) for name, request in RENDERS.items()}
    server = ServerProcess(folder, SERVER)
    server.start()
    try:
        ready_s = await server.ready()
        async with AsyncClient(server.url) as client, httpx.AsyncClient(base_url=server.url, timeout=30) as http:
            first_s = (await timed(client, http, PREVIEW))["preview_s"]
            previews = [(await timed(client, http, PREVIEW))["preview_s"] for _ in range(repeats)]
            overheads = {
                name: await overhead(client, http, request, repeats, renders[name]) for name, request in RENDERS.items()
            }
            return {
                "ready_s": round(ready_s, 2),
                "first_preview_s": round(first_s, 3),
                "preview_s": spread(previews),
                "overhead": overheads,
                "quotes": await quoted(client, http, quotes),
                "cancel": await cancelled(client, http, cancels),
            }
    finally:
        server.stop(5)


async def timed(client: AsyncClient, http: httpx.AsyncClient, request: JobOptions) -> dict[str, float]:
    """One view: seconds to its preview, end and video, those that were quoted, and those that the device worked."""
    busy_s = (await metrics(http))["sphinx_device_busy_seconds_total"]
    began, preview_s = time.monotonic(), 0.0
    view = await client.create_job("demo", **request)
    answered_s = time.monotonic() - began
    async for event in client.events(view):
        if event.kind == "preview_frame":
            preview_s = time.monotonic() - began
    ended_s = time.monotonic() - began
    worked_s = (await metrics(http))["sphinx_device_busy_seconds_total"] - busy_s
    began = time.monotonic()
    (await http.get(f"/v1/jobs/{view.id}/content")).raise_for_status()
    return {
        "answered_s": answered_s,
        "preview_s": preview_s,
        "ended_s": ended_s,
        "video_s": time.monotonic() - began,
        "worked_s": worked_s,
        "added_s": ended_s - worked_s,
        **({"p50_s": view.quote.latency_p50_s, "p95_s": view.quote.latency_p95_s} if view.quote else {}),
    }


async def overhead(
    client: AsyncClient, http: httpx.AsyncClient, request: JobOptions, repeats: int, rendered_s: float
) -> dict[str, float]:
    """Median over views of one kind, without the first one, for which the device loads the scene at that size."""
    await timed(client, http, request)
    found = [await timed(client, http, request) for _ in range(repeats)]
    medians = {name: float(np.median([one[name] for one in found])) for name in found[0]}
    shares = {
        "share_of_render": medians["added_s"] / rendered_s,
        "share_of_work": float(np.median([one["added_s"] / one["worked_s"] for one in found])),
    }
    return {name: round(value, 4) for name, value in {**medians, "rendered_s": rendered_s, **shares}.items()}


def rendered(request: JobOptions, repeats: int) -> float:
    """Median seconds of the same render in the library, its models loaded; the first one is not counted."""
    pipeline, capture = library()
    width, height = (int(side) for side in str(request["size"]).split("x"))
    contexts = capture.cameras(range(PHOTOS), height, width)
    targets = scene_path("interpolate", contexts, request["num_frames"])
    seconds = []
    for _ in range(1 + repeats):
        began = time.monotonic()
        scene = capture.load(range(PHOTOS), height, width)
        list(run_path(pipeline, scene, targets, SamplingParams(quality=request.get("quality"))))
        seconds.append(time.monotonic() - began)
    return float(np.median(seconds[1:]))


@functools.cache
def library() -> tuple[Pipeline, Capture]:
    """The embedded preset and the demo, as a server has them."""
    return load_preset("embedded"), read_demo()


async def quoted(client: AsyncClient, http: httpx.AsyncClient, count: int) -> dict[str, Any]:
    """Measured over quoted latencies of different views, one after another."""
    rng = random.Random(0)
    found = []
    for _ in range(count):
        side, frames = rng.choice((64, 96, 128, 192, 256)), rng.choice((2, 3, 4, 8, 12))
        quality = rng.choice((None, 0.5, 0.8, 0.9, 1.0))
        request = JobOptions(
            path="interpolate", num_frames=frames, size=(side, side), quality=quality, seed=rng.randrange(99)
        )
        if side * side * frames <= MOST_PIXELS:
            found.append(await timed(client, http, request))
    of_p50 = np.array([one["ended_s"] / one["p50_s"] for one in found])
    return {
        "views": len(found),
        "of_p50": spread(list(of_p50)),
        "mape": round(float(np.mean(np.abs(1 / of_p50 - 1))), 4),
        "within_p95": round(float(np.mean([one["ended_s"] <= one["p95_s"] for one in found])), 4),
        "each": [[round(one[name], 3) for name in ("p50_s", "p95_s", "ended_s", "worked_s")] for one in found],
    }


async def cancelled(client: AsyncClient, http: httpx.AsyncClient, times: int) -> dict[str, Any]:
    """Views that are cancelled while they are refined."""
    rng = random.Random(0)
    answers, frees, steps, speeds = [], [], [], []
    for _ in range(times):
        view = await client.create_job("demo", **LONG)
        async for event in client.events(view):
            if event.kind == "progress":
                break
        await asyncio.sleep(rng.uniform(0, 0.8))
        speeds.append(await step_seconds(http))
        before = (await metrics(http))["sphinx_steps_total"]
        began = time.monotonic()
        (await http.delete(f"/v1/jobs/{view.id}")).raise_for_status()
        answers.append(time.monotonic() - began)
        while any(device.is_busy or device.resident_units for device in (await client.capacity()).devices):
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
    """Seconds of a solver step, by those that end within this time; 0 if none does."""
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
    parser.add_argument("--quotes", type=int, default=20, help="views whose quotes are compared with what they take")
    parser.add_argument("--cancels", type=int, default=20, help="views that are cancelled")
    parser.add_argument("--out", type=Path, help="the figures as a JSON file")
    return parser.parse_args(argv)


if __name__ == "__main__":
    raise SystemExit(main())
