"""What tests of the engine have instead of devices, prices and time."""

import asyncio
import json
from collections import deque

import numpy as np
import torch

from sphinx_nvs import media
from sphinx_nvs.engine.artifacts import ArtifactStore
from sphinx_nvs.engine.assembly import open_store
from sphinx_nvs.engine.config import EngineConfig
from sphinx_nvs.engine.engine import Engine
from sphinx_nvs.engine.protocols import Parts
from sphinx_nvs.engine.scheduler.scheduler import Scheduler
from sphinx_nvs.engine.store.row_types import SceneRow
from sphinx_nvs.engine.types.jobs import JobSpec
from sphinx_nvs.engine.types.live import Drawn
from sphinx_nvs.engine.types.messages import (
    Begin,
    Begun,
    DeviceLost,
    DeviceReady,
    Drop,
    Dropped,
    Finish,
    Finished,
    Refused,
    Regress,
    Regressed,
    Step,
    Stepped,
)
from sphinx_nvs.engine.types.prices import PriceTable, Rung

STEPS = 3
"""Of every unit."""


def pose(x):
    """A pose at `x` on the first axis that faces +z."""
    return ((1.0, 0.0, 0.0, float(x)), (0.0, 1.0, 0.0, 0.0), (0.0, 0.0, 1.0, 0.0), (0.0, 0.0, 0.0, 1.0))


INTRINSICS = ((60.0, 0.0, 32.0), (0.0, 60.0, 32.0), (0.0, 0.0, 1.0))


def spec_of(views=2, scene="scene", **fields):
    """A job of `views` small frames."""
    c2w = tuple(pose(0.1 * (view + 1)) for view in range(views))
    return JobSpec(scene=scene, c2w=c2w, K=(INTRINSICS,) * views, width=64, height=64, **fields)


def write_scene(folder, photos=2):
    """A transforms.json with photos of one colour each."""
    folder.mkdir(parents=True)
    frames = []
    for index in range(photos):
        media.write_png(folder / f"{index}.png", torch.full((3, 64, 64), 0.2 * (index + 1)))
        c2w = np.array(pose(index)) @ np.diag([1.0, -1.0, -1.0, 1.0])
        frames.append({"file_path": f"{index}.png", "transform_matrix": c2w.tolist()})
    data = {"fl_x": 60.0, "fl_y": 60.0, "cx": 32.0, "cy": 32.0, "w": 64, "h": 64, "frames": frames}
    (folder / "transforms.json").write_text(json.dumps(data))


class FakePricing:
    """Proportional to the number of views."""

    def table(self, *, contexts, views, height, width):
        share = 0.01 * views
        rungs = [(0.5, 0.0, 0.0), (0.8, 4.0, 0.2), (0.95, 10.0, 0.5), (1.0, 20.0, 1.0)]
        return PriceTable(
            regression_s=share,
            regression_p95_s=share,
            rungs=tuple(
                Rung(quality=q, seconds=s * share, seconds_p95=1.2 * s * share, active_share=a) for q, s, a in rungs
            ),
        )


class FakeExecutor:
    """Devices that do one command at a time, and make pictures whose colour encodes their frame.

    Args:
        artifacts: store of the pictures.
        devices: number of devices.
        answer: called with a device and a command before it is done: a report to give instead, `DeviceLost` to die of
            it, or None.
    """

    def __init__(self, artifacts, devices=1, answer=lambda device, command: None):
        self.artifacts, self.devices, self.answer = artifacts, devices, answer
        self.commands = []
        self.waiting = [deque() for _ in range(devices)]
        self.steps = [{} for _ in range(devices)]
        self.reports = asyncio.Queue()
        self.seconds = 0.01
        self.is_paused = False

    async def start(self):
        for device in range(self.devices):
            self.reports.put_nowait((device, DeviceReady(device=device, name=f"fake {device}")))

    def submit(self, device, command):
        self.commands.append((device, command))
        self.waiting[device].append(command)
        if not self.is_paused:
            self.work(device)

    def draw(self, device, command):
        """Draws a frame of a live session at once."""
        self.commands.append((device, command))
        jpeg = str(command.camera.number).encode()
        report = Drawn(session=command.session, turn=command.turn, jpeg=jpeg, active_share=0.0, seconds=self.seconds)
        self.reports.put_nowait((device, report))

    def resume(self):
        """Continues without further calls."""
        self.is_paused = False
        for device in range(self.devices):
            while self.waiting[device]:
                self.work(device)

    def work(self, device):
        """Does the next command of a device."""
        command = self.waiting[device].popleft()
        report = self.answer(device, command) or self.do(command, self.steps[device])
        if isinstance(report, DeviceLost):
            self.waiting[device].clear()
            self.steps[device].clear()
            self.reports.put_nowait((device, report))
            report = DeviceReady(device=device, name=f"fake {device}")
        self.reports.put_nowait((device, report))

    def do(self, command, held):
        """Carries out a command on a device that holds these units."""
        match command:
            case Regress(unit=unit, spec=spec):
                frames = {i: self.picture(unit[0], spec.seed, i, 0) for i in range(spec.num_views)}
                return Regressed(unit=unit, frames=frames, num_contexts=2, seconds=self.seconds)
            case Begin(unit=unit):
                held[unit] = (0, command)
                plan = {"active_share": 0.25, "reason": "fake"}
                return Begun(
                    unit=unit,
                    steps=STEPS,
                    predicted_s=(STEPS + 1) * self.seconds,
                    predicted_quality=command.quality or 0.9,
                    plan=plan,
                    plan_file=self.artifacts.put(json.dumps(plan).encode()),
                    seconds=self.seconds,
                )
            case Step(units=units):
                for unit in units:
                    done, begin = held[unit]
                    held[unit] = (done + 1, begin)
                done = tuple(held[unit][0] for unit in units)
                return Stepped(units=units, done=done, computed_cells=4, seconds=self.seconds)
            case Finish(unit=unit):
                done, begin = held.pop(unit)
                assert done == STEPS
                frames = {i: self.picture(unit[0], begin.spec.seed, i, 1) for i in begin.targets}
                return Finished(unit=unit, frames=frames, lossless=frames, figures={}, seconds=self.seconds)
            case Drop(units=units):
                for unit in units:
                    held.pop(unit, None)
                return Dropped(units=units)

    def picture(self, job_id, seed, index, level):
        """A frame's digest; the same job gives the same frame."""
        colour = torch.tensor([index / 16, level / 2, (seed % 16) / 16])
        return self.artifacts.put(media.png_bytes(colour[:, None, None].expand(3, 64, 64)))

    async def next_reports(self):
        reports = [await self.reports.get()]
        while not self.reports.empty():
            reports.append(self.reports.get_nowait())
        return reports

    async def close(self):
        self.is_paused = True


