"""Whether a server fulfils its promises while it and its workers are killed: nothing lost, nothing done twice.

    python benchmarks/serve_faults.py [--quick] [--kills 100] [--seed 0] [--clients 6] [--out FILE.json]

A real server (embedded preset, one device) works for clients that request views one after another, each with an
idempotency key that goes with every repetition of the request. Two more clients upload scenes, one with cameras and one
whose cameras have to be found. At random times one of four is killed with SIGKILL:

    worker    the device's process; the server has to start another one
    server    the server alone; its worker has to end by itself, and the next server resumes the work
    all       both in the same moment
    decoder   a process that decodes or poses an upload, or what these are forked from; it has to be started again

after which the server is started again on the same folder, as a supervisor would. Some kills come while what was killed
last is still loading. After the last one clients wait for their views; then the same requests are sent to
a server that is never killed, one at a time, and everything is compared (`sphinx_nvs.load_testing.verdict`):

    accepted     jobs whose 202 a client saw
    lost         of those, the ones that are not completed in the end
    duplicated   jobs that contradict themselves: a frame with events of two digests, two ends, two jobs of one key, a
                 client that received something else, a damaged file, frames unlike those of the undisturbed one
    resumed      jobs that were unfinished at a kill and were completed
    preview_only jobs that ended with their preview: a unit that dies with its worker `attempts` times is given up
    uploads      scenes whose 201 or 202 a client saw; those that are not whole in the end, or that were refused, are
                 lost, too (`sphinx_nvs.load_testing.upload_faults`)

Requests ask for quality = min_quality, so that load does not change what is planned. Exit code 1 if anything was lost
or duplicated. Details go to stderr; the one line on stdout is a JSON object.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import hashlib
import json
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from sphinx_nvs.client import ApiError, AsyncClient, Job, Retrying
from sphinx_nvs.client.job_options import JobOptions
from sphinx_nvs.errors import SphinxError
from sphinx_nvs.load_testing.server_process import ServerProcess, is_worker
from sphinx_nvs.load_testing.upload_faults import (
    PLAIN,
    POSED,
    UploadRun,
    UploadVerdict,
    judged,
    photos_of,
    send,
)
from sphinx_nvs.load_testing.verdict import LEVELS, Accepted, Frames, Kept, ReceivedEvent, judge, read_kept

SERVER = ("--log-format", "json", "--rate", "10000", "--window", "8", "--steps", "10", "--attempts", "10")
"""Options of the server: a small window, so that jobs have several units; few steps, so that a job takes a second;
more attempts than usual, since here a unit's worker is killed by the test, not by the unit."""

KINDS = ("worker", "worker", "worker", "server", "all", "decoder", "decoder", "decoder")
"""What is killed, with equal probabilities."""

LONGEST_S = 10.0
"""Most seconds that a device is at work before something is killed."""

EARLY = 0.15
"""Share of kills that do not wait for what was killed last."""

ORPHAN_S = 10.0
"""Seconds in which a worker has to notice that its server has ended."""

NOTICE_S = 1.0
"""Seconds in which a server notices that its worker has ended."""

REQUESTS: tuple[JobOptions, ...] = tuple(
    JobOptions(path=path, num_frames=frames, size=size, quality=quality, min_quality=quality, seed=seed)
    for seed, (path, frames, size, quality) in enumerate(
        (
            ("interpolate", 4, "64x64", 0.9),
            ("interpolate", 4, "128x96", 1.0),
            ("orbit", 6, "96x64", 0.95),
            ("interpolate", 6, "128x128", 0.98),
            ("spiral", 10, "64x64", 1.0),
            ("interpolate", 12, "96x96", 0.95),
            ("move-forward", 4, "128x128", 1.0),
            ("interpolate", 12, "128x96", 0.9),
            ("lemniscate", 5, "64x96", 0.98),
            ("interpolate", 3, "96x96", 1.0),
        )
    )
)
"""The requests; a request's number is its index here."""

PATIENT = Retrying(attempts=10_000, first_wait_s=0.05, longest_wait_s=1.0)
"""Clients wait for a server that starts again, however often."""


