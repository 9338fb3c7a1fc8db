"""A fake engine for tests of the server: tests decide when jobs proceed; rows and files are real."""

import asyncio
import functools
import io
import json
import tempfile
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from sphinx_nvs import media
from sphinx_nvs.engine.artifacts import ArtifactStore
from sphinx_nvs.engine.catalog import PUBLIC, Library
from sphinx_nvs.engine.config import EngineConfig
from sphinx_nvs.engine.event_streams import EventStreams
from sphinx_nvs.engine.live_desk import LiveFrame
from sphinx_nvs.engine.metrics import Metrics
from sphinx_nvs.engine.store import JobStore
from sphinx_nvs.engine.store.row_types import SceneRow
from sphinx_nvs.engine.types.engine_errors import MissingError, RefusedError
from sphinx_nvs.engine.types.job_validation import check_spec
from sphinx_nvs.engine.types.jobs import EventKind, Quote, UnitKind, UnitRow
from sphinx_nvs.engine.types.status import Capacity, DeviceStatus, Model
from sphinx_nvs.engine.types.transitions import JobEvent
from sphinx_nvs.plan.compute_plan import ComputePlan

QUOTE = Quote(latency_s=2.0, latency_p95_s=3.0, wait_s=0.5, quality=0.9, active_share=0.3, reason="by the table")


@functools.cache
def empty_store():
    """Returns the file of an empty store; copying it is faster than creating its tables."""
    with tempfile.TemporaryDirectory() as folder:
        JobStore.open(Path(folder) / "jobs.sqlite").close()
        return (Path(folder) / "jobs.sqlite").read_bytes()


class FakeSession:
    """A live session that answers each camera at once with its live engine's sentence, or with a frame."""

    def __init__(self, live, key_id):
        self.live, self.key_id, self.cameras, self.is_closed = live, key_id, [], False
        self.frames = asyncio.Queue()

    def move(self, camera):
        self.cameras.append(camera)
        if self.live.is_slow:
            return
        made = {"sentence": self.live.sentence} if self.live.sentence else {"jpeg": b"a frame"}
        self.put(LiveFrame(camera=camera, is_still=False, seconds=0.02, **made))

    def put(self, frame):
        self.frames.put_nowait(frame)

    async def next(self):
        return await self.frames.get()

    def close(self):
        self.is_closed = True
        self.put(None)


class FakeLive:
    """Live sessions without devices."""

    def __init__(self):
        self.sessions, self.sentence, self.is_slow = [], "", False

    def open(self, scene_path, key_id):
        self.sessions.append(FakeSession(self, key_id))
        return self.sessions[-1]


