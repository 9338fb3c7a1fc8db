"""Whether a server holds against strangers: small forms of attacks, over loopback.

    python benchmarks/serve_attack.py [--quick] [--out FILE.json]

Two real servers (embedded preset): one with API keys, one without that may open 256 files only. Each attack says what
it broke, or nothing. While they run, `/healthz` is probed and the memory of the servers' processes is measured:

    attacks, held      how many there are, and how many broke nothing
    broken             names of the others; details go to stderr
    peak_mib           most memory (RSS) of a server without its device, and of its decoding processes, MiB
    healthz_worst_s    longest time of a probe, while nothing else of this program waits
    seconds, cpu_s     of all that, and CPU seconds of this program, the two servers and their processes

Exit code 1 if anything broke. `--quick` sends less of everything: about 100 CPU seconds, both servers' starts included.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import io
import json
import os
import resource
import statistics
import sys
import tempfile
import time
import zipfile
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psutil
import websockets
from PIL import Image

from sphinx_nvs.engine.store import JobStore
from sphinx_nvs.load_testing.server_process import WORKER, ServerProcess

OPTIONS = ("--log-format", "json", "--window", "8", "--steps", "4", "--attempts", "3")
HELD_BYTES = 511_000_000
"""Announced size of a held upload: below the limit of one, and four fill a key's share of what may be held."""

FEW_FILES = 256
"""Open files that the server without keys may have."""

NEWCOMER_S = 1.0
"""Most seconds in which a request with a key is answered under attack."""

PROBE_S = 0.1
"""Most seconds (median) in which a probe is answered under attack."""

Attack = Callable[["Stage"], Awaitable[str]]
ATTACKS: dict[str, Attack] = {}


def attack(function: Attack) -> Attack:
    """Registers an attack; it returns what it broke, or nothing."""
    ATTACKS[function.__name__] = function
    return function


@dataclass(kw_only=True)
class Stage:
    """What attacks work with.

    Args:
        keyed: a server with API keys.
        keyless: one without keys, with few file descriptors.
        keys: secrets of two keys.
        key_ids: their ids.
        sockets: number of sockets of an attack.
        temporary: the servers' folder for temporary files.
        http: sends to the server with keys, with the first key.
    """

    keyed: ServerProcess
    keyless: ServerProcess
    keys: tuple[str, str]
    key_ids: tuple[str, str]
    sockets: int
    temporary: Path
    http: httpx.AsyncClient
    probes: list[float] = field(default_factory=list)
    peak_mib: float = 0.0
    servers_cpu_s: dict[int, float] = field(default_factory=dict)

    @property
    def cpu_s(self) -> float:
        """CPU seconds of this program and the servers' processes, so far measured."""
        return time.process_time() + sum(self.servers_cpu_s.values())

    def headers(self, which: int = 0) -> dict[str, str]:
        """Headers of a request with a key."""
        return {"Authorization": f"Bearer {self.keys[which]}"}

    async def newcomer(self, server: ServerProcess) -> str:
        """Sends a request and probes on new connections; returns what was too slow, or nothing."""
        times = []
        for _ in range(8):
            times.append(await timed(server, "/healthz"))
        self.probes += times
        if statistics.median(times) > PROBE_S:
            return f"/healthz took {statistics.median(times):.2f} s"
        headers = self.headers() if server is self.keyed else {}
        took = await timed(server, "/v1/scenes", headers)
        return f"a request took {took:.2f} s" if took > NEWCOMER_S else ""

    def measure(self) -> None:
        """Updates the peak of memory and the servers' CPU seconds."""
        for server in (self.keyed, self.keyless):
            if server.is_alive:
                self.servers_cpu_s[server.pid] = tree_cpu_s(server.pid)
                self.peak_mib = max(self.peak_mib, memory_mib(server.pid))


def memory_mib(pid: int) -> float:
    """Memory of a server and its decoding processes, without its devices' workers."""
    total = 0
    with contextlib.suppress(psutil.Error):
        process = psutil.Process(pid)
        for one in (process, *process.children(recursive=True)):
            with contextlib.suppress(psutil.Error):
                if WORKER not in one.cmdline():
                    total += one.memory_info().rss
    return total / 2**20