def refuse(command, sentence="it did not work", *, is_users_fault=False):
    """The report of a command that cannot be carried out."""
    units = command.units if isinstance(command, Step | Drop) else (command.unit,)
    return Refused(units=units, sentence=sentence, is_users_fault=is_users_fault)


class World:
    """An engine on a folder, with fake devices and a clock that only devices move on.

    Args:
        folder: folder of the store, the artifacts and the scene.
        devices: see `FakeExecutor`.
        answer: see `FakeExecutor`.
        photos: photos of the scene.
        config: further fields of `EngineConfig`.
    """

    def __init__(self, folder, *, devices=1, answer=lambda device, command: None, photos=2, **config):
        self.folder, self.devices, self.answer, self.photos = folder, devices, answer, photos
        self.config = EngineConfig(folder=folder, devices=devices, **{"tick_s": 0.02, "sweep_s": 3600.0, **config})
        self.now, self.held = 1000.0, False

    def parts(self):
        """Opens the folder again, as another process would."""
        self.artifacts = ArtifactStore(self.folder / "artifacts")
        self.store = open_store(self.folder, self.artifacts, exclusive=True)
        self.executor = FakeExecutor(self.artifacts, self.devices, self.step)
        scheduler = Scheduler(self.config.scheduler, self.devices)
        return Parts(
            store=self.store,
            artifacts=self.artifacts,
            scheduler=scheduler,
            executor=self.executor,
            pricing=FakePricing(),
            close=self.store.close,
        )

    def step(self, device, command):
        """Time goes by with every command."""
        self.now += self.executor.seconds
        return self.answer(device, command)

    async def open(self):
        """A running engine; with its scene the first time."""
        self.engine = Engine(self.config, self.parts(), clock=lambda: self.now)
        if not (self.folder / "photos").exists():
            write_scene(self.folder / "photos", self.photos)
            self.store.add_scene(
                SceneRow(
                    id="scene",
                    key_id="k",
                    path=str(self.folder / "photos"),
                    num_views=self.photos,
                    width=64,
                    height=64,
                    created_s=self.now,
                )
            )
        await self.engine.start()
        return self.engine

    async def crash(self):
        """As if the process were killed: nothing is released."""
        await self.engine._halt()
        self.store.close()

    async def accept(self, *args, **fields):
        """A job's id."""
        row, is_new = await self.engine.accept(spec_of(*args, **fields), key_id="k")
        assert is_new
        return row.id

    async def story(self, job_id, after=0):
        """All of a job's events until its last."""
        return [event async for event in self.engine.events(job_id, after)]

    def run(self, scene, seconds=20):
        """Carries out a coroutine function of an open engine, and closes."""

        async def whole():
            await self.open()
            try:
                return await asyncio.wait_for(scene(self.engine), seconds)
            finally:
                await self.engine.close()

        return asyncio.run(whole())


def hold(world, phase):
    """Devices stop at the first command of a kind until `resume`."""
    make = world.parts

    def parts():
        made = make()
        submit = made.executor.submit

        def gated(device, command):
            if isinstance(command, phase) and not world.held:
                world.held = True
                made.executor.is_paused = True
            submit(device, command)

        made.executor.submit = gated
        return made

    world.parts = parts


async def until(condition):
    """Waits for something that must happen soon."""
    for _ in range(2000):
        if condition():
            return
        await asyncio.sleep(0.005)
    raise AssertionError("it did not happen")