@dataclass
class Run:
    """The record of a run.

    Args:
        accepted: jobs.
        kills: kind and time, epoch seconds, of each.
        errors: problems that the server answered, by status.
        orphans: workers that did not end with their server.
        ended_itself: number of times that the server ended without being killed.
        recovery_s: seconds from each kill of a server until the next one was ready.
        uploads: what was uploaded.
        scenes: what became of that.
    """

    accepted: list[Accepted] = field(default_factory=list)
    kills: list[tuple[str, float]] = field(default_factory=list)
    errors: Counter[str] = field(default_factory=Counter)
    orphans: int = 0
    ended_itself: int = 0
    recovery_s: list[float] = field(default_factory=list)
    uploads: UploadRun = field(default_factory=UploadRun)
    scenes: UploadVerdict = field(default_factory=lambda: UploadVerdict(answered=0, lost=0, given_up=0, reasons=()))
    is_over: bool = False


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the benchmark."""
    options = _options(argv)
    kills = 10 if options.quick else options.kills
    # When this process ends, its servers end too.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with tempfile.TemporaryDirectory(prefix="serve-faults-") as temporary:
        place = options.folder or Path(temporary)
        began = time.monotonic()
        run = asyncio.run(disturbed(place / "disturbed", kills, options.clients, options.seed))
        took_s = time.monotonic() - began
        quiet = asyncio.run(undisturbed(place / "quiet", sorted({promise.request for promise in run.accepted})))
        figures = figures_of(run, read_kept(place / "disturbed"), quiet, took_s)
    if options.out:
        options.out.write_text(json.dumps(figures, indent=1) + "\n")
    for reason in figures["reasons"]:
        sys.stderr.write(f"{reason}\n")
    sys.stdout.write(json.dumps(figures) + "\n")
    return int(figures["lost"] > 0 or figures["duplicated"] > 0)


def figures_of(run: Run, kept: Sequence[Kept], quiet: dict[int, Frames], took_s: float) -> dict[str, Any]:
    """All results."""
    verdict = asdict(judge(run.accepted, kept, [at_s for _, at_s in run.kills], quiet))
    reasons = [*verdict.pop("reasons"), *run.scenes.reasons]
    verdict["lost"] += run.scenes.lost
    return {
        **verdict,
        "uploads": run.scenes.answered,
        "uploads_given_up": run.scenes.given_up,
        "uploads_put_off": run.uploads.put_off,
        "uploads_cut_off": run.uploads.cut_off,
        "kills": {kind: sum(kind == other for other, _ in run.kills) for kind in dict.fromkeys(KINDS)},
        "orphans": run.orphans,
        "ended_itself": run.ended_itself,
        "problems": dict(run.errors),
        "recovery_p50_s": _median(run.recovery_s),
        "recovery_max_s": round(max(run.recovery_s, default=0.0), 2),
        "seconds": round(took_s, 1),
        "reasons": list(reasons),
    }


# Under kills ----------------------------------------------------------------------------------------------------------


async def disturbed(folder: Path, kills: int, clients: int, seed: int) -> Run:
    """Load and kills, then the time that it takes to finish what was accepted."""
    run, server = Run(), ServerProcess(folder, SERVER)
    server.start()
    try:
        await server.ready()
        async with AsyncClient(server.url, retrying=PATIENT) as client:
            asking = [asyncio.create_task(ask(client, run, number, seed)) for number in range(clients)]
            asking += [
                asyncio.create_task(send(client, run.uploads, kind, lambda: run.is_over, seed))
                for kind in (POSED, PLAIN)
            ]
            guarding = asyncio.create_task(keep_alive(server, run))
            try:
                await kill_at_random(server, run, kills, random.Random(f"kills {seed}"))
                run.is_over = True
                # A client that waits for a job that never ends would wait for ever; the judge finds that job.
                await asyncio.wait(asking, timeout=120.0 + 20.0 * clients)
                await settled(client, run)
                # The last kill may have been a decoder's; what a posed upload looks like, nothing disturbs any more.
                run.scenes = await judged(client, run.uploads, {POSED: await photos_of(client, POSED)})
            finally:
                await ended(*asking, guarding)
        for task in asking:
            if not task.cancelled() and (error := task.exception()) is not None:
                raise error
    finally:
        server.stop(10)
    return run


async def ask(client: AsyncClient, run: Run, number: int, seed: int) -> None:
    """A client that sends requests, and follows, polls or ignores them."""
    rng = random.Random(f"client {seed} {number}")
    count = 0
    while not run.is_over:
        count += 1
        request, key = rng.randrange(len(REQUESTS)), f"{seed}-{number}-{count}"
        try:
            view = await client.create_job("demo", idempotency_key=key, **REQUESTS[request])
            promise = Accepted(job_id=view.id, key=key, request=request)
            run.accepted.append(promise)
            await (watch(client, promise) if rng.random() < 0.7 else poll(client, view))
        except ApiError as error:
            run.errors[str(error.status)] += 1
            sys.stderr.write(f"{error}\n")
            await asyncio.sleep(0.5)


async def watch(client: AsyncClient, promise: Accepted) -> None:
    """Follows a job's events, over broken connections too, and fetches a frame now and then."""
    async for event in client.events(promise.job_id):
        index = event.data.get("index")
        promise.received.append(ReceivedEvent(seq=event.seq, kind=event.kind, index=index))
        if event.kind in LEVELS and index == 0:
            level = LEVELS[event.kind]
            png = await client.frame(promise.job_id, 0, level="preview" if level == "preview" else "final")
            promise.fetched[level, 0] = hashlib.sha256(png).hexdigest()