def tree_cpu_s(pid: int) -> float:
    """CPU seconds of a process and its children, of those that have ended, too."""
    total = 0.0
    with contextlib.suppress(psutil.Error):
        process = psutil.Process(pid)
        for one in (process, *process.children(recursive=True)):
            with contextlib.suppress(psutil.Error):
                total += sum(one.cpu_times()[:4])
    return total


async def timed(server: ServerProcess, path: str, headers: dict[str, str] | None = None) -> float:
    """Seconds until a GET on a new connection is answered with 200; infinity if it is not within 5 s."""
    # Making a client takes a while, too: it reads the system's certificates.
    async with httpx.AsyncClient(timeout=5.0, verify=False) as http:
        began = time.monotonic()
        try:
            answer = await http.get(server.url + path, headers=headers or {})
        except httpx.TransportError:
            return float("inf")
    return time.monotonic() - began if answer.status_code == 200 else float("inf")


@contextlib.asynccontextmanager
async def raw_sockets(
    server: ServerProcess, count: int, request: bytes, arrive_s: float = 0.0
) -> AsyncIterator[list[asyncio.StreamReader]]:
    """Opens connections, each of which sends the same bytes; waits until these have left, at most for a time."""
    opened: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []
    try:
        for _ in range(count):
            with contextlib.suppress(OSError, TimeoutError):
                pair = await asyncio.wait_for(asyncio.open_connection("127.0.0.1", server.port), 2.0)
                opened.append(pair)
                pair[1].write(request)
        if arrive_s:
            await asyncio.wait_for(asyncio.gather(*(writer.drain() for _, writer in opened)), arrive_s)
        yield [reader for reader, _ in opened]
    finally:
        for _, writer in opened:
            writer.transport.abort()


def announcing(path: str, size: int, *, key: str = "", kind: str = "application/json") -> bytes:
    """Headers of a POST whose body does not follow."""
    auth = f"Authorization: Bearer {key}\r\n" if key else ""
    return (
        f"POST {path} HTTP/1.1\r\nHost: localhost\r\n{auth}Content-Type: {kind}\r\nContent-Length: {size}\r\n\r\n"
    ).encode()


def archive(files: dict[str, bytes], file_path: str, *, photos: int = 1, **camera: float) -> bytes:
    """A zip with a transforms.json whose frames name a file."""
    frame = {"transform_matrix": [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]], "fl_x": 300, **camera}
    frames = [{**frame, "file_path": file_path.format(i)} for i in range(photos)]
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as packed:
        packed.writestr("transforms.json", json.dumps({"frames": frames}))
        for name, data in files.items():
            packed.writestr(name, data)
    return buffer.getvalue()


def picture(kind: str, size: tuple[int, int] = (64, 64)) -> bytes:
    """A picture in a format."""
    buffer = io.BytesIO()
    Image.new("RGB", size, (200, 100, 50)).save(buffer, kind)
    return buffer.getvalue()


