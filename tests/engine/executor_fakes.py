"""Devices of no models, for executors; a worker imports this, so it must not import anything heavy."""

import os
import threading
import time
from pathlib import Path

from sphinx_nvs.engine.types.device_setup import DeviceSetup, OpenedDevice
from sphinx_nvs.engine.types.device_speed import Facts
from sphinx_nvs.engine.types.jobs import JobSpec
from sphinx_nvs.engine.types.live import Draw, Drawn, LiveCamera, NotDrawn
from sphinx_nvs.engine.types.messages import Begin, Drop, Dropped, Finish, Refused, Regress, Regressed, Step, Stepped

HERE = Path(__file__).parent


def python_path():
    """PYTHONPATH of a worker that finds these fakes, before this process's own."""
    return os.pathsep.join(filter(None, (str(HERE), os.environ.get("PYTHONPATH"))))


def simple_spec(views=1, **fields):
    """A job of no scene in particular."""
    c2w = tuple(tuple(float(row == column) for column in range(4)) for row in range(4))
    K = ((64.0, 0.0, 32.0), (0.0, 64.0, 32.0), (0.0, 0.0, 1.0))
    return JobSpec(scene="scene", c2w=(c2w,) * views, K=(K,) * views, width=64, height=64, **fields)


def draw(number, *, is_still=False):
    """A frame of a live session."""
    spec = simple_spec()
    camera = LiveCamera(number=number, c2w=spec.c2w[0], K=spec.K[0], height=64, width=64, quality=0.9)
    return Draw(session="live", turn=number, scene_path="nowhere", camera=camera, is_still=is_still)


class FakeDevice:
    """Answers immediately; the job's id selects what else: `die`, `sleep`, `slow`, `garbage`, `hoard`."""

    def __init__(self):
        self.steps = {}
        self.kept = []

    def hoard(self):
        """Frees 64 MB except the last block, which keeps the C library from returning the memory before it."""
        blocks = [bytearray(16384) for _ in range(4096)]
        self.kept.append(blocks[-1])

    def do(self, command):
        unit = command.units[0] if isinstance(command, Step | Drop) else command.unit
        if unit[0] == "die":
            os._exit(7)
        if unit[0] == "hoard":
            thread = threading.Thread(target=self.hoard)
            thread.start()
            thread.join()
        if unit[0] in ("sleep", "slow"):
            time.sleep(1e6 if unit[0] == "sleep" else 0.4)
        match command:
            case Regress():
                return Regressed(unit=unit, frames={0: "f" * 64}, num_contexts=2, seconds=0.5)
            case Step(units=units):
                for each in units:
                    self.steps[each] = self.steps.get(each, 0) + 1
                done = tuple(self.steps[each] for each in units)
                return Stepped(units=units, done=done, computed_cells=4, seconds=0.25)
            case Drop(units=units):
                return Dropped(units=units)
            case Begin() | Finish():
                return Refused(units=(unit,), sentence="this device makes nothing", is_users_fault=True)


class FakePainter:
    """Answers with the camera's number; a still waits until another frame does."""

    def draw(self, command, is_stale):
        until = time.monotonic() + 20
        while command.is_still and not is_stale():
            assert time.monotonic() < until, "nothing came after the still"
            time.sleep(0.01)
        if command.is_still:
            return NotDrawn(session=command.session, turn=command.turn, sentence="", seconds=0.1)
        jpeg = str(command.camera.number).encode()
        return Drawn(session=command.session, turn=command.turn, jpeg=jpeg, active_share=0.0, seconds=0.1)


FACTS = Facts(front=((0.0, 0.125, 0.25), (1.0, 1.0, 1.0)), num_steps=8)


def make_fake(setup):
    """A `DeviceSetup.maker`; options say what goes wrong."""
    if setup.options.get("sleep"):
        time.sleep(setup.options["sleep"])
    if setup.options.get("crash"):
        os._exit(3)
    if setup.options.get("raise"):
        raise RuntimeError("an internal reason: /secret/path")
    return OpenedDevice(device=FakeDevice(), painter=FakePainter(), name=f"fake of {setup.preset}", facts=FACTS)


def fake_setup(folder, **options):
    """For `make_fake`."""
    return DeviceSetup(preset="embedded", artifacts=str(folder), options=options, maker="executor_fakes:make_fake")