async def poll(client: AsyncClient, view: Job) -> None:
    """Polls a job now and then."""
    while not view.is_final:
        await asyncio.sleep(0.5)
        view = await client.job(view)


async def settled(client: AsyncClient, run: Run) -> None:
    """Waits a while for every accepted job to end."""
    until = time.monotonic() + 60
    for promise in run.accepted:
        while time.monotonic() < until:
            with contextlib.suppress(ApiError):
                if (await client.job(promise.job_id)).is_final:
                    break
            await asyncio.sleep(0.5)


async def keep_alive(server: ServerProcess, run: Run) -> None:
    """Starts the server again when it has ended, as a supervisor does."""
    while True:
        if not server.is_alive:
            run.ended_itself += server.exit_status is not None and server.exit_status >= 0
            server.start()
        await asyncio.sleep(0.2)


async def kill_at_random(server: ServerProcess, run: Run, kills: int, rng: random.Random) -> None:
    """Kills something, again and again."""
    while len(run.kills) < kills:
        if rng.random() > EARLY:
            await able(server)
            if run.kills and run.kills[-1][0] in ("server", "all"):
                run.recovery_s.append(time.time() - run.kills[-1][1])
        await asyncio.sleep(rng.uniform(0.2, LONGEST_S))
        kind, killed_s = rng.choice(KINDS), time.time()
        if await kill(server, kind, run, rng):
            run.kills.append((kind, killed_s))
            sys.stderr.write(f"kill {len(run.kills)} of {kills}: {kind}; {len(run.accepted)} accepted\n")


async def able(server: ServerProcess) -> None:
    """Returns once requests are accepted and a device is ready, after any number of restarts."""
    impatient = Retrying(attempts=1)
    async with AsyncClient(server.url, retrying=impatient, timeout=2.0) as client:
        while True:
            with contextlib.suppress(SphinxError):
                if any(device.is_ready for device in (await client.capacity()).devices):
                    return
            await asyncio.sleep(0.1)


async def kill(server: ServerProcess, kind: str, run: Run, rng: random.Random) -> bool:
    """Kills something; False if there was nothing of that kind."""
    if kind == "decoder":
        # Decoding takes a second or less: the next upload is waited for.
        for _ in range(200):
            if server.kill_decoder(rng) is not None:
                return True
            await asyncio.sleep(0.05)
        return False
    if kind == "worker":
        killed = server.kill_worker() is not None
        # Until the server has noticed, it calls its device ready.
        await asyncio.sleep(NOTICE_S)
        return killed
    if not server.is_alive:
        return False
    workers = server.kill(with_workers=kind == "all")
    until = time.monotonic() + ORPHAN_S
    while any(map(is_worker, workers)) and time.monotonic() < until:
        await asyncio.sleep(0.05)
    run.orphans += sum(map(is_worker, workers))
    return True


# Undisturbed ----------------------------------------------------------------------------------------------------------


async def undisturbed(folder: Path, requests: Sequence[int]) -> dict[int, Frames]:
    """Frames of requests that a server does one at a time, by number."""
    server, ids = ServerProcess(folder, SERVER), {}
    server.start()
    try:
        await server.ready()
        async with AsyncClient(server.url) as client:
            for request in requests:
                view = await client.wait(await client.create_job("demo", **REQUESTS[request]), timeout_s=120)
                ids[view.id] = request
    finally:
        server.stop()
    return {ids[job.job_id]: job.frames for job in read_kept(folder)}


async def ended(*tasks: asyncio.Task[None]) -> None:
    """Cancels tasks."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def _median(values: Sequence[float]) -> float:
    return round(sorted(values)[len(values) // 2], 2) if values else 0.0


def _options(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--quick", action="store_true", help="10 kills")
    parser.add_argument("--kills", type=int, default=100, help="processes killed")
    parser.add_argument("--seed", type=int, default=0, help="seed of requests and kills")
    parser.add_argument("--clients", type=int, default=6, help="clients, each requesting one view after another")
    parser.add_argument("--folder", type=Path, help="for the servers' folders and logs, kept; default: a temporary one")
    parser.add_argument("--out", type=Path, help="the figures as a JSON file")
    return parser.parse_args(argv)


if __name__ == "__main__":
    raise SystemExit(main())