def large_png(side: int) -> bytes:
    """A PNG of side x side pixels, made row by row."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        check = zlib.crc32(kind + data)
        return len(data).to_bytes(4, "big") + kind + data + check.to_bytes(4, "big")

    header = side.to_bytes(4, "big") * 2 + bytes([8, 2, 0, 0, 0])
    packer, row = zlib.compressobj(9), bytes(1 + 3 * side)
    data = b"".join(packer.compress(row) for _ in range(side)) + packer.flush()
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


async def upload(stage: Stage, data: bytes, which: int = 0) -> httpx.Response:
    """Uploads an archive."""
    return await stage.http.post(
        "/v1/scenes", content=data, headers={**stage.headers(which), "Content-Type": "application/zip"}, timeout=120
    )


# Pictures -------------------------------------------------------------------------------------------------------------


@attack
async def pictures_under_other_names(stage: Stage) -> str:
    """Formats that no photo needs, one of which would start a program, under names that do not tell."""
    for kind in ("EPS", "PCX", "ICO", "SGI", "TGA", "PPM", "PDF"):
        answer = await upload(stage, archive({"a.png": picture("PNG"), "b.bin": picture(kind)}, "b.bin"))
        if answer.status_code != 422 or "not an image" not in answer.text:
            return f"{kind} as b.bin: {answer.status_code} {answer.text[:300]}"
    return ""


@attack
async def picture_bomb(stage: Stage) -> str:
    """A picture of 144 million pixels in a file of 0.4 MB."""
    answer = await upload(stage, archive({"a.png": picture("PNG"), "b.bin": large_png(12_000)}, "b.bin"))
    stage.measure()
    return "" if answer.status_code == 422 and "pixels" in answer.text else f"{answer.status_code} {answer.text[:300]}"


@attack
async def one_upload_does_not_block_others(stage: Stage) -> str:
    """A dear upload of one key, and one photo of another."""
    noise = Image.effect_noise((4000, 3000), 60).convert("RGB")
    buffer = io.BytesIO()
    noise.save(buffer, "JPEG", quality=85)
    dear = archive({f"{i}.jpg": buffer.getvalue() for i in range(6)}, "{}.jpg", photos=6, k1=0.1, fl_x=3000, fl_y=3000)
    first = asyncio.create_task(upload(stage, dear, 0))
    await asyncio.sleep(2.0)
    began = time.monotonic()
    second = await upload(stage, archive({"a.png": picture("PNG")}, "a.png"), 1)
    took, was_first = time.monotonic() - began, not first.done()
    answer = await first
    stage.measure()
    if second.status_code != 201:
        return f"the small upload: {second.status_code} {second.text[:200]}"
    if answer.status_code != 201:
        return f"the dear upload: {answer.status_code} {answer.text[:200]}"
    return "" if took < 10 or was_first else f"the small upload waited {took:.1f} s"


@attack
async def held_uploads(stage: Stage) -> str:
    """Uploads that arrive slowly, their files just small enough for memory, and one that unpacks beyond the room."""
    head = b'--x\r\nContent-Disposition: form-data; name="images"; filename="%d.png"\r\n\r\n'
    part = head + bytes(1_000_000) + b"\r\n"
    begin = announcing("/v1/scenes", HELD_BYTES, key=stage.keys[0], kind="multipart/form-data; boundary=x")
    # Of the process that takes the bodies: others start meanwhile, once in a server's life.
    before = psutil.Process(stage.keyed.pid).memory_info().rss
    async with raw_sockets(stage.keyed, 4, begin + b"".join(part % i for i in range(60)), arrive_s=20.0) as readers:
        grown = (psutil.Process(stage.keyed.pid).memory_info().rss - before) / 2**20
        answered = [await answer_of(reader) for reader in readers]
        if any(answered):
            return f"not held: {answered}"
        trouble = await stage.newcomer(stage.keyed)
        # 1 MB that unpacks to 120, which the held uploads leave no room for.
        bomb = await upload(stage, archive({"a.png": os.urandom(800_000) + bytes(119_200_000)}, "a.png"))
    found = [trouble, f"{grown:.0f} MiB of memory" if grown > 60 else ""]
    if bomb.status_code != 429 or "uploads in progress hold" not in bomb.text:
        found.append(f"unpacked beyond the room: {bomb.status_code} {bomb.text[:200]}")
    return "; ".join(filter(None, found))


async def answer_of(reader: asyncio.StreamReader) -> str:
    """The first line of an answer that should not have come yet; empty if none has."""
    with contextlib.suppress(TimeoutError):
        return (await asyncio.wait_for(reader.readline(), 0.05)).decode(errors="replace").strip()
    return ""


@attack
async def names_that_collide(stage: Stage) -> str:
    """A file and a folder of one name."""
    files = [("images", ("a.png", picture("PNG"))), ("images", ("a.png/b.png", picture("PNG")))]
    answer = await stage.http.post("/v1/scenes", files=files, headers=stage.headers(), timeout=60)
    return "" if answer.status_code == 422 else f"{answer.status_code}"


# Connections ----------------------------------------------------------------------------------------------------------


@attack
async def key_before_body(stage: Stage) -> str:
    """4 MiB are announced without a key."""
    async with raw_sockets(stage.keyed, 1, announcing("/v1/jobs", 4 << 20)) as readers:
        try:
            line = await asyncio.wait_for(readers[0].readline(), 2.0)
        except TimeoutError:
            return "the body was waited for"
    return "" if b" 401 " in line else f"{line!r}"


@attack
async def live_sessions(stage: Stage) -> str:
    """As many live sessions as a caller may have, a flood of cameras and junk, and frames that are not read."""
    address = stage.keyed.url.replace("http", "ws", 1) + "/v1/scenes/demo/live"
    options: Any = {"additional_headers": stage.headers(1), "max_queue": 1, "max_size": None, "open_timeout": 20}
    pose = [[1.0, 0, 0, 0.01], [0, 1.0, 0, 0], [0, 0, 1.0, 0], [0, 0, 0, 1.0]]
    K = [[500.0, 0, 256], [0, 500.0, 172], [0, 0, 1]]
    camera = json.dumps({"type": "camera", "id": 1, "c2w": pose, "K": K, "width": 512, "height": 344})
    async with contextlib.AsyncExitStack() as stack:
        sockets = [await stack.enter_async_context(websockets.connect(address, **options)) for _ in range(8)]
        try:
            await stack.enter_async_context(websockets.connect(address, **options))
            return "a ninth session was opened"
        except websockets.InvalidStatus as refused:
            if refused.response.status_code != 429:
                return f"a ninth session: {refused.response.status_code}"
        with contextlib.suppress(websockets.ConnectionClosed):
            await asyncio.gather(*(socket.send(camera) for socket in sockets for _ in range(200)))
        trouble = await stage.newcomer(stage.keyed)
        stage.measure()
        with contextlib.suppress(websockets.ConnectionClosed):
            await asyncio.gather(*(socket.send("[" * 10_000) for socket in sockets for _ in range(200)))
        trouble = trouble or await stage.newcomer(stage.keyed)
        for socket in sockets:
            socket.transport.abort()
    return trouble


@attack
async def announced_bodies(stage: Stage) -> str:
    """Bodies are announced and never sent, without a key and with one."""
    for key in ("", stage.keys[1]):
        async with raw_sockets(stage.keyed, stage.sockets, announcing("/v1/jobs", 1000, key=key)):
            if trouble := await stage.newcomer(stage.keyed):
                return trouble
            stage.measure()
    return ""


@attack
async def slow_headers(stage: Stage) -> str:
    """Headers that never end."""
    for server in (stage.keyed, stage.keyless):
        async with raw_sockets(server, stage.sockets, b"GET /v1/scenes HTTP/1.1\r\nHost: loc"):
            if trouble := await stage.newcomer(server):
                return trouble
    return ""


@attack
async def unread_answers(stage: Stage) -> str:
    """Large answers are requested again and again, and nothing is read."""
    request = b"GET /openapi.json HTTP/1.1\r\nHost: localhost\r\n\r\n" * 20
    async with raw_sockets(stage.keyless, stage.sockets // 3, request):
        await asyncio.sleep(1.0)
        return await stage.newcomer(stage.keyless)


@attack
async def few_descriptors(stage: Stage) -> str:
    """More idle connections than the server may open files."""
    before = stage.keyless.log.stat().st_size
    async with raw_sockets(stage.keyless, 3 * FEW_FILES, b""):
        await asyncio.sleep(1.0)
        trouble = await stage.newcomer(stage.keyless)
    grown = stage.keyless.log.stat().st_size - before
    return trouble or (f"the log grew by {grown} bytes" if grown > 1 << 16 else "")


@attack
async def many_requests_without_a_key(stage: Stage) -> str:
    """Pages outside of the API, and wrong keys, faster than the rate limit."""
    for path, headers in (("/docs", {}), ("/v1/scenes", {"Authorization": "Bearer snvs_wrong"})):
        found = set()
        async with httpx.AsyncClient(base_url=stage.keyed.url) as http:
            for _ in range(12):
                answers = await asyncio.gather(*(http.get(path, headers=headers) for _ in range(40)))
                found |= {answer.status_code for answer in answers}
        if 429 not in found:
            return f"{path}: {sorted(found)}"
    return await stage.newcomer(stage.keyed)


# What is stored -------------------------------------------------------------------------------------------------------


@attack
async def long_paths_are_compact(stage: Stage) -> str:
    """Small requests for many frames."""
    store, ids = stage.keyed.folder / "jobs.sqlite", []
    before = store.stat().st_size + Path(f"{store}-wal").stat().st_size
    for i in range(6):
        request = {"scene": "demo", "path": "orbit", "num_frames": 1000, "size": "64x64", "seed": i}
        answer = await stage.http.post("/v1/jobs", json=request, headers=stage.headers(1))
        if answer.status_code != 202:
            return f"{answer.status_code} {answer.text[:200]}"
        ids.append(answer.json()["id"])
    grown = (store.stat().st_size + Path(f"{store}-wal").stat().st_size - before) / len(ids)
    began = time.monotonic()
    listed = await stage.http.get("/v1/jobs?limit=100", headers=stage.headers(1))
    took = time.monotonic() - began
    ended = [await stage.http.delete(f"/v1/jobs/{job}", headers=stage.headers(1)) for job in ids]
    if listed.json()["data"][0]["num_frames"] != 1000:
        return "the list is wrong"
    soon = [answer.json()["expires_at"] for answer in ended]
    late = [text for text in soon if text is None or seconds_until(text) > 3600]
    if late:
        return f"cancelled jobs stay until {late[0]}"
    # Pages of the database and of its log count twice.
    return f"{grown / 1e6:.2f} MB a job, listed in {took:.1f} s" if grown > 350_000 or took > 1.0 else ""


def seconds_until(text: str) -> float:
    """Seconds from now until a time in ISO 8601."""
    from datetime import UTC, datetime

    return (datetime.fromisoformat(text) - datetime.now(UTC)).total_seconds()


@attack
async def damaged_frames(stage: Stage) -> str:
    """A bit of a stored frame is flipped, and a scene's cameras are overwritten."""
    request = {"scene": "demo", "path": "interpolate", "num_frames": 2, "size": "64x64", "quality": 0}
    job = (await stage.http.post("/v1/jobs", json=request, headers=stage.headers())).json()["id"]
    for _ in range(300):
        state = (await stage.http.get(f"/v1/jobs/{job}", headers=stage.headers())).json()["status"]
        if state in ("completed", "failed"):
            break
        await asyncio.sleep(0.1)
    frame = await stage.http.get(f"/v1/jobs/{job}/frames/0", headers=stage.headers())
    if frame.status_code != 200:
        return f"no frame: {frame.status_code} {state}"
    digest = frame.headers["etag"].strip('"')
    (path,) = (stage.keyed.folder / "artifacts").glob(f"*/*/{digest}*")
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))
    for _ in range(300):
        again = await stage.http.get(f"/v1/jobs/{job}/frames/0", headers=stage.headers())
        if again.status_code == 200 and again.content != frame.content:
            return "a damaged frame was served under its ETag"
        if again.status_code != 503:
            break
        await asyncio.sleep(0.1)
    if again.status_code != 200:
        return f"a damaged frame was not made again: {again.status_code} {again.text[:200]}"
    scene = (await upload(stage, archive({"a.png": picture("PNG")}, "a.png"))).json()["id"]
    (stage.keyed.folder / "scenes" / scene / "transforms.json").write_bytes(b"{")
    cameras = await stage.http.get(f"/v1/scenes/{scene}/cameras", headers=stage.headers())
    return "" if cameras.status_code == 404 else f"damaged cameras: {cameras.status_code}"


