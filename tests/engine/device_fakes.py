"""Stored scenes, jobs and commands for devices, and devices of no models for executors."""

import json
import os
import time

import numpy as np
import torch

from sphinx_nvs import media
from sphinx_nvs.engine.contract import Begin, Drop, Dropped, Finish, Refused, Regress, Regressed, Step, Stepped
from sphinx_nvs.engine.device_setup import DeviceSetup, Opened
from sphinx_nvs.engine.jobs import JobSpec
from sphinx_nvs.engine.prices import Facts
from sphinx_nvs.scene.procedural import procedural_views


def store_scene(folder, *, seed=0, photos=2, size=64):
    """Photos of a procedural room and their cameras as a transforms.json; the cameras."""
    rgb, _, cameras, _ = procedural_views(seed, photos, size, size, supersample=1)
    folder.mkdir(parents=True)
    frames = []
    for index, image in enumerate(rgb):
        media.write_png(folder / f"{index}.png", image)
        c2w = cameras.c2w[index].numpy().astype(float) @ np.diag([1.0, -1.0, -1.0, 1.0])
        K = cameras.K[index]
        focal = {"fl_x": K[0, 0].item(), "fl_y": K[1, 1].item(), "cx": K[0, 2].item(), "cy": K[1, 2].item()}
        frames.append({"file_path": f"{index}.png", "transform_matrix": c2w.tolist(), **focal})
    (folder / "transforms.json").write_text(json.dumps({"w": size, "h": size, "frames": frames}))


def spec_from(cameras, **fields):
    """A job for these cameras."""
    return JobSpec(
        scene="scene",
        c2w=tuple(tuple(tuple(row) for row in matrix) for matrix in cameras.c2w.double().tolist()),
        K=tuple(tuple(tuple(row) for row in matrix) for matrix in cameras.K.double().tolist()),
        width=cameras.width,
        height=cameras.height,
        **fields,
    )


def simple_spec(views=1, **fields):
    """A job of no scene in particular."""
    c2w = tuple(tuple(row) for row in torch.eye(4, dtype=torch.float64).tolist())
    K = ((64.0, 0.0, 32.0), (0.0, 64.0, 32.0), (0.0, 0.0, 1.0))
    return JobSpec(scene="scene", c2w=(c2w,) * views, K=(K,) * views, width=64, height=64, **fields)


class FakeDevice:
    """Answers at once; the job's id says what else: `die`, `sleep`, `slow`, `garbage`."""

    def __init__(self):
        self.steps = {}

    def do(self, command):
        unit = command.units[0] if isinstance(command, Step | Drop) else command.unit
        if unit[0] == "die":
            os._exit(7)
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


FACTS = Facts(front=((0.0, 0.125, 0.25), (1.0, 1.0, 1.0)), num_steps=8)


def make_fake(setup):
    """A `DeviceSetup.maker`; options say what goes wrong."""
    if setup.options.get("sleep"):
        time.sleep(setup.options["sleep"])
    if setup.options.get("crash"):
        os._exit(3)
    if setup.options.get("raise"):
        raise RuntimeError("a reason that is nobody's business: /secret/path")
    return Opened(device=FakeDevice(), name=f"fake of {setup.preset}", facts=FACTS)


def fake_setup(folder, **options):
    """For `make_fake`."""
    return DeviceSetup(preset="embedded", artifacts=str(folder), options=options, maker="device_fakes:make_fake")