class FakeEngine:
    """Keeps rows in a real store; a job proceeds only when a test says so, or at once if `is_eager`.

    Args:
        folder: of store and artifacts.
        is_eager: whether jobs are done as soon as they are accepted.
    """

    def __init__(self, folder, *, is_eager=False):
        self.config = EngineConfig(folder=folder)
        if not (folder / "jobs.sqlite").exists():
            (folder / "jobs.sqlite").write_bytes(empty_store())
        self.metrics, self.live = Metrics(), FakeLive()
        self.artifacts = ArtifactStore(folder / "artifacts")
        self.store = JobStore.open(folder / "jobs.sqlite", artifacts=self.artifacts, scenes_folder=folder / "scenes")
        self.library = Library(self.store, self.artifacts, folder, self.clock)
        self.is_eager, self.now = is_eager, 1_700_000_000.25
        self.ready, self.health, self.refusal = True, "", None
        self.closed_with = None
        self.can_repair, self.repairs = False, []
        self.feed = EventStreams(self._read, self._is_over)
        self.store.subscribe(self._wake)

    def clock(self):
        return self.now

    def _wake(self, event):
        self.feed.wake(event.job_id)

    async def _read(self, job_id, after, limit):
        return self.store.events(job_id, after=after, limit=limit)

    async def _is_over(self, job_id):
        row = self.store.job(job_id)
        return row is None or row.state.is_final

    async def quote(self, spec):
        self._check(spec)
        return QUOTE

    async def accept(self, spec, *, key_id, idempotency_key=None, allow=lambda usage: None):
        same = self.store.same_request(spec, key_id=key_id, idempotency_key=idempotency_key)
        if same is not None:
            return same, False
        allow(self.store.usage(key_id))
        self._check(spec)
        if self.refusal is not None:
            raise self.refusal
        unit = UnitRow(job_id="", index=0, kind=UnitKind.REGRESSION, targets=tuple(range(spec.num_views)))
        row, is_new = self.store.create_job(
            spec,
            key_id=key_id,
            units=[unit],
            quote=QUOTE,
            idempotency_key=idempotency_key,
            expires_s=self.now + 86_400,
            now=self.now,
        )
        if is_new:
            self.metrics.accepted.inc()
            if self.is_eager:
                self.preview(row.id)
                self.finish(row.id)
        return row, is_new

    def _check(self, spec):
        check_spec(spec, self.config.limits, self.config.size_multiple)
        if self.store.scene(spec.scene) is None:
            raise MissingError("scene", f"there is no {spec.scene!r}", "upload it first")

    async def cancel(self, job_id):
        events = [(EventKind.CANCELLED, {})]
        self.store.record(job_id, JobEvent.CANCELLED, now=self.now, events=events)
        return self.store.job(job_id)

    async def delete(self, job_id):
        return self.store.delete_job(job_id, now=self.now)

    async def job(self, job_id):
        return self.store.job(job_id)

    async def jobs(self, *, key_id=None, after=None, limit=100):
        return self.store.list_jobs(key_id=key_id, before=after, limit=limit)

    async def units(self, job_id):
        return self.store.units(job_id)

    def events(self, job_id, after=0):
        return self.feed.listen(job_id, after)

    async def plan(self, job_id):
        return [unit.result["plan"] for unit in self.store.units(job_id) if unit.result and "plan" in unit.result]

    async def frame(self, job_id, index, level="final"):
        units = [u for u in self.store.units(job_id) if u.result and (u.index == 0) == (level == "preview")]
        return {int(i): d for unit in units for i, d in unit.result["frames"].items()}.get(index)

    async def video(self, job_id):
        row = self.store.job(job_id)
        return None if row is None else row.video

    async def repair(self, job_id):
        self.repairs.append(job_id)
        return self.can_repair

    def models(self):
        return (Model(name="nano", about="A small network.", part="unet", licence="Apache-2.0", url="https://x.org"),)

    def capacity(self):
        device = DeviceStatus(index=0, name="fake", is_ready=True, is_busy=False, held=0, work_s=0.0)
        unfinished = len(self.store.unfinished_jobs())
        return Capacity(
            devices=(device,),
            queued=unfinished,
            running=0,
            max_queue=100,
            wait_s=0.0,
            backlog_s=0.0,
            pressure=0.0,
            slo_attainment=1.0,
        )

    async def close(self, drain_s=0.0):
        self.closed_with = drain_s
        self.feed.close()

    # Controls for tests

    def refuse(self, status=429, retry_after_s=2.5):
        self.refusal = RefusedError("the queue is full", retry_after_s=retry_after_s, http_status=status)

    def preview(self, job_id):
        """Finishes the preview."""
        spec = self.store.job(job_id).spec
        frames = {str(i): self.put_picture(spec, 0.2) for i in range(spec.num_views)}
        events = [(EventKind.PREVIEW_FRAME, {"index": int(i), "frame": digest}) for i, digest in frames.items()]
        self.finish_unit(job_id, 0, {"frames": frames}, events)
        self.store.record(job_id, JobEvent.PREVIEWED, now=self.now)

    def finish(self, job_id):
        """Finishes all frames."""
        spec = self.store.job(job_id).spec
        targets = tuple(range(spec.num_views))
        self.store.add_units(job_id, [UnitRow(job_id=job_id, index=1, kind=UnitKind.CHUNK, targets=targets)])
        plan = {"unit": 1, "targets": list(targets), "quality": 0.9, "predicted_s": 1.0, "active_share": 0.3}
        plan |= {"steps": 4, "reason": "planned from /var/lib/secret/profile.json", "file": self.put_plan(spec)}
        frames = {str(i): self.put_picture(spec, 0.8) for i in targets}
        events = [(EventKind.PLAN, {k: v for k, v in plan.items() if k != "file"})]
        events += [(EventKind.FRAME_REFINED, {"index": int(i), "unit": 1, "frame": d}) for i, d in frames.items()]
        self.finish_unit(job_id, 1, {"frames": frames, "plan": plan}, events)
        video = self.artifacts.put(b"\0\0\0\x18ftypmp42" + bytes(range(256)) * 8, suffix=".mp4")
        last = {"level": "final", "quality": 0.9, "latency_s": 1.0, "reason": ""}
        events = [(EventKind.COMPLETED, last)]
        self.store.record(job_id, JobEvent.REFINED, now=self.now, events=events, quality=0.9)
        self.store.set_video(job_id, video)

    def fail(self, job_id, reason):
        events = [(EventKind.FAILED, {"reason": reason})]
        self.store.record(job_id, JobEvent.GIVEN_UP, now=self.now, reason=reason, events=events)

    def finish_unit(self, job_id, index, result, events):
        self.store.start_unit(job_id, index)
        assert self.store.finish_unit(job_id, index, result=result, events=events, now=self.now)

    def put_picture(self, spec, grey):
        return self.artifacts.put(media.png_bytes(torch.full((3, spec.height, spec.width), grey)), suffix=".png")

    def put_plan(self, spec):
        steps = torch.full((spec.num_views, spec.height // 8, spec.width // 8), 2)
        plan = ComputePlan(start_step=steps, sigmas=torch.tensor([4.0, 2.0, 1.0, 0.5, 0.0]))
        with tempfile.TemporaryDirectory() as folder:
            plan.save(Path(folder) / "plan.safetensors")
            return self.artifacts.put_file(Path(folder) / "plan.safetensors")


def open_engine(folder, *, has_demo=True, **options):
    """A fake engine with a small scene `demo`."""
    engine = FakeEngine(folder, **options)
    if has_demo:
        add_scene(engine, "demo", key_id=PUBLIC)
    return engine


def add_scene(engine, scene_id, key_id="anonymous", photos=2):
    """A stored scene of flat photos."""
    _, folder = engine.library.new_scene_folder()
    for index in range(photos):
        media.write_png(folder / f"{index:03d}.png", torch.full((3, 64, 96), 0.3 * (index + 1)))
    frames = [{**camera(index), "file_path": f"{index:03d}.png", "w": 96, "h": 64} for index in range(photos)]
    (folder / "transforms.json").write_text(json.dumps({"camera_model": "PINHOLE", "frames": frames}))
    row = SceneRow(id=scene_id, key_id=key_id, path=str(folder), num_views=photos, width=96, height=64, bytes=1000)
    return engine.store.add_scene(replace(row, created_s=engine.now))


def camera(x):
    """Returns a frame of transforms.json: a camera at `x` on the first axis, photo of 96x64."""
    pose = [[1.0, 0.0, 0.0, 0.1 * x], [0.0, -1.0, 0.0, 0.0], [0.0, 0.0, -1.0, 0.0], [0.0, 0.0, 0.0, 1.0]]
    return {"fl_x": 80.0, "fl_y": 80.0, "cx": 48.0, "cy": 32.0, "transform_matrix": pose}


def transforms(photos=2, **fields):
    """Returns the text of a transforms.json for photos of 96x64 called 0.png and so on."""
    frames = [{**camera(index), "file_path": f"{index}.png"} for index in range(photos)]
    return json.dumps({"w": 96, "h": 64, "frames": frames, **fields})


def png(width=96, height=64, shade=100):
    """Returns a PNG file with a gradient."""
    rows = np.linspace(0, shade, height, dtype=np.uint8)
    pixels = np.repeat(np.repeat(rows[:, None, None], width, 1), 3, 2)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG")
    return buffer.getvalue()


def parts(photos=2, **cameras):
    """A form's files: photos and cameras."""
    images = [("images", (f"{index}.png", png(shade=50 * (index + 1)), "image/png")) for index in range(photos)]
    return [*images, ("cameras", ("transforms.json", transforms(photos, **cameras), "application/json"))]


def zipped(files, *, compression=zipfile.ZIP_DEFLATED):
    """An archive of names and bytes."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return buffer.getvalue()


def run(coroutine):
    """Runs a coroutine in a new event loop."""
    return asyncio.run(coroutine)