@attack
async def private_files(stage: Stage) -> str:
    """Files that other users of the machine may read."""
    files = [stage.keyed.folder, *stage.keyed.folder.rglob("*")]
    public = [path.name for path in files if path.exists() and path.stat().st_mode & 0o077]
    return f"{len(public)} of {len(files)} are: {public[:3]}" if public else ""


@attack
async def revoked_keys_stream(stage: Stage) -> str:
    """A stream of a key that is revoked meanwhile."""
    request = {"scene": "demo", "path": "orbit", "num_frames": 1000, "size": "128x128", "priority": -10}
    job = (await stage.http.post("/v1/jobs", json=request, headers=stage.headers(1))).json()["id"]
    async with stage.http.stream("GET", f"/v1/jobs/{job}/events", headers=stage.headers(1), timeout=20) as stream:
        lines = stream.aiter_lines()
        await anext(lines)
        store = JobStore.open(stage.keyed.folder / "jobs.sqlite")
        store.revoke_key(stage.key_ids[1], now=time.time())
        store.close()
        try:
            async with asyncio.timeout(8.0):
                async for _ in lines:
                    pass
        except TimeoutError:
            return "it goes on"
    return ""


# One engine -----------------------------------------------------------------------------------------------------------


@attack
async def leftovers_of_a_killed_server(stage: Stage) -> str:
    """The server without keys is killed; its workers have to clear up."""
    before = len(list(stage.temporary.glob("sphinx-*")))
    stage.keyless.kill(with_workers=False)
    for _ in range(100):
        if len(list(stage.temporary.glob("sphinx-*"))) < before:
            return ""
        await asyncio.sleep(0.1)
    return "its folder of sockets stays"


@attack
async def two_servers_on_one_folder(stage: Stage) -> str:
    """The lock's file is deleted and a second server is started."""
    (stage.keyed.folder / "jobs.sqlite.lock").unlink()
    second = ServerProcess(stage.keyed.folder, (*OPTIONS, "--keys", "required"), stage.keyed.log)
    second.start()
    try:
        for _ in range(600):
            if not second.is_alive or not stage.keyed.is_alive:
                return ""
            await asyncio.sleep(0.1)
        return "both go on"
    finally:
        second.stop(10)


# ----------------------------------------------------------------------------------------------------------------------


async def attacked(place: Path, sockets: int) -> dict[str, Any]:
    """Runs all attacks."""
    temporary = place / "tmp"
    temporary.mkdir()
    os.environ["TMPDIR"] = str(temporary)
    keyed = ServerProcess(place / "keyed", (*OPTIONS, "--keys", "required", "--rate", "20"))
    keyless = ServerProcess(place / "keyless", (*OPTIONS, "--keys", "none"))
    keyed.folder.mkdir(mode=0o700)
    store = JobStore.open(keyed.folder / "jobs.sqlite")
    made = [store.add_key(name, now=time.time()) for name in ("first", "second")]
    store.close()
    for path in keyed.folder.iterdir():
        path.chmod(0o600)
    for server in (keyed, keyless):
        server.start()
    resource.prlimit(keyless.pid, resource.RLIMIT_NOFILE, (FEW_FILES, FEW_FILES))
    try:
        await asyncio.gather(keyed.ready(), keyless.ready())
        async with httpx.AsyncClient(base_url=keyed.url, timeout=30) as http:
            stage = Stage(
                keyed=keyed,
                keyless=keyless,
                keys=(made[0][1], made[1][1]),
                key_ids=(made[0][0].id, made[1][0].id),
                sockets=sockets,
                temporary=temporary,
                http=http,
            )
            return await judged(stage)
    finally:
        for server in (keyed, keyless):
            server.kill(with_workers=True)


async def judged(stage: Stage) -> dict[str, Any]:
    """Runs the attacks one after another; the figures."""
    broken = []
    for name, one in ATTACKS.items():
        stage.measure()
        began, before = time.monotonic(), stage.cpu_s
        try:
            trouble = await one(stage)
        except Exception as error:
            trouble = f"{type(error).__name__}: {error}"
        stage.measure()
        if trouble:
            broken.append(name)
        cost = f"{time.monotonic() - began:.1f} s, CPU {stage.cpu_s - before:.1f} s"
        print(f"{name}: {trouble or 'held'} ({cost})", file=sys.stderr)  # noqa: T201
    return {
        "attacks": len(ATTACKS),
        "held": len(ATTACKS) - len(broken),
        "broken": broken,
        "peak_mib": round(stage.peak_mib),
        "healthz_worst_s": round(max(stage.probes, default=0.0), 3),
        "cpu_s": round(stage.cpu_s, 1),
    }


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the attacks and prints the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--quick", action="store_true", help="300 sockets in place of 1,003")
    parser.add_argument("--out", type=Path, help="the figures as a JSON file")
    options = parser.parse_args(argv)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    with tempfile.TemporaryDirectory(prefix="attack-") as place:
        began = time.monotonic()
        figures = asyncio.run(attacked(Path(place), 300 if options.quick else 1003))
    figures["seconds"] = round(time.monotonic() - began, 1)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    line = json.dumps(figures)
    print(line)  # noqa: T201
    if options.out is not None:
        options.out.write_text(f"{line}\n")
    return 1 if figures["broken"] else 0


if __name__ == "__main__":
    raise SystemExit(main())
